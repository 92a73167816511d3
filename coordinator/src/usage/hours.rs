//! What a tracked tenant's minutes become: parts to be written, and, once an
//! hour of them is made, a lesson of its usual day.

use super::part::{MINUTE_US, OpenPart, Part};
use super::profile::ROWS;
use super::sample::Sample;
use super::series::{ALL, COLUMNS, Values, coarser};
use super::tenant::Tracked;

/// Minutes that become one value.
pub(super) const FIVE: usize = 5;

/// An hour's five-minute values of each column.
pub(super) fn fives(minutes: &[Values; COLUMNS]) -> [Values; COLUMNS] {
    std::array::from_fn(|column| coarser(&minutes[column], FIVE, ALL[column].fold))
}

/// The most minutes of an interval that is kept by the minute: the longest that
/// an agent can be told.
const LONGEST: u64 = 5;

impl Tracked {
    /// Keeps what was seen in the `interval_us` before `at_us` in its minutes;
    /// answers the part that this ends. `phase` is the tenant's.
    ///
    /// Not kept by the minute is what would look like a burst there: what is
    /// older than the minute before the running one (the backlog of an outage
    /// comes many times as fast as it was made), and what an agent merged into
    /// an interval of more than five minutes. Both count in the hourly sums.
    pub(super) fn note(
        &mut self,
        at_us: i64,
        interval_us: u64,
        phase: i64,
        sample: &Sample,
    ) -> Option<Part> {
        let minutes = interval_us.div_ceil(MINUTE_US.unsigned_abs()).max(1);
        if minutes > LONGEST {
            return None;
        }
        if minutes == 1 {
            return self.keep(at_us, phase, sample);
        }
        let mut ended = None;
        for minute in 0..minutes {
            let back_us = (minutes - 1 - minute).cast_signed() * MINUTE_US;
            // At most one part ends: it is longer than all of these.
            ended = self.keep(at_us - back_us, phase, &sample.share(minute, minutes)).or(ended);
        }
        ended
    }

    fn keep(&mut self, at_us: i64, phase: i64, sample: &Sample) -> Option<Part> {
        let open = self.open.get_or_insert_with(|| OpenPart::at(at_us, phase));
        if open.is_past(at_us) || open.add(at_us, sample) {
            return None;
        }
        let mut next = OpenPart::at(at_us, phase);
        next.add(at_us, sample);
        Some(std::mem::replace(open, next).close()).filter(|part| !part.is_empty())
    }

    /// Ends the running part where it ends at `minute` (since the Unix epoch) or
    /// before.
    pub(super) fn end_part(&mut self, minute: i64) -> Option<Part> {
        let ended = self.open.take_if(|open| open.end() <= minute)?;
        Some(ended.close()).filter(|part| !part.is_empty())
    }

    /// Takes in percentiles: one value an hour from `hour` (since the Unix epoch)
    /// on; see [`super::profile::Profile::learn`] of `again`.
    pub(super) fn teach(&mut self, hour: i64, rows: &[Values; ROWS], again: bool) {
        let hours = rows.iter().map(Vec::len).max().unwrap_or(0);
        for (at, hour) in (0..hours).zip(hour..) {
            let value = |row: &Values| row.get(at).copied().flatten();
            let unit = |value: i32| u16::try_from(value.max(0)).unwrap_or(u16::MAX);
            self.profile.learn(hour, [0, 1, 2].map(|row| value(&rows[row]).map(unit)), again);
        }
    }
}

#[cfg(test)]
mod tests {
    use webhost_proto::ids::{NodeId, TenantId};

    use super::*;
    use crate::usage::sample::{Metric, sample};
    use crate::usage::series::GPS;
    use crate::usage::tenant::HOUR_US;

    const HOUR: i64 = 495_000;

    fn tracked() -> Tracked {
        Tracked::new(NodeId::generate(), 300_000_000)
    }

