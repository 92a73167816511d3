//! The shell that reports come in through: it implements the link's
//! [`NodeEvents`] on the store and the book.
//!
//! One writer task takes whatever reports are waiting, up to a bound, and
//! writes their cursors and roll-ups in one transaction, so that many agents
//! cost few commits. A session waits for its report's commit before it reads
//! the next one: that is the back-pressure, and it bounds what one agent holds
//! here to one report.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire;

use super::book::Book;
use super::rollup::hourly;
use super::sample::{Dictionary, Sample, decode};
use crate::link::{NodeEvents, Refusal, Signal};
use crate::store::audit::{self, Entry};
use crate::store::placements::{self, PlacementState};
use crate::store::usage::{self, Cursor};
use crate::store::{Store, StoreError, nodes, tenants};

/// The most reports that wait for the writer; more sessions wait for room.
const QUEUE: usize = 256;
/// The most reports that one transaction takes.
const BATCH: usize = 64;
/// The longest interval that one report may cover.
const MAX_INTERVAL_MS: u32 = 24 * 3600 * 1000;
/// How old a report may be and still count in its own hour.
const MAX_AGE_US: i64 = 7 * 24 * 3_600_000_000;

/// One report on its way into the store.
struct Pending {
    node: NodeId,
    at_us: i64,
    samples: Vec<(TenantId, Sample)>,
    /// As it came.
    report: wire::Report,
    done: oneshot::Sender<Result<Applied, StoreError>>,
}

/// What the store made of a report.
enum Applied {
    /// Counted, here and in the book.
    Fresh,
    /// It was applied before.
    Replayed,
}

/// Takes in what agents say. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    dictionaries: Arc<Mutex<HashMap<NodeId, Arc<Dictionary>>>>,
    writer: mpsc::Sender<Pending>,
    fleet_changed: Signal,
}

/// The writer's end; run it as a task until the last [`Ingest`] is gone.
pub struct Writer {
    store: Store,
    book: Arc<Book>,
    queue: mpsc::Receiver<Pending>,
    /// Whom an alarm was raised about already.
    alarmed: HashSet<(NodeId, TenantId)>,
}

impl Ingest {
    /// Both ends. `fleet_changed` is raised when a node becomes usable.
    pub fn new(store: Store, book: Arc<Book>, fleet_changed: Signal) -> (Self, Writer) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let writer = Writer { store: store.clone(), book, queue, alarmed: HashSet::new() };
        let dictionaries = Arc::default();
        (Self { store, dictionaries, writer: sender, fleet_changed }, writer)
    }

    fn dictionary(&self, node: NodeId) -> Option<Arc<Dictionary>> {
        let held = self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&node).cloned()
    }

    fn hold(&self, node: NodeId, dictionary: Option<Arc<Dictionary>>) {
        let mut held = self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner);
        match dictionary {
            Some(dictionary) => held.insert(node, dictionary),
            None => held.remove(&node),
        };
    }
}

fn unavailable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "the state database refused; the agent tries again");
    Refusal::Unavailable("the coordinator's state database is not available".into())
}

#[tonic::async_trait]
impl NodeEvents for Ingest {
    async fn connected(
        &self,
        node: NodeId,
        hello: &wire::Hello,
    ) -> Result<Vec<(TenantId, String)>, Refusal> {
        let client = self.store.client().await.map_err(unavailable)?;
        let known = nodes::connected(&**client, node, hello).await.map_err(unavailable)?;
        let Some(known) = known else {
            return Err(Refusal::Forbidden(format!("node {node} is revoked or unknown")));
        };
        // The first report of a session carries the dictionary.
        self.hold(node, None);
        self.fleet_changed.notify();
        tracing::info!(node = %known.name, state = %known.state, "node connected");
        placements::expected_on(&**client, node).await.map_err(unavailable)
    }

