//! The hours of a tracked tenant: the running one minute by minute, and what
//! ended ones teach of its usual day.

use super::profile::{ROWS, percentiles};
use super::sample::Sample;
use super::series::{ALL, COLUMNS, ClosedHour, OpenHour, Values, coarser};
use super::tenant::{HOUR_US, Tracked};

/// Minutes that become one value.
pub(super) const FIVE: usize = 5;

/// An hour's five-minute values of each column.
pub(super) fn fives(minutes: &[Values; COLUMNS]) -> [Values; COLUMNS] {
    std::array::from_fn(|column| coarser(&minutes[column], FIVE, ALL[column].fold))
}

/// The longest interval (microseconds) that is kept by the minute.
const LONGEST_US: u64 = 120_000_000;

impl Tracked {
    /// Keeps what was seen in the `interval_us` before `at_us` in its minute;
    /// answers the hour that this ends.
    ///
    /// Not kept by the minute is what would look like a burst there: what is
    /// older than the minute before the running one (the backlog of an outage
    /// comes many times as fast as it was made), and what an agent merged into
    /// an interval of more than two minutes. Both count in the hourly sums.
    pub(super) fn note(
        &mut self,
        at_us: i64,
        interval_us: u64,
        sample: &Sample,
    ) -> Option<ClosedHour> {
        if interval_us > LONGEST_US {
            return None;
        }
        let open = self.open.get_or_insert_with(|| Box::new(OpenHour::at(at_us)));
        let is_late = open.is_past(at_us) || at_us.div_euclid(HOUR_US) < open.hour;
        if is_late || open.add(at_us, sample) {
            return None;
        }
        let mut next = OpenHour::at(at_us);
        next.add(at_us, sample);
        let ended = std::mem::replace(&mut **open, next);
        self.learn(ended)
    }

    /// Ends the running hour where it (since the Unix epoch) is before `hour`.
    pub(super) fn end_hour(&mut self, hour: i64) -> Option<ClosedHour> {
        let ended = self.open.take_if(|open| open.hour < hour)?;
        self.learn(*ended)
    }

    fn learn(&mut self, ended: OpenHour) -> Option<ClosedHour> {
        let closed = ended.close();
        if closed.is_empty() {
            return None;
        }
        let fives = fives(&closed.minutes());
        self.profile.learn(closed.hour, percentiles(|column| &fives[column]));
        Some(closed)
    }

    /// Takes in stored percentiles: one value an hour from `hour` (since the
    /// Unix epoch) on.
    pub(super) fn restore_profile(&mut self, hour: i64, rows: &[Values; ROWS]) {
        let hours = rows.iter().map(Vec::len).max().unwrap_or(0);
        for (at, hour) in (0..hours).zip(hour..) {
            let value = |row: &Values| row.get(at).copied().flatten();
            let unit = |value: i32| u16::try_from(value.max(0)).unwrap_or(u16::MAX);
            self.profile.learn(hour, [0, 1, 2].map(|row| value(&rows[row]).map(unit)));
        }
    }
}

#[cfg(test)]
mod tests {
    use webhost_proto::ids::{NodeId, TenantId};

    use super::*;
    use crate::usage::sample::{Metric, sample};
    use crate::usage::series::GPS;

    const MINUTE: i64 = 60_000_000;
    const HOUR: i64 = 495_000;
    const MINUTE_LONG: u64 = MINUTE.unsigned_abs();

    fn tracked() -> Tracked {
        Tracked::new(NodeId::generate(), 300_000_000)
    }

    /// 60 points in the interval of so many minutes that ends with `minute` of
    /// the hour.
    fn see(tracked: &mut Tracked, minute: i64, minutes: u64) -> Option<ClosedHour> {
        let at_us = HOUR * HOUR_US + minute * MINUTE;
        let points = sample(&[(Metric::GpsPoints, 60 * minutes)]);
        tracked.apply(tracked.node(), &points, at_us, minutes * MINUTE_LONG)
    }

    fn known(hour: &ClosedHour) -> Vec<(usize, i32)> {
        let minutes = hour.minutes();
        let values = minutes[GPS].iter().enumerate();
        values.filter_map(|(minute, value)| Some((minute, (*value)?))).collect()
    }

    fn points_of_day(tracked: &Tracked) -> u64 {
        let now_us = HOUR * HOUR_US + 59 * MINUTE;
        tracked.usage(TenantId::generate(), now_us).gps_points_today
    }

    fn usual(tracked: &Tracked) -> Option<u16> {
        let of_day = usize::try_from(HOUR.rem_euclid(24)).expect("small");
        tracked.profile.expect(of_day).map(|rows| rows[2])
    }

    /// From the tenth minute to the fiftieth nobody could send; then the
    /// backlog comes, four minutes of it with each minute that is new.
    #[test]
    fn the_backlog_of_an_outage_is_no_burst() {
        let mut tracked = tracked();
        for minute in 0..10 {
            assert_eq!(see(&mut tracked, minute, 1), None);
        }
        for minute in 50..60 {
            assert_eq!(see(&mut tracked, minute, 1), None);
            for late in 0..4 {
                assert_eq!(see(&mut tracked, 10 + (minute - 50) * 4 + late, 1), None);
            }
        }
        assert_eq!(points_of_day(&tracked), 3600, "the sum is whole");
        let hour = see(&mut tracked, 60, 1).expect("the hour is over");
        let expected: Vec<(usize, i32)> = (0..10).chain(50..60).map(|at| (at, 60)).collect();
        assert_eq!(known(&hour), expected);
        assert_eq!(usual(&tracked), None, "a third of an hour says nothing of what is usual");
    }

    #[test]
    fn what_was_merged_counts_in_the_hour_alone() {
        let mut tracked = tracked();
        for minute in 0..60 {
            see(&mut tracked, minute, 1);
        }
        see(&mut tracked, 59, 30);
        assert_eq!(points_of_day(&tracked), 3600 + 1800);
        let hour = see(&mut tracked, 60, 2).expect("the hour is over");
        assert_eq!(known(&hour).len(), 60);
        assert!(known(&hour).iter().all(|(_, points)| *points == 60));
        assert_eq!(usual(&tracked), Some(100), "a point a second, in hundredths");
    }

    #[test]
    fn a_minute_late_is_in_time_and_an_hour_is_never_opened_again() {
        let mut tracked = tracked();
        see(&mut tracked, 7, 1);
        see(&mut tracked, 6, 1);
        see(&mut tracked, 5, 1);
        assert_eq!(known(&see(&mut tracked, 60, 1).expect("over")), [(7, 120)]);
        assert_eq!(see(&mut tracked, 59, 1), None);
        assert_eq!(known(&see(&mut tracked, 120, 1).expect("over")), [(0, 60)]);
    }
}
