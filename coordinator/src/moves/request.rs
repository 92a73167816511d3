//! A move is asked for, by a person or by the evaluation. What is wanted of
//! one that there is already: see [`super::wishes`].

use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{MoveId, NodeId, TenantId};

use super::durable::{Durable, Wanted};
use super::kind::Kind;
use super::state::{State, Step};
use crate::decide::Mode;
use crate::store::moves::{self, Event, Move};
use crate::store::{Store, StoreError};

/// Whether a move may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// It may, says who: an administrator, or the rule that approved it.
    Given {
        /// "token NAME", or "rule: …".
        by: String,
    },
    /// A person has to say yes first.
    Wanted {
        /// Why the rules don't approve it by themselves.
        why: String,
    },
}

/// A move to be made.
#[derive(Clone, Debug)]
pub struct NewMove {
    /// Whom to move.
    pub tenant: TenantId,
    /// The target's mode: "multi_tenant" or "single_tenant".
    pub mode: String,
    /// The plan whose machine the target must have.
    pub plan: String,
    /// Where the target must (dedicated) or should (shared) stand.
    pub regions: Vec<String>,
    /// The one node to take; none lets placement choose.
    pub target: Option<NodeId>,
    /// "token NAME" or "system".
    pub requested_by: String,
    /// In a sentence.
    pub reason: String,
    /// The decision that it comes from.
    pub decision_id: Option<Uuid>,
    /// Whether it may begin at once.
    pub approval: Approval,
    /// Only the preflight and its report: nothing is moved.
    pub dry_run: bool,
    /// So many rows may stay behind without asking; of a downgrade.
    pub confirm_rows: u64,
}