    /// 60 points in the interval of so many minutes that ends with `minute` of
    /// the hour.
    fn see(tracked: &mut Tracked, minute: i64, minutes: u64) -> Option<Part> {
        let at_us = HOUR * HOUR_US + minute * MINUTE_US;
        let points = sample(&[(Metric::GpsPoints, 60 * minutes)]);
        tracked.apply(0, tracked.node(), &points, at_us, minutes * MINUTE_US.unsigned_abs())
    }

    /// The minutes of the hour that have points.
    fn known(parts: &[Part]) -> Vec<(usize, i32)> {
        let mut minutes: [Values; COLUMNS] = std::array::from_fn(|_| vec![None; 60]);
        parts.iter().for_each(|part| part.draw(HOUR * 60, &mut minutes));
        let values = minutes[GPS].iter().enumerate();
        values.filter_map(|(minute, value)| Some((minute, (*value)?))).collect()
    }

    fn points_of_day(tracked: &Tracked) -> u64 {
        let now_us = HOUR * HOUR_US + 59 * MINUTE_US;
        tracked.usage(TenantId::generate(), now_us).gps_points_today
    }

    /// From the tenth minute to the fiftieth nobody could send; then the
    /// backlog comes, four minutes of it with each minute that is new.
    #[test]
    fn the_backlog_of_an_outage_is_no_burst() {
        let mut tracked = tracked();
        let mut parts = Vec::new();
        for minute in 0..10 {
            parts.extend(see(&mut tracked, minute, 1));
        }
        for minute in 50..60 {
            parts.extend(see(&mut tracked, minute, 1));
            for late in 0..4 {
                parts.extend(see(&mut tracked, 10 + (minute - 50) * 4 + late, 1));
            }
        }
        assert_eq!(points_of_day(&tracked), 3600, "the sum is whole");
        parts.extend(see(&mut tracked, 60, 1));
        let expected: Vec<(usize, i32)> = (0..10).chain(50..60).map(|at| (at, 60)).collect();
        assert_eq!(known(&parts), expected);
    }

    #[test]
    fn what_was_merged_counts_in_the_hour_alone() {
        let mut tracked = tracked();
        let mut parts: Vec<Part> =
            (0..60).filter_map(|minute| see(&mut tracked, minute, 1)).collect();
        see(&mut tracked, 59, 30);
        assert_eq!(points_of_day(&tracked), 3600 + 1800);
        parts.extend(see(&mut tracked, 60, 1));
        assert_eq!(parts.len(), 5);
        assert_eq!(known(&parts).len(), 60);
        assert!(known(&parts).iter().all(|(_, points)| *points == 60));
    }

    #[test]
    fn an_interval_of_five_minutes_is_spread_over_them() {
        let mut tracked = tracked();
        let mut parts: Vec<Part> =
            (1..=12).filter_map(|five| see(&mut tracked, five * 5, 5)).collect();
        parts.extend(tracked.end_part(i64::MAX));
        let expected: Vec<(usize, i32)> = (1..60).map(|minute| (minute, 60)).collect();
        assert_eq!(known(&parts), expected, "the first interval began a minute into the hour");
    }

    #[test]
    fn a_minute_late_is_in_time_and_a_part_is_never_opened_again() {
        let mut tracked = tracked();
        see(&mut tracked, 7, 1);
        see(&mut tracked, 6, 1);
        see(&mut tracked, 5, 1);
        assert_eq!(known(&[see(&mut tracked, 12, 1).expect("over")]), [(7, 120)]);
        assert_eq!(see(&mut tracked, 11, 1), None);
        assert_eq!(see(&mut tracked, 10, 1), None);
        assert_eq!(known(&[see(&mut tracked, 24, 1).expect("over")]), [(12, 120)]);
        assert_eq!(tracked.end_part(HOUR * 60 + 35), None, "it is not over");
        assert_eq!(known(&[tracked.end_part(HOUR * 60 + 36).expect("over")]), [(24, 60)]);
    }
}
