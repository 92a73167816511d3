//! A tenant's running hour, minute by minute, as it is kept until it is
//! written. Pure.
//!
//! Most minutes are like the one before, so a minute is kept as what changed,
//! by how much: some 10 bytes for ten columns. What comes a minute late counts
//! in the running one; what comes later counts in the hourly sums alone.

use super::sample::{Metric, Sample};
use super::tenant::HOUR_US;

/// How values of one column become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Of a rate: the mean of those that are known, rounded up.
    Mean,
    /// Of a count.
    Sum,
    /// Of a level.
    Most,
}

/// One column of the history.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// As the API and the tables call it.
    pub name: &'static str,
    /// What it is in.
    pub unit: &'static str,
    /// Where it comes from.
    pub metric: Metric,
    /// How it is made coarser.
    pub fold: Fold,
    /// A minute's sum or maximum is divided by this, rounded up.
    divisor: u64,
}

const fn column(
    name: &'static str,
    unit: &'static str,
    metric: Metric,
    fold: Fold,
    divisor: u64,
) -> Column {
    Column { name, unit, metric, fold, divisor }
}

/// How many columns there are.
pub const COLUMNS: usize = 10;
const MIB: u64 = 1 << 20;
/// The positions of the columns that have a profile.
pub const CPU: usize = 0;
/// Database connections.
pub const CONNECTIONS: usize = 7;
/// GPS points.
pub const GPS: usize = 1;
/// Requests.
pub const API_CALLS: usize = 2;

/// All columns, in the order of the tables'.
pub const ALL: [Column; COLUMNS] = [
    column("cpu", "thousandths of a core", Metric::CpuUs, Fold::Mean, 60_000),
    column("gps_points", "points", Metric::GpsPoints, Fold::Sum, 1),
    column("api_calls", "requests", Metric::ApiCalls, Fold::Sum, 1),
    column("api_errors", "requests", Metric::ApiErrors, Fold::Sum, 1),
    column(
        "request_time",
        "ms, of all requests together",
        Metric::RequestDurationUs,
        Fold::Sum,
        1000,
    ),
    column("memory", "MiB", Metric::MemoryBytes, Fold::Most, MIB),
    column("storage", "MiB", Metric::StorageBytes, Fold::Most, MIB),
    column("db_connections", "connections", Metric::DbConnections, Fold::Most, 1),
    column("client_connections", "connections", Metric::ClientConnections, Fold::Most, 1),
    column("vehicles", "vehicles", Metric::Vehicles, Fold::Most, 1),
];

/// A column by its name.
pub fn named(name: &str) -> Option<usize> {
    ALL.iter().position(|column| column.name == name)
}

/// The minutes of an hour.
pub const MINUTES: usize = 60;

/// One value a step; none where nothing was seen.
pub type Values = Vec<Option<i32>>;

/// An hour that reports still come for.
#[derive(Clone, Debug)]
pub struct OpenHour {
    /// Hours since the Unix epoch.
    pub hour: i64,
    /// The running minute, and how many minutes the bytes cover.
    minute: u8,
    written: u8,
    /// A bit for each column that was seen in the running minute.
    seen: u16,
    now: [u64; COLUMNS],
    /// The columns of the minute that was written last; 0 is "not seen", and a
    /// value is one more.
    before: [u32; COLUMNS],
    /// A minute: how many were skipped and which columns changed, then by how
    /// much each.
    bytes: Vec<u8>,
}

/// The bytes grow by so many: many tenants with room to spare would be much.
const ROOM: usize = 64;

impl OpenHour {
    /// The hour of `at_us` (microseconds since the Unix epoch), empty.
    pub fn at(at_us: i64) -> Self {
        Self {
            hour: at_us.div_euclid(HOUR_US),
            minute: 0,
            written: 0,
            seen: 0,
            now: [0; COLUMNS],
            before: [0; COLUMNS],
            bytes: Vec::new(),
        }
    }

