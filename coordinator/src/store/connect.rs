//! How to reach the state database: a libpq connection string or URL, with
//! `sslmode` and `sslrootcert` honoured.
//!
//! A unix socket and a loopback address need no TLS. For every other host TLS
//! is the default, and the server's certificate and name are always checked:
//! `require`, `verify-ca` and `verify-full` mean the same here. Only a written
//! `sslmode=disable` turns it off.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::config::{Host, SslMode};

/// Why a connection string can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The string can't be read. It may hold a password, so it isn't shown.
    #[error("the database URL can't be read: {0}")]
    Unreadable(String),
    /// A word that `sslmode` doesn't know.
    #[error("sslmode {0:?} is unknown; use disable, prefer, require, verify-ca or verify-full")]
    SslMode(String),
    /// The file of trusted roots.
    #[error(
        "{path}: {detail}; name a PEM file of trusted roots with sslrootcert or database.ca_file"
    )]
    Roots {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The TLS configuration.
    #[error("TLS to the state database: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where Debian, Fedora and Alpine keep the system's trusted roots.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A checked way to the state database.
#[derive(Clone)]
pub struct Target {
    /// What tokio-postgres needs.
    pub config: tokio_postgres::Config,
    /// None where no TLS is spoken.
    pub tls: Option<rustls::ClientConfig>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds the password.
        write!(f, "Target {{ hosts: {:?}, tls: {} }}", self.config.get_hosts(), self.tls.is_some())
    }
}

impl Target {
    /// Reads `url`; `ca_file` is used where the URL names no `sslrootcert`.
    ///
    /// # Errors
    /// [`ConnectError`], without the URL's secrets.
    pub fn parse(url: &str, ca_file: Option<&Path>) -> Result<Self, ConnectError> {
        let (rest, mode, roots) = split(url);
        let mut config = tokio_postgres::Config::from_str(&rest)
            .map_err(|error| ConnectError::Unreadable(cause(&error)))?;
        let local = config.get_hosts().iter().all(is_local);
        let (ssl, wanted) = match mode.as_deref() {
            None if local => (SslMode::Disable, false),
            None => (SslMode::Require, true),
            Some("disable") => (SslMode::Disable, false),
            Some("allow" | "prefer") => (SslMode::Prefer, true),
            Some("require" | "verify-ca" | "verify-full") => (SslMode::Require, true),
            Some(other) => return Err(ConnectError::SslMode(other.to_owned())),
        };
        config.ssl_mode(ssl);
        let tls = if wanted {
            Some(client_config(roots.as_deref().map(Path::new).or(ca_file))?)
        } else {
            None
        };
        Ok(Self { config, tls })
    }

    /// A database on this machine, without TLS.
    pub fn local(config: tokio_postgres::Config) -> Self {
        Self { config, tls: None }
    }

    /// Whether the URL leaves this machine without TLS: allowed when it is
    /// written, and worth a warning.
    pub fn is_plain_remote(&self) -> bool {
        self.tls.is_none() && !self.config.get_hosts().iter().all(is_local)
    }
}

/// tokio-postgres' own words keep the reason in the source error.
fn cause(error: &tokio_postgres::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// Takes `sslmode` and `sslrootcert` out of a URL or a key-value string:
/// tokio-postgres knows only half of the first and nothing of the second.
fn split(url: &str) -> (String, Option<String>, Option<String>) {
    let (mut mode, mut roots) = (None, None);
    let mut take = |pair: &str| match pair.split_once('=') {
        Some(("sslmode", value)) => {
            mode = Some(value.to_owned());
            false
        }
        Some(("sslrootcert", value)) => {
            roots = Some(value.replace("%2F", "/"));
            false
        }
        _ => true,
    };
    let rest = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        match url.split_once('?') {
            None => url.to_owned(),
            Some((head, query)) => {
                let kept: Vec<&str> = query.split('&').filter(|pair| take(pair)).collect();
                if kept.is_empty() { head.to_owned() } else { format!("{head}?{}", kept.join("&")) }
            }
        }
    } else {
        let kept: Vec<&str> = url.split_whitespace().filter(|pair| take(pair)).collect();
        kept.join(" ")
    };
    (rest, mode, roots)
}

fn client_config(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, ConnectError> {
    let path = match ca_file {
        Some(path) => path.to_path_buf(),
        None => SYSTEM_ROOTS
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .unwrap_or_else(|| SYSTEM_ROOTS[0].into()),
    };
    let unusable = |detail: String| ConnectError::Roots { path: path.clone(), detail };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(&path).map_err(|error| unusable(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        // System bundles hold a few roots that rustls can't use; the others
        // serve, and an empty store is refused below.
        let _unusable_root = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(unusable("holds no usable certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, tls: bool, mode: SslMode) {
        let target = Target::parse(url, None).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(target.tls.is_some(), tls, "{url}");
        assert_eq!(target.config.get_ssl_mode(), mode, "{url}");
    }

    #[test]
    fn tls_is_the_default_off_this_machine() {
        check("postgres://u@localhost/db", false, SslMode::Disable);
        check("postgres://u@127.0.0.1/db", false, SslMode::Disable);
        check("host=/run/postgresql dbname=db user=u", false, SslMode::Disable);
        check("postgres://u:p@db.example/db?sslmode=disable", false, SslMode::Disable);
        if Path::new(SYSTEM_ROOTS[0]).exists() {
            check("postgres://u:p@db.example/db", true, SslMode::Require);
            check("postgres://u:p@db.example/db?sslmode=prefer", true, SslMode::Prefer);
            check(
                "postgres://u:p@db.example/db?sslmode=verify-full&connect_timeout=3",
                true,
                SslMode::Require,
            );
            check("host=db.example user=u sslmode=require", true, SslMode::Require);
        }
    }

    #[test]
    fn mistakes_are_named_without_the_secret() {
        let error = Target::parse("postgres://u:hush@db.example/db?sslmode=yes", None)
            .expect_err("unknown mode")
            .to_string();
        assert!(error.contains("\"yes\"") && !error.contains("hush"), "{error}");
        let error = Target::parse("postgres://u:hush@db.example:x/db?sslmode=disable", None)
            .expect_err("bad port")
            .to_string();
        assert!(!error.contains("hush"), "{error}");
        let error =
            Target::parse("postgres://u@db.example/db?sslrootcert=/nowhere/roots.pem", None)
                .expect_err("no roots")
                .to_string();
        assert!(error.contains("/nowhere/roots.pem"), "{error}");
    }

    #[test]
    fn the_debug_form_holds_no_password() {
        let target = Target::parse("postgres://u:hush@localhost/db", None).expect("reads");
        assert!(!format!("{target:?}").contains("hush"));
    }
}
