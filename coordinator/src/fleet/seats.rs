//! The fleet with its tenants in it: what plans are worked out on.
//!
//! A tenant is one [`Seat`] of at most 208 bytes and four more in its node's
//! list; a snapshot of 1.5 million of them fits 400 MB. Both are positions in
//! arrays, in the order of the ids, so that the order of a snapshot never
//! shows in a plan.

use std::collections::BTreeMap;

use webhost_proto::ids::{NodeId, TenantId};

use super::need::{DIMENSIONS, Figures, Need};
use super::node::NodeState;
use super::policy::Policy;
use super::rooms::{Ask, Rooms};
use super::snapshot::{Left, Rules, Snapshot, SnapshotError};

/// A tenant in its place.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Which tenant.
    pub id: TenantId,
    /// What it takes.
    pub need: Need,
    /// Where, as a position.
    pub node: u32,
    /// Where in the node's list.
    at: u32,
    /// Since when, in hours.
    pub since_h: u32,
    /// The node that it left, while it must not return there.
    pub left: Option<Box<Left>>,
    /// What holds for it and not for most.
    pub rules: Option<Box<Rules>>,
}

/// Nodes and tenants.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The rules.
    pub policy: Policy,
    /// The time, in hours.
    pub now_h: u32,
    /// The nodes.
    pub rooms: Rooms,
    /// By node: what it is relieved to.
    calm: Vec<Figures>,
    /// By node: above which it is overloaded.
    act: Vec<Figures>,
    seats: Vec<Seat>,
    /// By node: its tenants, in no order that means anything.
    on: Vec<Vec<u32>>,
    /// By label: the tenants that are kept apart.
    apart: BTreeMap<String, Vec<u32>>,
}

/// What a search for a tenant's next node keeps to, beside its own rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search<'a> {
    /// For the sake of balance: the target stays as calm as a relieved node,
    /// and no empty node is started.
    pub balance: bool,
    /// Nodes that are out of the question.
    pub avoid: &'a [u32],
}

impl Fleet {
    /// The shared part of a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] when it contradicts itself.
    pub fn of(snapshot: &Snapshot, policy: &Policy) -> Result<Self, SnapshotError> {
        let mut fleet = Self::empty(policy, snapshot.now_h);
        fleet.rooms = Rooms::new(&snapshot.nodes, policy.place_limit);
        fleet.calm = vec![[0; DIMENSIONS]; fleet.rooms.len()];
        fleet.act = fleet.calm.clone();
        fleet.on = vec![Vec::new(); fleet.rooms.len()];
        let twice = fleet.rooms.ids().windows(2).find(|two| two[0] == two[1]);
        if let Some(two) = twice {
            return Err(SnapshotError::Twice(format!("node {}", two[0])));
        }
        for node in &snapshot.nodes {
            if let Some(at) = fleet.rooms.position(node.id) {
                fleet.calm[at as usize] = node.allowed(policy.relieve_to);
                fleet.act[at as usize] = node.allowed(policy.act_limit);
            }
        }
        let mut order: Vec<u32> = (0..snapshot.tenants.len()).map(|at| at as u32).collect();
        order.sort_unstable_by_key(|at| snapshot.tenants[*at as usize].id);
        fleet.seats.reserve(order.len());
        for at in order {
            let tenant = &snapshot.tenants[at as usize];
            if fleet.seats.last().is_some_and(|last| last.id == tenant.id) {
                return Err(SnapshotError::Twice(format!("tenant {}", tenant.id)));
            }
            let Some(node) = fleet.rooms.position(tenant.node) else {
                return Err(SnapshotError::UnknownNode { tenant: tenant.id, node: tenant.node });
            };
            let recent =
                |left: &&Left| snapshot.now_h.saturating_sub(left.at_h) < policy.residency_h;
            let left = tenant.left.as_ref().filter(recent).map(|left| Box::new(*left));
            fleet.sit(tenant.id, tenant.need, node, tenant.since_h, left, tenant.rules.clone());
        }
        Ok(fleet)
    }

    /// No nodes, no tenants.
    pub fn empty(policy: &Policy, now_h: u32) -> Self {
        Self {
            policy: *policy,
            now_h,
            rooms: Rooms::default(),
            calm: Vec::new(),
            act: Vec::new(),
            seats: Vec::new(),
            on: Vec::new(),
            apart: BTreeMap::new(),
        }
    }

    /// Takes in one node more; its id is larger than all that are there.
    pub fn push_node(&mut self, node: &NodeState) {
        self.rooms.push(node, self.policy.place_limit);
        self.calm.push(node.allowed(self.policy.relieve_to));
        self.act.push(node.allowed(self.policy.act_limit));
        self.on.push(Vec::new());
    }

    /// Lets a tenant sit where the node's load counts it already.
    fn sit(
        &mut self,
        id: TenantId,
        need: Need,
        node: u32,
        since_h: u32,
        left: Option<Box<Left>>,
        rules: Option<Box<Rules>>,
    ) -> u32 {
        let seat = self.seats.len() as u32;
        for label in rules.iter().flat_map(|rules| &rules.apart) {
            self.apart.entry(label.clone()).or_default().push(seat);
        }
        let at = self.on[node as usize].len() as u32;
        self.on[node as usize].push(seat);
        self.seats.push(Seat { id, need, node, at, since_h, left, rules });
        seat
    }

    /// A new tenant in the best place for it; answers its seat. None, and
    /// nothing changes, when it fits nowhere.
    pub fn admit(&mut self, id: TenantId, need: Need) -> Option<u32> {
        let node = self.rooms.choose(&Ask::of(&need))?;
        self.rooms.charge(node, &need);
        Some(self.sit(id, need, node, self.now_h, None, None))
    }

