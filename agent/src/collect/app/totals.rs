//! From page to page: the tenants' counters as totals that never fall.

use std::collections::BTreeMap;

use webhost_proto::ids::TenantId;

use super::page::{
    API_CALLS, API_ERRORS, BATCH_OPERATIONS, COUNTERS, DURATION_COUNT, DURATION_US, GPS_POINTS,
    Page, QUERIES, REALTIME_OPERATIONS,
};
use crate::collect::counter::Counter;

/// What the application has said of one tenant so far: totals since the agent
/// watches, and gauges as they stand. `None` is a series that the page has
/// not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppTenant {
    pub gps_points: Option<u64>,
    /// From its own series, else from the number of durations.
    pub api_calls: Option<u64>,
    pub api_errors: Option<u64>,
    pub batch_operations: Option<u64>,
    pub realtime_operations: Option<u64>,
    /// Microseconds.
    pub request_duration_us: Option<u64>,
    pub client_connections: Option<u64>,
    pub vehicles: Option<u64>,
    pub queries: Option<u64>,
    /// Seconds since the epoch.
    pub oldest_point: Option<u64>,
    /// By [`AppReading::bounds`]; empty without a histogram.
    pub buckets: Vec<u64>,
}

/// One reading of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppReading {
    /// In microseconds, ascending; `u64::MAX` is +Inf.
    pub bounds: Vec<u64>,
    pub tenants: BTreeMap<TenantId, AppTenant>,
}

#[derive(Debug, Default)]
struct Counters {
    plain: [Option<Counter>; COUNTERS],
    buckets: BTreeMap<u64, Counter>,
}

/// The state between pages.
#[derive(Debug)]
pub(super) struct Totals {
    watching_since_ms: u64,
    started_ms: Option<u64>,
    seen_a_page: bool,
    tenants: BTreeMap<TenantId, Counters>,
}

/// How a page's values relate to the last ones.
#[derive(Clone, Copy)]
struct Relation {
    /// A series that appears now began at zero while we watched.
    born: bool,
    /// The process is another one than at the last page.
    restarted: bool,
    /// The process is known to be the same, so no counter can have reset.
    same: bool,
}

impl Totals {
    /// `watching_since_ms`: the wall clock when the agent began to look.
    pub(super) fn new(watching_since_ms: u64) -> Self {
        Self { watching_since_ms, started_ms: None, seen_a_page: false, tenants: BTreeMap::new() }
    }

    /// Takes a whole page. The second value counts the counters that fell
    /// although the process is the same; they count on from where they are.
    pub(super) fn take(&mut self, page: &Page<'_>) -> (AppReading, u64) {
        let restarted = matches!((self.started_ms, page.started_ms), (Some(a), Some(b)) if a != b);
        let same = matches!((self.started_ms, page.started_ms), (Some(a), Some(b)) if a == b);
        let born_under_our_eyes =
            page.started_ms.is_some_and(|started| started > self.watching_since_ms);
        let relation = Relation { born: self.seen_a_page || born_under_our_eyes, restarted, same };
        self.seen_a_page = true;
        self.started_ms = page.started_ms;

        let mut fallen = 0;
        let mut reading = AppReading { bounds: page.bounds.clone(), tenants: BTreeMap::new() };
        for (id, values) in &page.tenants {
            let known = self.tenants.entry(*id).or_default();
            let mut totals = [None; COUNTERS];
            for ((slot, value), total) in
                known.plain.iter_mut().zip(values.counters).zip(&mut totals)
            {
                if let Some(value) = value {
                    let counter = slot.get_or_insert_with(|| relation.new_counter());
                    fallen += relation.observe(counter, value);
                }
                *total = slot.as_ref().map(Counter::total);
            }
            let mut buckets = Vec::new();
            if !values.buckets.is_empty() {
                for bound in &page.bounds {
                    let value = values.buckets.get(bound).copied().unwrap_or(0);
                    let counter =
                        known.buckets.entry(*bound).or_insert_with(|| relation.new_counter());
                    fallen += relation.observe(counter, value);
                    buckets.push(counter.total());
                }
                known.buckets.retain(|bound, _| page.bounds.binary_search(bound).is_ok());
            }
            reading.tenants.insert(
                *id,
                AppTenant {
                    gps_points: totals[GPS_POINTS],
                    api_calls: totals[API_CALLS].or(totals[DURATION_COUNT]),
                    api_errors: totals[API_ERRORS],
                    batch_operations: totals[BATCH_OPERATIONS],
                    realtime_operations: totals[REALTIME_OPERATIONS],
                    request_duration_us: totals[DURATION_US],
                    client_connections: values.client_connections,
                    vehicles: values.vehicles,
                    queries: totals[QUERIES],
                    oldest_point: values.oldest_point,
                    buckets,
                },
            );
        }
        (reading, fallen)
    }
}

impl Relation {
    fn new_counter(self) -> Counter {
        if self.born { Counter::born() } else { Counter::default() }
    }

    /// Returns 1 when the value fell without a restart.
    fn observe(self, counter: &mut Counter, value: u64) -> u64 {
        if self.restarted {
            counter.rebase(0);
        }
        if self.same && counter.last().is_some_and(|last| value < last) {
            counter.rebase(value);
            return 1;
        }
        counter.observe(value);
        0
    }
}
