//! A coordinator's link over a real database, and agents that dial it, all in
//! one process on loopback.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_agent::command::{CommandName, Journal, Registry, Tracker};
use webhost_agent::identity::{EnrolError, Enrolled, JoinToken, StoredIdentity, enrol};
use webhost_agent::link::report::{CollectedColumn, CollectedReport};
use webhost_agent::link::{Handles, HelloFacts, Link as AgentLink, LinkState, LinkStatus, Options};
use webhost_coordinator::decide::plans::NodeKind;
use webhost_coordinator::link::authority::{Authority, Leaves};
use webhost_coordinator::link::sealing::SealingKey;
use webhost_coordinator::link::{
    Link, LinkSettings, NodeEvents, Refusal, Served, Signals, create_join_token,
};
use webhost_coordinator::store::join_tokens::Promise;
use webhost_coordinator::store::{Store, testing};
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire::{self, Basis, Metric};

/// A hang must end a test; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the coordinator's upper rooms were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub connected: HashMap<NodeId, usize>,
    pub disconnected: HashMap<NodeId, usize>,
    /// (epoch, sequence) applied last.
    pub cursors: HashMap<NodeId, (u64, u64)>,
    /// API calls of all tenants, by node.
    pub calls: HashMap<NodeId, u64>,
    pub reports: usize,
    /// The latest.
    pub last: Option<wire::Report>,
}

/// Remembers what it hears.
pub(crate) struct Recording(pub watch::Sender<Heard>);

#[tonic::async_trait]
impl NodeEvents for Recording {
    async fn connected(
        &self,
        node: NodeId,
        _hello: &wire::Hello,
    ) -> Result<Vec<(TenantId, String)>, Refusal> {
        self.0.send_modify(|heard| *heard.connected.entry(node).or_default() += 1);
        Ok(vec![(TenantId(uuid::Uuid::from_u128(1)), "one".into())])
    }

    async fn report(&self, node: NodeId, report: wire::Report) -> Result<wire::ReportAck, Refusal> {
        self.0.send_modify(|heard| {
            heard.reports += 1;
            heard.last = Some(report.clone());
            let at = (report.epoch, report.sequence);
            let cursor = heard.cursors.entry(node).or_default();
            if at > *cursor {
                *cursor = at;
                let calls: u64 = report.columns.iter().flat_map(|column| &column.values).sum();
                *heard.calls.entry(node).or_default() += calls;
            }
        });
        Ok(wire::ReportAck {
            epoch: report.epoch,
            sequence: report.sequence,
            need_dictionary: false,
        })
    }

    async fn disconnected(&self, node: NodeId) {
        self.0.send_modify(|heard| *heard.disconnected.entry(node).or_default() += 1);
    }
}

/// A coordinator's link, running.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) authority: Arc<Authority>,
    pub(crate) signals: Signals,
    pub(crate) heard: watch::Sender<Heard>,
    pub(crate) link: String,
    pub(crate) enrolment: String,
    settings: LinkSettings,
    stop: CancellationToken,
    tasks: TaskTracker,
}

