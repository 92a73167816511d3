//! A private PostgreSQL, started from the installed binaries: the default of
//! a first look (`serve --embedded`), of the demo, and of the tests.
//!
//! Theory of operation: one directory holds the cluster and its socket; no
//! TCP port is opened. PostgreSQL refuses to run as root, so under root the
//! server runs as `postgres` (else `nobody`). A keeper thread owns the child:
//! the kernel ends the server with a fast shutdown when that thread's process
//! dies, however it dies, so nothing stays behind after a kill -9; the data
//! does, and the next start takes it up again.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Why the private PostgreSQL could not be had.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No server binaries on this machine.
    #[error(
        "no PostgreSQL server binaries found (looked in $WEBHOST_PG_BIN and /usr/lib/postgresql/*/bin); \
         install them with: apt-get install postgresql-15"
    )]
    NotInstalled,
    /// A command of PostgreSQL failed.
    #[error("{command} failed: {output}")]
    Command {
        /// Which command.
        command: &'static str,
        /// The last of what it printed.
        output: String,
    },
    /// The server did not answer in time.
    #[error("the private PostgreSQL in {dir} did not accept connections within {seconds} s: {log}")]
    NotReady {
        /// The cluster's directory.
        dir: PathBuf,
        /// How long we waited.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How a private cluster is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Settings as in postgresql.conf, name and value.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// Durable: what the coordinator's own state needs.
    pub fn durable() -> Self {
        Self { settings: vec![("shared_buffers".into(), "64MB".into())] }
    }

    /// Fast and careless, for tests that kill no server.
    pub fn throwaway() -> Self {
        Self::durable()
            .with("fsync", "off")
            .with("synchronous_commit", "off")
            .with("full_page_writes", "off")
    }

    /// Adds or replaces one setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A running private PostgreSQL; stops (fast shutdown) when dropped.
pub struct Embedded {
    dir: PathBuf,
    pid: u32,
    ended: mpsc::Receiver<()>,
}

/// The superuser of a private cluster.
pub const SUPERUSER: &str = "postgres";

const READY_SECONDS: u64 = 60;

impl Embedded {
    /// Starts the cluster in `dir`, creating it the first time. Blocks until
    /// it accepts connections: call it from a blocking task.
    ///
    /// # Errors
    /// [`EmbeddedError`]; nothing is left running then.
    pub fn start(dir: &Path, options: &Options) -> Result<Self, EmbeddedError> {
        let bin = binaries()?;
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| EmbeddedError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let dir = dir.canonicalize().map_err(io(dir))?;
        let data = dir.join("data");
        let socket = dir.join("socket");
        let user = unprivileged();
        std::fs::create_dir_all(&socket).map_err(io(&socket))?;
        if let Some((uid, gid)) = user {
            for path in [&dir, &socket] {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(io(path))?;
            }
        }
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).map_err(io(&dir))?;

        if !data.join("PG_VERSION").exists() {
            // An initdb that was killed half way leaves a directory that the
            // next one refuses; it holds nothing yet.
            let fresh = dir.join("data.new");
            if fresh.exists() {
                std::fs::remove_dir_all(&fresh).map_err(io(&fresh))?;
            }
            let output = as_user(&bin.join("initdb"), user)
                .args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8"])
                .args(["--locale", "C.UTF-8", "--no-sync", "--pgdata"])
                .arg(&fresh)
                .current_dir(&dir)
                .output()
                .map_err(io(&bin))?;
            if !output.status.success() {
                return Err(EmbeddedError::Command {
                    command: "initdb",
                    output: String::from_utf8_lossy(&output.stderr).into_owned(),
                });
            }
            std::fs::rename(&fresh, &data).map_err(io(&data))?;
        }

        let log_path = dir.join("postgres.log");
        let mut command = as_user(&bin.join("postgres"), user);
        command.arg("-D").arg(&data).arg("-k").arg(&socket).args(["-c", "listen_addresses="]);
        command.args(["-c", "unix_socket_permissions=0777"]);
        for (name, value) in &options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.current_dir(&dir).stdin(Stdio::null());

        let (started, start) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        let keeper_log = log_path.clone();
        let keeper_data = data.clone();
        // The thread that spawns the server must outlive it: the kernel sends
        // the parent-death signal when the spawning thread ends.
        std::thread::Builder::new()
            .name("postgres-keeper".into())
            .spawn(move || keep(command, &keeper_data, &keeper_log, &started, &ending))
            .map_err(io(&log_path))?;
        let pid = match start.recv() {
            Ok(Ok(pid)) => pid,
            Ok(Err(source)) => return Err(EmbeddedError::Io { path: bin, source }),
            Err(_) => {
                return Err(EmbeddedError::Command {
                    command: "postgres",
                    output: tail(&log_path),
                });
            }
        };
        let server = Self { dir, pid, ended };
        server.wait_ready(&bin, &socket, &log_path)?;
        Ok(server)
    }

    fn wait_ready(&self, bin: &Path, socket: &Path, log: &Path) -> Result<(), EmbeddedError> {
        let pause = Duration::from_millis(50);
        for _ in 0..(READY_SECONDS * 1000 / 50) {
            let ready = Command::new(bin.join("pg_isready"))
                .args(["--quiet", "--host"])
                .arg(socket)
                .status()
                .is_ok_and(|status| status.success());
            if ready {
                return Ok(());
            }
            // The keeper tells at once when the server ends; until then its
            // channel serves as the pause between two looks.
            match self.ended.recv_timeout(pause) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                _ => {
                    return Err(EmbeddedError::Command { command: "postgres", output: tail(log) });
                }
            }
        }
        Err(EmbeddedError::NotReady {
            dir: self.dir.clone(),
            seconds: READY_SECONDS,
            log: tail(log),
        })
    }

    /// The directory of the unix socket, for `host=`.
    pub fn socket_dir(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// How to connect to `database` as the superuser.
    pub fn config(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir()).user(SUPERUSER).dbname(database);
        config
    }

    /// The postmaster's pid, for tests that kill it.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) {
            // Failure means that it is gone already.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        // Bounded: a fast shutdown that hangs must not hang its owner.
        let _timed_out = self.ended.recv_timeout(Duration::from_secs(30));
    }
}

