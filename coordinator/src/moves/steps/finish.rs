//! Log and triggers that the move no longer needs are removed; the fence
//! stays.

use webhost_proto::wire::{MoveStepKind, command_reply};

use super::{Context, Learned, Outgoing, move_step, plain};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Finish)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    plain(reply, MoveStepKind::Finish, "the move's log and triggers are removed")
}
