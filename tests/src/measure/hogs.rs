//! Busy loops in processes of their own.

use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// What makes the benchmark's own program a busy loop.
pub const ARGUMENT: &str = "--busy-loop";

/// Processes that do nothing but work; they end with this value.
pub struct Hogs(Vec<Child>);

impl Hogs {
    /// Starts `count` of them.
    ///
    /// # Errors
    /// When a process can't be started.
    pub fn start(count: u32) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program")?;
        let mut hogs = Self(Vec::new());
        for _ in 0..count {
            let child = Command::new(&program)
                .arg(ARGUMENT)
                .stdin(Stdio::null())
                .spawn()
                .context("a busy loop")?;
            hogs.0.push(child);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that is gone already needs no end.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// The life of a busy loop: works until its parent ends it, or is gone.
///
/// # Errors
/// When the kernel doesn't let it die with its parent.
pub fn work() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005) + 1);
    }
}
