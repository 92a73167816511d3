//! What is kept of one tenant: rates over a short window, 7 UTC days, its usual
//! day. Pure: the time is an argument, in microseconds since the Unix epoch.

use webhost_proto::ids::{NodeId, TenantId};

use super::days::{Days, Week};
use super::part::{OpenPart, Part};
use super::profile::Profile;
use super::ring::{Cell, Fine, Ring, Rough};
use super::sample::{METRICS, Metric, MetricSet, Sample};

/// Microseconds of an hour and of a day.
pub const HOUR_US: i64 = 3_600_000_000;
pub const DAY_US: i64 = 24 * HOUR_US;

/// Slots of the short window: its length is five of them.
const SLOTS: usize = 5;
/// Gauges come after the counters.
const GAUGES: usize = METRICS - Metric::MemoryBytes as usize;

/// Of a slot of the window: how much of it reports cover (µs), then what the
/// field names of [`Restored`] say, and the requests' time (µs).
const COVERED: usize = 0;
const CPU: usize = 1;
const POINTS: usize = 2;
const CALLS: usize = 3;
const ERRORS: usize = 4;
const TIME: usize = 5;
const QUERIES: usize = 6;
const WINDOWED: usize = 7;

/// One tenant, as reports come in. There are many: see the size in the tests.
#[derive(Clone, Debug)]
pub struct Tracked {
    node: NodeId,
    at_us: i64,
    slot_ms: u32,
    window: Ring<Rough, SLOTS, WINDOWED, WINDOWED>,
    /// The most clients of each of the last 24 hours.
    clients: Ring<Rough, 24, 1, 0>,
    days: Days,
    gauges: [Fine; GAUGES],
    seen: MetricSet,
    attributed: MetricSet,
    /// In ten-thousandths.
    growth: Option<i32>,
    /// The running part, minute by minute.
    pub(super) open: Option<OpenPart>,
    pub(super) profile: Profile,
}

impl Tracked {
    /// Nothing known yet; rates are taken over `window_us`.
    pub fn new(node: NodeId, window_us: i64) -> Self {
        Self {
            node,
            at_us: 0,
            slot_ms: u32::try_from(window_us / SLOTS as i64 / 1000).unwrap_or(u32::MAX).max(1000),
            window: Ring::default(),
            clients: Ring::default(),
            days: Days::default(),
            gauges: [Fine::default(); GAUGES],
            seen: MetricSet::default(),
            attributed: MetricSet::default(),
            growth: None,
            open: None,
            profile: Profile::default(),
        }
    }

    /// Takes in one interval that ended at `at_us`; answers the part that was
    /// the running one, where this begins the next; `phase` is the tenant's. An
    /// older interval than the newest counts in its own hour and day, and leaves
    /// the gauges alone.
    pub fn apply(
        &mut self,
        phase: i64,
        node: NodeId,
        sample: &Sample,
        at_us: i64,
        interval_us: u64,
    ) -> Option<Part> {
        if node != self.node {
            // Another machine: what was measured there says nothing here.
            self.node = node;
            self.window.clear();
            for told in [Metric::OldestPoint, Metric::Queries] {
                self.seen.remove(told);
            }
        }
        let newest = at_us >= self.at_us;
        self.at_us = self.at_us.max(at_us);
        for metric in Metric::ALL {
            if let Some(value) = sample.kept(metric, at_us) {
                self.seen.insert(metric);
                if newest {
                    if let Some(gauge) = gauge(metric) {
                        self.gauges[gauge] = Fine::of(value);
                    }
                    if sample.is_attributed(metric) {
                        self.attributed.insert(metric);
                    } else {
                        self.attributed.remove(metric);
                    }
                }
            }
        }
        let slot = [
            interval_us,
            sample.or_zero(Metric::CpuUs),
            sample.or_zero(Metric::GpsPoints),
            sample.or_zero(Metric::ApiCalls),
            sample.or_zero(Metric::ApiErrors),
            sample.or_zero(Metric::RequestDurationUs),
            sample.or_zero(Metric::Queries),
        ];
        self.window.add(at_us / self.slot_us(), slot);
        self.restore(
            at_us,
            &Restored {
                cpu_us: sample.or_zero(Metric::CpuUs),
                gps_points: sample.or_zero(Metric::GpsPoints),
                api_calls: sample.or_zero(Metric::ApiCalls),
                api_errors: sample.or_zero(Metric::ApiErrors),
                batch_operations: sample.or_zero(Metric::BatchOperations),
                realtime_operations: sample.or_zero(Metric::RealtimeOperations),
                memory_bytes: sample.or_zero(Metric::MemoryBytes),
                client_connections: sample.or_zero(Metric::ClientConnections),
                vehicles: sample.or_zero(Metric::Vehicles),
                storage_bytes: sample.or_zero(Metric::StorageBytes),
            },
        );
        self.note(at_us, interval_us, phase, sample)
    }

