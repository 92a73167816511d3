//! The agent's end of the link: dials, says Hello, reports, receives.
//!
//! Theory of operation. [`Link::run`] keeps one session with the coordinator
//! at a time, for as long as the agent lives. Reports come in from the
//! collectors at any time and wait in the [`spool`]; a session sends them, at
//! most a window of them unacknowledged. Commands go to the tracker, whose
//! replies wait for a session. A TLS 1.3 client learns only at the first
//! answer that its certificate was refused, so the agent counts as connected
//! when the Welcome is there and not before.
//!
//! **Invariant:** no counter that reached the spool is lost or counted twice,
//! however often the connection breaks or this process ends.
//!
//! **Invariant:** reading never waits for writing: a session that can't send
//! still takes what comes in, so two full directions can't block each other.

pub mod report;

pub mod merge;

pub mod columns;

pub mod spool;

mod epoch;

pub mod backoff;

pub mod status;

pub mod channel;

mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use webhost_proto::wire;

use self::report::CollectedReport;
use self::session::Ended;
use self::spool::Spool;
pub use self::status::{LinkState, LinkStatus, Orders};
use crate::command::Tracker;
use crate::identity::StoredIdentity;

/// Reports between the collectors and the link. The link takes them at once,
/// also while it is down; a full channel makes collectors wait, and they
/// measure a longer interval then.
const INCOMING: usize = 8;

/// A session that lived this long was a success: the next attempt is soon.
const SETTLED: Duration = Duration::from_secs(20);

/// Where and as whom to dial.
#[derive(Clone, Debug)]
pub struct Options {
    /// The coordinator's link, "host:port".
    pub address: String,
    /// Who this agent is.
    pub identity: StoredIdentity,
    /// Where the report epoch and the spool are kept.
    pub state_dir: PathBuf,
    /// What the spool may take there; see [`spool::DEFAULT_BYTES`].
    pub spool_bytes: u64,
}

/// What the Hello says of this machine; asked for at every session.
#[derive(Clone, Debug, Default)]
pub struct HelloFacts {
    /// Changes with every boot of the machine.
    pub boot_id: String,
    /// "containers", "postgres", "app", "move".
    pub capabilities: Vec<String>,
    /// What was measured.
    pub capacity: wire::Capacity,
    /// "host:port", or empty without a tunnel.
    pub tunnel_address: String,
}

/// Gives the facts when a session begins.
pub type HelloSource = Arc<dyn Fn() -> HelloFacts + Send + Sync>;

/// The rest of the agent's ends.
#[derive(Clone, Debug)]
pub struct Handles {
    /// For the collectors.
    pub reports: mpsc::Sender<CollectedReport>,
    /// For the status command.
    pub status: watch::Receiver<LinkStatus>,
    /// For whoever follows the coordinator's wishes.
    pub orders: watch::Receiver<Orders>,
}

