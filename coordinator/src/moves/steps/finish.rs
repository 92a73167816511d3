//! Log and triggers that the move no longer needs are removed; the fence
//! stays. Where the node with the old copy is gone for good, the agent beside
//! the tenant does it without that one.

use webhost_proto::wire::{MoveStepKind, command_reply};

use super::{Context, Learned, Outgoing, move_step, plain};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    let outgoing = move_step(context, MoveStepKind::Finish);
    match context.durable.forgotten {
        Some(_) => Outgoing { node: context.serving(), ..outgoing },
        None => outgoing,
    }
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    plain(reply, MoveStepKind::Finish, "the move's log and triggers are removed")
}
