//! What groups of processes cost, from /proc.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

/// A look at one process, its threads included and its children not.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    at: Instant,
    /// On a CPU, as the scheduler counts it: to the nanosecond, where
    /// `/proc/PID/stat` counts in hundredths of a second.
    cpu: Duration,
    /// Resident bytes: all, of those the process's own, and of files.
    pub rss: u64,
    pub anonymous: u64,
    pub file: u64,
    pub threads: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

/// Looks at `pid`.
///
/// # Errors
/// When the process is gone.
pub fn look(pid: u32) -> anyhow::Result<Look> {
    let mut cpu = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("process {pid}"))?
        .flatten()
    {
        // A thread may end while we look.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let nanos = text.split_ascii_whitespace().next().and_then(|first| first.parse().ok());
        cpu += Duration::from_nanos(nanos.unwrap_or(0));
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<u64> {
        let line =
            status.lines().find(|line| line.starts_with(name)).context("a line of status")?;
        Ok(line.split_ascii_whitespace().nth(1).context("a value")?.parse()?)
    };
    Ok(Look {
        at: Instant::now(),
        cpu,
        rss: field("VmRSS:")? * 1024,
        anonymous: field("RssAnon:")? * 1024,
        file: (field("RssFile:")? + field("RssShmem:")?) * 1024,
        threads: field("Threads:")?,
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
    })
}

impl Look {
    /// Milliseconds on a CPU since the process began.
    pub fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3
    }

    /// Percent of one core from `earlier` to this look.
    pub fn cpu_percent_since(&self, earlier: &Look) -> f64 {
        percent(self.cpu.saturating_sub(earlier.cpu), self.at - earlier.at)
    }
}

fn percent(cpu: Duration, wall: Duration) -> f64 {
    let wall = wall.as_secs_f64();
    if wall > 0.0 { cpu.as_secs_f64() * 100.0 / wall } else { 0.0 }
}

/// What every Docker engine on this machine used so far: daemon, containerd
/// and the containers' shims.
#[derive(Clone, Copy, Debug)]
pub struct Docker {
    at: Instant,
    cpu: Duration,
}

impl Docker {
    /// Looks at all of them.
    pub fn look() -> Self {
        let mut cpu = Duration::ZERO;
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let dir = process.path();
            let name = std::fs::read_to_string(dir.join("comm")).unwrap_or_default();
            let name = name.trim();
            if !matches!(name, "dockerd" | "containerd") && !name.starts_with("containerd-shim") {
                continue;
            }
            for thread in std::fs::read_dir(dir.join("task")).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(thread.path().join("schedstat"));
                let text = text.unwrap_or_default();
                let nanos = text.split_ascii_whitespace().next().and_then(|n| n.parse().ok());
                cpu += Duration::from_nanos(nanos.unwrap_or(0));
            }
        }
        Self { at: Instant::now(), cpu }
    }

    /// Percent of one core from `earlier` to this look. A thread that ended in
    /// between takes its time along.
    pub fn cpu_percent_since(&self, earlier: &Self) -> f64 {
        percent(self.cpu.saturating_sub(earlier.cpu), self.at - earlier.at)
    }
}

/// Megabytes (10^6 bytes), as the goals are given.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows() {
        let before = look(std::process::id()).expect("we run");
        let began = Instant::now();
        let mut number = 1_u64;
        while began.elapsed() < Duration::from_millis(50) {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        let after = look(std::process::id()).expect("we run");
        assert!(after.cpu_percent_since(&before) > 1.0 && after.rss > 0 && after.threads > 0);
        assert!(look(u32::MAX).is_err());
    }
}
