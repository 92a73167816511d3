//! Slots: the durable side of placement. [`crate::fleet`] chooses; here its
//! snapshot is read under lock, and its choice is written in the same
//! transaction.
//!
//! **Invariant:** whoever writes a placement that takes room (`reserved`,
//! `incoming`, an imported `active`) has read its snapshot with
//! [`Slots::snapshot`] in the same transaction. The snapshot locks the node
//! rows, so two that want the last slot come one after the other, and the
//! second sees what the first took.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::units::{Bytes, MilliCpu};

use crate::decide::{Catalog, Region};
use crate::fleet::{Amounts, Load, Measured, NodeState, Standing};
use crate::store::StoreError;
use crate::store::nodes::{self, Node, NodeKind};
use crate::store::placements::{self, Placement, PlacementState};
use crate::usage::{Book, metrics};

/// What a snapshot of the fleet is made of. Cheap to clone.
#[derive(Clone)]
pub struct Slots {
    /// What tenants and hosts are measured to take.
    pub book: Arc<Book>,
    /// Shapes, averages and limits.
    pub catalog: Arc<Catalog>,
    /// An agent that is silent for longer gets no new tenants.
    pub silence: SignedDuration,
}

impl Slots {
    /// The nodes of `kind` as placement sees them, their rows locked until
    /// the transaction ends.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(
        &self,
        tx: &impl GenericClient,
        kind: NodeKind,
        now: Timestamp,
    ) -> Result<Vec<NodeState>, StoreError> {
        let nodes = nodes::lock_all(tx, kind).await?;
        let ids: Vec<Uuid> = nodes.iter().map(|node| node.id.0).collect();
        let mut by_node: HashMap<NodeId, Vec<Placement>> = HashMap::new();
        for placement in placements::open_on(tx, &ids).await? {
            by_node.entry(placement.node_id).or_default().push(placement);
        }
        let none = Vec::new();
        Ok(nodes
            .iter()
            .filter_map(|node| self.state(node, by_node.get(&node.id).unwrap_or(&none), now))
            .collect())
    }

    /// One node; none when its shape is no longer in the catalogue.
    fn state(&self, node: &Node, placements: &[Placement], now: Timestamp) -> Option<NodeState> {
        let Some(shape) = self.catalog.shape(&node.shape) else {
            tracing::warn!(node = %node.name, shape = %node.shape,
                "the node's shape is not in the catalogue; it gets no tenants");
            return None;
        };
        let mut state = NodeState::new(node.id, shape, Region(node.region.clone()));
        state.kind = node.kind;
        state.standing = match node.state {
            nodes::NodeState::Joining => Standing::Joining,
            nodes::NodeState::Active => Standing::Active,
            nodes::NodeState::Draining => Standing::Draining,
            nodes::NodeState::Revoked => Standing::Revoked,
        };
        // Not by its session: one that sends no reports is no good, and a
        // killed coordinator leaves its nodes marked as connected.
        state.seen = node.last_seen_at.is_some_and(|seen| now.duration_since(seen) <= self.silence);
        // An agent that measured nothing of a dimension says 0.
        let known = |value: u64| (value > 0).then_some(value);
        if let Some(measured) = node.measured {
            state.measured = Measured {
                cpu: known(measured.cpu_millicores).map(MilliCpu),
                memory: known(measured.memory_bytes).map(Bytes),
                disk: known(measured.disk_bytes).map(Bytes),
                db_connections: known(measured.db_connections),
            };
        }
        let now_us = now.as_microsecond();
        let host = self.book.node(node.id, now_us).as_ref().map(metrics::host_amounts);
        let of = |wanted: fn(PlacementState) -> bool| {
            placements
                .iter()
                .filter(move |placement| wanted(placement.state))
                .map(|placement| self.demand(placement.tenant_id, now_us))
        };
        let promised =
            of(|state| matches!(state, PlacementState::Reserved | PlacementState::Incoming));
        let living = of(|state| matches!(state, PlacementState::Active | PlacementState::Kept));
        state.load = Load::of(host.unwrap_or_default(), living, promised);
        Some(state)
    }

    /// What a tenant takes: measured, or the catalogue's averages.
    pub fn demand(&self, tenant: TenantId, now_us: i64) -> Amounts {
        let average = self.catalog.averages.amounts();
        match self.book.tenant(tenant, now_us) {
            Some(usage) => metrics::amounts(&usage, average),
            None => average,
        }
    }
}
