//! The `dockerd` process: its directories, its end, and what it leaves.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;

/// One running `dockerd`; told to end when dropped.
pub(super) struct Daemon {
    dir: PathBuf,
    pid: u32,
    ended: mpsc::Receiver<()>,
}

const CGROUP_PREFIX: &str = "webhost-containers-";

/// The cgroup of all containers of this process's engine, below each
/// hierarchy's root.
fn cgroup_parent() -> String {
    format!("/{CGROUP_PREFIX}{}", std::process::id())
}

impl Daemon {
    /// Starts it below `dir`; it may not be ready yet.
    pub(super) fn start(dir: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(
            rustix::process::geteuid().is_root(),
            "only root can start a Docker engine"
        );
        let dockerd = find("dockerd").context(
            "there is no dockerd on this machine (package docker.io; tests/deps.sh demo installs it \
             where it can run)",
        )?;
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let dir = dir.canonicalize()?;
        // An administrator's daemon.json must neither be obeyed nor contradict
        // our flags.
        std::fs::write(dir.join("daemon.json"), "{}")?;
        let log = std::fs::File::create(dir.join("dockerd.log"))?;

        // setpriv hands the engine a SIGTERM when the thread that spawned it
        // ends, hence the keeper thread, which lives as long as we do.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--"])
            .arg(dockerd)
            .arg("--config-file")
            .arg(dir.join("daemon.json"))
            .arg("--host")
            .arg(format!("unix://{}", dir.join("docker.sock").display()))
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("dockerd.pid"))
            // Where a system-wide containerd runs, dockerd uses it; a
            // namespace of its own keeps the two apart.
            .arg("--containerd-namespace")
            .arg(format!("webhost-{}", std::process::id()))
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--cgroup-parent", &cgroup_parent()])
            .args(["--storage-driver", "vfs", "--log-level", "warn"])
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false", "--userland-proxy=false"])
            .env("DOCKER_TMPDIR", dir.join("tmp"))
            .current_dir(&dir)
            // Ctrl-C at the terminal is for us; we end the engine in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);

        let (started, start) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        std::thread::Builder::new().name("dockerd-keeper".into()).spawn(move || {
            match command.spawn() {
                Ok(mut child) => {
                    // A receiver that is gone has given up; the child is
                    // reaped all the same.
                    let _owner_gone = started.send(Ok(child.id()));
                    reap(&mut child);
                    let _owner_gone = ending.send(());
                }
                Err(error) => {
                    let _owner_gone = started.send(Err(error));
                }
            }
        })?;
        let pid = start.recv().context("the keeper of dockerd")?.context("setpriv not started")?;
        Ok(Self { dir, pid, ended })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// What it said last, when it has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.ended.try_recv().ok().map(|()| self.log_tail())
    }

    /// The end of its log.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("dockerd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Ends it, waits up to 30 s, and clears what it left behind.
    pub(super) async fn stop(self) {
        // The work is waiting; it belongs on a thread that may wait.
        let joined = tokio::task::spawn_blocking(move || drop(self)).await;
        if let Err(error) = joined {
            complain(&format!("stopping dockerd: {error}"));
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) {
            // Failure means that it is gone already.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        if self.ended.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            complain("dockerd did not end within 30 s; killing it");
            self.signal(rustix::process::Signal::KILL);
            let _reaped = self.ended.recv_timeout(Duration::from_secs(5));
        }
        unmount_below(&self.dir);
        remove_cgroups();
    }
}

/// A killed engine leaves its containers' root directories mounted.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| Path::new(path).starts_with(dir))
        .collect();
    below.sort_unstable();
    for path in below.iter().rev() {
        // What stays mounted shows when the directory is removed.
        let _busy = Command::new("umount").arg("--lazy").arg(path).status();
    }
}

/// The engine removes its containers' cgroups, but not the parent that it was
/// given: one per hierarchy on cgroup v1, one in all on v2. Those of owners
/// that were killed go too.
fn remove_cgroups() {
    let root = Path::new("/sys/fs/cgroup");
    let children = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let hierarchies = children(root);
    let candidates = hierarchies.iter().flat_map(|hierarchy| children(hierarchy));
    for dir in candidates.chain(hierarchies.iter().cloned()) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(CGROUP_PREFIX) else { continue };
        let ours = owner == std::process::id().to_string();
        if ours || !Path::new("/proc").join(owner).exists() {
            // Only an empty cgroup can be removed, so this is safe; one that
            // is not belongs to a container that is still dying.
            let _not_empty = std::fs::remove_dir(&dir);
        }
    }
}

fn reap(child: &mut Child) {
    while let Err(error) = child.wait() {
        if error.kind() != std::io::ErrorKind::Interrupted {
            break;
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn complain(words: &str) {
    // Nowhere is left to complain to when standard error is closed.
    let _closed = writeln!(std::io::stderr().lock(), "{words}");
}