/// Why a move was not begun, allowed or stopped.
#[derive(Debug, thiserror::Error)]
pub enum MoveRefused {
    /// No such tenant.
    #[error("there is no tenant {0}")]
    UnknownTenant(TenantId),
    /// The tenant lives nowhere that it could be moved from.
    #[error("tenant {tenant} is {state}, not active: there is nothing to move")]
    NotActive {
        /// Which tenant.
        tenant: TenantId,
        /// Its state.
        state: String,
    },
    /// Its one open move must end first.
    #[error("tenant {tenant} has the open move {open}: wait for its end, or cancel it")]
    AlreadyMoving {
        /// Which tenant.
        tenant: TenantId,
        /// The move that is under way.
        open: MoveId,
    },
    /// Its last move can still be rolled back.
    #[error(
        "tenant {tenant} was moved by {open}, whose way back is open{until}: roll it back, or \
         close the way back first (webhost-coordinator move close-way-back {open}, \
         POST /api/moves/{open}/close-way-back)"
    )]
    WayBackOpen {
        /// Which tenant.
        tenant: TenantId,
        /// The move whose way back is open.
        open: MoveId,
        /// " until …", or nothing.
        until: String,
    },
    /// The target holds the tenant's old copy.
    #[error(
        "node {node} still holds an old copy of tenant {tenant}{why}: choose another node, or \
         have the copy cleaned up first"
    )]
    HoldsCopy {
        /// Which tenant.
        tenant: TenantId,
        /// The node's name.
        node: String,
        /// " of move …, kept until …", or nothing.
        why: String,
    },
    /// It lives there already.
    #[error("tenant {0} lives on that node already")]
    SameNode(TenantId),
    /// No such mode.
    #[error("{0:?} is no mode; write multi_tenant or single_tenant")]
    UnknownMode(String),
    /// No such move.
    #[error("there is no move {0}")]
    UnknownMove(MoveId),
    /// The move is not where that could be done to it.
    #[error("move {id} is in {state}: it {cannot}")]
    TooLate {
        /// Which move.
        id: MoveId,
        /// Where it is.
        state: State,
        /// What it can't.
        cannot: String,
    },
    /// The move changed under our hands again and again.
    #[error("move {0} is changing at the moment: try again")]
    Busy(MoveId),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for MoveRefused {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Begins a move, in a transaction of its own. See [`request_in`].
///
/// # Errors
/// As [`request_in`].
pub async fn request(store: &Store, new: NewMove) -> Result<MoveId, MoveRefused> {
    let mut client = store.client().await?;
    let tx = client.transaction().await?;
    let id = request_in(&*tx, new, Timestamp::now()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(id)
}

/// Begins a move in the caller's transaction, with its event and audit row:
/// `waiting_for_node` when it is approved, else `awaiting_approval`. The
/// driver finds it there within its period.
///
/// # Errors
/// [`MoveRefused`]; nothing is written then, and the transaction is still
/// good unless it is [`MoveRefused::Store`].
pub async fn request_in(
    tx: &impl GenericClient,
    new: NewMove,
    now: Timestamp,
) -> Result<MoveId, MoveRefused> {
    let Ok(mode) = new.mode.parse::<Mode>() else {
        return Err(MoveRefused::UnknownMode(new.mode));
    };
    let Some(standing) = moves::standing(tx, new.tenant).await? else {
        return Err(MoveRefused::UnknownTenant(new.tenant));
    };
    if let Some(open) = moves::open_of(tx, new.tenant).await? {
        return Err(under_way(&open));
    }
    let (Some((source, from_mode)), "active") = (standing.home, standing.state.as_str()) else {
        return Err(MoveRefused::NotActive { tenant: new.tenant, state: standing.state });
    };
    if new.target == Some(source) {
        return Err(MoveRefused::SameNode(new.tenant));
    }
    if let Some(target) = new.target {
        let copies = moves::copies(tx, new.tenant).await?;
        if let Some(copy) = copies.into_iter().find(|copy| copy.node == target) {
            return Err(holds_copy(new.tenant, copy));
        }
    }
    let (state, approved_by, message) = match &new.approval {
        Approval::Given { by } => {
            (State::WaitingForNode, Some(by.clone()), format!("approved by {by}: {}", new.reason))
        }
        Approval::Wanted { why } => {
            (State::AwaitingApproval, None, format!("{}; a person must approve: {why}", new.reason))
        }
    };
    let row = Move {
        id: MoveId::generate(),
        tenant: new.tenant,
        kind: Kind::of(from_mode, mode).as_str().to_owned(),
        source,
        target: None,
        decision_id: new.decision_id,
        reason: new.reason,
        requested_by: new.requested_by,
        state,
        epoch: standing.epoch,
        approved_at: approved_by.as_ref().map(|_| now),
        approved_by,
        durable: Durable {
            confirmed_rows: new.confirm_rows,
            ..Durable::new(Wanted {
                mode: new.mode,
                plan: new.plan,
                regions: new.regions,
                node: new.target,
                dry_run: new.dry_run,
            })
        },
        progress: json!({}),
        result: json!({}),
        error: None,
        created_at: now,
        updated_at: now,
        ended_at: None,
    };
    if !moves::insert(tx, &row).await? {
        let open = moves::open_of(tx, row.tenant).await?;
        return Err(under_way(open.as_ref().unwrap_or(&row)));
    }
    note(tx, &row, &row.requested_by, "move.requested", &message, now).await?;
    Ok(row.id)
}

/// Why a tenant with that move can't have another.
fn under_way(open: &Move) -> MoveRefused {
    let (tenant, id) = (open.tenant, open.id);
    if open.state != State::Step(Step::WayBack) {
        return MoveRefused::AlreadyMoving { tenant, open: id };
    }
    let until = open.durable.way_back_until.map(|until| format!(" until {until}"));
    MoveRefused::WayBackOpen { tenant, open: id, until: until.unwrap_or_default() }
}

fn holds_copy(tenant: TenantId, copy: moves::Copy) -> MoveRefused {
    let why = match (copy.kept_by, copy.until, copy.state.as_deref()) {
        (Some(id), Some(until), Some("kept")) => format!(
            " of move {id}, kept until {until} (webhost-coordinator move clean-up {id}, \
             POST /api/moves/{id}/clean-up ends that now)"
        ),
        (Some(id), _, state) => {
            format!(" of move {id}, which is in {}", state.unwrap_or("an unknown state"))
        }
        (None, _, _) => String::new(),
    };
    MoveRefused::HoldsCopy { tenant, node: copy.name, why }
}

pub(super) async fn note(
    tx: &impl GenericClient,
    row: &Move,
    actor: &str,
    action: &str,
    message: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let event = Event {
        at: now,
        state: row.state.as_str().to_owned(),
        message: message.to_owned(),
        detail: json!({}),
    };
    moves::event(tx, row.id, &event).await?;
    moves::audit(tx, actor, action, row, message).await
}

/// The rule says yes by now: a move to `mode` that awaits approval begins, in
/// the caller's transaction. False, and nothing written, where the open move
/// is another, or awaits nothing.
///
/// # Errors
/// When the move can't be read or written.
pub async fn approve_in(
    tx: &impl GenericClient,
    id: MoveId,
    by: &str,
    mode: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(from) = moves::get(tx, id).await? else { return Ok(false) };
    if from.state != State::AwaitingApproval || from.durable.wanted.mode != mode {
        return Ok(false);
    }
    let mut to = from.revised(now);
    to.durable.pass(from.state, from.updated_at, now);
    to.state = State::WaitingForNode;
    to.approved_by = Some(by.to_owned());
    to.approved_at = Some(now);
    if !moves::save(tx, &from, &to).await? {
        return Ok(false);
    }
    note(tx, &to, "system", "move.approved", &format!("approved by {by}"), now).await?;
    Ok(true)
}
