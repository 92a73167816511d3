//! Durations as counts in buckets that grow with them: any quantile is known
//! to an eighth, and two sketches add up to the sketch of both. (The buckets
//! are those of Tene's HdrHistogram with three bits of precision.)

/// Durations below this many microseconds share the first bucket.
const LOWEST_LOG2: u32 = 7;
/// From this many on they share the last: 2^27 us are 134 s.
const HIGHEST_LOG2: u32 = 27;
/// Buckets in each doubling.
const PARTS: u32 = 8;
const BUCKETS: usize = ((HIGHEST_LOG2 - LOWEST_LOG2) * PARTS) as usize + 2;

/// Counts by duration; 1.3 kB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

/// The bucket of a duration in microseconds.
fn bucket(us: u64) -> usize {
    let log2 = us.max(1).ilog2();
    if log2 < LOWEST_LOG2 {
        return 0;
    }
    if log2 >= HIGHEST_LOG2 {
        return BUCKETS - 1;
    }
    // The three bits below the highest one.
    let part = (us >> (log2 - PARTS.ilog2())) & u64::from(PARTS - 1);
    1 + ((log2 - LOWEST_LOG2) * PARTS) as usize + usize::try_from(part).unwrap_or(0)
}

/// The first duration beyond a bucket; of the last one, where it begins.
fn end(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1 << LOWEST_LOG2;
    }
    if bucket >= BUCKETS - 1 {
        return 1 << HIGHEST_LOG2;
    }
    let (at, parts) = (bucket as u64 - 1, u64::from(PARTS));
    let log2 = u64::from(LOWEST_LOG2) + at / parts;
    (parts + at % parts + 1) << (log2 - u64::from(PARTS.ilog2()))
}

impl Sketch {
    /// Adds one duration in microseconds.
    pub fn add(&mut self, us: u64) {
        let count = &mut self.counts[bucket(us)];
        *count = count.saturating_add(1);
        self.total += 1;
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*more);
        }
        self.total += other.total;
    }

    /// How many durations it holds.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// A duration that `permille` of those within are below, at most an eighth
    /// above the true one (for durations of 128 us to 134 s); `None` of none.
    pub fn quantile_us(&self, permille: u64) -> Option<u64> {
        let rank = (self.total * permille.min(1_000)).div_ceil(1_000).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        Some(end(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_meet() {
        for us in [0, 1, 127, 128, 129, 1_000, 25_000, 1_000_000, (1 << 27) - 1] {
            let at = bucket(us);
            assert!(us < end(at), "{us} is in bucket {at}, which ends at {}", end(at));
            assert!(at == 0 || us >= end(at - 1), "{us} is in bucket {at}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(Sketch::default().quantile_us(500), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_close_and_merging_loses_nothing(
            mut one in proptest::collection::vec(128_u64..130_000_000, 1..300),
            two in proptest::collection::vec(128_u64..130_000_000, 0..300),
            permille in 1_u64..=1_000,
        ) {
            let sketch = |values: &[u64]| {
                let mut sketch = Sketch::default();
                values.iter().for_each(|us| sketch.add(*us));
                sketch
            };
            let mut merged = sketch(&one);
            merged.merge(&sketch(&two));
            one.extend(&two);
            prop_assert_eq!(&merged, &sketch(&one));
            one.sort_unstable();
            let rank = (one.len() as u64 * permille).div_ceil(1_000).max(1);
            let truth = one[usize::try_from(rank).expect("small") - 1];
            let told = merged.quantile_us(permille).expect("some");
            prop_assert!(told > truth && told <= truth + truth / 8 + 1, "{} for {}", told, truth);
        }
    }
}
