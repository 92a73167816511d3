//! A tenant's last minutes, as they are kept until they are written: in parts of
//! twelve minutes. Pure.
//!
//! Most minutes are like the one before, so a minute is kept as what changed,
//! by how much: some 10 bytes for ten columns. What comes a minute late counts
//! in the running one; what comes later counts in the hourly sums alone.
//!
//! Tenants' parts begin at minutes of their own, so that in each minute a twelfth
//! of them is written, rather than all at once.

use webhost_proto::ids::TenantId;

use super::ring::{Cell, Fine};
use super::sample::Sample;
use super::series::{ALL, COLUMNS, Fold, Values};

/// Microseconds of a minute.
pub const MINUTE_US: i64 = 60_000_000;
/// Minutes of a part.
pub const PART: usize = 12;
const PART_MINUTES: i64 = PART as i64;

/// When the parts of a tenant begin: so many minutes before those of the clock.
pub fn phase(tenant: TenantId) -> i64 {
    i64::from(tenant.0.as_bytes()[15]) % PART_MINUTES
}

/// A part that reports still come for.
#[derive(Clone, Debug)]
pub struct OpenPart {
    /// Minutes since the Unix epoch.
    start: u32,
    /// The running minute, and how many minutes the bytes cover.
    minute: u8,
    written: u8,
    /// A bit for each column that was seen in the running minute.
    seen: u16,
    now: [Fine; COLUMNS],
    /// A minute: how many were skipped and which columns changed, then by how
    /// much each. 0 is "not seen", and a value is one more.
    bytes: Vec<u8>,
}

/// The bytes grow by so many: many tenants with room to spare would be much.
const ROOM: usize = 32;
/// The most bytes of a minute's head.
const HEAD: usize = 2;

impl OpenPart {
    /// The part that `at_us` (microseconds since the Unix epoch) is in, empty;
    /// of a tenant of that [`phase`].
    pub fn at(at_us: i64, phase: i64) -> Self {
        let minute = at_us.div_euclid(MINUTE_US);
        let start = (minute + phase).div_euclid(PART_MINUTES) * PART_MINUTES - phase;
        Self {
            start: u32::try_from(start).unwrap_or(0),
            minute: 0,
            written: 0,
            seen: 0,
            now: [Fine::default(); COLUMNS],
            bytes: Vec::new(),
        }
    }

    /// The first minute (since the Unix epoch) after it.
    pub fn end(&self) -> i64 {
        i64::from(self.start) + PART_MINUTES
    }

    /// Takes in what was seen in an interval that ended at `at_us`; false, and
    /// nothing taken, when that is after its end.
    pub fn add(&mut self, at_us: i64, sample: &Sample) -> bool {
        let minute = at_us.div_euclid(MINUTE_US);
        if minute >= self.end() {
            return false;
        }
        let minute = u8::try_from(minute - i64::from(self.start)).unwrap_or(0);
        if minute > self.minute {
            self.end_minute();
            self.minute = minute;
        }
        for (at, (now, column)) in self.now.iter_mut().zip(&ALL).enumerate() {
            let Some(value) = sample.get(column.metric) else { continue };
            *now = Fine::of(match column.fold {
                Fold::Most => value.max(now.get()),
                Fold::Sum | Fold::Mean => now.get().saturating_add(value),
            });
            self.seen |= 1 << at;
        }
        true
    }

    fn end_minute(&mut self) {
        if self.seen == 0 {
            return;
        }
        let mut before = [0_i64; COLUMNS];
        decode(&self.bytes, |_, values| before = *values);
        let mut changed = 0_u64;
        let mut changes = [0_i64; COLUMNS];
        for (at, column) in ALL.iter().enumerate() {
            let seen = self.seen & (1 << at) != 0;
            let sum = self.now[at].get().div_ceil(column.divisor);
            let value = if seen { 1 + whole(sum) } else { 0 };
            changes[at] = value - before[at];
            changed |= u64::from(changes[at] != 0) << at;
        }
        let length = HEAD + changes.iter().map(|change| length(zigzag(*change))).sum::<usize>();
        if self.bytes.capacity() - self.bytes.len() < length {
            self.bytes.reserve_exact(length.max(ROOM));
        }
        put(&mut self.bytes, u64::from(self.minute - self.written) << COLUMNS | changed);
        for change in changes.into_iter().filter(|change| *change != 0) {
            put(&mut self.bytes, zigzag(change));
        }
        self.written = self.minute + 1;
        (self.seen, self.now) = (0, [Fine::default(); COLUMNS]);
    }

    /// Whether the minute before the running one was over at `at_us`: what was
    /// seen then comes too late.
    pub fn is_past(&self, at_us: i64) -> bool {
        let running = i64::from(self.start) + i64::from(self.minute);
        at_us < (running - 1) * MINUTE_US
    }

    /// The part as it is written.
    pub fn close(mut self) -> Part {
        self.end_minute();
        Part { start: i64::from(self.start), bytes: self.bytes }
    }
}

/// The largest that a column of `int` holds.
fn whole(value: u64) -> i64 {
    i64::from(i32::try_from(value).unwrap_or(i32::MAX))
}

/// A part that is over, as small as it was kept, and as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Minutes since the Unix epoch.
    pub start: i64,
    pub bytes: Vec<u8>,
}

impl Part {
    /// The values of each column, minute by minute.
    pub fn minutes(&self) -> [Values; COLUMNS] {
        let mut all = std::array::from_fn(|_| vec![None; PART]);
        self.draw(self.start, &mut all);
        all
    }

