//! How the parts of one coordinator are put together, and how they end.
//!
//! [`run`] takes everything that it needs, so that a test can run it on free
//! ports beside another one. Order: schema, certificate authority, the book
//! from its roll-ups, then the loops and the ports. Every task has this
//! function as its owner: the first that fails ends all, and a shutdown waits
//! for them until a deadline.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState, Bounds};
use crate::config::Config;
use crate::evaluate::{Evaluator, Pace};
use crate::link::authority::{Authority, AuthorityError, Leaves};
use crate::link::sealing::SealingKey;
use crate::link::{Link, LinkError, LinkSettings, Served, Signals};
use crate::moves::drains::watch::Watch;
use crate::moves::{self, Driver, Timing};
use crate::records::Keeper;
use crate::routing::{self, Directory, Routing};
use crate::signup::Desk;
use crate::slots::Slots;
use crate::store::{Store, StoreError};
use crate::usage::ingest::Ingest;
use crate::usage::record::Recorder;
use crate::usage::{Book, rollup};

/// How long the parts may take to end.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why a coordinator can't go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A port.
    #[error("{what} {address}: {source}")]
    Port {
        /// Which port.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A file.
    #[error("{path}: {problem}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A part ended although nobody told it to.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// The ports, bound already.
#[derive(Debug)]
pub struct Listeners {
    pub api: TcpListener,
    pub link: TcpListener,
    pub enrolment: TcpListener,
}

/// Where a running coordinator listens; `addresses.json` in its state
/// directory holds this while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addresses {
    pub api: SocketAddr,
    pub link: SocketAddr,
    pub enrolment: SocketAddr,
    /// Whether the API speaks TLS.
    pub api_tls: bool,
}

impl Listeners {
    /// Binds what the configuration says; port 0 takes a free one.
    ///
    /// # Errors
    /// [`RunError::Port`].
    pub async fn bind(config: &Config) -> Result<Self, RunError> {
        async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
            TcpListener::bind(address).await.map_err(|source| RunError::Port {
                what,
                address,
                source,
            })
        }
        Ok(Self {
            api: bind("api.listen", config.api.listen).await?,
            link: bind("link.listen", config.link.listen).await?,
            enrolment: bind("link.enrolment_listen", config.link.enrolment_listen).await?,
        })
    }

    fn addresses(&self) -> std::io::Result<Addresses> {
        let api = self.api.local_addr()?;
        Ok(Addresses {
            api,
            link: self.link.local_addr()?,
            enrolment: self.enrolment.local_addr()?,
            api_tls: !api::serve::is_loopback(api),
        })
    }
}

