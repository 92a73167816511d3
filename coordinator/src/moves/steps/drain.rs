//! What was written during the copy follows, until little is left.

use serde_json::json;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Drain)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let Some(move_step_done::Result::Drain(drain)) = step_done(reply, MoveStepKind::Drain)? else {
        return None;
    };
    let message = format!("{} keys drained, {} left", drain.keys, drain.remaining);
    Some(Learned::saying(message).with(json!({ "keys": drain.keys, "remaining": drain.remaining })))
}
