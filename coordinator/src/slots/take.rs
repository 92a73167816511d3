//! Many places at once: one snapshot, one lock, one insert for a whole batch of
//! tenants. What one place costs against the database is then a fraction of a
//! round trip.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{Epoch, TenantId};

use super::Slots;
use crate::decide::Mode;
use crate::fleet::{Demand, Home, NoRoom, Placed, Policy, Several};
use crate::store::nodes::NodeKind;
use crate::store::placements::{self, NewPlacement, PlacementState};
use crate::store::{StoreError, rules};

/// A tenant without a home that wants one.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which tenant.
    pub tenant: TenantId,
    /// What it will take, and on what kind of node.
    pub demand: Demand,
    /// The epoch of its place.
    pub epoch: Epoch,
}

impl Wanted {
    fn kind(&self) -> NodeKind {
        match self.demand.home {
            Home::Shared { .. } => NodeKind::Shared,
            Home::Dedicated { .. } => NodeKind::Dedicated,
        }
    }
}

impl Slots {
    /// Reserves a place for each, in their order, until `expires_at`; answers
    /// where, or why nowhere, in the same order. When the transaction commits,
    /// all of it holds.
    ///
    /// # Errors
    /// [`StoreError`], also where one of them has a home already.
    pub async fn take(
        &self,
        tx: &impl GenericClient,
        wanted: &[Wanted],
        policy: &Policy,
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<Vec<Result<Placed, NoRoom>>, StoreError> {
        let mut fleets = HashMap::new();
        // Always in this order, so that two batches don't wait for each other.
        for kind in [NodeKind::Shared, NodeKind::Dedicated] {
            if wanted.iter().any(|one| one.kind() == kind) {
                let fleet = self.snapshot(tx, kind, now).await?;
                fleets.insert(kind.as_str(), Several::new(fleet, *policy));
            }
        }
        let mut rows = Vec::with_capacity(wanted.len());
        let mut chosen = Vec::with_capacity(wanted.len());
        let ids: Vec<Uuid> = wanted.iter().map(|one| one.tenant.0).collect();
        let ruled = rules::of(tx, &ids).await?;
        for one in wanted {
            let kind = one.kind();
            let Some(fleet) = fleets.get_mut(kind.as_str()) else { continue };
            let mut demand = Cow::Borrowed(&one.demand);
            let avoid = match ruled.get(&one.tenant) {
                None => Vec::new(),
                Some(rules) => {
                    demand.to_mut().home.prefer(&rules.near);
                    // Whom it is kept apart from may be of this batch.
                    placements::insert_all(tx, &std::mem::take(&mut rows)).await?;
                    self.forbidden(tx, one.tenant, rules, fleet.nodes()).await?
                }
            };
            let placed = fleet.place(&demand, &avoid);
            if let Ok(placed) = &placed {
                rows.push(NewPlacement {
                    tenant_id: one.tenant,
                    node_id: placed.node,
                    mode: match kind {
                        NodeKind::Shared => Mode::MultiTenant,
                        NodeKind::Dedicated => Mode::SingleTenant,
                    },
                    state: PlacementState::Reserved,
                    epoch: one.epoch,
                    expires_at,
                });
            }
            chosen.push(placed);
        }
        placements::insert_all(tx, &rows).await?;
        Ok(chosen)
    }
}
