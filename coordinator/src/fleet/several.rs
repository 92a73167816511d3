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

    /// The nodes with what was promised on them so far, by id.
    pub fn nodes(&self) -> &[NodeState] {
        &self.fleet
    }

    /// Chooses the node for the next tenant, none of `avoid`, and charges it.
    ///
    /// # Errors
    /// [`NoRoom`] with each node's reason when none can take it; then nothing
    /// is charged.
    pub fn place(&mut self, demand: &Demand, avoid: &[NodeId]) -> Result<Placed, NoRoom> {
        let need = &demand.need;
        let left: Vec<NodeState>;
        let fleet = if avoid.is_empty() {
            &self.fleet
        } else {
            let may = |node: &&NodeState| !avoid.contains(&node.id);
            left = self.fleet.iter().filter(may).cloned().collect();
            &left
        };
        let placed = match &demand.home {
            Home::Shared { near } => {
                let avoid: Vec<u32> =
                    avoid.iter().filter_map(|id| self.rooms.position(*id)).collect();
                shared(&self.rooms, need, near, &avoid, &self.policy)
            }
            Home::Dedicated { least, regions } => {
                dedicated::place(fleet, need, *least, regions, &self.policy)
            }
        };
        let placed = placed.ok_or_else(|| {
            let mut no_room = refusals(fleet, demand, &self.policy);
            if let Some(forbidden) = u32::try_from(avoid.len()).ok().filter(|count| *count > 0) {
                no_room.counts.insert("by_rule".to_owned(), forbidden);
            }
            no_room
        })?;
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
