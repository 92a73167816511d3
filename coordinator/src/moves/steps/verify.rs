//! Both sides hashed, minus the keys written in between. A difference is a
//! refusal, and the source stays active.

use serde_json::json;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Verify)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let Some(move_step_done::Result::Verify(verify)) = step_done(reply, MoveStepKind::Verify)?
    else {
        return None;
    };
    let message = format!("{} rows are equal on both sides", verify.rows_compared);
    Some(Learned::saying(message).with(json!({
        "rows_compared": verify.rows_compared,
        "keys_excluded": verify.keys_excluded,
    })))
}
