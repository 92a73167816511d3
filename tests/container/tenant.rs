//! What runs in a tenant's own container in the demo: it holds a little
//! memory and burns a little CPU, so that both are seen in its cgroup.
//!
//! Not a part of the workspace: plain rustc makes one static binary of it,
//! which is the whole container image (see tests/src/containers).

use std::hint::black_box;
use std::time::{Duration, Instant};

/// A number from the environment, or the default when it is absent or none.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Of this process, on a CPU so far: the scheduler's own count.
fn burnt() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split_ascii_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn mix(mut number: u64) -> u64 {
    for _ in 0..1000 {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    number
}

fn main() {
    // Its own health check.
    if std::env::args().nth(1).as_deref() == Some("check") {
        std::process::exit(i32::from(number("TENANT_SICK", 0) > 0));
    }
    let megabytes = number("TENANT_MEMORY_MB", 8).min(256);
    let busy = Duration::from_millis(number("TENANT_BUSY_MS", 4).min(50));

    // Only pages that were written to count as used.
    let mut held = vec![0_u8; (megabytes << 20) as usize];
    for byte in held.iter_mut().step_by(4096) {
        *byte = 1;
    }
    // So much CPU time, then none: what a test knows to the millisecond.
    let burn = number("TENANT_BURN_MS", 0);
    if burn > 0 {
        let mut mixed = 1_u64;
        while burnt() < Duration::from_millis(burn) {
            mixed = mix(mixed);
        }
        loop {
            black_box((&held, mixed));
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    loop {
        let start = Instant::now();
        let mut mixed = 1_u64;
        while start.elapsed() < busy {
            mixed = mix(mixed);
        }
        black_box(&held);
        std::thread::sleep(Duration::from_millis(200));
    }
}
