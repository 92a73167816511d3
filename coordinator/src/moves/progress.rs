//! How far the agents are, as they tell it on the way.
//!
//! What a crash does to it: the newest figure is lost, and the next one comes
//! within a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;
use webhost_proto::ids::{CommandId, MoveId, NodeId};
use webhost_proto::wire::{self, MoveStepKind};

use super::state::{State, Step};
use super::timing::later;
use crate::store::moves::Move;
use crate::store::{Store, StoreError, moves};

/// One figure of one move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Which move.
    pub move_id: MoveId,
    /// When the coordinator heard it.
    pub at: Timestamp,
    /// The step that the agent is at.
    pub step: &'static str,
    /// The table it is at; may be empty.
    pub table: String,
    /// Rows done in this step.
    pub rows_done: u64,
    /// Rows expected, an estimate; 0 is unknown.
    pub rows_total: u64,
    /// Bytes done in this step.
    pub bytes_done: u64,
    /// The speed at the moment.
    pub rows_per_second: u64,
}

/// Collects progress: the newest per move in memory and, not too often, in
/// the move's row; every figure to whoever listens. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    store: Store,
    every: Duration,
    volatile: Arc<Mutex<Volatile>>,
    listeners: broadcast::Sender<Seen>,
}

/// Lost in a crash, and rebuilt by the next figures.
#[derive(Default)]
struct Volatile {
    moves: HashMap<MoveId, Newest>,
    /// Which command belongs to which move, so that a figure costs no query.
    commands: HashMap<(NodeId, CommandId), MoveId>,
}

struct Newest {
    at: Timestamp,
    written_at: Timestamp,
}

/// A listener that is this far behind misses the oldest figures.
const LISTENER_LAG: usize = 256;

impl Progress {
    /// Writes a move's row at most once `every`.
    pub fn new(store: Store, every: Duration) -> Self {
        let (listeners, _) = broadcast::channel(LISTENER_LAG);
        Self { store, every, volatile: Arc::default(), listeners }
    }

    /// Every figure from now on; the newest win where a listener is slow.
    pub fn listen(&self) -> broadcast::Receiver<Seen> {
        self.listeners.subscribe()
    }

    /// Takes a figure that `node` told of one of its commands. A figure of a
    /// command that was not sent to it, or belongs to no move, is dropped.
    ///
    /// # Errors
    /// When the move's row can't be read or written.
    pub async fn record(
        &self,
        node: NodeId,
        command: CommandId,
        progress: &wire::MoveProgress,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = self.volatile().commands.get(&(node, command)).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let client = self.store.client().await?;
                let Some(id) = moves::of_command(&**client, node, command).await? else {
                    return Ok(());
                };
                self.volatile().commands.insert((node, command), id);
                id
            }
        };
        let seen = Seen {
            move_id: id,
            at: now,
            step: step_name(progress.step()),
            table: progress.table.clone(),
            rows_done: progress.rows_done,
            rows_total: progress.rows_total,
            bytes_done: progress.bytes_done,
            rows_per_second: progress.rows_per_second,
        };
        let write = {
            let mut volatile = self.volatile();
            let first = Newest { at: now, written_at: Timestamp::MIN };
            let newest = volatile.moves.entry(id).or_insert(first);
            newest.at = now;
            let due =
                newest.written_at == Timestamp::MIN || later(newest.written_at, self.every) <= now;
            if due {
                newest.written_at = now;
            }
            due
        };
        if write {
            let json = serde_json::to_value(&seen).map_err(|error| StoreError::Corrupt {
                what: "moves.progress",
                detail: error.to_string(),
            })?;
            moves::progress(&**self.store.client().await?, id, &json).await?;
        }
        // An error says that nobody listens, which is nobody's loss.
        let _nobody_listens = self.listeners.send(seen);
        Ok(())
    }

    /// When a move was last heard of; none when never since the start.
    pub fn last(&self, id: MoveId) -> Option<Timestamp> {
        self.volatile().moves.get(&id).map(|newest| newest.at)
    }

    /// The move has ended.
    pub fn forget(&self, id: MoveId) {
        let mut volatile = self.volatile();
        volatile.moves.remove(&id);
        volatile.commands.retain(|_, known| *known != id);
    }

    fn volatile(&self) -> std::sync::MutexGuard<'_, Volatile> {
        // Nothing panics while it is held, and a half-written figure is only
        // an old figure.
        self.volatile.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn step_name(step: MoveStepKind) -> &'static str {
    match step {
        MoveStepKind::Unspecified | MoveStepKind::Pause => "",
        MoveStepKind::Recover => "recover",
        MoveStepKind::Preflight => "preflight",
        MoveStepKind::Guard => "guard",
        MoveStepKind::Copy => "copy",
        MoveStepKind::Drain => "drain",
        MoveStepKind::Verify => "verify",
        MoveStepKind::CutOver => "cut_over",
        MoveStepKind::Finish => "finish",
        MoveStepKind::Undo => "undo_source",
        MoveStepKind::WayBack => "way_back",
        MoveStepKind::RollBack => "roll_back",
        MoveStepKind::CleanUp => "clean_up",
        MoveStepKind::Abandon => "abandon",
    }
}

/// How much of a move's way to its switch is done, in percent: of the copy
/// its rows, and after it all but little. None past the switch.
pub fn percent(row: &Move) -> Option<u64> {
    let State::Step(step) = row.state else { return None };
    let number = |name: &str| row.progress[name].as_u64().unwrap_or_default();
    match step {
        Step::OpenTunnel | Step::Preflight | Step::Guard => Some(0),
        // The newest figure may be of the step before.
        Step::Copy if row.progress["step"] != "copy" => Some(0),
        Step::Copy => Some(
            (number("rows_done") * 100)
                .checked_div(number("rows_total"))
                .unwrap_or_default()
                .min(100),
        ),
        Step::Drain | Step::Verify | Step::CutOver => Some(100),
        _ => None,
    }
}

/// How long the copy will still take at its speed of the moment, in seconds;
/// none where that is not known.
pub fn seconds_left(row: &Move) -> Option<u64> {
    let number = |name: &str| row.progress[name].as_u64().unwrap_or_default();
    if row.state != State::Step(Step::Copy) || row.progress["step"] != "copy" {
        return None;
    }
    number("rows_total").checked_sub(number("rows_done"))?.checked_div(number("rows_per_second"))
}

#[cfg(test)]
mod tests;