/// Runs a coordinator until `shutdown`, or until a part of it fails.
/// `ready` is called once all ports are served.
///
/// # Errors
/// [`RunError`] of the part that failed.
pub async fn run(
    config: Config,
    store: Store,
    key: &SealingKey,
    listeners: Listeners,
    ready: impl FnOnce(&Addresses) + Send,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    store.migrate().await?;
    let hours = u64::from(config.link.certificate_hours);
    let leaves = Leaves { lifetime: Duration::from_secs(3600 * hours) };
    let authority = Arc::new(Authority::load_or_create(&store, key, leaves).await?);
    let served = Served::new(authority.clone(), config.link.names.clone())?;
    let book = Arc::new(Book::new(config.usage_window()));
    let rows = rollup::reload(&store, &book, Timestamp::now()).await?;
    tracing::info!(rows, "usage reloaded");

    let retention = config.usage.retention();
    let recorder = Recorder::new(store.clone(), book.clone(), retention);

    let signals = Signals::default();
    let catalog = Arc::new(config.catalog.clone());
    let seconds = |value: u64| SignedDuration::from_secs(i64::try_from(value).unwrap_or(i64::MAX));
    let desk = Desk {
        store: store.clone(),
        slots: Slots {
            book: book.clone(),
            catalog: catalog.clone(),
            // An agent that reports seldom is not silent in between.
            silence: seconds(u64::from(config.link.silence_s))
                .max(SignedDuration::from_millis(i64::from(config.link.report_interval_ms) * 3)),
        },
        mode: config.mode,
        reservation: seconds(config.signup.reservation_ttl_s),
        reserved_slugs: Arc::new(config.signup.reserved_slugs.iter().cloned().collect()),
        changed: crate::link::Signal::default(),
        queue: crate::signup::Queue::default(),
    };
    let (ingest, writer) = Ingest::new(store.clone(), book.clone(), desk.changed.clone());
    let settings = LinkSettings {
        report_interval_ms: config.link.report_interval_ms,
        report_window: config.link.report_window,
        ..LinkSettings::default()
    };
    let link =
        Link::new(store.clone(), served.clone(), Arc::new(ingest), signals.clone(), settings);
    let timing = Timing::from(&config.moves);
    let progress = moves::Progress::new(store.clone(), timing.progress_every);
    let slots = desk.slots.clone();
    let pace = Pace::from(&config.evaluation);
    let evaluator = Evaluator::new(store.clone(), slots.clone(), pace);
    let moves_rules = moves::Rules::from(&config.moves);
    let watch = Watch { store: store.clone(), slots: slots.clone(), rules: moves_rules };
    let driver = Driver::new(store.clone(), slots, timing, signals.clone(), progress.clone())
        .with_rules(moves_rules);
    // A little less than a request may take.
    let longest = Duration::from_secs(config.api.request_timeout_s).mul_f64(0.9);
    let directory = Directory::new(longest);
    let domain = config.routing.domain.clone();
    let routing =
        Routing::new(store.clone(), domain, directory.clone(), Box::new(routing::Recorded));
    let state = ApiState {
        store: store.clone(),
        book: book.clone(),
        catalog,
        desk: desk.clone(),
        signals: signals.clone(),
        authority,
        directory,
        rules: moves_rules,
        retention,
    };
    let bounds = Bounds {
        body_bytes: config.api.body_limit_bytes,
        time: Duration::from_secs(config.api.request_timeout_s),
    };
    let (app, _) = api::router(&state, bounds);
    let tls = api_tls(&config, &listeners, &served)?;
    let addresses = listeners.addresses().map_err(|source| RunError::Port {
        what: "local address",
        address: config.api.listen,
        source,
    })?;

    let stop = shutdown.child_token();
    let mut tasks: JoinSet<(&'static str, Result<(), RunError>)> = JoinSet::new();
    let Listeners { api: api_port, link: link_port, enrolment: enrolment_port } = listeners;
    let heard = link.progress();
    let token = stop.clone();
    tasks.spawn(async move {
        let served = link.run(link_port, enrolment_port, token).await;
        ("link", served.map_err(Into::into))
    });
    let token = stop.clone();
    tasks.spawn(async move {
        let address = addresses.api;
        let port = |source| RunError::Port { what: "api", address, source };
        ("api", api::serve::serve(api_port, app, tls, token).await.map_err(port))
    });
    let token = stop.clone();
    tasks.spawn(async move {
        writer.run(token).await;
        ("writer of reports", Ok(()))
    });
    let token = stop.clone();
    let period = Duration::from_secs(config.signup.retry_interval_s);
    tasks.spawn(async move {
        desk.keep_waiting(period, token).await;
        ("loop of waiting tenants", Ok(()))
    });
    let token = stop.clone();
    tasks.spawn(async move {
        driver.run(token).await;
        ("driver of moves", Ok(()))
    });
    let token = stop.clone();
    tasks.spawn(async move {
        evaluator.run(token).await;
        ("evaluation of tenants", Ok(()))
    });
    let token = stop.clone();
    tasks.spawn(async move {
        routing.run(token).await;
        ("routing", Ok(()))
    });
    tasks.spawn(pump(heard, progress, stop.clone()));
    let token = stop.clone();
    tasks.spawn(async move {
        recorder.run(token).await;
        ("recorder of usage", Ok(()))
    });
    let keeper = Keeper::new(store.clone(), config.records);
    let token = stop.clone();
    tasks.spawn(async move {
        tokio::join!(watch.run(token.clone()), keeper.run(token));
        ("watch over drains, and keeper of records", Ok(()))
    });
    let token = stop.clone();
    tasks.spawn(async move {
        rollup::keep(store, book, token).await;
        ("keeper of usage", Ok(()))
    });

    let file = config.state_dir.join("addresses.json");
    write_addresses(&file, &addresses)?;
    tracing::info!(api = %addresses.api, link = %addresses.link,
        enrolment = %addresses.enrolment, api_tls = addresses.api_tls, "ready");
    ready(&addresses);
    let outcome = end(tasks, &shutdown, &stop).await;
    if let Err(error) = std::fs::remove_file(&file) {
        tracing::debug!(file = %file.display(), %error, "the addresses stay behind");
    }
    outcome
}

/// Waits for the shutdown or the first part that ends by itself; then ends
/// the others.
async fn end(
    mut tasks: JoinSet<(&'static str, Result<(), RunError>)>,
    shutdown: &CancellationToken,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let first = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok((_, Err(error)))) => Err(error),
            Some(Ok((name, Ok(())))) if !shutdown.is_cancelled() => Err(RunError::Ended(name)),
            Some(Err(error)) => {
                tracing::error!(%error, "a task panicked");
                Err(RunError::Ended("a task"))
            }
            _ => Ok(()),
        },
    };
    stop.cancel();
    let rest = async {
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok((name, Err(error))) => tracing::warn!(name, %error, "ended with an error"),
                Ok((name, Ok(()))) => tracing::debug!(name, "ended"),
                Err(error) => tracing::error!(%error, "a task panicked"),
            }
        }
    };
    if tokio::time::timeout(DEADLINE, rest).await.is_err() {
        tracing::warn!("some parts did not end in time");
    }
    first
}

