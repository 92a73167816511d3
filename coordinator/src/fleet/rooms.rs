//! All shared nodes, and the search for the best of them: incremental, exact
//! and repeatable.

use webhost_proto::ids::NodeId;

use super::index::{EMPTY, Index, Key};
use super::need::{CELLS, DIMENSIONS, Figures, Load, Need};
use super::node::NodeState;
use super::room::{FULL, Mix, Room, Shares, Wish, scale, tightest};
use crate::decide::plans::{NodeKind, Region};

/// So many nodes that fit are compared in each cell.
const COMPARED: usize = 3;
/// After so many in a cell that don't fit, an empty node is as good.
const TRIED: usize = 32;

/// The shared nodes of a fleet. A node is known by its position, which is its
/// rank by id: so "the smallest position" is "the smallest id".
#[derive(Clone, Debug, Default)]
pub struct Rooms {
    ids: Vec<NodeId>,
    rooms: Vec<Room>,
    keys: Vec<Key>,
    regions: Vec<Region>,
    index: Index,
    totals: Totals,
    /// The largest limit of any node, and what makes shares of it.
    largest: Figures,
    scale: Shares,
}

/// Sums over the open nodes, for the mix.
#[derive(Clone, Debug)]
struct Totals {
    carried: [u64; CELLS],
    limits: [u64; DIMENSIONS],
    /// One over the limits.
    parts: [u64; DIMENSIONS],
}

impl Default for Totals {
    fn default() -> Self {
        Self { carried: [0; CELLS], limits: [0; DIMENSIONS], parts: [0; DIMENSIONS] }
    }
}

impl Totals {
    fn carry(&mut self, room: &Room, change: fn(u64, u64) -> u64) {
        if !room.open {
            return;
        }
        let load = &room.load;
        for (carried, load) in self.carried.iter_mut().zip(load.hourly.as_flattened()) {
            *carried = change(*carried, u64::from(*load));
        }
        let rest = [load.memory, load.disk, load.tenants];
        for (carried, load) in self.carried.iter_mut().rev().zip(rest.iter().rev()) {
            *carried = change(*carried, u64::from(*load));
        }
    }

    fn limit(&mut self, room: &Room, change: fn(u64, u64) -> u64) {
        for (sum, limit) in self.limits.iter_mut().zip(room.limit).filter(|_| room.open) {
            *sum = change(*sum, u64::from(limit));
        }
        self.parts = self.limits.map(Mix::part);
    }
}

/// A tenant that looks for a node.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What it takes.
    pub need: &'a Need,
    /// Where it would best stand; elsewhere only when nothing there fits.
    pub near: &'a [u16],
    /// Where it must stand; anywhere when empty.
    pub only: &'a [u16],
    /// Nodes that are out of the question.
    pub avoid: &'a [u32],
    /// What each node may be filled to, where that is less than its limit.
    pub below: Option<&'a [Figures]>,
    /// Only among the nodes that have tenants.
    pub started: bool,
}

impl<'a> Ask<'a> {
    /// Anywhere.
    pub fn of(need: &'a Need) -> Self {
        Self { need, near: &[], only: &[], avoid: &[], below: None, started: false }
    }
}

/// What one search compares nodes by.
#[derive(Clone, Debug)]
pub struct Taste {
    mix: Mix,
    wish: Wish,
}

/// How good a place is; the smallest is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// How much the tenant strains the node: see [`Wish`].
    pub strain: i64,
    /// What is free of the node's fullest dimension: the fuller node first.
    pub free: u64,
    /// Settles ties, so that runs repeat.
    pub node: u32,
}

fn better(best: &mut Option<Score>, score: Score) {
    if best.is_none_or(|best| score < best) {
        *best = Some(score);
    }
}

