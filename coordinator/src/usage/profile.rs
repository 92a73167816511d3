//! What a tenant usually takes at each hour of the day: 24 UTC hours of CPU,
//! database connections and GPS rate, each the 95th percentile of that hour's
//! five-minute values. Pure.
//!
//! A bucket is kept in 12 bits: exact below 512, else at most a 256th too large, so
//! that nobody is taken for smaller than it is.
//!
//! A bucket rises at once and falls by a quarter of the difference a day: what
//! was seen this week counts, one quiet day frees little. For the first 14 days
//! every day teaches both kinds of day; from then on weekdays and weekends have
//! buckets of their own.

use super::ring::{pack, unpack};
use super::series::{CONNECTIONS, CPU, GPS, p95};

/// CPU, database connections, GPS points: the rows of [`Profile::learn`].
pub const ROWS: usize = 3;
/// From so many days on, weekdays and weekends differ.
pub const APART_FROM_DAYS: i64 = 14;

/// 24 buckets a row, in the units of placement: thousandths of a core,
/// hundredths of a connection, hundredths of a point a second.
pub type Buckets = [[u16; 24]; ROWS];

/// Buckets of both kinds of day, and their bytes.
const BUCKETS: usize = 2 * ROWS * 24;
const BYTES: usize = BUCKETS * 3 / 2;

/// A tenant's usual day. All zero and nothing known at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Two buckets in three bytes: those of weekdays, then of weekends.
    buckets: [u8; BYTES],
    /// Of each row, a bit for each hour of the day that was ever seen.
    known: [u32; ROWS],
    /// Hours since the Unix epoch; 0: no history.
    first_hour: u32,
}

impl Default for Profile {
    fn default() -> Self {
        Self { buckets: [0; BYTES], known: [0; ROWS], first_hour: 0 }
    }
}

/// The kinds of day.
const WEEKDAY: usize = 0;
const WEEKEND: usize = 1;

/// So many of an hour's twelve five-minute values must be known for it to say
/// what is usual: the 95th percentile of few is their peak.
const KNOWN: usize = 6;

/// An hour's percentiles from its five-minute values; `column` answers those of
/// a column of the history. None of an hour that was seen for less than half.
pub fn percentiles<'a>(column: impl Fn(usize) -> &'a [Option<i32>]) -> [Option<u16>; ROWS] {
    let rows = [(CPU, 1, 1), (CONNECTIONS, 100, 1), (GPS, 100, 300)];
    let known = rows.map(|(row, ..)| column(row).iter().flatten().count());
    if known.iter().all(|known| *known < KNOWN) {
        return [None; ROWS];
    }
    // Points are of five minutes: 300 s.
    rows.map(|(row, times, over)| {
        let value = u64::try_from(p95(column(row))?).unwrap_or(0);
        Some(u16::try_from((value * times).div_ceil(over)).unwrap_or(u16::MAX))
    })
}

/// Whether an hour (since the Unix epoch) is of a Saturday or Sunday, UTC.
pub fn is_weekend(hour: i64) -> bool {
    // The epoch was a Thursday.
    (hour.div_euclid(24) + 3).rem_euclid(7) >= 5
}

impl Profile {
    /// There was something to see of the tenant at `hour` (since the Unix
    /// epoch).
    pub fn seen(&mut self, hour: i64) {
        let hour = u32::try_from(hour).unwrap_or(0);
        if self.first_hour == 0 || hour < self.first_hour {
            self.first_hour = hour;
        }
    }