    /// A tenant goes; its seat is of no use any more. The last seat takes its
    /// position: answers which seat that was.
    pub fn dismiss(&mut self, seat: u32) -> u32 {
        let gone = self.seats[seat as usize].clone();
        self.rooms.discharge(gone.node, &gone.need);
        self.stand_up(seat);
        let last = self.seats.len() as u32 - 1;
        for tenants in self.apart.values_mut() {
            tenants.retain(|tenant| *tenant != seat);
            tenants.iter_mut().filter(|tenant| **tenant == last).for_each(|tenant| *tenant = seat);
        }
        self.seats.swap_remove(seat as usize);
        if let Some(moved) = self.seats.get(seat as usize) {
            self.on[moved.node as usize][moved.at as usize] = seat;
        }
        last
    }

    fn stand_up(&mut self, seat: u32) {
        let Seat { node, at, .. } = self.seats[seat as usize];
        let list = &mut self.on[node as usize];
        list.swap_remove(at as usize);
        if let Some(other) = list.get(at as usize) {
            self.seats[*other as usize].at = at;
        }
    }

    /// What a tenant takes changes, where it is.
    pub fn change(&mut self, seat: u32, need: Need) {
        let node = self.seats[seat as usize].node;
        let old = std::mem::replace(&mut self.seats[seat as usize].need, need);
        self.rooms.exchange(node, &old, &need);
    }

    /// A planned move has happened: the target counts the tenant already, the
    /// source no longer does.
    pub fn relocate(&mut self, seat: u32, to: u32) {
        let from = self.seats[seat as usize].node;
        let need = self.seats[seat as usize].need;
        self.stand_up(seat);
        self.rooms.discharge(from, &need);
        let left = Left { node: self.rooms.id(from), at_h: self.now_h, took: need.peaks() };
        let at = self.on[to as usize].len() as u32;
        self.on[to as usize].push(seat);
        let moved = &mut self.seats[seat as usize];
        (moved.node, moved.at, moved.since_h) = (to, at, self.now_h);
        moved.left = Some(Box::new(left));
    }

    /// A tenant by its seat.
    pub fn seat(&self, seat: u32) -> &Seat {
        &self.seats[seat as usize]
    }

    /// All tenants.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The seats on a node, by the tenants' ids.
    pub fn on(&self, node: u32) -> Vec<u32> {
        let mut seats = self.on[node as usize].clone();
        seats.sort_unstable_by_key(|seat| self.seat(*seat).id);
        seats
    }

    /// How many tenants that could be moved sit on a node.
    pub fn count_on(&self, node: u32) -> usize {
        self.on[node as usize].len()
    }

    /// What a node is relieved to.
    pub fn calm(&self, node: u32) -> &Figures {
        &self.calm[node as usize]
    }

    /// Above which a node is overloaded.
    pub fn act(&self, node: u32) -> &Figures {
        &self.act[node as usize]
    }

    /// Whether the tenant may be moved for the sake of balance: not pinned,
    /// and there for long enough.
    pub fn is_settled(&self, seat: u32) -> bool {
        let seat = self.seat(seat);
        self.now_h.saturating_sub(seat.since_h) >= self.policy.residency_h
    }

    /// The best other node for a tenant, by its rules and those of the search.
    /// `heading` says where tenants go in the plan that is being made.
    pub fn target(
        &self,
        seat: u32,
        search: &Search<'_>,
        heading: &BTreeMap<u32, u32>,
    ) -> Option<u32> {
        let tenant = self.seat(seat);
        let mut avoid = Vec::from(search.avoid);
        avoid.push(tenant.node);
        avoid.extend(self.left_for_now(seat));
        let below = search.balance.then_some(self.calm.as_slice());
        let ask = Ask { below, started: search.balance, ..Ask::of(&tenant.need) };
        let Some(rules) = &tenant.rules else {
            return self.rooms.choose(&Ask { avoid: &avoid, ..ask });
        };
        for other in rules.apart.iter().filter_map(|label| self.apart.get(label)).flatten() {
            if *other != seat {
                avoid.push(self.seat(*other).node);
                avoid.extend(heading.get(other));
            }
        }
        let (near, only) = (self.rooms.regions(&rules.near), self.rooms.regions(&rules.only));
        if !rules.only.is_empty() && only.is_empty() {
            return None;
        }
        let ask = Ask { near: &near, only: &only, avoid: &avoid, ..ask };
        match rules.pinned {
            None => self.rooms.choose(&ask),
            Some(pinned) => {
                let node = self.rooms.position(pinned)?;
                let here = only.is_empty() || only.contains(&self.rooms.room(node).region);
                let fits = here && ask.need.beyond().is_none();
                (fits && self.rooms.fits(node, &ask).is_some()).then_some(node)
            }
        }
    }

    /// The node that the tenant left and must not return to yet: not before
    /// its time, unless what it takes has changed since.
    pub fn left_for_now(&self, seat: u32) -> Option<u32> {
        let tenant = self.seat(seat);
        let left = tenant.left.as_ref()?;
        let holds = left.holds(&tenant.need, self.now_h, &self.policy);
        if holds { self.rooms.position(left.node) } else { None }
    }

    /// Bytes that the tenants take: their seats, and where they are listed. The
    /// few that have rules or were moved lately take some more.
    pub fn bytes(&self) -> usize {
        let lists: usize = self.on.iter().map(Vec::capacity).sum();
        self.seats.capacity() * size_of::<Seat>() + lists * size_of::<u32>()
    }

    /// The position of a node by its id.
    pub fn position(&self, id: NodeId) -> Option<u32> {
        self.rooms.position(id)
    }
}