impl Rooms {
    /// The shared ones of `nodes`, filled to at most `percent` of what they
    /// hold. The order of `nodes` does not matter.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a NodeState>, percent: u32) -> Self {
        let mut shared: Vec<&NodeState> =
            nodes.into_iter().filter(|node| node.kind == NodeKind::Shared).collect();
        shared.sort_unstable_by_key(|node| node.id);
        // Regions by name, so that positions don't hang on who came first.
        let mut regions: Vec<Region> = shared.iter().map(|node| node.region.clone()).collect();
        regions.sort_unstable();
        regions.dedup();
        let mut rooms = Self { regions, ..Self::default() };
        for node in shared {
            rooms.push(node, percent);
        }
        rooms
    }

    /// Takes in one node more; its id is larger than all that are there.
    pub fn push(&mut self, node: &NodeState, percent: u32) {
        let region = self.regions.iter().position(|region| *region == node.region);
        let region = region.unwrap_or_else(|| {
            self.regions.push(node.region.clone());
            self.regions.len() - 1
        });
        let limit = node.allowed(percent);
        let region = u16::try_from(region).unwrap_or(u16::MAX);
        let room = Room::new(node.load, limit, region, node.is_open());
        let at = self.position_of_next();
        for (largest, limit) in self.largest.iter_mut().zip(limit) {
            *largest = limit.max(*largest);
        }
        self.scale = self.largest.map(scale);
        self.totals.limit(&room, |sum, limit| sum + limit);
        self.totals.carry(&room, |sum, load| sum + load);
        self.keys.push(self.index.put(0, &room, at));
        self.ids.push(node.id);
        self.rooms.push(room);
    }

    fn position_of_next(&self) -> u32 {
        u32::try_from(self.rooms.len()).unwrap_or(u32::MAX)
    }

    fn change(&mut self, node: u32, change: impl FnOnce(&mut Room)) {
        let at = node as usize;
        let room = &mut self.rooms[at];
        self.totals.carry(room, |sum, load| sum - load);
        change(room);
        room.refresh();
        self.totals.carry(room, |sum, load| sum + load);
        self.keys[at] = self.index.put(self.keys[at], room, node);
    }

    /// One tenant more on a node.
    pub fn charge(&mut self, node: u32, need: &Need) {
        self.change(node, |room| room.load.add(need));
    }

    /// One tenant less.
    pub fn discharge(&mut self, node: u32, need: &Need) {
        self.change(node, |room| room.load.remove(need));
    }

    /// What one of its tenants takes is another now.
    pub fn exchange(&mut self, node: u32, old: &Need, new: &Need) {
        self.change(node, |room| {
            room.load.remove(old);
            room.load.add(new);
        });
    }

    /// Nothing more is placed there.
    pub fn close(&mut self, node: u32) {
        self.totals.limit(&self.rooms[node as usize], |sum, limit| sum - limit);
        self.change(node, |room| room.open = false);
    }

    /// How many nodes there are; their positions are 0 to that.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// A node by its position.
    pub fn room(&self, node: u32) -> &Room {
        &self.rooms[node as usize]
    }

    /// All nodes in the order of their positions.
    pub fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// The ids of all nodes, ascending.
    pub fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    /// The id of a node.
    pub fn id(&self, node: u32) -> NodeId {
        self.ids[node as usize]
    }

    /// The position of a node.
    pub fn position(&self, id: NodeId) -> Option<u32> {
        self.ids.binary_search(&id).ok().and_then(|at| u32::try_from(at).ok())
    }

    /// The positions of the regions that the fleet has nodes in.
    pub fn regions<'a>(&self, names: impl IntoIterator<Item = &'a Region>) -> Vec<u16> {
        let position = |name: &Region| self.regions.iter().position(|region| region == name);
        names.into_iter().filter_map(position).filter_map(|at| u16::try_from(at).ok()).collect()
    }

    /// The sum of what the open nodes carry, and of what they may be filled to.
    pub fn mix(&self) -> Mix {
        Mix::of(&self.totals.carried, &self.totals.parts)
    }

    /// What the tenant would make of a node, where it may live there.
    pub fn fits(&self, node: u32, ask: &Ask<'_>) -> Option<Figures> {
        let room = self.room(node);
        let figures = room.with(ask.need)?;
        let below = ask.below.and_then(|below| below.get(node as usize));
        let fits = below.is_none_or(|below| (0..DIMENSIONS).all(|d| figures[d] <= below[d]));
        (fits && room.open && !ask.avoid.contains(&node)).then_some(figures)
    }

    /// How the tenants of this search are judged.
    pub fn taste(&self, need: &Need) -> Taste {
        let mix = self.mix();
        Taste { wish: Wish::of(need, &self.scale, &mix), mix }
    }

    /// How good a node would be, once the tenant makes it `figures`.
    pub fn score(&self, node: u32, figures: &Figures, taste: &Taste) -> Score {
        let room = self.room(node);
        let strain = taste.wish.strain(room, &taste.mix);
        let (_, share) = tightest(&room.shares(figures));
        Score { strain, free: FULL.saturating_sub(share), node }
    }

    /// The best node for the tenant; none when it fits nowhere.
    pub fn choose(&self, ask: &Ask<'_>) -> Option<u32> {
        if ask.need.beyond().is_some() {
            return None;
        }
        let taste = self.taste(ask.need);
        let allowed = |region: &u16| ask.only.is_empty() || ask.only.contains(region);
        let near = ask.near.iter().copied().filter(allowed);
        let best = near.filter_map(|region| self.best_in(region, ask, &taste)).min();
        let best = best.or_else(|| {
            let all = (0..self.regions.len()).filter_map(|at| u16::try_from(at).ok());
            let far = all.filter(allowed).filter(|region| !ask.near.contains(region));
            far.filter_map(|region| self.best_in(region, ask, &taste)).min()
        });
        best.map(|score| score.node)
    }

    fn best_in(&self, region: u16, ask: &Ask<'_>, taste: &Taste) -> Option<Score> {
        let look = |cell: usize, least: u64, tried: usize, compared: usize| {
            let mut best = None;
            let mut left = compared;
            for node in self.index.walk(region, cell, least).take(tried) {
                let Some(figures) = self.fits(node, ask) else { continue };
                better(&mut best, self.score(node, &figures, taste));
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            best
        };
        let used = |tried: usize| {
            let mut best = None;
            for cell in self.index.cells(region) {
                if let Some(score) = look(cell, self.least(ask.need, cell), tried, COMPARED) {
                    better(&mut best, score);
                }
            }
            best
        };
        let empty = || if ask.started { None } else { look(EMPTY, 0, usize::MAX, 1) };
        match used(TRIED) {
            Some(best) if !self.index.may_start(region) => Some(best),
            Some(best) => Some(empty().map_or(best, |empty| empty.min(best))),
            // A large tenant: rather start a node than look at all of them.
            None => empty().or_else(|| used(usize::MAX)),
        }
    }

    /// What a node must have free in a cell to hold the tenant, if it is the
    /// largest of the fleet; a smaller one must have more.
    fn least(&self, need: &Need, cell: usize) -> u64 {
        let (figure, d) = need.cell(cell);
        u64::from(figure).saturating_mul(self.scale[d]) >> 32
    }

    /// What a node carries.
    pub fn load(&self, node: u32) -> &Load {
        &self.room(node).load
    }
}