/// The link could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The identity makes no TLS configuration.
    #[error(transparent)]
    Tls(#[from] webhost_proto::tls::TlsError),
    /// The report epoch can't be kept.
    #[error("report epoch in {path}: {source}")]
    Epoch {
        /// The state directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The link's own end; [`run`](Self::run) it as a task.
pub struct Link {
    options: Options,
    client: Arc<rustls::ClientConfig>,
    hello: HelloSource,
    spool: Spool,
    /// A sync of the spool that runs beside all this, one at a time.
    sync: Option<JoinHandle<std::io::Result<()>>>,
    began: tokio::time::Instant,
    reports: mpsc::Receiver<CollectedReport>,
    tracker: Tracker,
    replies: mpsc::Receiver<wire::CommandReply>,
    status: watch::Sender<LinkStatus>,
    orders: watch::Sender<Orders>,
}

impl Link {
    /// A link that is not dialled yet. `tracker` and `replies` come from
    /// [`Tracker::new`].
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(
        options: Options,
        hello: HelloSource,
        tracker: Tracker,
        replies: mpsc::Receiver<wire::CommandReply>,
    ) -> Result<(Self, Handles), LinkError> {
        let client = options.identity.link_client()?;
        let epoch = epoch::next(&options.state_dir, now_us())
            .map_err(|source| LinkError::Epoch { path: options.state_dir.clone(), source })?;
        let (reports, incoming) = mpsc::channel(INCOMING);
        let status = watch::Sender::new(LinkStatus {
            state: LinkState::Waiting,
            since_us: now_us(),
            address: options.address.clone(),
            node: options.identity.node,
            node_name: options.identity.node_name.clone(),
            certificate_not_after_s: options.identity.tls.not_after_s(),
            last_error: None,
            sessions: 0,
            spooled: 0,
            spool_bytes: 0,
            spool_oldest_us: None,
            spool_problem: None,
            last_ack_us: None,
            clock: None,
        });
        let orders = watch::Sender::new(Orders::default());
        let handles = Handles { reports, status: status.subscribe(), orders: orders.subscribe() };
        let node = options.identity.node;
        let spool = Spool::of(&options.state_dir, node, options.spool_bytes, epoch);
        let link = Self {
            options,
            client,
            hello,
            spool,
            sync: None,
            began: tokio::time::Instant::now(),
            reports: incoming,
            tracker,
            replies,
            status,
            orders,
        };
        link.show_spool();
        Ok((link, handles))
    }

    /// Keeps a session until `shutdown`. Never gives up: what is wrong is in
    /// the status and the log, and the operator's to mend.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep_sessions() => {}
        }
        // What was collected last goes to the disk with the rest.
        while let Ok(report) = self.reports.try_recv() {
            self.keep(report);
        }
        if let Some(sync) = self.sync.take() {
            let done = finished(sync.await);
            self.spool.synced(&done, self.now_ms());
        }
    }

    async fn keep_sessions(&mut self) {
        let mut failures = 0_u32;
        loop {
            let began = tokio::time::Instant::now();
            let ended = self.session().await;
            self.spool.rest();
            let chance = rand::rng().random_range(0..=1000);
            failures = if began.elapsed() >= SETTLED { 1 } else { failures.saturating_add(1) };
            let (why, pause) = match ended {
                Ended::Goodbye { reason, retry_after } => {
                    (reason, backoff::after_goodbye(retry_after, chance))
                }
                Ended::Broken(why) => (why, backoff::after_failure(failures, chance)),
            };
            warn!(why, retry_in_ms = pause.as_millis(), "no session with the coordinator");
            self.set_state(LinkState::Waiting, Some(why));
            self.take_reports_while(tokio::time::sleep(pause)).await;
        }
    }

    /// Reports are taken at all times, so that collectors never wait for the
    /// network.
    async fn take_reports_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            self.begin_sync();
            tokio::select! {
                done = &mut work => return done,
                Some(report) = self.reports.recv() => self.keep(report),
                done = synced(&mut self.sync) => self.end_sync(&done),
            }
        }
    }

    fn keep(&mut self, report: CollectedReport) {
        self.spool.push(report, self.now_ms());
        self.show_spool();
    }

    /// Milliseconds since this link was made.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn show_spool(&self) {
        let spool = &self.spool;
        self.status.send_modify(|status| {
            status.spooled = spool.len();
            status.spool_bytes = spool.bytes();
            status.spool_oldest_us = spool.oldest_us();
            status.spool_problem = spool.problem();
        });
    }

    /// The disk is waited for where nobody else waits.
    fn begin_sync(&mut self) {
        if self.sync.is_none()
            && let Some(job) = self.spool.sync(self.now_ms())
        {
            self.sync = Some(tokio::task::spawn_blocking(move || job.run()));
        }
    }

    fn end_sync(&mut self, done: &std::io::Result<()>) {
        self.spool.synced(done, self.now_ms());
        self.show_spool();
    }

    fn set_state(&self, state: LinkState, error: Option<String>) {
        self.status.send_modify(|status| {
            if status.state != state {
                status.state = state;
                status.since_us = now_us();
            }
            if error.is_some() {
                status.last_error = error;
            }
        });
    }

    fn connected(&self, welcome: &wire::Welcome) {
        info!(
            coordinator = self.options.address,
            version = welcome.coordinator_version,
            "connected to the coordinator"
        );
        self.set_state(LinkState::Connected, None);
        self.status.send_modify(|status| {
            status.sessions += 1;
            status.last_error = None;
        });
        self.tracker.set_clock(welcome.clock_us);
        let interval = welcome.report_interval_ms;
        self.orders.send_modify(|orders| {
            if interval > 0 {
                orders.report_interval_ms = Some(interval);
            }
        });
        self.expect(welcome.tenants.as_ref());
    }

    fn expect(&self, tenants: Option<&wire::TenantSet>) {
        let Some(tenants) = tenants else { return };
        let expected = tenants
            .tenants
            .iter()
            .filter_map(|tenant| {
                let id = webhost_proto::ids::TenantId::from_wire(&tenant.tenant_id).ok()?;
                Some((id, tenant.slug.clone()))
            })
            .collect();
        self.orders.send_modify(|orders| orders.expected = expected);
    }
}

/// Waits for the running sync, for ever where there is none. Nothing is lost
/// when it is dropped.
async fn synced(sync: &mut Option<JoinHandle<std::io::Result<()>>>) -> std::io::Result<()> {
    let Some(running) = sync else { return std::future::pending().await };
    let done = finished(running.await);
    *sync = None;
    done
}

fn finished(done: Result<std::io::Result<()>, tokio::task::JoinError>) -> std::io::Result<()> {
    done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
