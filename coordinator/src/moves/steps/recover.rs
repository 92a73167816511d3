//! A switch whose source's agent is silent: the target's is asked who serves
//! the tenant. Where it reaches both databases it finishes what was begun, and
//! its word is worth what the source's agent's is. Where it reads its own row
//! alone, only that the target serves is an answer; all else leaves it open.

use serde_json::json;
use webhost_proto::ids::Epoch;
use webhost_proto::wire::{MoveStepKind, RecoverResult, Serving, command_reply, move_step_done};

use super::{Answer, Context, Learned, Outcome, Outgoing, Step, move_step, step_done, timestamp};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    Outgoing { node: context.target, ..move_step(context, MoveStepKind::Recover) }
}

/// What the answer means for `step`, a cut-over or a roll back.
///
/// A refusal, too, leaves it open: it is the word of an agent that may know
/// nothing of the move.
pub(super) fn read(step: Step, reply: &command_reply::Outcome, context: &Context<'_>) -> Answer {
    let open = |why: String| {
        Answer::of(Outcome::Interrupted, format!("the source's agent is silent; {why}"))
    };
    let found = match (reply, step_done(reply, MoveStepKind::Recover)) {
        (_, Some(Some(move_step_done::Result::Recover(found)))) => found,
        (command_reply::Outcome::Failed(failed), _) => {
            return open(format!("the target's agent could not settle it: {}", failed.message));
        }
        _ => return open("the target's agent gave another answer than asked for".to_owned()),
    };
    let (there, back) = (Serving::Target, step == Step::RollBack);
    let newer = match (back, context.durable.new_epoch) {
        (false, _) => found.epoch > context.epoch.0,
        (true, Some(new)) => found.epoch > new.0,
        (true, None) => false,
    };
    // The store keeps epochs as i64.
    let newer = newer && i64::try_from(found.epoch).is_ok();
    match found.serving() {
        Serving::Target if !back && newer => done(found, false),
        Serving::Source if back && newer && found.both_read => done(found, true),
        // Both rows were read under both locks: the switch did not happen.
        Serving::Source if !back && found.both_read => {
            Answer::of(Outcome::Retry, "the source serves the tenant; its agent is silent")
        }
        serving if back && serving == there && found.both_read => {
            Answer::of(Outcome::Retry, "the target serves the tenant; the source's agent is silent")
        }
        serving if back && serving == there => open("the target still serves the tenant".into()),
        _ => open(
            "the target's row alone does not say who serves the tenant: bring the source's agent or \
             its database back (the target's agent reaches one that [moves.sources] names)"
                .into(),
        ),
    }
}

fn done(found: &RecoverResult, back: bool) -> Answer {
    let epoch = Some(Epoch(found.epoch));
    let message = format!(
        "the switch is done, says the target's agent for the silent source's: epoch {}",
        found.epoch
    );
    let mut learned = Learned::saying(message).with(json!({
        "epoch": found.epoch,
        "activated_at": timestamp(found.activated_at_us),
        "recovered": true,
        "asked_target": true,
    }));
    if back {
        learned.back_epoch = epoch;
    } else {
        learned.epoch = epoch;
    }
    Answer { outcome: Outcome::Done, why: learned.message.clone(), learned: Some(learned) }
}
