//! After the switch: the old copy follows what is written on the target, so
//! that going back loses nothing. The command runs until the way back ends;
//! one that was interrupted is sent again.

use serde_json::json;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done, timestamp};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::WayBack)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let result = step_done(reply, MoveStepKind::WayBack)?;
    let Some(move_step_done::Result::WayBack(back)) = result else {
        return Some(Learned::saying("the way back is closed"));
    };
    let message = format!(
        "the way back is closed: {} keys were carried back, {} comparisons came out equal",
        back.keys, back.verifications
    );
    Some(Learned::saying(message).with(json!({
        "keys": back.keys,
        "verifications": back.verifications,
        "verified_at": timestamp(back.verified_at_us).filter(|_| back.verified_at_us > 0),
    })))
}
