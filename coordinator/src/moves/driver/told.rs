//! What the driver tells: the history of a move, the audit, the log, and the
//! alarm when nothing moves.

use jiff::Timestamp;
use serde_json::json;
use tracing::{info, warn};

use super::super::next::Transition;
use super::super::state::{State, Undo};
use super::super::timing::later;
use super::Driver;
use crate::store::StoreError;
use crate::store::moves::{self, Event, Move};

impl Driver {
    /// Tells somebody, once per `stuck_after`, that nothing moves.
    pub(super) async fn alarm_if_stuck(
        &self,
        row: &Move,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(due) = row.durable.alarm_at else { return Ok(()) };
        let seen = self.progress.last(row.id).map(|at| later(at, self.timing.stuck_after));
        if seen.map_or(due, |seen| seen.max(due)) > now {
            return Ok(());
        }
        let mut to = row.revised(now);
        to.updated_at = row.updated_at;
        to.durable.alarm_at = Some(later(now, self.timing.stuck_after));
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        if !moves::save(&*tx, row, &to).await? {
            return Ok(());
        }
        let why = row.error.as_deref().unwrap_or("the agent has not answered yet");
        let message = format!("no progress in {} since {}: {why}", row.state, row.updated_at);
        moves::audit(&*tx, "system", "move.stuck", row, &message).await?;
        tx.commit().await?;
        warn!(move_id = %row.id, tenant = %row.tenant, state = %row.state, why, "a move is stuck");
        Ok(())
    }
}

/// The history of a move, and the audit of its changes of state.
pub(super) async fn record(
    tx: &tokio_postgres::Transaction<'_>,
    to: &Move,
    message: &str,
    detail: Option<serde_json::Value>,
    now: Timestamp,
    changed: bool,
) -> Result<(), StoreError> {
    let event = Event {
        at: now,
        state: to.state.as_str().to_owned(),
        message: message.to_owned(),
        detail: detail.unwrap_or_else(|| json!({})),
    };
    moves::event(tx, to.id, &event).await?;
    if changed {
        moves::audit(tx, "system", &format!("move.{}", to.state), to, message).await?;
    }
    Ok(())
}

/// One line in the service's log.
pub(super) fn log(to: &Move, message: &str, transition: Transition) {
    let (move_id, tenant, state) = (to.id, to.tenant, to.state);
    match transition {
        Transition::Repeat => warn!(%move_id, %tenant, %state, message, "a step is tried again"),
        Transition::To(State::Undoing(Undo::Source | Undo::Abandon | Undo::Tunnel))
            if !to.durable.wanted.dry_run =>
        {
            warn!(%move_id, %tenant, %state, message, "a move goes back");
        }
        Transition::Pause(_) => info!(%move_id, %tenant, %state, message, "a move is paused"),
        Transition::To(_) => info!(%move_id, %tenant, %state, message, "a move went on"),
    }
}
