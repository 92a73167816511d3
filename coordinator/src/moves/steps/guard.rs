//! Guards and key log on both sides. From here on a failure is undone at the
//! source.

use webhost_proto::wire::{MoveStepKind, command_reply};

use super::{Context, Learned, Outgoing, move_step, plain};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Guard)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    plain(reply, MoveStepKind::Guard, "guards and key log are in place on both sides")
}