    /// Takes in what was seen in an interval that ended at `at_us`; false, and
    /// nothing taken, when that is of another hour.
    pub fn add(&mut self, at_us: i64, sample: &Sample) -> bool {
        if at_us.div_euclid(HOUR_US) != self.hour {
            return false;
        }
        let minute = u8::try_from(at_us.rem_euclid(HOUR_US) / 60_000_000).unwrap_or(0);
        if minute > self.minute {
            self.end_minute();
            self.minute = minute;
        }
        for (at, (now, column)) in self.now.iter_mut().zip(&ALL).enumerate() {
            let Some(value) = sample.get(column.metric) else { continue };
            *now = match column.fold {
                Fold::Most => value.max(*now),
                Fold::Sum | Fold::Mean => now.saturating_add(value),
            };
            self.seen |= 1 << at;
        }
        true
    }

    fn end_minute(&mut self) {
        if self.seen == 0 {
            return;
        }
        let mut changed = 0_u64;
        let mut changes = [0_i64; COLUMNS];
        for (at, column) in ALL.iter().enumerate() {
            let seen = self.seen & (1 << at) != 0;
            let value = if seen { 1 + whole(self.now[at].div_ceil(column.divisor)) } else { 0 };
            changes[at] = i64::from(value) - i64::from(self.before[at]);
            changed |= u64::from(changes[at] != 0) << at;
            self.before[at] = value;
        }
        if self.bytes.capacity() - self.bytes.len() < ROOM {
            self.bytes.reserve_exact(2 * ROOM);
        }
        put(&mut self.bytes, u64::from(self.minute - self.written) << COLUMNS | changed);
        for change in changes.into_iter().filter(|change| *change != 0) {
            put(&mut self.bytes, ((change << 1) ^ (change >> 63)).cast_unsigned());
        }
        self.written = self.minute + 1;
        (self.seen, self.now) = (0, [0; COLUMNS]);
    }

    /// Whether the minute before the running one was over at `at_us`: what was
    /// seen then comes too late.
    pub fn is_past(&self, at_us: i64) -> bool {
        let running_us = self.hour * HOUR_US + i64::from(self.minute) * 60_000_000;
        at_us < running_us - 60_000_000
    }

    /// The hour as it is written.
    pub fn close(mut self) -> ClosedHour {
        self.end_minute();
        ClosedHour { hour: self.hour, bytes: self.bytes }
    }
}

/// The largest that a column of `int` holds.
fn whole(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs())
}

/// An hour that is over, as small as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedHour {
    /// Hours since the Unix epoch.
    pub hour: i64,
    bytes: Vec<u8>,
}

