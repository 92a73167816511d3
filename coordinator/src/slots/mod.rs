//! Slots: the durable side of placement. [`crate::fleet`] chooses; here its
//! snapshot is read under lock, and its choice is written in the same
//! transaction.
//!
//! **Invariant:** whoever writes a placement that takes room (`reserved`,
//! `incoming`, an imported `active`) has read its snapshot with
//! [`Slots::snapshot`] in the same transaction. The snapshot locks the node
//! rows, so two that want the last slot come one after the other, and the
//! second sees what the first took.

pub mod forecast;
pub mod rules;
pub mod survey;
pub mod take;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::units::{Bytes, MilliCpu};

use crate::decide::{Catalog, Region};
use crate::fleet::{Load, Measured, Need, NodeState, Standing};
use crate::store::StoreError;
use crate::store::moves;
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
        let open = open_on(tx, &nodes).await?;
        Ok(self.states(&nodes, &open, &moves::may_return(tx).await?, now))
    }

    /// The nodes whose shapes are in the catalogue. Whoever is in `returning`
    /// may come back to where a copy of it is kept.
    fn states(
        &self,
        nodes: &[Node],
        open: &[Placement],
        returning: &HashSet<TenantId>,
        now: Timestamp,
    ) -> Vec<NodeState> {
        let mut by_node: HashMap<NodeId, Vec<&Placement>> = HashMap::new();
        for placement in open {
            by_node.entry(placement.node_id).or_default().push(placement);
        }
        nodes
            .iter()
            .filter_map(|node| {
                let placements = by_node.get(&node.id).map(Vec::as_slice).unwrap_or_default();
                self.state(node, placements, returning, now)
            })
            .collect()
    }

    /// One node; none when its shape is no longer in the catalogue.
    fn state(
        &self,
        node: &Node,
        placements: &[&Placement],
        returning: &HashSet<TenantId>,
        now: Timestamp,
    ) -> Option<NodeState> {
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
        // A promise is room for somebody whom the host's figures don't show.
        let is_promise = |placement: &Placement| match placement.state {
            PlacementState::Reserved | PlacementState::Incoming => true,
            PlacementState::Kept => returning.contains(&placement.tenant_id),
            PlacementState::Active | PlacementState::Ended => false,
        };
        let of = |promise: bool| {
            let asked = move |placement: &&&Placement| is_promise(placement) == promise;
            placements.iter().filter(asked).map(move |placement| {
                let need = self.need(placement.tenant_id, now_us);
                let at_rest = placement.state == PlacementState::Kept && !promise;
                if at_rest { need.at_rest() } else { need }
            })
        };
        state.load = Load::of(&host.unwrap_or_default(), of(false), of(true));
        Some(state)
    }

    /// What a tenant takes through a day: measured, and for its first week no
    /// less than its like take; the catalogue's averages where neither is known.
    pub fn need(&self, tenant: TenantId, now_us: i64) -> Need {
        let class = self.book.class_of(tenant);
        let class = class.unwrap_or_else(|| self.catalog.averages.amounts());
        match self.book.tenant(tenant, now_us) {
            Some(usage) => metrics::need(&usage, class),
            None => Need::flat(&class),
        }
    }
}

/// Every placement that takes a slot or keeps data on one of `nodes`.
async fn open_on(
    client: &impl GenericClient,
    nodes: &[Node],
) -> Result<Vec<Placement>, StoreError> {
    let ids: Vec<Uuid> = nodes.iter().map(|node| node.id.0).collect();
    placements::open_on(client, &ids).await
}