    /// Adds to the hour and the day of `at_us`, as a stored roll-up does
    /// after a restart.
    pub fn restore(&mut self, at_us: i64, part: &Restored) {
        self.at_us = self.at_us.max(at_us);
        let index = at_us / HOUR_US;
        self.profile.seen(index);
        self.clients.add(index, [part.client_connections]);
        self.days.add(at_us / DAY_US, part);
    }

    /// Where it lived at `at_us`, as a stored roll-up says; the newest one holds.
    pub fn restore_node(&mut self, node: NodeId, at_us: i64) {
        if at_us >= self.at_us {
            self.node = node;
        }
    }

    /// Sets a gauge that a stored roll-up remembers, until a report brings a
    /// newer one.
    pub fn restore_gauge(&mut self, metric: Metric, value: u64, attributed: bool) {
        if let Some(gauge) = gauge(metric).filter(|_| value > 0) {
            self.gauges[gauge] = Fine::of(value);
            self.seen.insert(metric);
            if attributed {
                self.attributed.insert(metric);
            }
        }
    }

    /// GPS points of the last 30 days and of the 30 before.
    pub fn set_months(&mut self, last: u64, before: u64) {
        self.growth = (before > 0).then(|| {
            let change = i128::from(last) - i128::from(before);
            i32::try_from(change * 10_000 / i128::from(before)).unwrap_or(i32::MAX)
        });
    }

    fn slot_us(&self) -> i64 {
        i64::from(self.slot_ms) * 1000
    }

    /// When the newest report of this tenant was made.
    pub fn at_us(&self) -> i64 {
        self.at_us
    }

    /// Where it was reported last.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What is known at `now_us`.
    pub fn usage(&self, tenant: TenantId, now_us: i64) -> TenantUsage {
        let now_slot = now_us / self.slot_us();
        let mut window = [0_u64; WINDOWED];
        for index in now_slot - SLOTS as i64 + 1..=now_slot {
            for (sum, value) in window.iter_mut().zip(self.window.get(index).unwrap_or_default()) {
                *sum = sum.saturating_add(value);
            }
        }
        let rate = |sum: u64, per_us: u64| -> u64 {
            if window[COVERED] == 0 {
                0
            } else {
                saturate(u128::from(sum) * u128::from(per_us) / u128::from(window[COVERED]))
            }
        };
        let now_hour = now_us / HOUR_US;
        let clients = (now_hour - 23..=now_hour).filter_map(|hour| self.clients.get(hour));
        let most = clients.map(|[most]| most).max().filter(|most| *most > 0);
        let now_day = now_us / DAY_US;
        let today = self.days.sums(now_day);
        let gauge = |metric| self.gauge(metric);
        TenantUsage {
            tenant,
            node: self.node,
            at_us: self.at_us,
            window_covered_ms: window[COVERED] / 1000,
            cpu_millicores: self.seen.contains(Metric::CpuUs).then(|| rate(window[CPU], 1000)),
            gps_points_per_kilosecond: rate(window[POINTS], 1_000_000_000),
            queries_per_second: (self.seen.contains(Metric::Queries) && window[COVERED] > 0)
                .then(|| rate(window[QUERIES], 1_000_000)),
            requests_in_window: window[CALLS],
            mean_response_us: (window[CALLS] > 0).then(|| window[TIME].div_ceil(window[CALLS])),
            error_rate_bp: (window[CALLS] > 0).then(|| {
                let rate = u128::from(window[ERRORS]) * 10_000 / u128::from(window[CALLS]);
                u32::try_from(rate).unwrap_or(u32::MAX)
            }),
            gps_points_today: today.gps_points,
            api_calls_today: today.api_calls,
            api_errors_today: today.api_errors,
            batch_operations_today: today.batch_operations,
            realtime_operations_today: today.realtime_operations,
            memory_bytes: gauge(Metric::MemoryBytes),
            storage_bytes: gauge(Metric::StorageBytes),
            db_connections: gauge(Metric::DbConnections),
            db_connections_active: gauge(Metric::DbConnectionsActive),
            client_connections: gauge(Metric::ClientConnections),
            vehicles: gauge(Metric::Vehicles),
            retained_days: gauge(Metric::OldestPoint),
            peak_clients_24h: gauge(Metric::ClientConnections).max(most),
            memory_bytes_max: self.days.memory(now_day),
            week: self.days.week(now_day),
            growth_bp: self.growth.map(i64::from),
            hour: now_hour,
            profile: self.profile,
            history_days: self.profile.days(now_hour),
            seen: self.seen,
            attributed: self.attributed,
        }
    }

