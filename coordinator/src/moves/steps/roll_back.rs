//! The cut-over in the other direction: the old copy serves the tenant again.
//! As with the cut-over, an answer that leaves it open is asked for again.

use serde_json::json;
use webhost_proto::ids::Epoch;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done, timestamp};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::RollBack)
}

/// An epoch that is not newer than `target`'s is no answer to this step.
pub(super) fn done(reply: &command_reply::Outcome, target: Option<Epoch>) -> Option<Learned> {
    let Some(move_step_done::Result::RollBack(cut)) = step_done(reply, MoveStepKind::RollBack)?
    else {
        return None;
    };
    let epoch = Epoch(cut.epoch);
    // The store keeps epochs as i64.
    if epoch <= target? || i64::try_from(cut.epoch).is_err() {
        return None;
    }
    let how = if cut.recovered { "found done by an earlier try" } else { "done" };
    let message = format!(
        "the switch back is {how}: epoch {epoch}, writers waited {} us, {} keys in the fence",
        cut.fence_us, cut.keys_in_fence
    );
    Some(Learned {
        back_epoch: Some(epoch),
        ..Learned::saying(message).with(json!({
            "epoch": cut.epoch,
            "fence_us": cut.fence_us,
            "keys_in_fence": cut.keys_in_fence,
            "activated_at": timestamp(cut.activated_at_us),
            "recovered": cut.recovered,
        }))
    })
}
