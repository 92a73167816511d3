//! Plans: which tenants move where, in which order, and what can't be helped.
//!
//! While a move is under way both its ends are charged, and room that a plan
//! frees is not used again within the plan. So every move of a plan has its
//! room whatever became of the others: every prefix holds, in any order, and a
//! move that fails takes no other with it. The waves say only how many are
//! under way at once.
//!
//! **Invariant:** a tenant is in a plan at most once, and no node is both left
//! for its load and moved to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{NodeId, TenantId};

use super::load::Dimension;
use super::need::HOURLY_DIMENSIONS;
use super::node::Standing;
use super::policy::{AtOnce, Policy};
use super::seats::{Fleet, Search};
use super::snapshot::{Snapshot, SnapshotError};
use super::{drain, relieve};

/// Why a tenant moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its node is overloaded.
    Relieve,
    /// Its node is being emptied on somebody's order.
    Drain,
    /// Its node can be given up.
    Consolidate,
}

/// One move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Who moves.
    pub tenant: TenantId,
    /// From where.
    pub from: NodeId,
    /// To where.
    pub to: NodeId,
    /// Why.
    pub why: Why,
    /// What is copied, in MiB.
    pub disk: u32,
}

/// A tenant that ought to move, and fits nowhere: it needs a node of its own,
/// or the fleet one more node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// Which tenant.
    pub tenant: TenantId,
    /// Where it stays.
    pub node: NodeId,
    /// Whether an empty node of the largest kind would take it.
    pub another_node_would_do: bool,
}

/// A node that stays overloaded, because no tenants of it fit elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overload {
    /// Which node.
    pub node: NodeId,
    /// In which dimension most.
    pub dimension: Dimension,
    /// In which UTC hour most, where the dimension varies.
    pub hour: Option<u8>,
    /// What it carries then, in the units of [`super::Need`].
    pub carries: u32,
    /// Above which it is overloaded.
    pub limit: u32,
    /// The tenant without whom it would be least full.
    pub noisiest: Option<TenantId>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Moves that may be under way together, in order.
    pub waves: Vec<Vec<Move>>,
    /// Overloaded nodes that the plan relieves.
    pub relieved: Vec<Overload>,
    /// Overloaded nodes that it does not.
    pub overloaded: Vec<Overload>,
    /// Nodes that no tenant is left on afterwards.
    pub emptied: Vec<NodeId>,
    /// Tenants that would have to move and fit nowhere.
    pub stuck: Vec<Stuck>,
}

impl Plan {
    /// All moves in order.
    pub fn moves(&self) -> impl Iterator<Item = &Move> {
        self.waves.iter().flatten()
    }
}

/// A plan in the making, on a fleet that is charged with it.
#[derive(Debug)]
pub struct Draft {
    /// The fleet; targets count what is heading for them.
    pub fleet: Fleet,
    /// Where tenants go.
    pub heading: BTreeMap<u32, u32>,
    moves: Vec<(u32, u32, Why)>,
    /// What is reported with it.
    pub plan: Plan,
}

impl Draft {
    /// An empty plan.
    pub fn of(fleet: Fleet) -> Self {
        Self { fleet, heading: BTreeMap::new(), moves: Vec::new(), plan: Plan::default() }
    }

    /// Plans a move to the best other node; false when there is none, or the
    /// tenant moves already.
    pub fn shift(&mut self, seat: u32, why: Why, search: &Search<'_>) -> bool {
        if self.heading.contains_key(&seat) {
            return false;
        }
        let Some(to) = self.fleet.target(seat, search, &self.heading) else { return false };
        let need = self.fleet.seat(seat).need;
        self.fleet.rooms.charge(to, &need);
        self.heading.insert(seat, to);
        self.moves.push((seat, to, why));
        true
    }

    /// How many moves there are, for [`Draft::back_to`].
    pub fn mark(&self) -> usize {
        self.moves.len()
    }

    /// Takes back all moves after a mark.
    pub fn back_to(&mut self, mark: usize) {
        while self.moves.len() > mark {
            let Some((seat, to, _)) = self.moves.pop() else { return };
            let need = self.fleet.seat(seat).need;
            self.fleet.rooms.discharge(to, &need);
            self.heading.remove(&seat);
        }
    }

    /// Whether a node is the target of a move so far.
    pub fn is_target(&self, node: u32) -> bool {
        self.moves.iter().any(|(_, to, _)| *to == node)
    }

    /// Notes a tenant that fits nowhere.
    pub fn stuck(&mut self, seat: u32) {
        let tenant = self.fleet.seat(seat);
        let peaks = tenant.need.peaks();
        let fits = |limit: &super::need::Figures| (0..limit.len()).all(|d| peaks[d] <= limit[d]);
        let another = self.fleet.rooms.rooms().iter().any(|room| fits(&room.limit));
        self.plan.stuck.push(Stuck {
            tenant: tenant.id,
            node: self.fleet.rooms.id(tenant.node),
            another_node_would_do: another && tenant.need.beyond().is_none(),
        });
    }

