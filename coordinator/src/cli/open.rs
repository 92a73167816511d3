//! Opening the state: which database, and which key seals the authority.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::embedded::{Embedded, EmbeddedError, Options};
use crate::link::sealing::{SealingError, SealingKey};
use crate::store::connect::{ConnectError, Target};
use crate::store::{Store, StoreError};

/// Why the state can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither a database nor `--embedded`.
    #[error(
        "where is the fleet's state? either name a PostgreSQL database: DATABASE_URL=postgres://… \
         or [database] url in the configuration; or add --embedded to keep it in a private \
         PostgreSQL below the state directory. Nothing was started: an empty fleet with a new \
         certificate authority must not come up because a variable got lost"
    )]
    NoDatabase,
    /// Both.
    #[error("--embedded and a database URL contradict each other; give one of them")]
    Both,
    /// No key for the certificate authority.
    #[error(
        "the key that seals the certificate authority is missing: set ca_key_file, or give the \
         unit LoadCredential=ca-key:FILE; make one with: umask 077; \
         head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n' > FILE"
    )]
    NoKey,
    #[error(transparent)]
    Key(#[from] SealingError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of ours panicked.
    #[error("the private PostgreSQL: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The opened state. The private PostgreSQL, where this process started one,
/// ends with it.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) embedded: bool,
    _server: Option<Embedded>,
}

fn embedded_dir(config: &Config) -> PathBuf {
    config.state_dir.join("postgres")
}

impl State {
    /// Opens the state for the service: `embedded` or a database URL, exactly
    /// one of them.
    pub(super) async fn serve(config: &Config, embedded: bool) -> Result<Self, OpenError> {
        match (&config.database.url, embedded) {
            (Some(_), true) => Err(OpenError::Both),
            (None, false) => Err(OpenError::NoDatabase),
            (Some(url), false) => Self::remote(config, url),
            (None, true) => Self::start(config).await,
        }
    }

    /// Opens the state for a command: as the service would, and a private
    /// PostgreSQL that is there already needs no flag.
    pub(super) async fn open(config: &Config, embedded: bool) -> Result<Self, OpenError> {
        let dir = embedded_dir(config);
        let there = dir.join("data").join("PG_VERSION").exists();
        match &config.database.url {
            Some(_) if embedded => return Err(OpenError::Both),
            Some(url) => return Self::remote(config, url),
            None if !embedded && !there => return Err(OpenError::NoDatabase),
            None => {}
        }
        let running = local(&dir);
        let runs = running.connect(tokio_postgres::NoTls).await.is_ok();
        if runs {
            let store = Store::new(running, 2)?;
            return Ok(Self { store, embedded: true, _server: None });
        }
        Self::start(config).await
    }

    fn remote(config: &Config, url: &str) -> Result<Self, OpenError> {
        let target = Target::parse(url, config.database.ca_file.as_deref())?;
        if target.is_plain_remote() {
            tracing::warn!("sslmode=disable: the state database is reached without TLS");
        }
        let store = Store::connect(target, config.database.connections)?;
        Ok(Self { store, embedded: false, _server: None })
    }

    async fn start(config: &Config) -> Result<Self, OpenError> {
        let dir = embedded_dir(config);
        // The service and a handful of commands beside it.
        let room = (config.database.connections + 20).to_string();
        let options = Options::durable().with("max_connections", &room);
        let server = tokio::task::spawn_blocking(move || Embedded::start(&dir, &options)).await??;
        let store = Store::new(server.config("postgres"), config.database.connections)?;
        Ok(Self { store, embedded: true, _server: Some(server) })
    }
}

fn local(dir: &Path) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host_path(dir.join("socket")).user(crate::embedded::SUPERUSER).dbname("postgres");
    config
}

/// The key that seals the authority's keys: `ca_key_file`, else systemd's
/// credential `ca-key`, else (private PostgreSQL only) one that is made in
/// the state directory.
///
/// # Errors
/// [`OpenError::NoKey`] where there is none and none may be made.
pub fn sealing_key(
    config: &Config,
    credentials: Option<&Path>,
    embedded: bool,
) -> Result<SealingKey, OpenError> {
    if let Some(path) = &config.ca_key_file {
        return Ok(SealingKey::from_file(path)?);
    }
    if let Some(path) = credentials.map(|dir| dir.join("ca-key")).filter(|path| path.exists()) {
        return Ok(SealingKey::from_file(&path)?);
    }
    if embedded {
        return Ok(SealingKey::load_or_create(&config.state_dir.join("ca-key"))?);
    }
    Err(OpenError::NoKey)
}
