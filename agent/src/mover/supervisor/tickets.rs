//! The target's part: letting a move in, and out again.

use webhost_proto::ids::{MoveId, NodeId, TenantId};
use webhost_proto::wire::{self, command_reply};

use super::{Supervisor, failed};
use crate::mover::error::Kind;
use crate::mover::tunnel::Ticket;

impl Supervisor {
    pub(super) fn open_tunnel(&self, order: &wire::OpenTunnel) -> command_reply::Outcome {
        let Some(address) = self.inner.setup.tunnel_address.clone() else {
            return failed(Kind::Refused, "this node has no [tunnel]: it can't be a target".into());
        };
        let ticket = match ticket(order) {
            Ok(ticket) => ticket,
            Err(message) => return failed(Kind::Refused, message),
        };
        match self.inner.setup.tickets.open(ticket) {
            Ok(()) => command_reply::Outcome::TunnelOpened(wire::TunnelOpened {
                address,
                takes_http: self.inner.setup.takes_http,
            }),
            Err(error) => failed(Kind::Retry, error.to_string()),
        }
    }

    pub(super) fn close_tunnel(&self, order: &wire::CloseTunnel) -> command_reply::Outcome {
        let move_id = match MoveId::from_wire(&order.move_id) {
            Ok(move_id) => move_id,
            Err(error) => return failed(Kind::Refused, error.to_string()),
        };
        match self.inner.setup.tickets.close(move_id) {
            Ok(()) => command_reply::Outcome::TunnelClosed(wire::TunnelClosed {}),
            Err(error) => failed(Kind::Retry, error.to_string()),
        }
    }
}

fn ticket(order: &wire::OpenTunnel) -> Result<Ticket, String> {
    if order.ticket_sha256.len() != 32 {
        return Err(format!("ticket_sha256 must be 32 bytes, got {}", order.ticket_sha256.len()));
    }
    let id = |error: webhost_proto::ids::IdError| error.to_string();
    Ok(Ticket {
        move_id: MoveId::from_wire(&order.move_id).map_err(id)?,
        tenant: TenantId::from_wire(&order.tenant_id).map_err(id)?,
        sha256: order.ticket_sha256.clone(),
        source_node: NodeId::from_wire(&order.source_node_id).map_err(id)?,
        expires_at_us: order.expires_at_us,
    })
}
