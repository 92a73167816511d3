//! The coordinator's end of a link, which takes every report and keeps only
//! how much was in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_coordinator::decide::plans::NodeKind;
use webhost_coordinator::link::authority::{Authority, Leaves};
use webhost_coordinator::link::sealing::SealingKey;
use webhost_coordinator::link::{
    Link, LinkSettings, NodeEvents, Refusal, Served, Signals, create_join_token,
};
use webhost_coordinator::store::join_tokens::Promise;
use webhost_coordinator::store::{Store, testing};
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire;

/// How much was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub reports: u64,
    /// Values of tenants, one for each tenant and metric that had one.
    pub values: u64,
    /// Columns of the latest report.
    pub columns: u64,
}

#[derive(Default)]
struct Counts {
    reports: AtomicU64,
    values: AtomicU64,
    columns: AtomicU64,
    nodes: Mutex<BTreeMap<NodeId, Told>>,
}

/// What one node reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub reports: u64,
    /// When the oldest of them was made, microseconds since the Unix epoch.
    pub oldest_us: i64,
}

struct Counting(Arc<Counts>);

#[tonic::async_trait]
impl NodeEvents for Counting {
    async fn connected(
        &self,
        _node: NodeId,
        _hello: &wire::Hello,
    ) -> Result<Vec<(TenantId, String)>, Refusal> {
        Ok(Vec::new())
    }

    async fn report(&self, node: NodeId, report: wire::Report) -> Result<wire::ReportAck, Refusal> {
        let values: usize = report.columns.iter().map(|column| column.values.len()).sum();
        self.0.columns.store(report.columns.len() as u64, Ordering::Relaxed);
        self.0.values.fetch_add(values as u64, Ordering::Relaxed);
        self.0.reports.fetch_add(1, Ordering::Relaxed);
        let made_us = report.collected_at_us;
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let told = nodes.entry(node).or_insert(Told { reports: 0, oldest_us: made_us });
        told.reports += 1;
        told.oldest_us = told.oldest_us.min(made_us);
        Ok(wire::ReportAck {
            epoch: report.epoch,
            sequence: report.sequence,
            need_dictionary: false,
        })
    }

    async fn disconnected(&self, _node: NodeId) {}
}

/// A link that runs; told to end when dropped.
pub struct Sink {
    pub link: SocketAddr,
    pub enrolment: SocketAddr,
    store: Store,
    authority: Arc<Authority>,
    counts: Arc<Counts>,
    stop: CancellationToken,
    _tasks: TaskTracker,
}

impl Sink {
    /// Serves on two free ports, over a throwaway database, and asks agents
    /// for a report a second.
    ///
    /// # Errors
    /// When a port, a certificate or the database is not to be had.
    pub async fn start() -> anyhow::Result<Self> {
        let store = testing::database().await;
        let key = SealingKey::generate()?;
        let authority = Arc::new(Authority::load_or_create(&store, &key, Leaves::default()).await?);
        let (links, enrolments) =
            (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (link, enrolment) = (links.local_addr()?, enrolments.local_addr()?);
        let served = Served::new(authority.clone(), vec!["127.0.0.1".into()])?;
        let counts = Arc::<Counts>::default();
        let settings = LinkSettings { report_interval_ms: 1_000, ..LinkSettings::default() };
        let events = Arc::new(Counting(Arc::clone(&counts)));
        let server = Link::new(store.clone(), served, events, Signals::default(), settings);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        tasks.spawn(async move {
            if let Err(error) = server.run(links, enrolments, stopped).await {
                tracing::error!(%error, "the link ended");
            }
        });
        Ok(Self { link, enrolment, store, authority, counts, stop, _tasks: tasks })
    }

    /// A join token for a node of this name.
    ///
    /// # Errors
    /// As the database refuses.
    pub async fn token(&self, name: &str) -> anyhow::Result<String> {
        let promise = Promise {
            node_name: name.into(),
            kind: NodeKind::Shared,
            shape: "ax52".into(),
            region: "fra".into(),
        };
        let lifetime = Duration::from_secs(60);
        let token =
            create_join_token(&self.store, &self.authority, &promise, lifetime, "bench").await?;
        Ok(token.expose().to_owned())
    }

    /// By node, what came in so far.
    pub fn nodes(&self) -> BTreeMap<NodeId, Told> {
        self.counts.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came in so far.
    pub fn heard(&self) -> Heard {
        Heard {
            reports: self.counts.reports.load(Ordering::Relaxed),
            values: self.counts.values.load(Ordering::Relaxed),
            columns: self.counts.columns.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
