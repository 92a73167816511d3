//! A connection URL, which may carry a password and is therefore never
//! printed: not by `Debug`, not by `check-config`, not in an error.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A libpq connection string or URL.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps the text as it stands in the configuration.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text with everything secret in it; for connecting only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Where it leads, without the password: "host=… port=… user=… dbname=…".
    pub fn place(&self) -> String {
        let Ok(config) = self.0.parse::<tokio_postgres::Config>() else {
            return "(not a connection URL)".to_owned();
        };
        let mut words = Vec::new();
        for host in config.get_hosts() {
            words.push(match host {
                tokio_postgres::config::Host::Tcp(name) => format!("host={name}"),
                tokio_postgres::config::Host::Unix(path) => format!("host={}", path.display()),
            });
        }
        for port in config.get_ports() {
            words.push(format!("port={port}"));
        }
        if let Some(user) = config.get_user() {
            words.push(format!("user={user}"));
        }
        if let Some(name) = config.get_dbname() {
            words.push(format!("dbname={name}"));
        }
        if config.get_password().is_some() {
            words.push("password=(hidden)".to_owned());
        }
        words.join(" ")
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

impl Serialize for SecretUrl {
    /// Writes the place only: a configuration that is printed or stored must
    /// not carry the password.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.place())
    }
}
