//! Sums and maxima of the last slots of time, kept small: only the newest slot,
//! and one late one, are kept whole; the others are rounded up. Pure.
//!
//! A coordinator keeps this for every tenant, so bytes count: a day of hours in
//! 296 bytes rather than 1,152.

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
/// shifted above them.
fn pack(value: u64, bits: u32, most: u32) -> u64 {
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

fn unpack(packed: u64, bits: u32) -> u64 {
    (packed & ((1 << bits) - 1)) << (packed >> bits)
}

/// The last `N` slots of `K` amounts, of which the first `SUMS` are summed and
/// the others are maxima.
#[derive(Clone, Debug)]
pub struct Ring<C, const N: usize, const K: usize, const SUMS: usize> {
    /// Slots are counted from the Unix epoch; 0: there is none yet.
    newest: i64,
    now: [u64; K],
    /// By the slot's number modulo `N`; the newest one's is not used.
    past: [[C; K]; N],
    /// An earlier slot that is added to: a backlog comes in many parts, which
    /// must not be rounded one by one.
    late: Option<Box<(i64, [u64; K])>>,
}

impl<C: Cell, const N: usize, const K: usize, const SUMS: usize> Default for Ring<C, N, K, SUMS> {
    fn default() -> Self {
        Self { newest: 0, now: [0; K], past: [[C::default(); K]; N], late: None }
    }
}

fn position(index: i64, length: usize) -> usize {
    usize::try_from(index.rem_euclid(length as i64)).unwrap_or(0)
}

impl<C: Cell, const N: usize, const K: usize, const SUMS: usize> Ring<C, N, K, SUMS> {
    /// Adds to a slot; what is older than the ring is left out.
    pub fn add(&mut self, index: i64, values: [u64; K]) {
        if index > self.newest {
            self.settle();
            self.past[position(self.newest, N)] = self.now.map(C::of);
            let skipped = (index - self.newest).min(N as i64);
            for gap in (index - skipped + 1)..=index {
                self.past[position(gap, N)] = [C::default(); K];
            }
            (self.newest, self.now) = (index, values);
        } else if index == self.newest {
            join::<K, SUMS>(&mut self.now, &values);
        } else if index > self.newest - N as i64 {
            if self.late.as_ref().is_none_or(|late| late.0 != index) {
                self.settle();
                let known = self.past[position(index, N)].map(C::get);
                self.late = Some(Box::new((index, known)));
            }
            if let Some(late) = &mut self.late {
                join::<K, SUMS>(&mut late.1, &values);
            }
        }
    }

    /// Rounds the late slot, too.
    fn settle(&mut self) {
        if let Some(late) = self.late.take() {
            self.past[position(late.0, N)] = late.1.map(C::of);
        }
    }

    /// What is known of a slot; none where it is older or newer than the ring.
    pub fn get(&self, index: i64) -> Option<[u64; K]> {
        if index == self.newest {
            return Some(self.now);
        }
        if index > self.newest || index <= self.newest - N as i64 {
            return None;
        }
        match &self.late {
            Some(late) if late.0 == index => Some(late.1),
            _ => Some(self.past[position(index, N)].map(C::get)),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn join<const K: usize, const SUMS: usize>(values: &mut [u64; K], more: &[u64; K]) {
    for (at, (value, more)) in values.iter_mut().zip(more).enumerate() {
        *value = if at < SUMS { value.saturating_add(*more) } else { (*value).max(*more) };
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
    fn a_backlog_in_small_parts_is_not_rounded_part_by_part() {
        let mut ring = Ring::<Rough, 4, 1, 1>::default();
        ring.add(10, [1]);
        for _ in 0..100_000 {
            ring.add(9, [1]);
            ring.add(10, [1]);
        }
        assert_eq!((ring.get(9), ring.get(10)), (Some([100_000]), Some([100_001])));
        ring.add(11, [1]);
        let rounded = ring.get(9).expect("in the ring")[0];
        assert!((100_000..=100_100).contains(&rounded), "{rounded}");
    }
}
