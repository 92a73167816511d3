//! The target's agent lets the source's mover reach its database, and learns
//! the hash of the ticket, never the ticket.

use serde_json::json;
use webhost_proto::wire::{OpenTunnel, command, command_reply};

use super::{Context, Learned, Outgoing};

/// None before a ticket was made, which happens with the reservation.
pub(super) fn command(context: &Context<'_>) -> Option<Outgoing> {
    let durable = context.durable;
    let kind = command::Kind::OpenTunnel(OpenTunnel {
        move_id: context.id.to_wire(),
        tenant_id: context.tenant.to_wire(),
        ticket_sha256: durable.ticket.as_ref()?.sha256(),
        source_node_id: context.source.to_wire(),
        expires_at_us: durable.ticket_expires_at?.as_microsecond(),
    });
    Some(Outgoing { node: context.target, kind })
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let command_reply::Outcome::TunnelOpened(opened) = reply else { return None };
    let message = format!("the target's tunnel is open at {}", opened.address);
    Some(Learned {
        tunnel: (!opened.address.is_empty()).then(|| opened.address.clone()),
        takes_http: opened.takes_http,
        ..Learned::saying(message).with(json!({ "address": opened.address }))
    })
}