    /// The finished plan; the draft is of no more use.
    pub fn finish(&mut self) -> Plan {
        Plan { waves: self.waves(), ..std::mem::take(&mut self.plan) }
    }

    /// Carries the plan out at once; answers it with the fleet as it is then.
    pub fn settle(mut self) -> (Plan, Fleet) {
        self.plan.waves = self.waves();
        for (seat, to, _) in &self.moves {
            self.fleet.relocate(*seat, *to);
        }
        (self.plan, self.fleet)
    }

    /// The moves in their order, each in the first wave that has room for one
    /// more from its source, to its target, and at all.
    fn waves(&self) -> Vec<Vec<Move>> {
        let AtOnce { source, target, all } = self.fleet.policy.at_once;
        let rooms = &self.fleet.rooms;
        let mut waves: Vec<Vec<Move>> = Vec::new();
        let mut sources: BTreeMap<u32, u32> = BTreeMap::new();
        let mut targets: BTreeMap<u32, u32> = BTreeMap::new();
        let mut full = 0;
        for (seat, to, why) in &self.moves {
            let tenant = self.fleet.seat(*seat);
            let (out, into) =
                (sources.entry(tenant.node).or_default(), targets.entry(*to).or_default());
            // As many waves as its source's and target's earlier moves fill.
            let first = (*out / source.max(1)).max(*into / target.max(1)) as usize;
            let mut wave = first.max(full);
            while waves.get(wave).is_some_and(|wave| wave.len() >= all.max(1) as usize) {
                wave += 1;
            }
            if waves.len() <= wave {
                waves.resize_with(wave + 1, Vec::new);
            }
            (*out, *into) = (
                (wave as u32 * source.max(1)).max(*out) + 1,
                (wave as u32 * target.max(1)).max(*into) + 1,
            );
            waves[wave].push(Move {
                tenant: tenant.id,
                from: rooms.id(tenant.node),
                to: rooms.id(*to),
                why: *why,
                disk: tenant.need.disk,
            });
            while waves.get(full).is_some_and(|wave| wave.len() >= all.max(1) as usize) {
                full += 1;
            }
        }
        // A wave that was passed over may be empty.
        waves.retain(|wave| !wave.is_empty());
        waves
    }
}

/// Where and when a node is furthest above what it may be filled to, if it is.
pub fn overload(fleet: &Fleet, node: u32) -> Option<Overload> {
    let (room, act) = (fleet.rooms.room(node), fleet.act(node));
    let over = |d: &usize| room.figures[*d] > act[*d];
    // By how much, as a share of the limit, compared without dividing.
    let worst = (0..act.len()).filter(over).max_by(|a, b| {
        let ratio =
            |d: usize, other: usize| u64::from(room.figures[d]) * u64::from(act[other].max(1));
        ratio(*a, *b).cmp(&ratio(*b, *a)).then(b.cmp(a))
    })?;
    let dimension = Dimension::ALL[worst];
    let row = HOURLY_DIMENSIONS.iter().position(|hourly| *hourly == dimension);
    let peak = room.figures[worst];
    let hour = row.and_then(|row| room.load.hourly[row].iter().position(|load| *load == peak));
    Some(Overload {
        node: fleet.rooms.id(node),
        dimension,
        hour: hour.and_then(|hour| u8::try_from(hour).ok()),
        carries: peak,
        limit: act[worst],
        noisiest: relieve::noisiest(fleet, node),
    })
}

/// What to do about a fleet: empty the draining nodes, relieve the overloaded
/// ones, give up those that the rest can do without. Pure: the same snapshot
/// gives the same plan, in any order of its nodes and tenants.
///
/// # Errors
/// [`SnapshotError`] when the snapshot contradicts itself.
pub fn plan(snapshot: &Snapshot, policy: &Policy) -> Result<Plan, SnapshotError> {
    let mut draft = Draft::of(Fleet::of(snapshot, policy)?);
    let mut draining: Vec<u32> = snapshot
        .nodes
        .iter()
        .filter(|node| node.standing == Standing::Draining)
        .filter_map(|node| draft.fleet.position(node.id))
        .collect();
    draining.sort_unstable();
    drain::drain(&mut draft, &draining);
    relieve::relieve_all(&mut draft);
    drain::consolidate(&mut draft);
    Ok(draft.finish())
}

/// How `nodes` would be emptied; those that are no shared nodes of the
/// snapshot are left out.
///
/// # Errors
/// [`SnapshotError`] when the snapshot contradicts itself.
pub fn drain(
    snapshot: &Snapshot,
    policy: &Policy,
    nodes: &[NodeId],
) -> Result<Plan, SnapshotError> {
    let mut draft = Draft::of(Fleet::of(snapshot, policy)?);
    let mut nodes: Vec<u32> = nodes.iter().filter_map(|id| draft.fleet.position(*id)).collect();
    nodes.sort_unstable();
    nodes.dedup();
    drain::drain(&mut draft, &nodes);
    Ok(draft.finish())
}
