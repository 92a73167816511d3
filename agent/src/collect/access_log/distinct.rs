//! How many different things were seen, without keeping them: linear counting
//! (Whang, Vander-Zanden and Taylor, 1990) in 128 bytes.

use std::hash::{DefaultHasher, Hash, Hasher};

const BITS: usize = 1024;
const WORDS: usize = BITS / 64;

/// A set that knows only its size, to some percent up to about 3,000.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct([u64; WORDS]);

impl Distinct {
    /// Adds one; again changes nothing.
    pub fn add(&mut self, what: &str) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        // The lowest bits of a good hash are as good as any.
        let bit = (hasher.finish() % BITS as u64) as usize;
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// What either has seen.
    pub fn merge(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// About how many. A full set says what it can at most.
    pub fn estimate(&self) -> u64 {
        let ones: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        let free = (BITS as f64 - f64::from(ones)).max(1.0);
        // Between 0 and 1024 ln 1024.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = (BITS as f64 * (BITS as f64 / free).ln()).round() as u64;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_table() {
        for count in [0_u64, 1, 2, 10, 100, 1_000, 3_000] {
            let mut set = Distinct::default();
            for _ in 0..3 {
                (0..count).for_each(|n| set.add(&format!("10.0.{}.{}", n / 256, n % 256)));
            }
            let estimate = set.estimate();
            let error = estimate.abs_diff(count);
            assert!(error <= 1 + count / 10, "{count} became {estimate}");
        }
    }

    #[test]
    fn a_merge_is_the_union() {
        let (mut one, mut two, mut both) =
            (Distinct::default(), Distinct::default(), Distinct::default());
        for n in 0..200 {
            one.add(&n.to_string());
            two.add(&(n + 100).to_string());
            both.add(&n.to_string());
            both.add(&(n + 100).to_string());
        }
        one.merge(&two);
        assert_eq!(one, both);
    }
}
