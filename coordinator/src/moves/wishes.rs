//! What a person, or a policy, wants of a move: allow it, stop it, pause it,
//! go back. A wish changes the move's row, with its event and audit row; the
//! driver finds it there and does what it means.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use webhost_proto::ids::MoveId;

use super::durable::{Stopped, Wish};
use super::forget;
use super::request::{MoveRefused, note};
use super::state::{Ending, State, Step, Undo};
use crate::store::Store;
use crate::store::moves::{self, Move};

/// A person says yes: the move begins.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it awaits approval.
pub async fn approve(store: &Store, id: MoveId, actor: &str) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.approved", |row, now| {
        if row.state != State::AwaitingApproval {
            return Err("awaits no approval".into());
        }
        row.state = State::WaitingForNode;
        row.approved_by = Some(actor.to_owned());
        row.approved_at = Some(now);
        Ok(format!("approved by {actor}"))
    })
    .await
}

/// A person says no: the move ends, and nothing was done.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it awaits approval.
pub async fn refuse(store: &Store, id: MoveId, actor: &str, why: &str) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.refused", |row, _| {
        if row.state != State::AwaitingApproval {
            return Err("awaits no approval; cancel it instead".into());
        }
        row.state = State::Ended(Ending::Refused);
        row.error = Some(why.to_owned());
        Ok(format!("refused by {actor}: {why}"))
    })
    .await
}

/// A person lets `rows` rows stay behind: the move begins, after another
/// preflight.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it awaits a confirmation, of that many rows
/// at most.
pub async fn confirm(store: &Store, id: MoveId, rows: u64, actor: &str) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.confirmed", |row, _| {
        if row.state != State::AwaitingConfirmation {
            return Err("awaits no confirmation".into());
        }
        let behind = row.durable.rows_left_behind;
        if rows < behind {
            return Err(format!(
                "would leave {behind} rows behind: confirm that number, not {rows}"
            ));
        }
        row.state = State::WaitingForNode;
        row.durable.confirmed_rows = rows;
        row.error = None;
        Ok(format!("{actor} lets {rows} rows stay behind"))
    })
    .await
}

/// A person lets a move begin although the windows of its tenant or nodes are
/// closed; its turn it awaits all the same.
///
/// # Errors
/// [`MoveRefused::TooLate`] where it has begun.
pub async fn begin_now(
    store: &Store,
    id: MoveId,
    actor: &str,
    why: &str,
) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.begin_now", |row, _| {
        match row.state {
            State::WaitingForNode | State::AwaitingApproval | State::AwaitingConfirmation => {}
            _ => return Err("does not wait for a window".into()),
        }
        row.durable.outside_window = Some(Wish { by: actor.to_owned(), why: why.to_owned() });
        row.durable.not_before = None;
        Ok(format!("{actor} lets it begin outside its windows: {why}"))
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
        let stopped = Some(Stopped { by_person: true, why: why.clone() });
        match (row.state, row.durable.resume_at) {
            // The target is promised already, and lets the mover in.
            (State::AwaitingConfirmation, _) | (State::WaitingForNode, _)
                if row.target.is_some() =>
            {
                row.state = State::Undoing(Undo::Tunnel);
                row.durable.stopped = stopped;
            }
            (State::AwaitingApproval | State::AwaitingConfirmation | State::WaitingForNode, _)
            | (State::Paused, None) => {
                row.state = State::Ended(Ending::Cancelled);
                row.durable.stopped = stopped;
            }
            // The driver finds the step to be stopped, and undoes it.
            (State::Paused, Some(step)) => {
                row.state = State::Step(step);
                row.durable.pause = None;
                row.durable.stopped = stopped;
            }
            (State::Step(step), _) if step <= Step::CutOver => row.durable.stopped = stopped,
            (State::Step(Step::WayBack), _) => {
                return Err("is past the point of no return; roll it back instead".into());
            }
            (State::Step(_), _) => return Err("is past the point of no return".into()),
            (State::Undoing(_), _) => return Err("is going back already".into()),
            (State::Ended(_), _) => return Err("has ended".into()),
        }
        row.error = Some(why.clone());
        Ok(why)
    })
    .await
}

/// When a pause that was asked for begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pausing {
    /// It has begun.
    Now,
    /// The running step is ended for it, within seconds.
    Soon(Step),
    /// It waits for the end of the running step, which is short, or can't be
    /// interrupted.
    Waits(Step),
}

impl std::fmt::Display for Pausing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now => write!(f, "is paused"),
            Self::Soon(step) => write!(f, "ends its {} and pauses within seconds", step.as_str()),
            Self::Waits(step @ Step::CutOver) => write!(
                f,
                "can't be interrupted in its {}: it waits for the end of this try, and pauses only \
                 if the source still serves the tenant then",
                step.as_str()
            ),
            Self::Waits(step @ Step::RollBack) => write!(
                f,
                "can't be interrupted in its {}: it waits for the end of this try, and goes back to \
                 way_back only if the target still serves the tenant then",
                step.as_str()
            ),
            Self::Waits(step) => write!(f, "pauses when its {} ends", step.as_str()),
        }
    }
}

impl Pausing {
    /// What a pause does to a move in that state.
    pub(super) fn of(state: State) -> Self {
        match state {
            State::Step(step @ (Step::Copy | Step::Drain | Step::Verify)) => Self::Soon(step),
            State::Step(step) => Self::Waits(step),
            _ => Self::Now,
        }
    }
}

