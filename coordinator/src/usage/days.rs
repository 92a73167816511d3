//! The running UTC day of a tenant, and the most of each of the six before it.
//! Pure. A restart fills it from the stored sums of those days.

use super::ring::{Cell, Fine, Rough};
use super::tenant::Restored;

/// Days before the running one.
const BEFORE: usize = 6;

/// Seven days, the running one last.
#[derive(Clone, Debug, Default)]
pub struct Days {
    today: Today,
    /// The most memory of the day before.
    memory_before: Fine,
    /// By the day's number modulo their count.
    past: [Past; BEFORE],
    /// Days since the Unix epoch; 0 is none yet.
    index: u32,
}

/// Sums are whole; the most of something is rounded up as its cell says.
#[derive(Clone, Copy, Debug, Default)]
struct Today {
    gps_points: u64,
    api_calls: u64,
    api_errors: u64,
    batch_operations: u64,
    realtime_operations: u64,
    memory: Fine,
    most: Past,
}

/// What the week's figures need of one day.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    gps_points: Fine,
    storage: Fine,
    vehicles: Rough,
    clients: Rough,
}

impl Past {
    fn raise(&mut self, part: &Restored) {
        raise(&mut self.storage, part.storage_bytes);
        raise(&mut self.vehicles, part.vehicles);
        raise(&mut self.clients, part.client_connections);
    }
}

fn raise<C: Cell>(cell: &mut C, value: u64) {
    if value > cell.get() {
        *cell = C::of(value);
    }
}

/// The sums of one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub gps_points: u64,
    pub api_calls: u64,
    pub api_errors: u64,
    pub batch_operations: u64,
    pub realtime_operations: u64,
}

/// The largest of seven days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Week {
    /// Of one day.
    pub gps_points: u64,
    pub vehicles: u64,
    pub storage_bytes: u64,
    pub clients: u64,
}

impl Days {
    /// Adds to a day (since the Unix epoch). What is older than the six before
    /// the running one is left out.
    pub fn add(&mut self, day: i64, part: &Restored) {
        self.begin(day);
        let running = i64::from(self.index);
        if day == running {
            let today = &mut self.today;
            for (sum, more) in [
                (&mut today.gps_points, part.gps_points),
                (&mut today.api_calls, part.api_calls),
                (&mut today.api_errors, part.api_errors),
                (&mut today.batch_operations, part.batch_operations),
                (&mut today.realtime_operations, part.realtime_operations),
            ] {
                *sum = sum.saturating_add(more);
            }
            raise(&mut today.memory, part.memory_bytes);
            today.most.raise(part);
        } else if running - day <= BEFORE as i64 {
            let past = &mut self.past[slot(day)];
            past.raise(part);
            past.gps_points = Fine::of(past.gps_points.get().saturating_add(part.gps_points));
            if day == running - 1 {
                raise(&mut self.memory_before, part.memory_bytes);
            }
        }
    }

    /// Makes `day` the running one where it is later.
    fn begin(&mut self, day: i64) {
        let running = i64::from(self.index);
        if day <= running {
            return;
        }
        let ended = std::mem::take(&mut self.today);
        self.past[slot(running)] = Past { gps_points: Fine::of(ended.gps_points), ..ended.most };
        self.memory_before = if day == running + 1 { ended.memory } else { Fine::default() };
        for gap in (running + 1).max(day - BEFORE as i64)..day {
            self.past[slot(gap)] = Past::default();
        }
        self.index = u32::try_from(day).unwrap_or(u32::MAX);
    }

    /// The sums of a day; zero where it is not the running one.
    pub fn sums(&self, day: i64) -> Sums {
        if day != i64::from(self.index) {
            return Sums::default();
        }
        let Today { gps_points, api_calls, api_errors, batch_operations, .. } = self.today;
        let realtime_operations = self.today.realtime_operations;
        Sums { gps_points, api_calls, api_errors, batch_operations, realtime_operations }
    }

    /// The largest of `day` and the six before it.
    pub fn week(&self, day: i64) -> Week {
        let mut week = Week::default();
        for index in day - BEFORE as i64..=day {
            let Some(most) = self.most(index) else { continue };
            week.gps_points = week.gps_points.max(most.gps_points.get());
            week.vehicles = week.vehicles.max(most.vehicles.get());
            week.storage_bytes = week.storage_bytes.max(most.storage.get());
            week.clients = week.clients.max(most.clients.get());
        }
        week.gps_points = week.gps_points.max(self.sums(day).gps_points);
        week
    }

    /// The most memory of `day` and the day before, in bytes.
    pub fn memory(&self, day: i64) -> u64 {
        match day - i64::from(self.index) {
            0 => self.today.memory.get().max(self.memory_before.get()),
            1 => self.today.memory.get(),
            _ => 0,
        }
    }

    fn most(&self, day: i64) -> Option<Past> {
        match i64::from(self.index) - day {
            0 => Some(Past { gps_points: Fine::of(self.today.gps_points), ..self.today.most }),
            ago if (1..=BEFORE as i64).contains(&ago) => Some(self.past[slot(day)]),
            _ => None,
        }
    }
}

fn slot(day: i64) -> usize {
    usize::try_from(day.rem_euclid(BEFORE as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list of all days, with small values that are exact.
        #[test]
        fn seven_days_are_known(
            adds in prop::collection::vec((1_i64..40, 0_u64..9, 0_u64..9), 1..60),
        ) {
            let mut days = Days::default();
            let mut plain = BTreeMap::<i64, (u64, u64)>::new();
            let mut newest = 0;
            for (day, points, most) in adds {
                let part = Restored {
                    gps_points: points,
                    vehicles: most,
                    memory_bytes: most,
                    ..Restored::default()
                };
                days.add(day, &part);
                newest = newest.max(day);
                if day >= newest - 6 {
                    let known = plain.entry(day).or_default();
                    *known = (known.0 + points, known.1.max(most));
                }
                let of = |day: i64| plain.get(&day).copied().unwrap_or_default();
                prop_assert_eq!(days.sums(newest).gps_points, of(newest).0);
                prop_assert_eq!(days.memory(newest), of(newest).1.max(of(newest - 1).1));
                prop_assert_eq!(days.memory(newest + 1), of(newest).1);
                for today in newest..newest + 8 {
                    let week = days.week(today);
                    let points = (today - 6..=today).map(|day| of(day).0).max();
                    let vehicles = (today - 6..=today).map(|day| of(day).1).max();
                    prop_assert_eq!((Some(week.gps_points), Some(week.vehicles)), (points, vehicles));
                }
            }
        }
    }
}
