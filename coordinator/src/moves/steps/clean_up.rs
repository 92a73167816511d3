//! The copy that serves nobody is deleted, in batches, and everything of ours
//! but the tombstone: on the source after a move, on the target after a roll
//! back, and on the target that was abandoned.

use serde_json::json;
use webhost_proto::ids::NodeId;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done};

/// To the agent of `node`, which holds the copy.
pub(super) fn command(context: &Context<'_>, node: NodeId) -> Outgoing {
    Outgoing { node, ..move_step(context, MoveStepKind::CleanUp) }
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let result = step_done(reply, MoveStepKind::CleanUp)?;
    let Some(move_step_done::Result::CleanUp(clean)) = result else {
        return Some(Learned::saying("the old copy is deleted"));
    };
    let message = format!("the old copy is deleted: {} rows", clean.rows);
    Some(Learned::saying(message).with(json!({ "rows": clean.rows })))
}