/// A person stops a move for a while, before its switch: a copy, a drain or a
/// verification is ended, and goes on where it was later; what else runs is let
/// end. Nothing is undone, and guards and key log stay. A switch can't be
/// interrupted: the pause waits for the end of the try, and is void where that
/// switched.
///
/// # Errors
/// [`MoveRefused::TooLate`] where there is nothing to pause.
pub async fn pause(
    store: &Store,
    id: MoveId,
    actor: &str,
    why: &str,
) -> Result<Pausing, MoveRefused> {
    let pausing = Mutex::new(Pausing::Now);
    change(store, id, actor, "move.pause", |row, _| {
        let wish = Some(Wish { by: actor.to_owned(), why: why.to_owned() });
        match row.state {
            _ if row.durable.is_cancelled() => return Err("is to be stopped already".into()),
            _ if row.durable.pause.is_some() => return Err("is to be paused already".into()),
            State::WaitingForNode => {
                row.state = State::Paused;
                row.error = Some(format!("paused by {actor}: {why}"));
            }
            State::Step(step) if step <= Step::CutOver || step == Step::RollBack => {}
            State::AwaitingApproval | State::AwaitingConfirmation => {
                return Err("waits for a person already".into());
            }
            State::Step(_) => return Err("is past the point of no return".into()),
            State::Undoing(_) => return Err("is going back".into()),
            State::Paused => return Err("is paused already".into()),
            State::Ended(_) => return Err("has ended".into()),
        }
        row.durable.pause = wish;
        let when = Pausing::of(row.state);
        *pausing.lock().unwrap_or_else(PoisonError::into_inner) = when;
        Ok(format!("{actor} wants a pause: {why}; the move {when}"))
    })
    .await?;
    Ok(pausing.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A person lets a paused move go on.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it is paused, or to be.
pub async fn resume(store: &Store, id: MoveId, actor: &str) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.resumed", |row, _| {
        if row.durable.pause.take().is_none() {
            return Err("is not paused".into());
        }
        // Told already, the agent ends the step once more, and it is resumed.
        row.durable.pause_sent = false;
        if row.state == State::Paused {
            row.state = row.durable.resume_at.take().map_or(State::WaitingForNode, State::Step);
            row.error = None;
        }
        Ok(format!("resumed by {actor}"))
    })
    .await
}

/// The tenant goes back to where it came from, and loses nothing.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless the way back is open.
pub async fn roll_back(
    store: &Store,
    id: MoveId,
    actor: &str,
    why: &str,
) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.roll_back_wanted", |row, now| {
        open_way_back(row, now)?;
        row.durable.roll_back = Some(Wish { by: actor.to_owned(), why: why.to_owned() });
        Ok(format!("{actor} wants the roll back: {why}"))
    })
    .await
}

/// The way back is closed before its time: the tenant stays on the target.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless the way back is open.
pub async fn close_way_back(
    store: &Store,
    id: MoveId,
    actor: &str,
    why: &str,
) -> Result<(), MoveRefused> {
    change(store, id, actor, "move.way_back_closed", |row, now| {
        open_way_back(row, now)?;
        row.durable.close_way_back = Some(Wish { by: actor.to_owned(), why: why.to_owned() });
        Ok(format!("{actor} closes the way back: {why}"))
    })
    .await
}

fn open_way_back(row: &Move, now: Timestamp) -> Result<(), String> {
    let durable = &row.durable;
    match row.state {
        State::Step(Step::WayBack) => {}
        State::Step(step) if !step.is_past_return() => {
            return Err("has not switched: cancel it instead".into());
        }
        State::Step(Step::Route) => return Err("has just switched: try again in a moment".into()),
        State::Step(Step::RollBack | Step::RouteBack) => {
            return Err("is rolled back already".into());
        }
        _ => return Err("has no way back open; only another move leads back".into()),
    }
    if durable.roll_back.is_some() {
        return Err("is to be rolled back already".into());
    }
    if durable.close_way_back.is_some() || durable.way_back_until.is_none_or(|end| end <= now) {
        return Err("closes its way back at this moment".into());
    }
    Ok(())
}

/// The old copy is deleted before its time; of a move that was ended without a
/// node that came back, what that still holds.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it is kept.
pub async fn clean_up(store: &Store, id: MoveId, actor: &str) -> Result<(), MoveRefused> {
    if forget::remember(store, id, actor).await?.is_some() {
        return Ok(());
    }
    change(store, id, actor, "move.clean_up_wanted", |row, now| {
        match row.state {
            State::Step(Step::Kept) => {}
            State::Step(Step::WayBack) => {
                return Err("has its way back open: close that first".into());
            }
            State::Step(Step::CleanUp) | State::Undoing(Undo::CleanTarget) => {
                return Err("is being cleaned up already".into());
            }
            _ => return Err("keeps no old copy".into()),
        }
        row.durable.keep_until = Some(now);
        Ok(format!("{actor} has the old copy deleted now"))
    })
    .await
}

/// How often a change is tried against a driver that is at the same move.
const TRIES: usize = 8;

/// Reads the move, lets `edit` change it, and saves it with event and audit;
/// again when the driver was faster. A state that `edit` enters begins anew:
/// the driver gives it its deadline with its first command.
async fn change(
    store: &Store,
    id: MoveId,
    actor: &str,
    action: &str,
    edit: impl Fn(&mut Move, Timestamp) -> Result<String, String>,
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
        if to.state == from.state {
            to.updated_at = from.updated_at;
        } else {
            to.durable.pass(from.state, from.updated_at, now);
            to.durable.begin_step(None, None);
        }
        if moves::save(&*tx, &from, &to).await? {
            note(&*tx, &to, actor, action, &message, now).await?;
            tx.commit().await?;
            return Ok(());
        }
    }
    Err(MoveRefused::Busy(id))
}
