//! Relieving an overloaded node: the smallest, and among those the cheapest,
//! set of tenants that brings it under the low limit in one step, each with a
//! place to go.
//!
//! Cost is what must be copied. One tenant, then two, then three are tried in
//! every combination (three among those that weigh most); where no three
//! suffice, those that help most, one after another. A set whose tenants have
//! nowhere to go is no set: the next cheapest is tried, and at the end the node
//! is reported instead of being moved around.

use webhost_proto::ids::TenantId;

use super::need::{CELLS, DIMENSIONS, Need};
use super::plan::{Draft, Why, overload};
use super::seats::{Fleet, Search};

/// Three are sought among so many.
const WEIGHTIEST: usize = 40;
/// So many sets of one size are tried for places to go.
const TRIED: usize = 24;

/// What a node carries above its low limit, cell by cell, where it does, the
/// worst first; and what each of its tenants takes there.
struct Excess {
    over: Vec<u32>,
    /// By tenant, in the order of `over`.
    takes: Vec<Vec<u32>>,
}

impl Excess {
    fn of(fleet: &Fleet, node: u32, needs: &[Need]) -> Self {
        let (load, calm) = (fleet.rooms.load(node), fleet.calm(node));
        let mut cells: Vec<(usize, u32)> = (0..CELLS)
            .map(|cell| {
                let (carried, d) = load.cell(cell);
                (cell, carried.saturating_sub(calm[d]))
            })
            .filter(|(_, over)| *over > 0)
            .collect();
        cells.sort_by_key(|(cell, over)| {
            let (_, d) = load.cell(*cell);
            std::cmp::Reverse(u64::from(*over) * 1_000_000 / u64::from(calm[d].max(1)))
        });
        let takes = |need: &Need| cells.iter().map(|(cell, _)| need.cell(*cell).0).collect();
        Self {
            takes: needs.iter().map(takes).collect(),
            over: cells.iter().map(|(_, over)| *over).collect(),
        }
    }

    /// Whether the node is calm without these.
    fn is_met(&self, set: &[usize]) -> bool {
        self.over.iter().enumerate().all(|(cell, over)| {
            let gone: u64 = set.iter().map(|at| u64::from(self.takes[*at][cell])).sum();
            gone >= u64::from(*over)
        })
    }

    /// Whether any `size` tenants of the pool could be enough: the largest in
    /// the worst cell are.
    fn is_within_reach(&self, pool: &[usize], size: usize) -> bool {
        let mut worst: Vec<u64> = pool
            .iter()
            .map(|at| self.takes[*at].first().map_or(u64::MAX, |takes| u64::from(*takes)))
            .collect();
        worst.sort_unstable_by(|a, b| b.cmp(a));
        let most = worst.iter().take(size).fold(0_u64, |sum, takes| sum.saturating_add(*takes));
        most >= self.over.first().map_or(0, |over| u64::from(*over))
    }

    /// How much of the excess one tenant takes away, in thousandths of each
    /// part, summed.
    fn weight(&self, at: usize) -> u64 {
        let parts = self.takes[at].iter().zip(&self.over);
        parts.map(|(takes, over)| u64::from(*takes.min(over)) * 1000 / u64::from(*over)).sum()
    }
}

/// Plans the relief of one node; answers whether it is relieved then. An
/// unrelieved one keeps all of its tenants.
pub fn relieve(draft: &mut Draft, node: u32) -> bool {
    let fleet = &draft.fleet;
    let mut seats: Vec<u32> = fleet.on(node);
    seats.retain(|seat| !draft.heading.contains_key(seat) && !is_pinned(fleet, *seat));
    let needs: Vec<Need> = seats.iter().map(|seat| fleet.seat(*seat).need).collect();
    let excess = Excess::of(fleet, node, &needs);
    let mut heavy: Vec<usize> = (0..seats.len()).collect();
    heavy.sort_by_cached_key(|at| std::cmp::Reverse(excess.weight(*at)));
    for size in 1..=3 {
        let mut pool = heavy.clone();
        if size == 3 {
            pool.truncate(WEIGHTIEST);
        }
        pool.sort_unstable();
        if !excess.is_within_reach(&pool, size) {
            continue;
        }
        let mut sets: Vec<(u64, Vec<usize>)> = Vec::new();
        combinations(&pool, size, &mut Vec::new(), &mut |set| {
            if excess.is_met(set) {
                let disk = set.iter().map(|at| u64::from(needs[*at].disk)).sum();
                sets.push((disk, set.to_vec()));
            }
        });
        // Cheapest first; ids settle ties, because the seats are in their order.
        sets.sort_unstable();
        for (_, set) in sets.into_iter().take(TRIED) {
            let mark = draft.mark();
            if set.iter().all(|at| draft.shift(seats[*at], Why::Relieve, &Search::default())) {
                return true;
            }
            draft.back_to(mark);
        }
    }
    by_weight(draft, &excess, &heavy, &seats)
}

/// Those that help most, one after another, as far as they have places to go.
fn by_weight(draft: &mut Draft, excess: &Excess, heavy: &[usize], seats: &[u32]) -> bool {
    let mark = draft.mark();
    let mut gone = Vec::new();
    for at in heavy {
        if draft.shift(seats[*at], Why::Relieve, &Search::default()) {
            gone.push(*at);
            if excess.is_met(&gone) {
                return true;
            }
        }
    }
    draft.back_to(mark);
    false
}

fn is_pinned(fleet: &Fleet, seat: u32) -> bool {
    fleet.seat(seat).rules.as_ref().is_some_and(|rules| rules.pinned.is_some())
}

/// Shows every choice of `size` of the pool, in the pool's order; `chosen` is
/// empty to begin with.
fn combinations(
    pool: &[usize],
    size: usize,
    chosen: &mut Vec<usize>,
    show: &mut impl FnMut(&[usize]),
) {
    if size == 0 {
        return show(chosen);
    }
    for (at, one) in pool.iter().enumerate() {
        chosen.push(*one);
        combinations(&pool[at + 1..], size - 1, chosen, show);
        chosen.pop();
    }
}

/// Relieves every overloaded node whose tenants are not all leaving anyway,
/// the fullest first, and reports those that can't be.
pub fn relieve_all(draft: &mut Draft) {
    let nodes = (0..draft.fleet.rooms.len()).map(|at| at as u32);
    let mut overloaded: Vec<(u64, u32)> = nodes
        .filter(|node| {
            draft.fleet.rooms.room(*node).open && overload(&draft.fleet, *node).is_some()
        })
        .map(|node| (draft.fleet.rooms.room(node).tightest().1, node))
        .collect();
    overloaded.sort_by_key(|(share, node)| (std::cmp::Reverse(*share), *node));
    for (_, node) in overloaded {
        let Some(found) = overload(&draft.fleet, node) else { continue };
        if relieve(draft, node) {
            draft.plan.relieved.push(found);
        } else {
            draft.plan.overloaded.push(found);
        }
    }
}

/// Who causes it: the tenant without whom the node's fullest dimension would be
/// least full; the smallest id among equals. None on a node without tenants.
pub fn noisiest(fleet: &Fleet, node: u32) -> Option<TenantId> {
    let room = fleet.rooms.room(node);
    let without = |seat: &u32| {
        let mut load = room.load;
        load.remove(&fleet.seat(*seat).need);
        let shares = room.shares(&load.peaks());
        let mut ordered: [u64; DIMENSIONS] = shares;
        ordered.sort_unstable_by(|a, b| b.cmp(a));
        ordered
    };
    fleet.on(node).into_iter().min_by_key(without).map(|seat| fleet.seat(seat).id)
}
