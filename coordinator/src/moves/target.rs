//! Where a move goes: placement's choice, read and written in the transaction
//! that promises it, so that two never take the same place.

use std::str::FromStr;

use jiff::Timestamp;
use tokio_postgres::Transaction;
use webhost_proto::ids::NodeId;

use crate::decide::{Mode, Region};
use crate::fleet::{Demand, Home, Policy, place};
use crate::signup::kind_of;
use crate::slots::{Slots, rules};
use crate::store::moves::Move;
use crate::store::{StoreError, nodes};

/// The node that a move goes to.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Which.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where its agent said that the tunnel listens.
    pub tunnel_address: String,
}

/// Finds the target of `row`, or says why there is none; none of `taken` is
/// one. The rows of the nodes that could be it stay locked until the
/// transaction ends.
///
/// # Errors
/// When the nodes can't be read, or the row wants a mode that there is not.
pub async fn choose(
    tx: &Transaction<'_>,
    slots: &Slots,
    row: &Move,
    taken: &[NodeId],
    now: Timestamp,
) -> Result<Result<Chosen, String>, StoreError> {
    let wanted = &row.durable.wanted;
    let mode = Mode::from_str(&wanted.mode).map_err(|error| StoreError::Corrupt {
        what: "moves.durable",
        detail: error.to_string(),
    })?;
    let catalog = &slots.catalog;
    let Some(plan) = catalog.plan(&wanted.plan) else {
        return Ok(Err(format!("plan {} is not in the catalogue", wanted.plan)));
    };
    let regions: Vec<Region> = wanted.regions.iter().cloned().map(Region).collect();
    let mut home = match mode {
        Mode::MultiTenant => Home::Shared { near: regions },
        Mode::SingleTenant => Home::Dedicated {
            least: catalog.shape(&plan.shape).map(|shape| shape.capacity()).unwrap_or_default(),
            regions,
        },
    };
    let rules = rules::get(tx, row.tenant).await?;
    home.prefer(&rules.near);
    let demand = Demand { need: slots.need(row.tenant, now.as_microsecond()), home };
    let kind = kind_of(mode);
    let mut fleet = slots.snapshot(tx, kind, now).await?;
    // A person's choice is held to the same limits as placement's own.
    fleet.retain(|node| {
        node.id != row.source
            && !taken.contains(&node.id)
            && wanted.node.is_none_or(|id| node.id == id)
    });
    let forbidden = slots.forbidden(tx, row.tenant, &rules, &fleet).await?;
    if !forbidden.is_empty() {
        fleet.retain(|node| !forbidden.contains(&node.id));
        if fleet.is_empty() {
            return Ok(Err("the tenant's rules forbid every node that it could go to".into()));
        }
    }
    let placed = match place(&fleet, &demand, &Policy::of(catalog)) {
        Ok(placed) => placed,
        Err(no_room) => return Ok(Err(no_room.said(kind))),
    };
    let node = nodes::get(tx, placed.node).await?.ok_or_else(|| StoreError::Corrupt {
        what: "nodes",
        detail: format!("no row for {}", placed.node),
    })?;
    Ok(Ok(Chosen { id: node.id, name: node.name, tunnel_address: node.tunnel_address }))
}