    /// Writes its values into those of the minutes from `first` on; where there
    /// is one already, the larger holds. Minutes outside are left out.
    pub fn draw(&self, first: i64, minutes: &mut [Values; COLUMNS]) {
        let skipped = self.start.saturating_sub(first);
        decode(&self.bytes, |at, values| {
            let Ok(at) = usize::try_from(skipped.saturating_add(at)) else { return };
            for (minutes, value) in minutes.iter_mut().zip(values) {
                let Some(slot) = minutes.get_mut(at) else { continue };
                let value = (*value > 0).then(|| i32::try_from(*value - 1).unwrap_or(i32::MAX));
                *slot = (*slot).max(value);
            }
        });
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Hands each minute of a part to `each`: its number, and its columns, of which 0
/// is "not seen" and a value is one more. Bytes that are no part end it.
fn decode(mut bytes: &[u8], mut each: impl FnMut(i64, &[i64; COLUMNS])) {
    let (mut at, mut values) = (0_i64, [0_i64; COLUMNS]);
    while let Some(head) = take(&mut bytes) {
        at = at.saturating_add((head >> COLUMNS).cast_signed());
        for (column, value) in values.iter_mut().enumerate() {
            if head & (1 << column) != 0 {
                let change = take(&mut bytes).unwrap_or(0);
                let change = (change >> 1).cast_signed() ^ -((change & 1).cast_signed());
                *value = value.saturating_add(change);
            }
        }
        each(at, &values);
        at = at.saturating_add(1);
    }
}

fn zigzag(change: i64) -> u64 {
    ((change << 1) ^ (change >> 63)).cast_unsigned()
}

/// Bytes that [`put`] takes for a change; none for no change.
fn length(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    bits.div_ceil(7) as usize
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::sample::{Metric, sample};
    use crate::usage::series::{CPU, GPS};

    const T0: i64 = 2_475_000 * PART_MINUTES * MINUTE_US;

    #[test]
    fn what_is_kept_of_a_part_is_what_was_seen_minute_by_minute() {
        let mut open = OpenPart::at(T0 + 5 * MINUTE_US, 0);
        let see = |open: &mut OpenPart, at: i64, values: &[(Metric, u64)]| {
            assert!(open.add(T0 + at, &sample(values)), "{at}");
        };
        let minute = |at: i64| at * MINUTE_US;
        see(&mut open, minute(2), &[(Metric::CpuUs, 600_000), (Metric::GpsPoints, 10)]);
        see(&mut open, minute(2) + 5, &[(Metric::CpuUs, 601), (Metric::MemoryBytes, 1 << 20)]);
        see(&mut open, minute(3), &[(Metric::GpsPoints, 0), (Metric::MemoryBytes, (9 << 20) + 1)]);
        see(&mut open, minute(11), &[(Metric::GpsPoints, u64::MAX)]);
        see(&mut open, minute(10), &[(Metric::GpsPoints, 7)]);
        assert!(!open.add(T0 + minute(12), &sample(&[(Metric::GpsPoints, 1)])));
        let part = open.close();
        assert!(part.bytes.len() < 60, "{} bytes", part.bytes.len());
        let minutes = part.minutes();
        let known = |column: usize| -> Vec<(usize, i32)> {
            let values = minutes[column].iter().enumerate();
            values.filter_map(|(at, value)| Some((at, (*value)?))).collect()
        };
        assert_eq!(known(CPU), [(2, 11)], "600,601 µs of a minute are 11 thousandths, rounded up");
        assert_eq!(known(GPS), [(2, 10), (3, 0), (11, i32::MAX)], "nothing seen is not zero");
        assert_eq!(known(5), [(2, 1), (3, 10)]);
        assert_eq!(known(9), []);
        assert!(OpenPart::at(T0, 0).close().is_empty());
    }

    #[test]
    fn a_tenants_parts_follow_each_other() {
        for phase in 0..PART_MINUTES {
            let first = OpenPart::at(T0, phase);
            let start = i64::from(first.start);
            assert_eq!((start + phase) % PART_MINUTES, 0);
            assert!((start..first.end()).contains(&(T0 / MINUTE_US)));
            let next = OpenPart::at(first.end() * MINUTE_US, phase);
            assert_eq!(i64::from(next.start), first.end());
            let last = OpenPart::at(first.end() * MINUTE_US - 1, phase);
            assert_eq!(last.start, first.start);
        }
    }

    #[test]
    fn parts_are_drawn_where_they_belong_and_cut_at_both_ends() {
        let part = |start: i64| {
            let mut open = OpenPart::at(start * MINUTE_US, 0);
            for minute in 0..PART_MINUTES {
                let points = (minute + 1).unsigned_abs();
                assert!(
                    open.add((start + minute) * MINUTE_US, &sample(&[(Metric::GpsPoints, points)]))
                );
            }
            open.close()
        };
        let first = T0 / MINUTE_US;
        let mut minutes: [Values; COLUMNS] = std::array::from_fn(|_| vec![None; 16]);
        part(first).draw(first + 5, &mut minutes);
        part(first + PART_MINUTES).draw(first + 5, &mut minutes);
        let expected: Values = (6..=12).chain(1..=9).map(Some).collect();
        assert_eq!(minutes[GPS], expected);
        assert_eq!(minutes[CPU], vec![None; 16]);
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_part_draw_something_or_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            start in any::<i64>(),
        ) {
            let mut minutes: [Values; COLUMNS] = std::array::from_fn(|_| vec![None; PART]);
            Part { start, bytes }.draw(7, &mut minutes);
            prop_assert!(minutes.iter().all(|values| values.len() == PART));
        }

        #[test]
        fn what_is_put_is_taken(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert_eq!(bytes.len(), length(value).max(1));
            prop_assert_eq!(take(&mut bytes.as_slice()), Some(value));
        }
    }
}
