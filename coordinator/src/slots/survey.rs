//! The whole fleet as plans are made of it, read without a lock: a plan that
//! time has overtaken is caught when its moves take their places.

use std::collections::HashSet;

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use webhost_proto::ids::{NodeId, TenantId};

use super::{Slots, open_on};
use crate::fleet::snapshot::Left;
use crate::fleet::{Snapshot, Tenant};
use crate::store::moves;
use crate::store::nodes::{self, NodeKind};
use crate::store::placements::{self, Placement, PlacementState};
use crate::store::{StoreError, rules};

impl Slots {
    /// The shared nodes and who may be moved from them: tenants that are
    /// active there, and not on the move already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn survey(
        &self,
        client: &impl GenericClient,
        now: Timestamp,
    ) -> Result<Snapshot, StoreError> {
        let mut all = nodes::all(client).await?;
        all.retain(|node| node.kind == NodeKind::Shared);
        let open = open_on(client, &all).await?;
        let states = self.states(&all, &open, &moves::may_return(client).await?, now);
        let mut before = placements::homes_before(client).await?;
        let mut rules = rules::all(client).await?;
        let now_us = now.as_microsecond();
        let moving: HashSet<TenantId> = placements::moving(client).await?.into_iter().collect();
        let known: HashSet<NodeId> = states.iter().map(|state| state.id).collect();
        let tenant = |placement: &Placement| {
            let need = self.need(placement.tenant_id, now_us);
            let since_h = hours(placement.since);
            // What it took when it left is not known: it is taken to be what
            // it takes now, so that the whole week holds.
            let left = before.remove(&placement.tenant_id).map(|node| Left {
                node,
                at_h: since_h,
                took: need.peaks(),
            });
            Tenant {
                id: placement.tenant_id,
                node: placement.node_id,
                need,
                since_h,
                left,
                rules: rules.remove(&placement.tenant_id).map(Box::new),
            }
        };
        let stays = |placement: &&Placement| {
            placement.state == PlacementState::Active
                && !moving.contains(&placement.tenant_id)
                && known.contains(&placement.node_id)
        };
        let tenants = open.iter().filter(stays).map(tenant).collect();
        Ok(Snapshot { now_h: hours(now), nodes: states, tenants })
    }
}

/// Hours since the Unix epoch.
fn hours(at: Timestamp) -> u32 {
    u32::try_from(at.as_second() / 3600).unwrap_or(0)
}
