//! Guards and key log on both sides. From here on a failure is undone at the
//! source.

use serde_json::json;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::preflight::finding;
use super::{Context, Learned, Outgoing, move_step, step_done};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Guard)
}

/// An agent of an earlier version tells nothing of what it saw.
pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let result = step_done(reply, MoveStepKind::Guard)?;
    let learned = Learned::saying("guards and key log are in place on both sides");
    let Some(move_step_done::Result::Guard(guard)) = result else { return Some(learned) };
    if guard.findings.is_empty() {
        return Some(learned);
    }
    let message = format!("{}; {} warnings", learned.message, guard.findings.len());
    let findings: Vec<_> = guard.findings.iter().map(finding).collect();
    Some(Learned::saying(message).with(json!({ "findings": findings })))
}
