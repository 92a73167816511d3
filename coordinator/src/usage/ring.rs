//! Sums and maxima of the last slots of time, kept small: the newest slot to a
//! fifty-millionth, the others to a thousandth, rounded up. Pure.
//!
//! A coordinator keeps this for every tenant, so bytes count.

/// An amount in few bytes.
pub trait Cell: Copy + Default {
    /// The smallest that it holds and that is not less, so that nobody is taken
    /// for smaller than it is; the largest where it holds none so large.
    fn of(value: u64) -> Self;
    /// What it holds.
    fn get(self) -> u64;
}

/// Exact below 2,048, else at most a thousandth too large; at most 2^42.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rough(u16);

/// Exact below 2^27 (134 million), else at most a fifty-millionth too large; at
/// most 2^58.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fine(u32);

impl Cell for Rough {
    fn of(value: u64) -> Self {
        Self(u16::try_from(pack(value, 11, 31)).unwrap_or(u16::MAX))
    }

    fn get(self) -> u64 {
        unpack(u64::from(self.0), 11)
    }
}

impl Cell for Fine {
    fn of(value: u64) -> Self {
        Self(u32::try_from(pack(value, 27, 31)).unwrap_or(u32::MAX))
    }

    fn get(self) -> u64 {
        unpack(u64::from(self.0), 27)
    }
}

/// The highest `bits` bits of a value, rounded up, with how many places they were
/// shifted, at most `most`, above them.
pub(super) fn pack(value: u64, bits: u32, most: u32) -> u64 {
    let whole = 1_u64 << bits;
    let length = u64::BITS - value.leading_zeros();
    let mut shift = length.saturating_sub(bits);
    let mut kept = value;
    if shift > 0 {
        kept = (value >> shift) + u64::from(value & ((1 << shift) - 1) != 0);
        if kept == whole {
            kept >>= 1;
            shift += 1;
        }
    }
    if shift > most {
        u64::from(most) << bits | (whole - 1)
    } else {
        u64::from(shift) << bits | kept
    }
}

/// What was packed.
pub(super) fn unpack(packed: u64, bits: u32) -> u64 {
    (packed & ((1 << bits) - 1)) << (packed >> bits)
}

/// The last `N` slots of `K` amounts, of which the first `SUMS` are summed and
/// the others are maxima.
#[derive(Clone, Debug)]
pub struct Ring<C, const N: usize, const K: usize, const SUMS: usize> {
    /// Slots are counted from the Unix epoch; 0: there is none yet.
    newest: u32,
    now: [Fine; K],
    /// By the slot's number modulo `N`; the newest one's is not used.
    past: [[C; K]; N],
}

impl<C: Cell, const N: usize, const K: usize, const SUMS: usize> Default for Ring<C, N, K, SUMS> {
    fn default() -> Self {
        Self { newest: 0, now: [Fine::default(); K], past: [[C::default(); K]; N] }
    }
}

fn position(index: i64, length: usize) -> usize {
    usize::try_from(index.rem_euclid(length as i64)).unwrap_or(0)
}

impl<C: Cell, const N: usize, const K: usize, const SUMS: usize> Ring<C, N, K, SUMS> {
    /// Adds to a slot; what is older than the ring is left out.
    pub fn add(&mut self, index: i64, values: [u64; K]) {
        let newest = i64::from(self.newest);
        if index > newest {
            self.past[position(newest, N)] = self.now.map(|sum| C::of(sum.get()));
            let skipped = (index - newest).min(N as i64);
            for gap in (index - skipped + 1)..=index {
                self.past[position(gap, N)] = [C::default(); K];
            }
            self.newest = u32::try_from(index).unwrap_or(u32::MAX);
            self.now = values.map(Fine::of);
        } else if index == newest {
            join::<Fine, K, SUMS>(&mut self.now, &values);
        } else if index > newest - N as i64 {
            join::<C, K, SUMS>(&mut self.past[position(index, N)], &values);
        }
    }

    /// What is known of a slot; none where it is older or newer than the ring.
    pub fn get(&self, index: i64) -> Option<[u64; K]> {
        let newest = i64::from(self.newest);
        if index == newest {
            return Some(self.now.map(Fine::get));
        }
        let is_past = index < newest && index > newest - N as i64;
        is_past.then(|| self.past[position(index, N)].map(C::get))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn join<C: Cell, const K: usize, const SUMS: usize>(cells: &mut [C; K], more: &[u64; K]) {
    for (at, (cell, more)) in cells.iter_mut().zip(more).enumerate() {
        let known = cell.get();
        *cell = C::of(if at < SUMS { known.saturating_add(*more) } else { known.max(*more) });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_near(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let near = |got: u64, parts: u64, most: u64| {
                let wanted = value.min(most);
                let off = got.checked_sub(wanted);
                off.is_some_and(|off| u128::from(off) * u128::from(parts) <= u128::from(wanted))
            };
            prop_assert!(near(Rough::of(value).get(), 1000, 2047 << 31), "{value}");
            prop_assert!(near(Fine::of(value).get(), 50_000_000, ((1 << 27) - 1) << 31), "{value}");
            if value < 2048 {
                prop_assert_eq!(Rough::of(value).get(), value);
            }
            if value < 1 << 27 {
                prop_assert_eq!(Fine::of(value).get(), value);
            }
        }

        /// Against a plain list of all slots, with small values that are exact.
        #[test]
        fn a_ring_has_the_last_slots(
            adds in prop::collection::vec((1_i64..60, 0_u64..9, 0_u64..9), 1..60),
        ) {
            let mut ring = Ring::<Rough, 8, 2, 1>::default();
            let mut plain = std::collections::BTreeMap::<i64, [u64; 2]>::new();
            let mut newest = 0;
            for (index, sum, most) in adds {
                ring.add(index, [sum, most]);
                newest = newest.max(index);
                if index > newest - 8 {
                    let slot = plain.entry(index).or_default();
                    *slot = [slot[0] + sum, slot[1].max(most)];
                }
                for index in newest - 7..=newest {
                    let wanted = plain.get(&index).copied().unwrap_or_default();
                    prop_assert_eq!(ring.get(index), Some(wanted), "{}", index);
                }
                prop_assert_eq!(ring.get(newest - 8), None);
                prop_assert_eq!(ring.get(newest + 1), None);
            }
        }
    }

    #[test]
    fn a_running_slot_is_not_rounded_and_a_late_part_costs_little() {
        let mut ring = Ring::<Rough, 4, 1, 1>::default();
        ring.add(9, [100_000]);
        for _ in 0..100_000 {
            ring.add(10, [1]);
        }
        assert_eq!(ring.get(10), Some([100_000]));
        for _ in 0..60 {
            ring.add(9, [1000]);
        }
        let late = ring.get(9).expect("in the ring")[0];
        assert!((160_000..=164_000).contains(&late), "{late}");
    }
}
