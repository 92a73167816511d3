//! One command, one process, one fence: the switch itself. What happened is
//! only what the agents' fence rows say, so an answer that leaves it open is
//! asked for again; a mover that finds the switch done says so (`recovered`).

use serde_json::json;
use webhost_proto::ids::Epoch;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done, timestamp};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::CutOver)
}

/// An epoch that is not newer than `source` is no answer to this step.
pub(super) fn done(reply: &command_reply::Outcome, source: Epoch) -> Option<Learned> {
    let Some(move_step_done::Result::CutOver(cut)) = step_done(reply, MoveStepKind::CutOver)?
    else {
        return None;
    };
    let epoch = Epoch(cut.epoch);
    // The store keeps epochs as i64.
    if epoch <= source || i64::try_from(cut.epoch).is_err() {
        return None;
    }
    let how = if cut.recovered { "found done by an earlier try" } else { "done" };
    let message = format!(
        "the switch is {how}: epoch {epoch}, writers waited {} us, {} keys in the fence",
        cut.fence_us, cut.keys_in_fence
    );
    Some(Learned {
        epoch: Some(epoch),
        ..Learned::saying(message).with(json!({
            "epoch": cut.epoch,
            "fence_us": cut.fence_us,
            "keys_in_fence": cut.keys_in_fence,
            "activated_at": timestamp(cut.activated_at_us),
            "recovered": cut.recovered,
        }))
    })
}
