//! From a file and an environment to a checked [`Config`].

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, Postgres};

/// Where the packages put the file.
pub const DEFAULT_PATH: &str = "/etc/webhost/agent.toml";

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key as the file has it ("coordinator.address") or the variable.
    pub name: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    pub(super) fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

/// Why there is no configuration.
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
    /// The file is not TOML, or has a key that nobody knows, or a value of
    /// the wrong type. The text of the line is left out: it may hold a secret.
    #[error("{path}:{line}: {key}: {message}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key that stands on that line, if one does.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// Values that can't be used; all of them.
    #[error("{}", list(.0))]
    Unusable(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads `path`, applies the variables of the process's environment, and
    /// checks everything. Where there is no file, the environment alone is
    /// enough when it names the coordinator.
    ///
    /// # Errors
    /// [`ConfigError`]: the file's first mistake with its line, or all
    /// unusable values together.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(source)
                if source.kind() == std::io::ErrorKind::NotFound
                    && std::env::var_os("WEBHOST_AGENT_COORDINATOR_ADDRESS").is_some() =>
            {
                String::new()
            }
            Err(source) => return Err(ConfigError::Unreadable { path: path.into(), source }),
        };
        Self::from_parts(path, &text, std::env::vars_os())
    }

    /// As [`Config::load`], from values.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_parts(
        path: &Path,
        text: &str,
        variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| malformed(path, text, &error))?;
        let mut problems = config.apply_environment(variables);
        problems.extend(config.problems());
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Unusable(problems)) }
    }
}

impl Config {
    /// Where to enrol, "host:port": as configured, else the link's host with
    /// the next port.
    ///
    /// # Errors
    /// When the link's port is the last one.
    pub fn enrolment_address(&self) -> Result<String, ConfigError> {
        if let Some(address) = &self.coordinator.enrolment_address {
            return Ok(address.clone());
        }
        let address = &self.coordinator.address;
        let next = address.rsplit_once(':').and_then(|(host, port)| {
            let port: u16 = port.parse().ok()?;
            Some(format!("{host}:{}", port.checked_add(1)?))
        });
        next.ok_or_else(|| {
            ConfigError::Unusable(vec![Problem::new(
                "coordinator.enrolment_address",
                format!("is needed: there is no port after the one of {address:?}"),
            )])
        })
    }
}

impl Postgres {
    /// How to connect, with the password from its file and the name by which
    /// the agent is seen in `pg_stat_activity`.
    ///
    /// # Errors
    /// A sentence that names the key and never the secret.
    pub fn connection(&self) -> Result<tokio_postgres::Config, Problem> {
        let mut config: tokio_postgres::Config = self.url.expose().parse().map_err(|_| {
            Problem::new("postgres.url", "is not a PostgreSQL connection string or URL")
        })?;
        if let Some(path) = &self.password_file {
            let password = std::fs::read_to_string(path).map_err(|error| {
                Problem::new("postgres.password_file", format!("{}: {error}", path.display()))
            })?;
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        config.application_name("webhost-agent");
        Ok(config)
    }
}

fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1;
    let key = text
        .lines()
        .nth(line - 1)
        .and_then(|line| line.split('=').next())
        .map(str::trim)
        .filter(|key| !key.is_empty() && !key.starts_with('#'))
        .unwrap_or("(no key)")
        .to_owned();
    ConfigError::Malformed { path: path.into(), line, key, message: error.message().to_owned() }
}