    async fn report(&self, node: NodeId, report: wire::Report) -> Result<wire::ReportAck, Refusal> {
        if report.interval_ms > MAX_INTERVAL_MS {
            return Err(Refusal::Invalid(format!(
                "interval_ms {} is longer than a day",
                report.interval_ms
            )));
        }
        if let Some(wire) = &report.dictionary {
            let dictionary = Dictionary::from_wire(wire).map_err(Refusal::Invalid)?;
            self.hold(node, Some(Arc::new(dictionary)));
        }
        let dictionary = self.dictionary(node).filter(|d| d.version == report.dictionary_version);
        let Some(dictionary) = dictionary else {
            let client = self.store.client().await.map_err(unavailable)?;
            let cursor = usage::cursor(&**client, node).await.map_err(unavailable)?;
            let applied = cursor.filter(|cursor| cursor.epoch == report.epoch);
            return Ok(wire::ReportAck {
                epoch: report.epoch,
                sequence: applied.map_or(0, |cursor| cursor.sequence),
                need_dictionary: true,
            });
        };
        let columns = report.columns.iter().chain(&report.more_columns);
        let samples = decode(columns, &dictionary).map_err(Refusal::Invalid)?;
        let now_us = Timestamp::now().as_microsecond();
        let at_us = report.collected_at_us.clamp(now_us - MAX_AGE_US, now_us);
        let ack = wire::ReportAck {
            epoch: report.epoch,
            sequence: report.sequence,
            need_dictionary: false,
        };
        let samples: Vec<(TenantId, Sample)> =
            dictionary.tenants.iter().copied().zip(samples).collect();
        let (done, outcome) = oneshot::channel();
        let pending = Pending { node, at_us, samples, report, done };
        let gone = || Refusal::Unavailable("the coordinator is shutting down".into());
        self.writer.send(pending).await.map_err(|_| gone())?;
        match outcome.await.map_err(|_| gone())?.map_err(unavailable)? {
            Applied::Fresh => {}
            Applied::Replayed => tracing::debug!(%node, ?ack, "a report came twice"),
        }
        Ok(ack)
    }

    async fn disconnected(&self, node: NodeId) {
        self.hold(node, None);
        let noted = async {
            let client = self.store.client().await?;
            nodes::disconnected(&**client, node).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%node, %error, "the end of the session was not noted");
        }
    }
}

impl Writer {
    /// Writes until every [`Ingest`] is gone or `shutdown` is told; what
    /// waits then is not acknowledged, so its agent sends it again.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let received = tokio::select! {
                () = shutdown.cancelled() => return,
                received = self.queue.recv_many(&mut batch, BATCH) => received,
            };
            if received == 0 {
                return;
            }
            self.write_all(std::mem::take(&mut batch)).await;
        }
    }

    async fn write_all(&mut self, batch: Vec<Pending>) {
        // A statement can't advance one cursor twice, so a node's second
        // report waits for the next round.
        let mut rounds: Vec<Vec<Pending>> = Vec::new();
        for pending in batch {
            let free = rounds.iter().position(|round| round.iter().all(|p| p.node != pending.node));
            match free {
                Some(at) => rounds[at].push(pending),
                None => rounds.push(vec![pending]),
            }
        }
        for round in rounds {
            match self.write(&round).await {
                Ok(applied) => answer(round, applied),
                Err(error) if round.len() == 1 => {
                    if let Some(pending) = round.into_iter().next() {
                        // The session may have ended meanwhile.
                        let _session_gone = pending.done.send(Err(error));
                    }
                }
                Err(error) => {
                    // One report that can't be written must not hold up the
                    // others: each gets a transaction of its own.
                    tracing::warn!(%error, reports = round.len(), "a batch failed; one by one");
                    for pending in round {
                        let one = [pending];
                        let outcome = self.write(&one).await;
                        let [pending] = one;
                        let outcome =
                            outcome.map(|mut applied| applied.pop().unwrap_or(Applied::Replayed));
                        let _session_gone = pending.done.send(outcome);
                    }
                }
            }
        }
    }

    /// Writes one batch, each node at most once. When it returns, the cursors,
    /// the roll-ups, what became active and the alarms are committed, and the
    /// book knows what is fresh: here, because a session that ends meanwhile
    /// would not tell it, and the repetition of the report is none.
    async fn write(&mut self, batch: &[Pending]) -> Result<Vec<Applied>, StoreError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let cursor =
            |report: &wire::Report| Cursor { epoch: report.epoch, sequence: report.sequence };
        let cursors: Vec<_> = batch.iter().map(|p| (p.node, cursor(&p.report))).collect();
        let fresh: HashSet<NodeId> = usage::advance(&tx, &cursors).await?.into_iter().collect();
        let ids: Vec<Uuid> = fresh.iter().map(|node| node.0).collect();
        nodes::seen(&tx, &ids).await?;
        let mut placed: HashMap<(NodeId, TenantId), PlacementState> = HashMap::new();
        for placement in placements::open_on(&tx, &ids).await? {
            placed.insert((placement.node_id, placement.tenant_id), placement.state);
        }
        let mut rows = BTreeMap::new();
        let mut counted = Vec::with_capacity(batch.len());
        let mut raised = Vec::new();
        for pending in batch {
            if !fresh.contains(&pending.node) {
                counted.push(None);
                continue;
            }
            let mut active = Vec::new();
            let mut used = Vec::new();
            for (tenant, sample) in &pending.samples {
                match placed.get(&(pending.node, *tenant)) {
                    Some(PlacementState::Active) => {}
                    Some(PlacementState::Reserved) => used.push(tenant.0),
                    Some(_) => continue,
                    None => {
                        if !self.alarmed.contains(&(pending.node, *tenant)) {
                            alarm(&tx, pending.node, *tenant).await?;
                            raised.push((pending.node, *tenant));
                        }
                        continue;
                    }
                }
                active.push((*tenant, sample.clone()));
                let (key, row) = hourly(*tenant, pending.node, sample, pending.at_us);
                rows.insert(key, row);
            }
            if !used.is_empty() {
                activate(&tx, pending.node, &used).await?;
            }
            counted.push(Some(active));
        }
        usage::add(&tx, &rows.into_iter().collect::<Vec<_>>()).await?;
        tx.commit().await?;
        self.alarmed.extend(raised);
        let mut applied = Vec::with_capacity(batch.len());
        for (Pending { node, at_us, samples, report, .. }, counted) in batch.iter().zip(counted) {
            applied.push(match counted {
                None => Applied::Replayed,
                Some(active) => {
                    let interval_us = u64::from(report.interval_ms) * 1000;
                    self.book.apply(*node, report, &active, *at_us, interval_us);
                    if !report.minutes.is_empty() {
                        self.book.apply_minutes(minutes(report, samples, &active), *at_us);
                    }
                    Applied::Fresh
                }
            });
        }
        Ok(applied)
    }
}

