//! The target's agent forgets the ticket. The same at the end of a move and
//! of its undoing.

use webhost_proto::wire::{CloseTunnel, command, command_reply};

use super::{Context, Learned, Outgoing};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    let kind = command::Kind::CloseTunnel(CloseTunnel { move_id: context.id.to_wire() });
    Outgoing { node: context.target, kind }
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    matches!(reply, command_reply::Outcome::TunnelClosed(_))
        .then(|| Learned::saying("the tunnel is closed"))
}
