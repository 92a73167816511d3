//! What people and the evaluation ask of moves: begin one, allow one, stop one.

use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{MoveId, NodeId, TenantId};

use super::durable::{Durable, Stopped, Wanted};
use super::state::{Ending, State, Step};
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
        cannot: &'static str,
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
    if !matches!(new.mode.as_str(), "multi_tenant" | "single_tenant") {
        return Err(MoveRefused::UnknownMode(new.mode));
    }
    let Some(standing) = moves::standing(tx, new.tenant).await? else {
        return Err(MoveRefused::UnknownTenant(new.tenant));
    };
    if let Some(open) = moves::open_of(tx, new.tenant).await? {
        return Err(MoveRefused::AlreadyMoving { tenant: new.tenant, open });
    }
    let (Some((source, from_mode)), "active") = (standing.home, standing.state.as_str()) else {
        return Err(MoveRefused::NotActive { tenant: new.tenant, state: standing.state });
    };
    if new.target == Some(source) {
        return Err(MoveRefused::SameNode(new.tenant));
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
        kind: kind(&from_mode, &new.mode).to_owned(),
        source,
        target: None,
        decision_id: new.decision_id,
        reason: new.reason,
        requested_by: new.requested_by,
        state,
        epoch: standing.epoch,
        approved_at: approved_by.as_ref().map(|_| now),
        approved_by,
        durable: Durable::new(Wanted {
            mode: new.mode,
            plan: new.plan,
            regions: new.regions,
            node: new.target,
        }),
        progress: json!({}),
        result: json!({}),
        error: None,
        created_at: now,
        updated_at: now,
        ended_at: None,
    };
    if !moves::insert(tx, &row).await? {
        let open = moves::open_of(tx, row.tenant).await?.unwrap_or(row.id);
        return Err(MoveRefused::AlreadyMoving { tenant: row.tenant, open });
    }
    note(tx, &row, &row.requested_by, "move.requested", &message, now).await?;
    Ok(row.id)
}

/// What a move between two modes is called.
fn kind(from: &str, to: &str) -> &'static str {
    match (from, to) {
        ("multi_tenant", "single_tenant") => "upgrade",
        ("single_tenant", "multi_tenant") => "downgrade",
        ("multi_tenant", _) => "lateral",
        _ => "dedicated",
    }
}

async fn note(
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

/// A person says yes: the move begins.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it awaits approval.
pub async fn approve(store: &Store, id: MoveId, actor: &str) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.approved", |row, now| {
        if row.state != State::AwaitingApproval {
            return Err("awaits no approval");
        }
        row.state = State::WaitingForNode;
        row.approved_by = Some(actor.to_owned());
        row.approved_at = Some(now);
        Ok(format!("approved by {actor}"))
    })
    .await
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
    to.state = State::WaitingForNode;
    to.approved_by = Some(by.to_owned());
    to.approved_at = Some(now);
    if !moves::save(tx, &from, &to).await? {
        return Ok(false);
    }
    note(tx, &to, "system", "move.approved", &format!("approved by {by}"), now).await?;
    Ok(true)
}

/// A person says no: the move ends, and nothing was done.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it awaits approval.
pub async fn refuse(store: &Store, id: MoveId, actor: &str, why: &str) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.refused", |row, _| {
        if row.state != State::AwaitingApproval {
            return Err("awaits no approval; cancel it instead");
        }
        row.state = State::Ended(Ending::Refused);
        row.error = Some(why.to_owned());
        Ok(format!("refused by {actor}: {why}"))
    })
    .await
}

/// A person stops a move. One that has not begun ends at once; one that is
/// under way goes back, and a cut-over that was asked for goes back only if
/// the source turns out to be active still.
///
/// # Errors
/// [`MoveRefused::TooLate`] past the point of no return, on the way back, and
/// after the end.
pub async fn cancel(store: &Store, id: MoveId, actor: &str) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.cancelled", |row, _| {
        let why = format!("cancelled by {actor}");
        match row.state {
            State::AwaitingApproval | State::WaitingForNode => {
                row.state = State::Ended(Ending::Cancelled);
                row.error = Some(why.clone());
            }
            State::Step(step) if step <= Step::CutOver => {
                row.durable.stopped = Some(Stopped { by_person: true, why: why.clone() });
            }
            State::Step(_) => return Err("is past the point of no return"),
            State::Undoing(_) => return Err("is going back already"),
            State::Ended(_) => return Err("has ended"),
        }
        Ok(why)
    })
    .await
}

/// How often a change is tried against a driver that is at the same move.
const TRIES: usize = 8;

/// Reads the move, lets `edit` change it, and saves it with event and audit;
/// again when the driver was faster.
async fn change(
    store: &Store,
    id: MoveId,
    actor: &str,
    action: &str,
    edit: impl Fn(&mut Move, Timestamp) -> Result<String, &'static str>,
) -> Result<(), MoveRefused> {
    let mut client = store.client().await?;
    for _ in 0..TRIES {
        let tx = client.transaction().await?;
        let Some(from) = moves::get(&*tx, id).await? else {
            return Err(MoveRefused::UnknownMove(id));
        };
        let now = Timestamp::now();
        let mut to = from.revised(now);
        let message = edit(&mut to, now).map_err(|cannot| MoveRefused::TooLate {
            id,
            state: from.state,
            cannot,
        })?;
        if moves::save(&*tx, &from, &to).await? {
            note(&*tx, &to, actor, action, &message, now).await?;
            tx.commit().await?;
            return Ok(());
        }
    }
    Err(MoveRefused::Busy(id))
}
