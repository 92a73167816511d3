//! The agent's side of the mover: starts it, restarts it, and remembers.
//!
//! Before a child starts, the move's order and step are durable. A child that
//! dies without an answer is restarted within a second and given its step
//! again; it reads the fence rows first, so nothing depends on where it died.
//! After a restart of the agent every move that was left in its cut-over is
//! recovered at once, without waiting for the coordinator.

mod process;
mod record;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::{MoveId, NodeId, TenantId};
use webhost_proto::wire::{self, command, command_reply};

use super::catalog::Rules;
use super::child::{Line, Login, Order, Reach};
use super::durable::DurableError;
use super::error::Kind;
use super::spec::{Done, Progress, Secret, Spec, Step};
use super::tunnel::{Ticket, Tickets, TunnelIdentity};
use crate::command::Handler;
use record::{Record, Records};

/// Gives the node's current certificate and key; asked before each child, so
/// that a renewed one is used.
pub type Identify = Arc<dyn Fn() -> Result<TunnelIdentity, String> + Send + Sync>;

/// How a child reaches the target.
#[derive(Clone)]
pub enum Way {
    Tunnel(Identify),
    /// For tests, and two databases beside one agent.
    Direct(Login),
}

/// What a supervisor needs.
pub struct Setup {
    /// This node; a move from elsewhere is refused.
    pub node: NodeId,
    pub state_dir: PathBuf,
    /// The agent's own binary.
    pub program: PathBuf,
    /// What comes before the command's words, in tests.
    pub arguments: Vec<String>,
    /// For the child alone; the agent's own environment is passed on too.
    pub environment: Vec<(String, String)>,
    /// None when this node has no tenants' database, or moves are disabled:
    /// then every step is refused.
    pub database: Option<Login>,
    pub rules: Rules,
    /// 0 is unlimited; the order can only be slower.
    pub max_rows_per_second: u64,
    pub way: Way,
    /// Where the tunnel listens, for others; none when this node has none.
    pub tunnel_address: Option<String>,
    pub tickets: Arc<Tickets>,
    pub copy_part_pages: Option<u32>,
    pub shutdown: CancellationToken,
}

/// A move as the status shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MoveStatus {
    pub move_id: MoveId,
    pub tenant: TenantId,
    pub step: Step,
    /// "running", "recovering", "waiting" for the next step, or how it failed.
    pub state: String,
    pub progress: Progress,
}

/// Carries out MoveStep, OpenTunnel and CloseTunnel. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    setup: Setup,
    records: Records,
    /// One step of one tenant at a time.
    locks: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
    status: Mutex<HashMap<MoveId, MoveStatus>>,
}

/// How long after its death a child is started again; doubled up to the last.
const RESTART: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(900)];
/// Deaths in a row without an answer after which the step is given back.
const DEATHS: usize = 20;
/// Between two tries to recover a move whose databases can't be reached.
const RECOVER_AGAIN: Duration = Duration::from_millis(900);

impl Supervisor {
    /// Reads what an earlier run left in the state directory.
    ///
    /// # Errors
    /// [`DurableError`], naming the file.
    pub fn load(setup: Setup) -> Result<Self, DurableError> {
        let records = Records::load(&setup.state_dir)?;
        let status = records
            .all()
            .into_iter()
            .map(|record| (record.spec.move_id, record.status("waiting")))
            .collect();
        Ok(Self {
            inner: Arc::new(Inner {
                setup,
                records,
                locks: Mutex::default(),
                status: Mutex::new(status),
            }),
        })
    }

    /// The moves that this node knows of.
    pub fn status(&self) -> Vec<MoveStatus> {
        let mut moves: Vec<MoveStatus> = lock(&self.inner.status).values().cloned().collect();
        moves.sort_by_key(|status| status.move_id);
        moves
    }

