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

impl Tracked {
    /// Keeps what was seen at `at_us` in its minute; answers the hour that this
    /// ends. What is older than the running hour is not kept by the minute.
    pub(super) fn note(&mut self, at_us: i64, sample: &Sample) -> Option<ClosedHour> {
        let open = self.open.get_or_insert_with(|| Box::new(OpenHour::at(at_us)));
        if open.add(at_us, sample) || at_us.div_euclid(HOUR_US) < open.hour {
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
