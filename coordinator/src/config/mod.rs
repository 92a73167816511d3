//! The coordinator's configuration: a TOML file, then the environment.
//!
//! Every key has a default that serves a first look; plans, node shapes,
//! costs and thresholds are configuration too (`[catalog]`), with the seeds'
//! figures as defaults. Unknown keys, unknown `WEBHOST_COORDINATOR_*`
//! variables and values that contradict each other are refused with where
//! they stand: a typing mistake must never be a silent default.
//!
//! The environment wins over the file. [`environment`] lists the variables.

mod check;
mod environment;
mod moves;
mod records;
mod usage;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::{Catalog, CatalogError, Mode};

pub use moves::{AutoRollback, Moves};
pub use records::Records;
pub use usage::Usage;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or holds a key or value that is not known.
    #[error("{path}, line {line}: {problem}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong, the key named.
        problem: String,
    },
    /// A variable of the environment.
    #[error("environment variable {name}: {problem}")]
    Environment {
        /// Which variable.
        name: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// The catalogue contradicts itself.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A value that is out of its range.
    #[error("{key}: {problem}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// Everything that `webhost-coordinator` reads.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The private PostgreSQL of `--embedded`, its key, and `addresses.json`.
    pub state_dir: PathBuf,
    /// The 32 bytes that seal the certificate authority's keys. Without it:
    /// `$CREDENTIALS_DIRECTORY/ca-key`, then (`--embedded` only) a new one in
    /// the state directory.
    pub ca_key_file: Option<PathBuf>,
    /// Only this mode is offered; both when absent (`DEPLOYMENT_MODE`).
    pub mode: Option<Mode>,
    pub database: Database,
    pub api: Api,
    pub link: Link,
    pub signup: Signup,
    pub usage: Usage,
    pub records: Records,
    pub evaluation: Evaluation,
    pub moves: Moves,
    pub routing: Routing,
    pub catalog: Catalog,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/webhost-coordinator".into(),
            ca_key_file: None,
            mode: None,
            database: Database::default(),
            api: Api::default(),
            link: Link::default(),
            signup: Signup::default(),
            usage: Usage::default(),
            records: Records::default(),
            evaluation: Evaluation::default(),
            moves: Moves::default(),
            routing: Routing::default(),
            catalog: Catalog::default(),
        }
    }
}

/// The state database.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// A libpq URL or connection string. TLS is spoken to every host but this
    /// machine, and always checked; see [`crate::store::connect`].
    pub url: Option<String>,
    /// PEM roots for its certificate; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// The most connections.
    pub connections: usize,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Database")
            .field("url", &self.url.as_ref().map(|_| "set"))
            .field("ca_file", &self.ca_file)
            .field("connections", &self.connections)
            .finish()
    }
}

impl Default for Database {
    fn default() -> Self {
        Self { url: None, ca_file: None, connections: 16 }
    }
}

/// The HTTP API.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Plain HTTP on a loopback address, HTTPS on every other.
    pub listen: SocketAddr,
    /// PEM chain for HTTPS; the coordinator's own certificate when absent.
    pub certificate_file: Option<PathBuf>,
    /// PEM key of that chain.
    pub key_file: Option<PathBuf>,
    /// The largest request body, in bytes.
    pub body_limit_bytes: usize,
    /// How long one request may take.
    pub request_timeout_s: u64,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            certificate_file: None,
            key_file: None,
            body_limit_bytes: 256 * 1024,
            request_timeout_s: 30,
        }
    }
}

/// The link and the enrolment that agents dial.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    pub listen: SocketAddr,
    pub enrolment_listen: SocketAddr,
    /// The names and addresses that agents dial; they go into the
    /// coordinator's certificate.
    pub names: Vec<String>,
    /// How often agents report.
    pub report_interval_ms: u32,
    /// The most reports in flight without an acknowledgement.
    pub report_window: u32,
    /// An agent that is silent for longer gets no new tenants.
    pub silence_s: u32,
    /// How long a certificate is valid. Nodes don't renew theirs by
    /// themselves yet: they enrol again before this ends.
    pub certificate_hours: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7401)),
            enrolment_listen: SocketAddr::from(([0, 0, 0, 0], 7402)),
            names: vec!["localhost".into(), "127.0.0.1".into()],
            report_interval_ms: 5_000,
            report_window: 8,
            silence_s: 60,
            certificate_hours: 24,
        }
    }
}

/// Signups and their reservations.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signup {
    /// A reservation that nobody uses ends after this.
    pub reservation_ttl_s: u64,
    /// Waiting tenants are retried this often, and whenever the fleet changes.
    pub retry_interval_s: u64,
    /// Slugs that no tenant may have.
    pub reserved_slugs: Vec<String>,
}

impl Default for Signup {
    fn default() -> Self {
        let reserved = [
            "admin",
            "api",
            "app",
            "assets",
            "auth",
            "billing",
            "blog",
            "cdn",
            "console",
            "dashboard",
            "dev",
            "docs",
            "ftp",
            "health",
            "help",
            "internal",
            "localhost",
            "login",
            "mail",
            "metrics",
            "ns1",
            "ns2",
            "public",
            "root",
            "signup",
            "smtp",
            "ssh",
            "staging",
            "static",
            "status",
            "support",
            "system",
            "test",
            "webhost",
            "www",
        ];
        Self {
            reservation_ttl_s: 24 * 3600,
            retry_interval_s: 30,
            reserved_slugs: reserved.map(str::to_owned).to_vec(),
        }
    }
}

/// When tenants are evaluated for a move.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// Every active tenant, this often.
    pub interval_s: u64,
    /// Usage is looked through for crossed limits this often.
    pub scan_interval_s: u64,
    /// The same tenant is not evaluated again for the same cause before this.
    pub min_gap_s: u64,
    /// A person is reminded of a move that waits for approval this often.
    pub remind_after_s: u64,
    /// A move that nobody approved ends after this.
    pub expire_after_s: u64,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            interval_s: 6 * 3600,
            scan_interval_s: 5,
            min_gap_s: 900,
            remind_after_s: 24 * 3600,
            expire_after_s: 7 * 24 * 3600,
        }
    }
}

/// How requests find their tenant.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routing {
    /// Tenants without a host name of their own get "slug.domain". Without it
    /// they have none, and their requests are not held during a move.
    pub domain: Option<String>,
}

impl Config {
    /// Reads `file` (all defaults when there is none), then the environment,
    /// then checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`], which says where the mistake stands.
    pub fn load(
        file: Option<&Path>,
        environment: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut config = match file {
            None => Self::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
                Self::parse(&text, path)?
            }
        };
        environment::apply(&mut config, environment)?;
        config.validate()?;
        Ok(config)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
            ConfigError::Invalid {
                path: path.into(),
                line,
                problem: error.message().replace('\n', " "),
            }
        })
    }

    /// The window that rates are taken over.
    pub fn usage_window(&self) -> Duration {
        Duration::from_secs(self.usage.window_s)
    }
}
