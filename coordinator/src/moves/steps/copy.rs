//! The tenant's rows, from one snapshot.

use serde_json::json;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Copy)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let Some(move_step_done::Result::Copy(copy)) = step_done(reply, MoveStepKind::Copy)? else {
        return None;
    };
    let message = format!(
        "{} rows ({} bytes) copied in {} ms",
        copy.rows,
        copy.bytes,
        copy.duration_us / 1000
    );
    Some(Learned::saying(message).with(json!({
        "rows": copy.rows,
        "bytes": copy.bytes,
        "duration_us": copy.duration_us,
    })))
}