/// Hands the progress that agents report to the moves.
async fn pump(
    mut heard: broadcast::Receiver<crate::link::Progress>,
    progress: moves::Progress,
    stop: CancellationToken,
) -> (&'static str, Result<(), RunError>) {
    loop {
        let one = tokio::select! {
            () = stop.cancelled() => break,
            one = heard.recv() => one,
        };
        match one {
            Ok(one) => {
                let now = Timestamp::now();
                if let Err(error) = progress.record(one.node, one.command, &one.progress, now).await
                {
                    tracing::debug!(%error, "a figure of progress was dropped");
                }
            }
            // Only figures: the next one says more.
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "figures of progress were missed");
            }
            Err(broadcast::error::RecvError::Closed) => {
                stop.cancelled().await;
                break;
            }
        }
    }
    ("progress of moves", Ok(()))
}

/// TLS for the API, where its address is not loopback.
fn api_tls(
    config: &Config,
    listeners: &Listeners,
    served: &Served,
) -> Result<Option<watch::Receiver<Arc<ServerConfig>>>, RunError> {
    let local = listeners.api.local_addr().map_err(|source| RunError::Port {
        what: "api.listen",
        address: config.api.listen,
        source,
    })?;
    if api::serve::is_loopback(local) {
        return Ok(None);
    }
    let (Some(chain), Some(key)) = (&config.api.certificate_file, &config.api.key_file) else {
        return Ok(Some(served.open()));
    };
    let wrong = |path: &Path, problem: String| RunError::File { path: path.into(), problem };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(chain, error.to_string()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let mut tls = ServerConfig::builder_with_provider(webhost_proto::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key_der))
        .map_err(|error| wrong(chain, error.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The sender may go: a receiver keeps the last value.
    let (_sender, receiver) = watch::channel(Arc::new(tls));
    Ok(Some(receiver))
}

/// Writes the addresses so that a reader sees all of them or no file.
fn write_addresses(path: &Path, addresses: &Addresses) -> Result<(), RunError> {
    let wrong =
        |error: std::io::Error| RunError::File { path: path.into(), problem: error.to_string() };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(wrong)?;
    }
    let fresh = path.with_extension("json.new");
    let text = serde_json::to_string_pretty(addresses)
        .map_err(|error| wrong(std::io::Error::other(error)))?;
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path)).map_err(wrong)
}
