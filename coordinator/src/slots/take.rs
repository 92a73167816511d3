//! Many places at once: one snapshot, one lock, one insert for a whole batch of
//! tenants. What one place costs against the database is then a fraction of a
//! round trip.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use webhost_proto::ids::{Epoch, NodeId, TenantId};

use super::Slots;
use crate::decide::{Mode, Region};
use crate::fleet::Need;
use crate::fleet::policy::Policy;
use crate::fleet::rooms::{Ask, Rooms};
use crate::store::StoreError;
use crate::store::nodes::NodeKind;
use crate::store::placements::{self, NewPlacement, PlacementState};

/// A tenant without a home that wants a slot on a shared node.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which tenant.
    pub tenant: TenantId,
    /// What it will take.
    pub need: Need,
    /// Where it would best stand.
    pub near: Vec<Region>,
    /// The epoch of its place.
    pub epoch: Epoch,
}

impl Slots {
    /// Reserves a slot for each, in their order, until `expires_at`; answers
    /// their nodes, none for those that fit nowhere. When the transaction
    /// commits, all of it holds.
    ///
    /// # Errors
    /// [`StoreError`], also where one of them has a home already.
    pub async fn take(
        &self,
        tx: &impl GenericClient,
        wanted: &[Wanted],
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<Vec<Option<NodeId>>, StoreError> {
        let fleet = self.snapshot(tx, NodeKind::Shared, now).await?;
        let mut rooms = Rooms::new(&fleet, Policy::of(&self.catalog).place_limit);
        let mut rows = Vec::with_capacity(wanted.len());
        let mut chosen = Vec::with_capacity(wanted.len());
        for one in wanted {
            let near = rooms.regions(&one.near);
            let node = rooms.choose(&Ask { near: &near, ..Ask::of(&one.need) });
            chosen.push(node.map(|node| rooms.id(node)));
            let Some(node) = node else { continue };
            rooms.charge(node, &one.need);
            rows.push(NewPlacement {
                tenant_id: one.tenant,
                node_id: rooms.id(node),
                mode: Mode::MultiTenant,
                state: PlacementState::Reserved,
                epoch: one.epoch,
                expires_at,
            });
        }
        placements::insert_all(tx, &rows).await?;
        Ok(chosen)
    }
}