pub(crate) fn settings() -> LinkSettings {
    LinkSettings { recheck: Duration::from_millis(100), ..LinkSettings::default() }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(settings(), Leaves::default()).await
    }

    pub(crate) async fn with(settings: LinkSettings, leaves: Leaves) -> Self {
        let store = testing::database().await;
        let key = SealingKey::generate().expect("a key");
        let authority =
            Authority::load_or_create(&store, &key, leaves).await.expect("an authority");
        let mut world = Self {
            store,
            authority: Arc::new(authority),
            signals: Signals::default(),
            heard: watch::Sender::default(),
            link: "127.0.0.1:0".into(),
            enrolment: "127.0.0.1:0".into(),
            settings,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        world.serve().await;
        world
    }

    /// Starts serving, on the ports it had if it had any.
    pub(crate) async fn serve(&mut self) {
        let link = TcpListener::bind(&self.link).await.expect("binds");
        let enrolment = TcpListener::bind(&self.enrolment).await.expect("binds");
        self.link = link.local_addr().expect("an address").to_string();
        self.enrolment = enrolment.local_addr().expect("an address").to_string();
        let served = Served::new(self.authority.clone(), vec!["localhost".into()]);
        let served = served.expect("a certificate");
        let events = Arc::new(Recording(self.heard.clone()));
        let server =
            Link::new(self.store.clone(), served, events, self.signals.clone(), self.settings);
        self.stop = CancellationToken::new();
        let stop = self.stop.clone();
        self.tasks.spawn(async move { server.run(link, enrolment, stop).await.expect("serves") });
    }

    /// Stops serving and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        within(self.tasks.wait()).await;
        self.tasks = TaskTracker::new();
    }

    pub(crate) async fn token(&self, name: &str, lifetime: Duration) -> JoinToken {
        let promise = Promise {
            node_name: name.into(),
            kind: NodeKind::Shared,
            shape: "ax52".into(),
            region: "eu".into(),
        };
        let token = create_join_token(&self.store, &self.authority, &promise, lifetime, "operator");
        JoinToken::parse(token.await.expect("a token").expose()).expect("its own form")
    }

    pub(crate) async fn enrol(
        &self,
        dir: &Path,
        token: &JoinToken,
    ) -> Result<Enrolled, EnrolError> {
        enrol(&self.enrolment, token, dir, false).await
    }

    /// A new machine, enrolled.
    pub(crate) async fn machine(&self, name: &str) -> Machine {
        let dir = tempfile::tempdir().expect("a directory");
        let token = self.token(name, Duration::from_secs(60)).await;
        self.enrol(dir.path(), &token).await.expect("enrols");
        Machine { identity: StoredIdentity::load(dir.path()).expect("an identity"), dir }
    }

    pub(crate) async fn hears(&self, what: impl FnMut(&Heard) -> bool) -> Heard {
        let mut heard = self.heard.subscribe();
        within(heard.wait_for(what)).await.expect("the recorder lives").clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One enrolled machine.
pub(crate) struct Machine {
    pub(crate) identity: StoredIdentity,
    pub(crate) dir: TempDir,
}

impl Machine {
    pub(crate) fn node(&self) -> NodeId {
        self.identity.node
    }

    /// Starts an agent on it.
    pub(crate) fn agent(&self, address: &str, registry: Registry) -> Agent {
        let stop = CancellationToken::new();
        let journal = Journal::open(self.dir.path()).expect("a journal");
        let (tracker, replies) = Tracker::new(registry, journal, stop.clone());
        let options = Options {
            address: address.into(),
            identity: self.identity.clone(),
            state_dir: self.dir.path().into(),
            spool_bytes: 1 << 20,
        };
        let facts = Arc::new(|| HelloFacts { boot_id: "boot".into(), ..HelloFacts::default() });
        let (link, handles) =
            AgentLink::new(options, facts, tracker.clone(), replies).expect("a link");
        let tasks = TaskTracker::new();
        tasks.spawn(link.run(stop.clone()));
        Agent { handles, tracker, stop, tasks }
    }
}

/// One running agent.
pub(crate) struct Agent {
    pub(crate) handles: Handles,
    pub(crate) tracker: Tracker,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Agent {
    pub(crate) async fn is(&mut self, what: impl FnMut(&LinkStatus) -> bool) -> LinkStatus {
        within(self.handles.status.wait_for(what)).await.expect("the link lives").clone()
    }

    pub(crate) async fn connected(&mut self) {
        self.is(|status| status.state == LinkState::Connected).await;
    }

    pub(crate) async fn report(&self, calls: u64) {
        self.handles.reports.send(report(calls)).await.expect("the link lives");
    }

    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        within(self.tasks.wait()).await;
        self.tracker.wait().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn report(calls: u64) -> CollectedReport {
    CollectedReport {
        collected_at_us: 1,
        interval_ms: 5_000,
        tenants: vec![(TenantId(uuid::Uuid::from_u128(1)), "one".into())],
        columns: vec![CollectedColumn {
            metric: Metric::ApiCalls,
            basis: Basis::Measured,
            bound: 0,
            values: vec![Some(calls)],
        }],
        ..CollectedReport::default()
    }
}

pub(crate) fn handler(
    name: CommandName,
    handler: Arc<dyn webhost_agent::command::Handler>,
) -> Registry {
    Registry::default().with(name, handler)
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("within patience")
}