/// Spawns the server, waiting out the shutdown of an earlier one, and reaps
/// it.
fn keep(
    mut command: Command,
    data: &Path,
    log: &Path,
    started: &mpsc::Sender<std::io::Result<u32>>,
    ending: &mpsc::Sender<()>,
) {
    wait_for_predecessor(data);
    let spawned = std::fs::File::create(log)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .and_then(|(out, err)| command.stdout(out).stderr(err).spawn());
    match spawned {
        Ok(mut child) => {
            // The receivers may be gone when the owner gave up; then the
            // child is reaped all the same.
            let _owner_gone = started.send(Ok(child.id()));
            reap(&mut child);
            let _owner_gone = ending.send(());
        }
        Err(error) => {
            let _owner_gone = started.send(Err(error));
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

/// After a kill -9 of its owner an earlier server may still be shutting down
/// on the same data; a new one would refuse its lock file.
fn wait_for_predecessor(data: &Path) {
    let pid_file = data.join("postmaster.pid");
    for _ in 0..300 {
        let running = std::fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()))
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| {
                std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
                    .is_ok_and(|line| line.windows(8).any(|part| part == b"postgres"))
            });
        if !running {
            return;
        }
        let (_never, wait) = mpsc::channel::<()>();
        let _timeout = wait.recv_timeout(Duration::from_millis(100));
    }
}

fn tail(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(log) {
        let _unreadable = file.read_to_string(&mut text);
    }
    let from = text.len().saturating_sub(2000);
    text.get(from..).unwrap_or(&text).trim().to_owned()
}

/// The newest installed server's directory of binaries.
///
/// # Errors
/// [`EmbeddedError::NotInstalled`].
pub fn binaries() -> Result<PathBuf, EmbeddedError> {
    if let Some(dir) = std::env::var_os("WEBHOST_PG_BIN") {
        return Ok(dir.into());
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(|_| EmbeddedError::NotInstalled)?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).ok_or(EmbeddedError::NotInstalled)
}

/// Whom the server runs as when we are root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some((uid, gid))
        })
    };
    find("postgres").or_else(|| find("nobody")).or(Some((65534, 65534)))
}

/// `program` under `user`, ended by the kernel when its parent ends.
fn as_user(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new("setpriv");
    // SIGINT is PostgreSQL's fast shutdown.
    command.args(["--pdeathsig", "INT"]);
    if let Some((uid, gid)) = user {
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
    }
    command.arg(program).env_remove("PGDATA").env("LC_ALL", "C.UTF-8");
    command
}

#[cfg(test)]
mod tests;