/// What a report tells by the minute of the tenants that are `active` on its
/// node; `samples` stand in the dictionary's order.
fn minutes<'a>(
    report: &'a wire::Report,
    samples: &'a [(TenantId, Sample)],
    active: &[(TenantId, Sample)],
) -> impl Iterator<Item = (TenantId, &'a wire::TenantMinute)> {
    let active: HashSet<TenantId> = active.iter().map(|(tenant, _)| *tenant).collect();
    report.minutes.iter().filter_map(move |told| {
        let (tenant, _) = samples.get(told.tenant as usize)?;
        active.contains(tenant).then_some((*tenant, told))
    })
}

fn answer(round: Vec<Pending>, applied: Vec<Applied>) {
    for (pending, applied) in round.into_iter().zip(applied) {
        // The session may have ended meanwhile; the report counts all the
        // same, and its repetition will be a replay.
        let _session_gone = pending.done.send(Ok(applied));
    }
}

/// The application uses what was reserved: the tenants live there now.
async fn activate(
    tx: &tokio_postgres::Transaction<'_>,
    node: NodeId,
    used: &[Uuid],
) -> Result<(), StoreError> {
    let placed = placements::activate(tx, node, used).await?;
    tenants::activate(tx, &placed).await?;
    for tenant in placed {
        audit::record(
            tx,
            &Entry {
                actor: "system",
                action: "tenant.active",
                subject: "tenant",
                subject_id: tenant.to_string(),
                detail: json!({ "node": node, "why": "the node's agent reports it" }),
            },
        )
        .await?;
        tracing::info!(%tenant, %node, "tenant active");
    }
    Ok(())
}

/// One alarm for a tenant that a node speaks of although it is not placed
/// there, over restarts too.
async fn alarm(
    tx: &tokio_postgres::Transaction<'_>,
    node: NodeId,
    tenant: TenantId,
) -> Result<(), StoreError> {
    let known = tenants::get(tx, tenant).await?;
    let actor = format!("node {node}");
    let action = "node.unexpected_tenant";
    if audit::exists(tx, &actor, action, &tenant.to_string()).await? {
        return Ok(());
    }
    let why = match &known {
        None => "nobody knows this tenant: an orphan, or a leak",
        Some(_) => "the tenant is not placed on this node",
    };
    tracing::warn!(%node, %tenant, why, "a node reports a tenant that is not its own");
    audit::record(
        tx,
        &Entry {
            actor: &actor,
            action,
            subject: "tenant",
            subject_id: tenant.to_string(),
            detail: json!({ "node": node, "why": why }),
        },
    )
    .await
}