    /// Takes in an hour's percentiles; none where nothing was seen. An hour that
    /// is `again` learned, of more than the first time, frees nothing.
    pub fn learn(&mut self, hour: i64, percentiles: [Option<u16>; ROWS], again: bool) {
        if percentiles.iter().all(Option::is_none) {
            return;
        }
        self.seen(hour);
        let of_day = usize::try_from(hour.rem_euclid(24)).unwrap_or(0);
        let apart = self.days(hour) >= APART_FROM_DAYS;
        let its_kind = if is_weekend(hour) { WEEKEND } else { WEEKDAY };
        for kind in [WEEKDAY, WEEKEND] {
            if apart && kind != its_kind {
                continue;
            }
            for (row, value) in percentiles.iter().enumerate() {
                // Nothing seen is not zero: it frees nothing.
                let Some(value) = *value else { continue };
                let bucket = self.bucket(kind, row, of_day);
                let is_new = self.known[row] & (1 << of_day) == 0;
                let new = if is_new || value >= bucket {
                    value
                } else if again {
                    bucket
                } else {
                    bucket - (bucket - value).div_ceil(4)
                };
                self.set_bucket(kind, row, of_day, new);
            }
        }
        for (known, value) in self.known.iter_mut().zip(percentiles) {
            *known |= u32::from(value.is_some()) << of_day;
        }
    }

    /// Whole days of history at `hour`.
    pub fn days(&self, hour: i64) -> i64 {
        if self.first_hour == 0 { 0 } else { (hour - i64::from(self.first_hour)).max(0) / 24 }
    }

    /// What is to be expected at an hour of the day (0 to 23) whatever the day
    /// of the week: the larger of both kinds of day. None where it was never
    /// seen.
    pub fn expect(&self, of_day: usize) -> [Option<u16>; ROWS] {
        std::array::from_fn(|row| {
            let is_known = of_day < 24 && self.known[row] & (1 << of_day) != 0;
            let of = |kind| self.bucket(kind, row, of_day);
            is_known.then(|| of(WEEKDAY).max(of(WEEKEND)))
        })
    }

    /// The largest that is to be expected at any hour; zero where none was seen.
    pub fn busiest(&self) -> [u16; ROWS] {
        (0..24).map(|of_day| self.expect(of_day)).fold([0; ROWS], |most, hour| {
            std::array::from_fn(|row| most[row].max(hour[row].unwrap_or(0)))
        })
    }

    /// The buckets of weekdays and of weekends.
    pub fn buckets(&self) -> (Buckets, Buckets) {
        let of = |kind| -> Buckets {
            std::array::from_fn(|row| std::array::from_fn(|hour| self.bucket(kind, row, hour)))
        };
        (of(WEEKDAY), of(WEEKEND))
    }

    fn bucket(&self, kind: usize, row: usize, of_day: usize) -> u16 {
        let (first, odd) = place(kind, row, of_day);
        let [low, middle, high] = [0, 1, 2].map(|at| u64::from(self.buckets[first + at]));
        let packed = if odd { middle >> 4 | high << 4 } else { low | (middle & 0xf) << 8 };
        // "That much or more" stays that: it fits nowhere.
        if packed == LARGEST {
            u16::MAX
        } else {
            u16::try_from(unpack(packed, BITS)).unwrap_or(u16::MAX)
        }
    }

    fn set_bucket(&mut self, kind: usize, row: usize, of_day: usize, value: u16) {
        let (first, odd) = place(kind, row, of_day);
        let [low, high, ..] = pack(u64::from(value), BITS, SHIFTS).to_le_bytes();
        let bytes = &mut self.buckets[first..first + 3];
        if odd {
            bytes[1] = bytes[1] & 0x0f | low << 4;
            bytes[2] = low >> 4 | high << 4;
        } else {
            bytes[0] = low;
            bytes[1] = bytes[1] & 0xf0 | high;
        }
    }
}

/// The bits of a bucket, and how far they may be shifted: 12 bits together.
const BITS: u32 = 9;
const SHIFTS: u32 = 7;
const LARGEST: u64 = 0xfff;

