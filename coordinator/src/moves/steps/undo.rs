//! Guards dropped on both sides, the target's rows deleted. The agent refuses
//! where the source's fence row does not say active.

use webhost_proto::wire::{MoveStepKind, command_reply};

use super::{Context, Learned, Outgoing, move_step, plain};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Undo)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    plain(reply, MoveStepKind::Undo, "guards dropped, the target's rows deleted")
}
