//! What nginx is told: which host names go through the hold point.
//!
//! # Theory of operation
//!
//! The operator's configuration asks a `map` where a request goes, and the
//! map includes one file a tenant that moves, or has moved and is still being
//! forwarded:
//!
//! ```nginx
//! upstream webhost_application { server 127.0.0.1:4000; keepalive 64; }
//! # While the agent is down, requests go straight to the application.
//! upstream webhost_hold {
//!     server 127.0.0.1:7404 max_fails=0;
//!     server 127.0.0.1:4000 backup;
//!     keepalive 64;
//! }
//! map $host $webhost_upstream {
//!     default webhost_application;
//!     include /var/lib/webhost-agent/routes/*.map;
//! }
//! worker_shutdown_timeout 30s;    # in the main context
//! ```
//!
//! and `proxy_pass http://$webhost_upstream;` in the location, with
//! `proxy_http_version 1.1`, `proxy_set_header Host $host` and the two fields
//! for WebSockets (`systemd/nginx.conf` has all of it). A file included in a
//! map can hold map entries and nothing else, so the worst that a broken one
//! could do is to make `nginx -t` fail.
//!
//! The agent has no privilege and can't reload nginx. It writes the files,
//! then a number ([`GENERATION`]), each whole or not at all. A unit that
//! watches the number (`webhost-nginx-reload.path`) runs [`reload`]: `nginx
//! -t`, the reload, and a verdict with that number, in a directory of its
//! own. On a bad verdict, or none, the file is taken back.
//!
//! **Invariant:** a file's text is made of a checked host name and nothing
//! else that anybody sent.
//! **Invariant:** the privileged side writes nothing below a directory that
//! the agent can write to.

pub mod reload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use crate::durable::{self, DurableError};

/// The file that the reloading unit watches.
pub const GENERATION: &str = "generation";
/// The upstream of nginx that leads here.
const HOLD: &str = "webhost_hold";
/// How long a verdict may take.
const VERDICT: Duration = Duration::from_secs(20);
/// The number is written again after this without a verdict: the unit may have
/// been busy when it changed.
const AGAIN: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(20);

/// What the reloading unit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The number that it had read before.
    pub generation: u64,
    pub good: bool,
    /// What nginx said, when it isn't good.
    pub message: String,
}

/// The agent's side.
#[derive(Clone)]
pub struct Nginx {
    dir: PathBuf,
    verdict: PathBuf,
    worker_shutdown: Duration,
    /// One change at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Nginx {
    /// Files in `dir`, verdicts at `verdict`.
    ///
    /// # Errors
    /// [`DurableError`], when the directory can't be made.
    pub fn open(
        dir: PathBuf,
        verdict: PathBuf,
        worker_shutdown: Duration,
    ) -> Result<Self, DurableError> {
        durable::private_dir(&dir).map_err(durable::at(&dir))?;
        Ok(Self { dir, verdict, worker_shutdown, turn: Arc::default() })
    }

    /// After this an old worker has let go of its last connection.
    pub fn worker_shutdown(&self) -> Duration {
        self.worker_shutdown
    }

    fn path(&self, tenant: TenantId) -> PathBuf {
        self.dir.join(format!("{tenant}.map"))
    }

    /// nginx sends the host name's requests to the hold point when this
    /// returns.
    ///
    /// # Errors
    /// In words: the name, the file system, nginx's own verdict, or that
    /// nobody gave one. Nothing is left behind then.
    pub async fn add(&self, tenant: TenantId, host: &str) -> Result<(), String> {
        check_host(host)?;
        let _turn = self.turn.lock().await;
        let path = self.path(tenant);
        durable::replace(&path, entry(host).as_bytes()).map_err(|error| words(&path, &error))?;
        let refused = match self.publish().await {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        // The configuration as it was: without us it was good, or not our fault.
        durable::remove(&path).map_err(|error| words(&path, &error))?;
        self.count()?;
        Err(refused)
    }

    /// The tenant's requests go straight to the application again when this
    /// returns well.
    ///
    /// # Errors
    /// As [`Nginx::add`]; the file is gone all the same.
    pub async fn remove(&self, tenant: TenantId) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let path = self.path(tenant);
        if !path.exists() {
            return Ok(());
        }
        durable::remove(&path).map_err(|error| words(&path, &error))?;
        self.publish().await
    }

    /// Makes sure of a file after a restart. nginx learns of a difference with
    /// the next change.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn restore(&self, tenant: TenantId, host: &str) -> Result<(), DurableError> {
        let (path, text) = (self.path(tenant), entry(host));
        if check_host(host).is_err() || std::fs::read(&path).is_ok_and(|it| it == text.as_bytes()) {
            return Ok(());
        }
        durable::replace(&path, text.as_bytes()).map_err(durable::at(&path))
    }

    /// Counts up and waits for the verdict.
    async fn publish(&self) -> Result<(), String> {
        let deadline = Instant::now() + VERDICT;
        let ours = self.count()?;
        let (mut number, mut counted) = (ours, Instant::now());
        loop {
            match read_verdict(&self.verdict) {
                Some(verdict) if verdict.generation >= ours && verdict.good => return Ok(()),
                Some(verdict) if verdict.generation >= ours => {
                    return Err(format!("nginx refuses the configuration: {}", verdict.message));
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "nobody reloaded nginx within {} s (generation {number}, verdict {}): is \
                     webhost-nginx-reload.path running?",
                    VERDICT.as_secs(),
                    self.verdict.display()
                ));
            }
            if counted.elapsed() >= AGAIN {
                (number, counted) = (self.count()?, Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn count(&self) -> Result<u64, String> {
        let path = self.dir.join(GENERATION);
        // A verdict outlives a directory that was emptied.
        let seen = read_verdict(&self.verdict).map_or(0, |verdict| verdict.generation);
        let next = read_generation(&self.dir).max(seen) + 1;
        durable::replace(&path, format!("{next}\n").as_bytes())
            .map_err(|error| words(&path, &error))?;
        Ok(next)
    }
}

/// The number in `dir`; 0 where there is none yet.
fn read_generation(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join(GENERATION)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn read_verdict(path: &Path) -> Option<Verdict> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn words(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn entry(host: &str) -> String {
    format!("{host} {HOLD};\n")
}

/// Checks a host name: labels of a to z, 0 to 9 and inner hyphens, at least
/// two of them, 253 characters at most. Nothing of it means anything to nginx.
///
/// # Errors
/// A sentence with the name.
pub fn check_host(host: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if host.len() <= 253 && host.contains('.') && host.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "{host:?} is no host name: labels of a to z, 0 to 9 and hyphens, joined by dots, are"
    ))
}

#[cfg(test)]
mod tests;
