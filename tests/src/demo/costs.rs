//! What a process costs, from /proc.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

/// Ticks of /proc/PID/stat a second: fixed on every Linux of today.
const TICKS: u64 = 100;

/// A look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    at: Instant,
    cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
    /// The most it ever was.
    pub rss_peak: u64,
}

/// Looks at `pid`; its children are not counted.
///
/// # Errors
/// When the process is gone.
pub fn look(pid: u32) -> anyhow::Result<Look> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything, the fields after it not.
    let fields: Vec<&str> =
        stat.rsplit_once(") ").context("stat")?.1.split_ascii_whitespace().collect();
    let ticks = |index: usize| -> anyhow::Result<u64> {
        Ok(fields.get(index).context("a field of stat")?.parse()?)
    };
    let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| -> anyhow::Result<u64> {
        let line =
            status.lines().find(|line| line.starts_with(name)).context("a line of status")?;
        Ok(line.split_ascii_whitespace().nth(1).context("a value")?.parse::<u64>()? * 1024)
    };
    Ok(Look { at: Instant::now(), cpu, rss: bytes("VmRSS:")?, rss_peak: bytes("VmHWM:")? })
}

impl Look {
    /// Percent of one core from `earlier` to this look.
    pub fn cpu_percent_since(&self, earlier: &Look) -> f64 {
        let wall = (self.at - earlier.at).as_secs_f64();
        if wall <= 0.0 { 0.0 } else { (self.cpu - earlier.cpu).as_secs_f64() * 100.0 / wall }
    }
}