impl ClosedHour {
    /// The values of each column, minute by minute.
    pub fn minutes(&self) -> [Values; COLUMNS] {
        let mut all = std::array::from_fn(|_| vec![None; MINUTES]);
        let (mut at, mut before) = (0_usize, [0_i64; COLUMNS]);
        let mut bytes = self.bytes.as_slice();
        while let Some(head) = take(&mut bytes) {
            at += usize::try_from(head >> COLUMNS).unwrap_or(MINUTES);
            for (column, (values, before)) in all.iter_mut().zip(&mut before).enumerate() {
                let is_changed = head & (1 << column) != 0;
                let change = if is_changed { take(&mut bytes).unwrap_or(0) } else { 0 };
                *before += (change >> 1).cast_signed() ^ -((change & 1).cast_signed());
                if let Some(value) = values.get_mut(at) {
                    *value = (*before > 0).then(|| i32::try_from(*before - 1).unwrap_or(i32::MAX));
                }
            }
            at += 1;
        }
        all
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

/// Makes values coarser: each `step` of them become one.
pub fn coarser(values: &[Option<i32>], step: usize, fold: Fold) -> Values {
    values.chunks(step.max(1)).map(|part| one(part, fold)).collect()
}

fn one(part: &[Option<i32>], fold: Fold) -> Option<i32> {
    let known = || part.iter().flatten().map(|value| i64::from(*value));
    let count = i64::try_from(known().count()).unwrap_or(i64::MAX);
    let value = match fold {
        _ if count == 0 => return None,
        Fold::Sum => known().sum(),
        Fold::Mean => (known().sum::<i64>() + count - 1) / count,
        Fold::Most => known().max()?,
    };
    Some(i32::try_from(value).unwrap_or(i32::MAX))
}

/// The 95th percentile of what is known: the smallest value that 95 % (rounded
/// down) of the values don't exceed; of twelve the second highest.
pub fn p95(values: &[Option<i32>]) -> Option<i32> {
    let mut known: Vec<i32> = values.iter().flatten().copied().collect();
    known.sort_unstable();
    let rank = (known.len() * 95 / 100).max(1);
    known.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::sample::sample;

    const T0: i64 = 495_000 * HOUR_US;
    const MINUTE: i64 = 60_000_000;

    #[test]
    fn what_is_kept_of_an_hour_is_what_was_seen_minute_by_minute() {
        let mut open = OpenHour::at(T0 + 5 * MINUTE);
        let see = |open: &mut OpenHour, at: i64, values: &[(Metric, u64)]| {
            assert!(open.add(T0 + at, &sample(values)), "{at}");
        };
        see(&mut open, 2 * MINUTE, &[(Metric::CpuUs, 600_000), (Metric::GpsPoints, 10)]);
        see(&mut open, 2 * MINUTE + 5, &[(Metric::CpuUs, 601), (Metric::MemoryBytes, MIB)]);
        see(&mut open, 3 * MINUTE, &[(Metric::GpsPoints, 0), (Metric::MemoryBytes, 9 * MIB + 1)]);
        see(&mut open, 59 * MINUTE, &[(Metric::GpsPoints, u64::MAX)]);
        see(&mut open, 58 * MINUTE, &[(Metric::GpsPoints, 7)]);
        assert!(!open.add(T0 + 60 * MINUTE, &sample(&[(Metric::GpsPoints, 1)])));
        let closed = open.close();
        assert!(closed.bytes.len() < 60, "{} bytes", closed.bytes.len());
        let minutes = closed.minutes();
        let known = |column: usize| -> Vec<(usize, i32)> {
            let values = minutes[column].iter().enumerate();
            values.filter_map(|(at, value)| Some((at, (*value)?))).collect()
        };
        assert_eq!(known(CPU), [(2, 11)], "600,601 µs of a minute are 11 thousandths, rounded up");
        assert_eq!(known(GPS), [(2, 10), (3, 0), (59, i32::MAX)], "nothing seen is not zero");
        assert_eq!(known(5), [(2, 1), (3, 10)]);
        assert_eq!(known(9), []);
        assert!(OpenHour::at(T0).close().is_empty());
    }

    #[test]
    fn a_column_is_made_coarser_in_its_own_way() {
        let values = [Some(1), Some(2), None, None, None, Some(i32::MAX)];
        assert_eq!(coarser(&values, 3, Fold::Sum), [Some(3), Some(i32::MAX)]);
        assert_eq!(coarser(&values, 3, Fold::Mean), [Some(2), Some(i32::MAX)]);
        assert_eq!(coarser(&values, 4, Fold::Most), [Some(2), Some(i32::MAX)]);
        assert_eq!(coarser(&values[2..4], 2, Fold::Sum), [None]);
    }

    #[test]
    fn the_95th_percentile_of_twelve_is_the_second_highest() {
        let twelve: Values = (1..=12).rev().map(Some).collect();
        assert_eq!(p95(&twelve), Some(11));
        assert_eq!(p95(&[Some(3), None, Some(4)]), Some(3));
        assert_eq!((p95(&[Some(3)]), p95(&[None])), (Some(3), None));
    }
}
