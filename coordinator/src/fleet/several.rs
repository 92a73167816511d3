//! Places for several tenants, one after another on one snapshot: each choice
//! is charged before the next is made, so together they fill no node above its
//! limit, as if each had come alone.

use super::dedicated;
use super::need::Need;
use super::node::NodeState;
use super::place::{Demand, Home, NoRoom, Placed, refusals, shared};
use super::policy::Policy;
use super::rooms::Rooms;
use webhost_proto::ids::NodeId;

/// A snapshot with what was promised on it so far.
#[derive(Clone, Debug)]
pub struct Several {
    fleet: Vec<NodeState>,
    rooms: Rooms,
    policy: Policy,
}

impl Several {
    /// The nodes of `fleet`, in any order, with nothing promised yet.
    pub fn new(mut fleet: Vec<NodeState>, policy: Policy) -> Self {
        fleet.sort_unstable_by_key(|node| node.id);
        let rooms = Rooms::new(&fleet, policy.place_limit);
        Self { fleet, rooms, policy }
    }

    /// Chooses the node for the next tenant and charges it.
    ///
    /// # Errors
    /// [`NoRoom`] with each node's reason when none can take it; then nothing
    /// is charged.
    pub fn place(&mut self, demand: &Demand) -> Result<Placed, NoRoom> {
        let need = &demand.need;
        let placed = match &demand.home {
            Home::Shared { near } => shared(&self.rooms, need, near, &self.policy),
            Home::Dedicated { least, regions } => {
                dedicated::place(&self.fleet, need, *least, regions, &self.policy)
            }
        };
        let placed = placed.ok_or_else(|| refusals(&self.fleet, demand, &self.policy))?;
        self.charge(placed.node, need);
        Ok(placed)
    }

    fn charge(&mut self, id: NodeId, need: &Need) {
        if let Some(node) = self.rooms.position(id) {
            self.rooms.charge(node, need);
        }
        if let Ok(at) = self.fleet.binary_search_by_key(&id, |node| node.id) {
            self.fleet[at].load.add(need);
        }
    }
}
