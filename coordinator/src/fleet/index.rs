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
    /// By region.
    regions: Vec<Shelves>,
}

/// What stands in one region.
#[derive(Clone, Debug)]
struct Shelves {
    /// By cell. Many small sets: most searches end at the first look.
    cells: [BTreeSet<Key>; CELLS + 1],
    /// The most that is free in each.
    most: [u16; CELLS + 1],
    /// Which of them are not empty, as bits.
    any: u128,
    /// Nodes that have tenants.
    used: u32,
    /// Those of them that are still filling.
    filling: u32,
}

impl Default for Shelves {
    fn default() -> Self {
        Self {
            cells: [const { BTreeSet::new() }; CELLS + 1],
            most: [0; CELLS + 1],
            any: 0,
            used: 0,
            filling: 0,
        }
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
        let stands = room.open && usize::from(room.region) < REGIONS;
        let new = if stands { key(room.region, cell, free, node) } else { 0 };
        if new != old {
            if old != 0 {
                self.shelf(old, |shelf| shelf.remove(&old), |n| n.saturating_sub(1));
            }
            if new != 0 {
                self.shelf(new, |shelf| shelf.insert(new), |n| n + 1);
            }
        }
        new
    }

    /// Takes a key in or out, and counts what that changes.
    fn shelf(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut BTreeSet<Key>) -> bool,
        count: fn(u32) -> u32,
    ) {
        let (region, cell) = ((key >> 52) as usize - 1, (key >> 44 & 0xff) as usize);
        if self.regions.len() <= region {
            self.regions.resize_with(region + 1, Shelves::default);
        }
        let shelves = &mut self.regions[region];
        change(&mut shelves.cells[cell]);
        let bit = 1 << cell;
        let last = shelves.cells[cell].last();
        let any = last.is_some();
        shelves.most[cell] = last.map_or(0, |key| (key >> 28) as u16);
        shelves.any = if any { shelves.any | bit } else { shelves.any & !bit };
        if cell != EMPTY {
            shelves.used = count(shelves.used);
            if key >> 28 & 0xffff > FILLING {
                shelves.filling = count(shelves.filling);
            }
        }
    }

    /// Whether a search in that region may start an empty node although
    /// another would do: a few nodes fill side by side, so that there is a
    /// choice of what each still lacks.
    pub fn may_start(&self, region: u16) -> bool {
        self.regions
            .get(usize::from(region))
            .is_none_or(|shelves| shelves.filling < (shelves.used / 128).min(15) + 1)
    }

    /// The cells that some node with tenants is tightest in.
    pub fn cells(&self, region: u16) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.regions.get(usize::from(region)).map_or(0, |shelves| shelves.any);
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
        let shelves = self.regions.get(usize::from(region));
        let least = least.min(MOST);
        let shelf = shelves.filter(|shelves| u64::from(shelves.most[cell]) >= least);
        let keys = shelf.map(|shelves| shelves.cells[cell].range(key(region, cell, least, 0)..));
        keys.into_iter().flatten().map(|key| (key & (NODES as u64 - 1)) as u32)
    }
}
