//! A trace of tenants through the policy: who comes, goes and changes, round
//! by round, and what becomes of the fleet. Servers of one shape are added when
//! a tenant fits nowhere, and given up when the rest can do without them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};

use super::need::{DIMENSIONS, HOURLY, HOURS, Need};
use super::node::NodeState;
use super::plan::{Draft, overload};
use super::policy::Policy;
use super::seats::Fleet;
use super::{drain, relieve};

/// What happens until the next look.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Round {
    /// The time of it, in hours since the Unix epoch; never less than before.
    pub now_h: u32,
    /// Tenants that leave.
    pub gone: Vec<TenantId>,
    /// Tenants that take something else now.
    pub changed: Vec<(TenantId, Need)>,
    /// Tenants that come.
    pub come: Vec<(TenantId, Need)>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Tenants afterwards.
    pub tenants: u32,
    /// Servers with tenants afterwards.
    pub servers: u32,
    /// No fewer could carry them, however they were spread: by volume, hour by
    /// hour, at the limit above which a server is overloaded.
    pub bound: u32,
    /// Servers that were overloaded before the policy acted.
    pub overloaded: u32,
    /// Servers that still are after it did.
    pub unrelieved: u32,
    /// Tenants that were moved.
    pub moved: u32,
    /// Those of them that came back to where they had been before.
    pub returned: u32,
    /// Tenants that fit not even an empty server; they are left out.
    pub unplaced: u32,
}

/// A fleet in time.
#[derive(Debug)]
pub struct Simulation {
    fleet: Fleet,
    /// What a new server is; its id is replaced.
    model: NodeState,
    servers: u32,
    seats: BTreeMap<TenantId, u32>,
    /// Where moved tenants have been before.
    past: BTreeMap<TenantId, BTreeSet<NodeId>>,
    limits: [u64; DIMENSIONS],
}

impl Simulation {
    /// An empty fleet of servers like `model`.
    pub fn new(model: &NodeState, policy: &Policy) -> Self {
        let limits = model.allowed(policy.act_limit).map(u64::from);
        let mut simulation = Self {
            fleet: Fleet::empty(policy, 0),
            model: model.clone(),
            servers: 0,
            seats: BTreeMap::new(),
            past: BTreeMap::new(),
            limits,
        };
        simulation.add_server();
        simulation
    }

    fn add_server(&mut self) {
        self.servers += 1;
        self.model.id = NodeId(Uuid::from_u128(u128::from(self.servers)));
        self.fleet.push_node(&self.model);
    }

    /// The fleet as it is.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Goes on to the time of `round`, lets it happen, and acts on it.
    pub fn step(&mut self, round: &Round) -> Outcome {
        self.fleet.now_h = round.now_h;
        for tenant in &round.gone {
            self.dismiss(*tenant);
        }
        for (tenant, need) in &round.changed {
            if let Some(seat) = self.seats.get(tenant) {
                self.fleet.change(*seat, *need);
            }
        }
        let mut outcome = Outcome { overloaded: self.overloaded(), ..Outcome::default() };
        self.act(relieve::relieve_all, &mut outcome);
        outcome.unrelieved = self.overloaded();
        if outcome.unrelieved > 0 {
            self.add_server();
            self.act(relieve::relieve_all, &mut outcome);
            outcome.unrelieved = self.overloaded();
        }
        for (tenant, need) in &round.come {
            if !self.admit(*tenant, *need) {
                outcome.unplaced += 1;
            }
        }
        self.act(drain::consolidate, &mut outcome);
        outcome.tenants = self.seats.len() as u32;
        outcome.servers = self.nodes().filter(|node| self.fleet.count_on(*node) > 0).count() as u32;
        outcome.bound = self.bound();
        outcome
    }

    fn nodes(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.fleet.rooms.len() as u32
    }

    fn overloaded(&self) -> u32 {
        self.nodes().filter(|node| overload(&self.fleet, *node).is_some()).count() as u32
    }

    fn admit(&mut self, tenant: TenantId, need: Need) -> bool {
        if self.seats.contains_key(&tenant) {
            return false;
        }
        // One empty server is always at hand, so that starting it is a choice.
        if self
            .nodes()
            .all(|node| !self.fleet.rooms.room(node).open || self.fleet.count_on(node) > 0)
        {
            self.add_server();
        }
        let Some(seat) = self.fleet.admit(tenant, need) else { return false };
        self.seats.insert(tenant, seat);
        true
    }

    fn dismiss(&mut self, tenant: TenantId) {
        let Some(seat) = self.seats.remove(&tenant) else { return };
        self.past.remove(&tenant);
        self.fleet.dismiss(seat);
        if let Some(moved) = self.fleet.seats().get(seat as usize) {
            self.seats.insert(moved.id, seat);
        }
    }

    fn act(&mut self, policy: fn(&mut Draft), outcome: &mut Outcome) {
        let empty = Fleet::empty(&self.fleet.policy, self.fleet.now_h);
        let mut draft = Draft::of(std::mem::replace(&mut self.fleet, empty));
        policy(&mut draft);
        let (plan, fleet) = draft.settle();
        self.fleet = fleet;
        for step in plan.moves() {
            let past = self.past.entry(step.tenant).or_default();
            outcome.moved += 1;
            outcome.returned += u32::from(past.contains(&step.to));
            past.insert(step.from);
        }
    }

    /// The fewest servers, by volume.
    fn bound(&self) -> u32 {
        let mut sums = [[0_u64; HOURS]; HOURLY];
        let mut scalars = [0_u64; 3];
        for seat in self.fleet.seats() {
            for (sums, need) in sums.iter_mut().zip(&seat.need.hourly) {
                for (sum, need) in sums.iter_mut().zip(need) {
                    *sum += u64::from(*need);
                }
            }
            scalars[0] += u64::from(seat.need.memory);
            scalars[1] += u64::from(seat.need.disk);
            scalars[2] += 1;
        }
        let [cpu, connections, gps] = sums.map(|day| day.into_iter().max().unwrap_or(0));
        let most = [cpu, scalars[0], scalars[1], connections, gps, scalars[2]];
        let servers = most.iter().zip(self.limits).map(|(sum, limit)| sum.div_ceil(limit.max(1)));
        servers.max().unwrap_or(0) as u32
    }
}
