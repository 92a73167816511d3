//! The nodes in the order in which a search should look at them.
//!
//! A node stands under its region, its tightest cell (a dimension, and the hour
//! where the dimension varies), and how much is free there; empty ones stand
//! apart. A search for a tenant starts, in each cell, at the least free share
//! that could still hold it and goes on to more: so the nodes that are too full
//! for it are never looked at, and the first that it looks at are the fullest
//! that may fit. One placement moves one node, which costs one removal and one
//! insertion in an ordered set.

use std::collections::BTreeSet;

use super::need::CELLS;
use super::room::{FULL, Room};

/// Where nodes without tenants stand, instead of a cell.
pub const EMPTY: usize = CELLS;
/// A node with more than this free still has much of its life before it.
const FILLING: u64 = FULL / 16;
/// The largest free share that a key can hold.
const MOST: u64 = FULL - 1;

/// Where a node stands: 12 bits of its region and one, 8 of its cell, 16 of
/// what is free there, 28 of its position. 0 is nowhere.
pub type Key = u64;

/// More regions than this have no place in a key.
pub const REGIONS: usize = (1 << 12) - 2;
/// More nodes than this have no place in a key.
pub const NODES: usize = 1 << 28;

/// The open nodes of a fleet.
#[derive(Clone, Debug, Default)]
pub struct Index {
    keys: BTreeSet<Key>,
    /// By region and one.
    counts: Vec<Counts>,
}

/// What stands in one region.
#[derive(Clone, Debug)]
struct Counts {
    /// By cell: how many nodes.
    nodes: [u32; CELLS + 1],
    /// Which of them are not 0, as bits.
    any: u128,
    /// Nodes that have tenants.
    used: u32,
    /// Those of them that are still filling.
    filling: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Self { nodes: [0; CELLS + 1], any: 0, used: 0, filling: 0 }
    }
}

fn key(region: u16, cell: usize, free: u64, node: u32) -> Key {
    (u64::from(region) + 1) << 52 | (cell as u64) << 44 | free << 28 | u64::from(node)
}

impl Index {
    /// Puts a node, which stood at `old`, where it belongs now; answers where
    /// that is. A closed node stands nowhere.
    pub fn put(&mut self, old: Key, room: &Room, node: u32) -> Key {
        let (tightest, share) = room.tightest_cell();
        let cell = if room.load.tenants == 0 { EMPTY } else { tightest };
        let free = FULL.saturating_sub(share).min(MOST);
        let new = if room.open { key(room.region, cell, free, node) } else { 0 };
        if new != old {
            if old != 0 {
                self.keys.remove(&old);
                self.count(old, |n| n.saturating_sub(1));
            }
            if new != 0 {
                self.keys.insert(new);
                self.count(new, |n| n + 1);
            }
        }
        new
    }

    fn count(&mut self, key: Key, change: fn(u32) -> u32) {
        let (region, cell) = ((key >> 52) as usize, (key >> 44 & 0xff) as usize);
        if self.counts.len() <= region {
            self.counts.resize(region + 1, Counts::default());
        }
        let counts = &mut self.counts[region];
        counts.nodes[cell] = change(counts.nodes[cell]);
        let bit = 1 << cell;
        counts.any = if counts.nodes[cell] > 0 { counts.any | bit } else { counts.any & !bit };
        if cell != EMPTY {
            counts.used = change(counts.used);
            if key >> 28 & 0xffff > FILLING {
                counts.filling = change(counts.filling);
            }
        }
    }

    /// Whether a search in that region may start an empty node although
    /// another would do: a few nodes fill side by side, so that there is a
    /// choice of what each still lacks.
    pub fn may_start(&self, region: u16) -> bool {
        self.counts
            .get(usize::from(region) + 1)
            .is_none_or(|counts| counts.filling < (counts.used / 128).min(15) + 1)
    }

    /// The cells that some node with tenants is tightest in.
    pub fn cells(&self, region: u16) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.counts.get(usize::from(region) + 1).map_or(0, |counts| counts.any);
        left &= (1 << EMPTY) - 1;
        std::iter::from_fn(move || {
            let cell = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (cell < EMPTY).then_some(cell)
        })
    }

    /// The nodes of a region that are tightest in `cell` (or are [`EMPTY`]),
    /// fullest first, from those that have `least` free; the smaller node
    /// first among equals.
    pub fn walk(&self, region: u16, cell: usize, least: u64) -> impl Iterator<Item = u32> {
        self.keys
            .range(key(region, cell, least.min(MOST), 0)..key(region, cell + 1, 0, 0))
            .map(|key| (key & (NODES as u64 - 1)) as u32)
    }
}