/// The first of the three bytes where a bucket is, and whether it is their second.
fn place(kind: usize, row: usize, of_day: usize) -> (usize, bool) {
    let number = (kind * ROWS + row) * 24 + of_day;
    (number / 2 * 3, number % 2 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Monday, 2026-11-16 00:00 UTC.
    const MONDAY: i64 = 20_773 * 24;

    fn day(profile: &mut Profile, day: i64, cpu: u16) {
        for (hour, more) in (0..24_u16).enumerate() {
            let hour = MONDAY + day * 24 + i64::try_from(hour).expect("small");
            profile.learn(hour, [Some(cpu + more), Some(1), None], false);
        }
    }

    #[test]
    fn saturday_and_sunday_are_the_weekend() {
        let kinds: Vec<bool> = (0..7).map(|day| is_weekend(MONDAY + day * 24)).collect();
        assert_eq!(kinds, [false, false, false, false, false, true, true]);
        assert!(!is_weekend(MONDAY - 24 * 3) && is_weekend(MONDAY - 1));
    }

    #[test]
    fn a_bucket_rises_at_once_and_falls_slowly() {
        let mut profile = Profile::default();
        assert_eq!((profile.expect(3), profile.days(MONDAY)), ([None; 3], 0));
        day(&mut profile, 0, 400);
        assert_eq!(profile.expect(3), [Some(403), Some(1), None]);
        day(&mut profile, 1, 0);
        assert_eq!(profile.expect(3), [Some(303), Some(1), None]);
        day(&mut profile, 2, 800);
        assert_eq!(profile.expect(23), [Some(824), Some(1), None], "rounded up to two");
        profile.learn(MONDAY + 2 * 24 + 23, [Some(900), Some(0), Some(u16::MAX)], true);
        assert_eq!(
            profile.expect(23),
            [Some(900), Some(1), Some(u16::MAX)],
            "what is saturated stays so"
        );
        profile.learn(MONDAY + 2 * 24 + 23, [Some(0); 3], true);
        assert_eq!(profile.expect(23), [Some(900), Some(1), Some(u16::MAX)]);
        for quiet in 3..13 {
            day(&mut profile, quiet, 0);
        }
        let cpu = profile.expect(0)[0].expect("known");
        assert!(cpu < 50, "{cpu}");
        assert_eq!(profile.days(MONDAY + 12 * 24), 12);
    }

    proptest! {
        #[test]
        fn each_bucket_is_kept_for_itself_and_near(
            values in prop::collection::vec(any::<u16>(), BUCKETS),
            shift in 0_u32..16,
        ) {
            let mut profile = Profile::default();
            let places = || (0..BUCKETS).map(|n| (n / 72, n / 24 % 3, n % 24));
            let values: Vec<u16> = values.iter().map(|value| value >> shift).collect();
            for ((kind, row, hour), value) in places().zip(&values).rev() {
                profile.set_bucket(kind, row, hour, *value);
            }
            for ((kind, row, hour), value) in places().zip(values) {
                let kept = profile.bucket(kind, row, hour);
                prop_assert!(kept >= value && kept - value <= value / 256, "{kept} {value}");
                prop_assert!(kept == value || value >= 512);
            }
        }
    }

    #[test]
    fn weekdays_and_weekends_differ_from_the_fourteenth_day_on() {
        let mut profile = Profile::default();
        for n in 0..28 {
            day(&mut profile, n, if is_weekend(MONDAY + n * 24) { 10 } else { 500 });
        }
        let (weekday, weekend) = profile.buckets();
        assert_eq!(weekday[0][5], 505);
        assert!((15..505).contains(&weekend[0][5]), "{}", weekend[0][5]);
        assert_eq!(
            profile.expect(5),
            [Some(505), Some(1), None],
            "what fits on Sunday must fit on Monday"
        );
        for n in 28..70 {
            day(&mut profile, n, if is_weekend(MONDAY + n * 24) { 10 } else { 500 });
        }
        assert!(profile.buckets().1[0][5] < 60, "{:?}", profile.buckets().1[0]);
    }
}