    /// Recovers every move that an earlier run left in doubt. Returns when
    /// each is settled, or at shutdown; spawn it beside the rest.
    pub async fn resume(&self) {
        let mut doubtful: Vec<Record> = self
            .inner
            .records
            .all()
            .into_iter()
            .filter(|record| record.step == Step::CutOver)
            .collect();
        while !doubtful.is_empty() && !self.inner.setup.shutdown.is_cancelled() {
            let mut left = Vec::new();
            for record in doubtful {
                // A command of the coordinator may have settled it meanwhile.
                if self.inner.records.get(record.spec.move_id).is_none_or(|now| now != record) {
                    continue;
                }
                let (silent, _) = watch::channel(None);
                match self.locked(&record.spec, Step::Recover, &silent).await {
                    Line::Done(done) => {
                        tracing::info!(move_id = %record.spec.move_id, ?done, "recovered after a restart");
                        self.show(&record.spec, Step::CutOver, "waiting");
                    }
                    Line::Failed { kind: Kind::Refused, message } => {
                        tracing::error!(move_id = %record.spec.move_id, %message, "a move can't be recovered");
                        self.show(&record.spec, Step::CutOver, &message);
                    }
                    Line::Failed { message, .. } => {
                        tracing::warn!(move_id = %record.spec.move_id, %message, "not recovered yet");
                        self.show(&record.spec, Step::CutOver, &message);
                        left.push(record);
                    }
                    Line::Progress(_) => {}
                }
            }
            doubtful = left;
            if !doubtful.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(RECOVER_AGAIN) => {}
                    () = self.inner.setup.shutdown.cancelled() => {}
                }
            }
        }
    }

    async fn step(
        &self,
        order: wire::MoveStep,
        progress: watch::Sender<Option<wire::MoveProgress>>,
    ) -> command_reply::Outcome {
        let spec = match order.spec.as_ref().map(Spec::from_wire) {
            Some(Ok(spec)) => spec,
            Some(Err(error)) => return failed(Kind::Refused, error.to_string()),
            None => return failed(Kind::Refused, "move step without spec".into()),
        };
        let Some(step) = Step::from_wire(order.step()) else {
            return failed(Kind::Refused, format!("unknown move step {}", order.step));
        };
        if let Err(reason) = self.acceptable(&spec) {
            return failed(Kind::Refused, reason);
        }
        let record = Record::new(spec.clone(), step);
        // A preflight changes nothing and needs no recovery.
        if step != Step::Preflight
            && let Err(error) = self.inner.records.put(record)
        {
            return failed(Kind::Retry, format!("the move can't be written down: {error}"));
        }
        match self.locked(&spec, step, &progress).await {
            Line::Done(done) => {
                self.ended(&spec, step, &done);
                command_reply::Outcome::MoveStepDone(done.to_wire(step))
            }
            Line::Failed { kind, message } => {
                self.show(&spec, step, &message);
                failed(kind, message)
            }
            Line::Progress(_) => failed(Kind::Interrupted, "the mover gave no outcome".into()),
        }
    }

    /// Whether this node may carry the order out at all.
    fn acceptable(&self, spec: &Spec) -> Result<(), String> {
        if self.inner.setup.database.is_none() {
            return Err("this node takes no part in moves: it has no [postgres], or [moves] enabled = false".into());
        }
        if spec.source_node != self.inner.setup.node {
            return Err(format!(
                "the move starts at node {}, this is node {}",
                spec.source_node, self.inner.setup.node
            ));
        }
        for other in self.inner.records.all() {
            if other.spec.tenant != spec.tenant {
                continue;
            }
            if other.spec.epoch > spec.epoch {
                return Err(format!(
                    "the order is for epoch {} of tenant {}, epoch {} has been seen",
                    spec.epoch, spec.tenant, other.spec.epoch
                ));
            }
            if other.spec.move_id != spec.move_id {
                return Err(format!(
                    "move {} of tenant {} is open here: finish or undo it first",
                    other.spec.move_id, spec.tenant
                ));
            }
            if other.spec.epoch != spec.epoch || other.spec.target_node != spec.target_node {
                return Err(format!("move {} began with another epoch or target", spec.move_id));
            }
        }
        Ok(())
    }

    fn ended(&self, spec: &Spec, step: Step, done: &Done) {
        if matches!(done, Done::Finish | Done::Undo) {
            // Left behind it would only be recovered once more.
            if let Err(error) = self.inner.records.remove(spec.move_id) {
                tracing::warn!(%error, "the record of an ended move stays");
            }
            lock(&self.inner.status).remove(&spec.move_id);
        } else if step != Step::Preflight {
            self.show(spec, step, "waiting");
        }
    }

    /// One step under the tenant's lock, with a new child after each death.
    async fn locked(
        &self,
        spec: &Spec,
        step: Step,
        progress: &watch::Sender<Option<wire::MoveProgress>>,
    ) -> Line {
        let turn = Arc::clone(lock(&self.inner.locks).entry(spec.tenant).or_default());
        let _turn = turn.lock().await;
        if step != Step::Preflight {
            self.show(spec, step, if step == Step::Recover { "recovering" } else { "running" });
        }
        let order = match self.order(spec) {
            Ok(order) => order,
            Err(message) => return Line::Failed { kind: Kind::Retry, message },
        };
        for death in 0..DEATHS {
            let report = |latest: Progress| {
                if let Some(status) = lock(&self.inner.status).get_mut(&spec.move_id) {
                    status.progress = latest.clone();
                }
                progress.send_replace(Some(latest.to_wire(step)));
            };
            let ended = tokio::select! {
                ended = process::run(&self.inner.setup, &order, step, report) => ended,
                () = self.inner.setup.shutdown.cancelled() => return Line::Failed {
                    kind: Kind::Interrupted,
                    message: "the agent is stopping; the step resumes when it is back".into(),
                },
            };
            match ended {
                Ok(line) => return line,
                Err(reason) => {
                    tracing::warn!(move_id = %spec.move_id, %step, %reason, "the mover died; starting it again");
                }
            }
            let pause = RESTART.get(death).or(RESTART.last()).copied().unwrap_or_default();
            tokio::time::sleep(pause).await;
        }
        Line::Failed {
            kind: Kind::Interrupted,
            message: format!("the mover died {DEATHS} times in step {step}; see the agent's log"),
        }
    }

    fn order(&self, spec: &Spec) -> Result<Order, String> {
        let setup = &self.inner.setup;
        let source = setup.database.clone().ok_or("this node has no tenants' database")?;
        let target = match &setup.way {
            Way::Tunnel(identify) => Reach::Tunnel(identify()?),
            Way::Direct(login) => Reach::Direct(login.clone()),
        };
        let mut spec = spec.clone();
        let ours = setup.max_rows_per_second;
        spec.max_rows_per_second = match (spec.max_rows_per_second, ours) {
            (0, limit) | (limit, 0) => limit,
            (a, b) => a.min(b),
        };
        Ok(Order {
            spec,
            rules: setup.rules.clone(),
            source,
            target,
            scratch: self.inner.records.dir().to_path_buf(),
            copy_part_pages: setup.copy_part_pages,
        })
    }

    fn show(&self, spec: &Spec, step: Step, state: &str) {
        let mut all = lock(&self.inner.status);
        let status = all
            .entry(spec.move_id)
            .or_insert_with(|| Record::new(spec.clone(), step).status(state));
        status.step = step;
        state.clone_into(&mut status.state);
    }

    fn open_tunnel(&self, order: &wire::OpenTunnel) -> command_reply::Outcome {
        let Some(address) = self.inner.setup.tunnel_address.clone() else {
            return failed(Kind::Refused, "this node has no [tunnel]: it can't be a target".into());
        };
        let ticket = match ticket(order) {
            Ok(ticket) => ticket,
            Err(message) => return failed(Kind::Refused, message),
        };
        match self.inner.setup.tickets.open(ticket) {
            Ok(()) => command_reply::Outcome::TunnelOpened(wire::TunnelOpened { address }),
            Err(error) => failed(Kind::Retry, error.to_string()),
        }
    }

    fn close_tunnel(&self, order: &wire::CloseTunnel) -> command_reply::Outcome {
        let move_id = match MoveId::from_wire(&order.move_id) {
            Ok(move_id) => move_id,
            Err(error) => return failed(Kind::Refused, error.to_string()),
        };
        match self.inner.setup.tickets.close(move_id) {
            Ok(()) => command_reply::Outcome::TunnelClosed(wire::TunnelClosed {}),
            Err(error) => failed(Kind::Retry, error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Handler for Supervisor {
    async fn handle(
        &self,
        command: command::Kind,
        progress: watch::Sender<Option<wire::MoveProgress>>,
    ) -> command_reply::Outcome {
        match command {
            command::Kind::MoveStep(order) => self.step(order, progress).await,
            command::Kind::OpenTunnel(order) => self.open_tunnel(&order),
            command::Kind::CloseTunnel(order) => self.close_tunnel(&order),
            command::Kind::ListTenants(_) => {
                failed(Kind::Refused, "the mover does not list tenants".into())
            }
        }
    }
}

fn ticket(order: &wire::OpenTunnel) -> Result<Ticket, String> {
    if order.ticket_sha256.len() != 32 {
        return Err(format!("ticket_sha256 must be 32 bytes, got {}", order.ticket_sha256.len()));
    }
    let id = |error: webhost_proto::ids::IdError| error.to_string();
    Ok(Ticket {
        move_id: MoveId::from_wire(&order.move_id).map_err(id)?,
        tenant: TenantId::from_wire(&order.tenant_id).map_err(id)?,
        sha256: order.ticket_sha256.clone(),
        source_node: NodeId::from_wire(&order.source_node_id).map_err(id)?,
        expires_at_us: order.expires_at_us,
    })
}

fn failed(kind: Kind, message: String) -> command_reply::Outcome {
    command_reply::Outcome::Failed(wire::Failed { kind: kind.to_wire().into(), message })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code panics while it holds one of these; a poisoned value is whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A ticket that was never given: what a direct way has no use for.
pub fn no_ticket() -> Secret {
    Secret(Vec::new())
}