    fn gauge(&self, metric: Metric) -> Option<u64> {
        gauge(metric).filter(|_| self.seen.contains(metric)).map(|at| self.gauges[at].get())
    }
}

/// What a roll-up or a sample adds to an hour and a day.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restored {
    pub cpu_us: u64,
    pub gps_points: u64,
    pub api_calls: u64,
    pub api_errors: u64,
    pub batch_operations: u64,
    pub realtime_operations: u64,
    pub memory_bytes: u64,
    pub client_connections: u64,
    pub vehicles: u64,
    pub storage_bytes: u64,
}

/// What is known of one tenant at one moment. None is "not seen", which is
/// not zero.
#[derive(Clone, Debug)]
pub struct TenantUsage {
    pub tenant: TenantId,
    /// Where it was reported last.
    pub node: NodeId,
    /// When, in microseconds since the Unix epoch.
    pub at_us: i64,
    /// How much of the short window reports cover; 0: the rates are unknown.
    pub window_covered_ms: u64,
    /// Over the window, in thousandths of a core.
    pub cpu_millicores: Option<u64>,
    /// Over the window.
    pub gps_points_per_kilosecond: u64,
    /// Over the window; none where the application doesn't count them.
    pub queries_per_second: Option<u64>,
    pub requests_in_window: u64,
    /// Over the window, rounded up; none without a request.
    pub mean_response_us: Option<u64>,
    /// Over the window, in ten-thousandths of the requests.
    pub error_rate_bp: Option<u32>,
    /// Of this UTC day, as the following.
    pub gps_points_today: u64,
    pub api_calls_today: u64,
    pub api_errors_today: u64,
    pub batch_operations_today: u64,
    pub realtime_operations_today: u64,
    /// Last values.
    pub memory_bytes: Option<u64>,
    pub storage_bytes: Option<u64>,
    pub db_connections: Option<u64>,
    pub db_connections_active: Option<u64>,
    pub client_connections: Option<u64>,
    pub vehicles: Option<u64>,
    /// Whole days since its oldest GPS point; none where it is not reported, or
    /// the tenant has no point.
    pub retained_days: Option<u64>,
    pub peak_clients_24h: Option<u64>,
    /// Of this UTC day and the one before.
    pub memory_bytes_max: u64,
    /// The largest of the last 7 UTC days.
    pub week: Week,
    /// GPS points of the last 30 days against the 30 before, in
    /// ten-thousandths; none without a past.
    pub growth_bp: Option<i64>,
    /// The running UTC hour, since the Unix epoch.
    pub hour: i64,
    /// Its usual day.
    pub profile: Profile,
    /// Whole days since it was first reported, as far as is remembered.
    pub history_days: i64,
    pub seen: MetricSet,
    pub attributed: MetricSet,
}

/// The position of a gauge among those that are kept; none of a counter, whose
/// last increase says nothing.
fn gauge(metric: Metric) -> Option<usize> {
    (metric as usize).checked_sub(Metric::MemoryBytes as usize)
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a part's bytes (some 10 a minute) and its place in a map it is to stay under
    /// 1 KiB; `make bench-usage` measures the whole.
    #[test]
    fn a_tenant_is_small() {
        assert!(size_of::<Tracked>() <= 672, "{} bytes", size_of::<Tracked>());
    }
}
