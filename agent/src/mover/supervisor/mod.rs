//! The agent's side of the mover: starts it, restarts it, and remembers.
//!
//! Before a child starts, the move's order and step are durable. A child that
//! dies without an answer is restarted within a second and given its step
//! again; it reads the fence rows first, so nothing depends on where it died.
//! One that says nothing for a while, frozen or blocked, is killed and counts
//! as dead; so does one at whose fence writers wait for too long
//! ([`Patience`]).
//! After a restart of the agent every move that may be past its point of no
//! return is recovered at once, without waiting for the coordinator, and a way
//! back or a clean-up goes on.

mod process;
mod record;
mod requests;
mod resume;
mod steps;
mod tickets;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::{MoveId, NodeId, TenantId};
use webhost_proto::wire::{self, command, command_reply};

use self::record::{Record, Records};
use super::catalog::Rules;
use super::child::Login;
use super::error::Kind;
use super::spec::{Progress, Spec, Step};
use super::tunnel::{Tickets, TunnelIdentity};
use crate::command::Handler;
use crate::durable::DurableError;
use crate::hold::HoldPoint;
pub use process::Patience;

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
    /// Whoever carries the tenants' requests.
    pub hold: Arc<dyn HoldPoint>,
    /// This node's tunnel takes requests for its application.
    pub takes_http: bool,
    pub copy_part_pages: Option<u32>,
    /// 0 is as many as help.
    pub copy_streams: u32,
    /// Seconds between two exact comparisons of a way back; 0 is an hour.
    pub way_back_verify_s: u32,
    pub patience: Patience,
    /// Databases of other nodes that this one reaches without their agents, to
    /// settle a move whose source's agent is gone.
    pub sources: BTreeMap<NodeId, Login>,
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
    /// What runs under those locks, with what ends it.
    running: Mutex<HashMap<TenantId, (Step, CancellationToken)>>,
    status: Mutex<HashMap<MoveId, MoveStatus>>,
}

impl Supervisor {
    /// Reads what an earlier run left in the state directory.
    ///
    /// # Errors
    /// [`DurableError`], naming the file.
    pub fn load(setup: Setup) -> Result<Self, DurableError> {
        let records = Records::load(&setup.state_dir)?;
        for record in records.all() {
            let settled = matches!(record.step, Step::WayBack | Step::CleanUp);
            if !settled && !record.step.leaves_the_source_active() {
                setup.hold.doubt(&record.spec);
            }
        }
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
                running: Mutex::default(),
                status: Mutex::new(status),
            }),
        })
    }

    /// The orders on record, each with the step that was last asked for.
    pub fn on_record(&self) -> Vec<(Spec, Step)> {
        self.inner.records.all().into_iter().map(|record| (record.spec, record.step)).collect()
    }

    /// The moves that this node knows of.
    pub fn status(&self) -> Vec<MoveStatus> {
        let mut moves: Vec<MoveStatus> = lock(&self.inner.status).values().cloned().collect();
        moves.sort_by_key(|status| status.move_id);
        moves
    }

    fn show(&self, spec: &Spec, step: Step, state: &str) {
        let mut all = lock(&self.inner.status);
        let status = all
            .entry(spec.move_id)
            .or_insert_with(|| Record::new(spec.clone(), step).status(state));
        status.step = step;
        state.clone_into(&mut status.state);
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

fn failed(kind: Kind, message: String) -> command_reply::Outcome {
    command_reply::Outcome::Failed(wire::Failed {
        kind: kind.to_wire().into(),
        message,
        preflight: None,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code panics while it holds one of these; a poisoned value is whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
