//! One child process with its log, ended when its handle is dropped.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, Signal};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(15);

type Ending = Arc<(Mutex<Option<ExitStatus>>, Condvar)>;

/// A running (or ended) child process.
pub struct Process {
    name: String,
    pid: u32,
    handle: OwnedFd,
    log: PathBuf,
    ending: Ending,
}

/// The path of one of this workspace's programs: beside the program that
/// runs, or one directory up when that is a test.
///
/// # Errors
/// When it isn't built; the message says how.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let mut dir = std::env::current_exe().context("where this program lies")?;
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    anyhow::ensure!(
        path.is_file(),
        "{} is not built; build it with: cargo build --workspace --bins{}",
        path.display(),
        if dir.ends_with("release") { " --release" } else { "" },
    );
    Ok(path)
}

impl Process {
    /// Starts `program`; its output is appended to `log`. The child leads a
    /// process group of its own, so that a Ctrl-C at the terminal reaches the
    /// owner alone, who then ends it in order.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let ending: Ending = Arc::default();
        let (started, start) = mpsc::channel();
        let reaped = Arc::clone(&ending);
        // The parent-death signal belongs to the thread that spawns, so that
        // thread waits for the child.
        std::thread::Builder::new().name(format!("keeper-{name}")).spawn(move || {
            match command.spawn() {
                Err(error) => {
                    // Our caller waits for exactly this message.
                    let _received = started.send(Err(error));
                }
                Ok(mut child) => {
                    let pid = child.id();
                    let handle = Pid::from_raw(pid.cast_signed())
                        .ok_or(rustix::io::Errno::SRCH)
                        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
                    // As above.
                    let _received =
                        started.send(handle.map(|handle| (pid, handle)).map_err(Into::into));
                    let status = child.wait();
                    let mut ended = reaped.0.lock().unwrap_or_else(PoisonError::into_inner);
                    *ended = status.ok();
                    reaped.1.notify_all();
                }
            }
        })?;
        let (pid, handle) = start
            .recv()
            .context("the keeper thread ended")?
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { name: name.into(), pid, handle, log: log.into(), ending })
    }

    /// What the process is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, unless it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.ending.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until it ended or `limit` passed.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let guard = self.ending.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _timed_out) = self
            .ending
            .1
            .wait_timeout_while(guard, limit, |ended| ended.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *ended
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait(GRACE);
    }

    fn signal(&self, signal: Signal) {
        // An error means that it is gone already.
        let _gone = rustix::process::pidfd_send_signal(&self.handle, signal);
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.terminate();
            if self.wait(GRACE).is_none() {
                self.kill();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_with_its_handle_and_keeps_its_output() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let script = ["-c".into(), "echo hello; exec sleep 600".into()];
        let process =
            Process::start("sleeper", Path::new("/bin/sh"), &script, &[], &log).expect("starts");
        let pid = process.pid();
        while !process.log_tail(1).contains("hello") {
            assert!(process.wait(Duration::from_millis(10)).is_none(), "it must still run");
        }
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the process must be gone");
    }
}
