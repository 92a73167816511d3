//! The target can't be reached, and the tenant must not wait for it: the
//! source lets go of the move alone. The agent refuses where the source's
//! fence row does not say active.

use webhost_proto::wire::{MoveStepKind, command_reply};

use super::{Context, Learned, Outgoing, move_step, plain};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Abandon)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    plain(reply, MoveStepKind::Abandon, "the source has let go of the move; the target's rows stay")
}
