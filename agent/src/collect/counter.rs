//! Monotone totals from counters that may start again.
//!
//! A source's counter starts at zero again when its process does. What was
//! counted between the last look and the restart is lost at the source; what
//! came after it is all in the new value. So a value below the last one counts
//! in full, and the total never falls.

/// One counter of a source, as the agent accumulates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    last: Option<u64>,
    total: u64,
}

impl Counter {
    /// A counter whose first value counts in full: its source was already
    /// watched when it appeared, so it grew from zero under our eyes. (A
    /// default one takes its first value as the point to count from.)
    pub fn born() -> Self {
        Self { last: Some(0), total: 0 }
    }

    /// Takes the counter's present value; returns the increase.
    pub fn observe(&mut self, value: u64) -> u64 {
        let increase = match self.last {
            None => 0,
            Some(last) if value < last => value,
            Some(last) => value - last,
        };
        self.last = Some(value);
        self.total = self.total.saturating_add(increase);
        increase
    }

    /// Takes a new value to count from, without an increase: where a smaller
    /// value is known to be no restart.
    pub fn rebase(&mut self, value: u64) {
        self.last = Some(value);
    }

    /// The value that was seen last.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// All increases so far.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn increases_by_table() {
        for (start, values, total) in [
            (Counter::default(), vec![], 0),
            (Counter::default(), vec![100], 0),
            (Counter::default(), vec![100, 100, 130], 30),
            (Counter::default(), vec![100, 40], 40),
            (Counter::default(), vec![100, 0, 7], 7),
            (Counter::born(), vec![12], 12),
            (Counter::born(), vec![12, 5, 6], 18),
            (Counter::default(), vec![0, u64::MAX, 3], u64::MAX),
        ] {
            let mut counter = start;
            for &value in &values {
                counter.observe(value);
            }
            assert_eq!(counter.total(), total, "{start:?} then {values:?}");
        }
    }

    proptest! {
        #[test]
        fn the_total_is_the_sum_of_the_increases_and_never_falls(
            values in proptest::collection::vec(0u64..1_000_000, 0..50)
        ) {
            let mut counter = Counter::default();
            let mut sum = 0;
            for value in values {
                let before = counter.total();
                sum += counter.observe(value);
                prop_assert!(counter.total() >= before);
                prop_assert_eq!(counter.total(), sum);
            }
        }
    }
}
