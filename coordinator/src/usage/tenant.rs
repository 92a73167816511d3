//! What is kept of one tenant: rates over a short window, the UTC day, 24
//! hours, 7 days. Pure: the time is an argument, in microseconds since the
//! Unix epoch.

use serde::Serialize;
use webhost_proto::ids::{NodeId, TenantId};

use super::profile::Profile;
use super::ring::{Cell, Fine, Ring, Rough};
use super::sample::{METRICS, Metric, MetricSet, Sample};
use super::series::{ClosedHour, OpenHour};

/// Microseconds of an hour and of a day.
pub const HOUR_US: i64 = 3_600_000_000;
pub const DAY_US: i64 = 24 * HOUR_US;

/// Slots of the short window: its length is ten of them.
const SLOTS: usize = 10;
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

/// One UTC hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Hour {
    /// Hours since the Unix epoch; 0 is empty.
    pub index: i64,
    pub cpu_us: u64,
    pub gps_points: u64,
    pub api_calls: u64,
    pub memory_bytes_max: u64,
    pub client_connections_max: u64,
}

/// What is summed up for the running UTC day alone.
#[derive(Clone, Copy, Debug, Default)]
struct Today {
    /// Days since the Unix epoch; 0 is empty.
    index: i64,
    api_calls: u64,
    api_errors: u64,
    batch_operations: u64,
    realtime_operations: u64,
}

/// One tenant, as reports come in.
#[derive(Clone, Debug)]
pub struct Tracked {
    node: NodeId,
    at_us: i64,
    slot_us: i64,
    window: Ring<Rough, SLOTS, WINDOWED, WINDOWED>,
    /// CPU time, GPS points, API calls; the most memory and clients.
    hours: Ring<Rough, 24, 5, 3>,
    /// GPS points; the most vehicles, storage and clients.
    days: Ring<Fine, 7, 4, 1>,
    today: Today,
    gauges: [u64; GAUGES],
    seen: MetricSet,
    attributed: MetricSet,
    /// GPS points of the last 30 days and of the 30 before.
    months: Option<(Fine, Fine)>,
    /// The running hour, minute by minute.
    pub(super) open: Option<Box<OpenHour>>,
    pub(super) profile: Profile,
}

impl Tracked {
    /// Nothing known yet; rates are taken over `window_us`.
    pub fn new(node: NodeId, window_us: i64) -> Self {
        Self {
            node,
            at_us: 0,
            slot_us: (window_us / SLOTS as i64).max(1_000_000),
            window: Ring::default(),
            hours: Ring::default(),
            days: Ring::default(),
            today: Today::default(),
            gauges: [0; GAUGES],
            seen: MetricSet::default(),
            attributed: MetricSet::default(),
            months: None,
            open: None,
            profile: Profile::default(),
        }
    }

    /// Takes in one interval that ended at `at_us`; answers the hour that was
    /// the running one, where this begins the next. An older interval than the
    /// newest counts in its own hour and day, and leaves the gauges alone.
    pub fn apply(
        &mut self,
        node: NodeId,
        sample: &Sample,
        at_us: i64,
        interval_us: u64,
    ) -> Option<ClosedHour> {
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
                        self.gauges[gauge] = value;
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
        self.window.add(at_us / self.slot_us, slot);
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
        self.note(at_us, interval_us, sample)
    }

    /// Adds to the hour and the day of `at_us`, as a stored roll-up does
    /// after a restart.
    pub fn restore(&mut self, at_us: i64, part: &Restored) {
        self.at_us = self.at_us.max(at_us);
        let index = at_us / HOUR_US;
        self.profile.seen(index);
        let hour = [
            part.cpu_us,
            part.gps_points,
            part.api_calls,
            part.memory_bytes,
            part.client_connections,
        ];
        self.hours.add(index, hour);
        let index = at_us / DAY_US;
        let day = [part.gps_points, part.vehicles, part.storage_bytes, part.client_connections];
        self.days.add(index, day);
        if self.today.index < index {
            self.today = Today { index, ..Today::default() };
        }
        if self.today.index == index {
            self.today.api_calls = self.today.api_calls.saturating_add(part.api_calls);
            self.today.api_errors = self.today.api_errors.saturating_add(part.api_errors);
            self.today.batch_operations =
                self.today.batch_operations.saturating_add(part.batch_operations);
            self.today.realtime_operations =
                self.today.realtime_operations.saturating_add(part.realtime_operations);
        }
    }

    /// Sets a gauge that a stored roll-up remembers, until a report brings a
    /// newer one.
    pub fn restore_gauge(&mut self, metric: Metric, value: u64, attributed: bool) {
        if let Some(gauge) = gauge(metric).filter(|_| value > 0) {
            self.gauges[gauge] = value;
            self.seen.insert(metric);
            if attributed {
                self.attributed.insert(metric);
            }
        }
    }

    /// GPS points of the last 30 days and of the 30 before.
    pub fn set_months(&mut self, last: u64, before: u64) {
        self.months = Some((Fine::of(last), Fine::of(before)));
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
        let now_slot = now_us / self.slot_us;
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
        let mut hours = [Hour::default(); 24];
        let mut peak_clients = self.gauge(Metric::ClientConnections);
        for (offset, out) in hours.iter_mut().enumerate() {
            let index = now_hour - 23 + offset as i64;
            out.index = index;
            let Some([cpu_us, gps_points, api_calls, memory, clients]) = self.hours.get(index)
            else {
                continue;
            };
            *out = Hour {
                index,
                cpu_us,
                gps_points,
                api_calls,
                memory_bytes_max: memory,
                client_connections_max: clients,
            };
            if clients > 0 {
                peak_clients = peak_clients.max(Some(clients));
            }
        }
        let now_day = now_us / DAY_US;
        let today = Some(self.today).filter(|day| day.index == now_day).unwrap_or_default();
        let [points_today, ..] = self.days.get(now_day).unwrap_or_default();
        let mut week = [0_u64; 4];
        for index in now_day - 6..=now_day {
            for (most, value) in week.iter_mut().zip(self.days.get(index).unwrap_or_default()) {
                *most = (*most).max(value);
            }
        }
        let [week_points, week_vehicles, week_storage_bytes, week_clients] = week;
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
            gps_points_today: points_today,
            api_calls_today: today.api_calls,
            api_errors_today: today.api_errors,
            batch_operations_today: today.batch_operations,
            realtime_operations_today: today.realtime_operations,
            memory_bytes: self.gauge(Metric::MemoryBytes),
            storage_bytes: self.gauge(Metric::StorageBytes),
            db_connections: self.gauge(Metric::DbConnections),
            db_connections_active: self.gauge(Metric::DbConnectionsActive),
            client_connections: self.gauge(Metric::ClientConnections),
            vehicles: self.gauge(Metric::Vehicles),
            retained_days: self.gauge(Metric::OldestPoint),
            peak_clients_24h: peak_clients,
            week_gps_points_per_day: week_points,
            week_vehicles,
            week_storage_bytes,
            week_clients,
            growth_bp: self.months.and_then(|(last, before)| {
                let (last, before) = (last.get(), before.get());
                (before > 0).then(|| {
                    let change = i128::from(last) - i128::from(before);
                    i64::try_from(change * 10_000 / i128::from(before)).unwrap_or(i64::MAX)
                })
            }),
            hours,
            profile: self.profile,
            history_days: self.profile.days(now_hour),
            seen: self.seen,
            attributed: self.attributed,
        }
    }

    fn gauge(&self, metric: Metric) -> Option<u64> {
        gauge(metric).filter(|_| self.seen.contains(metric)).map(|at| self.gauges[at])
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
    /// The largest of the last 7 UTC days.
    pub week_gps_points_per_day: u64,
    pub week_vehicles: u64,
    pub week_storage_bytes: u64,
    pub week_clients: u64,
    /// GPS points of the last 30 days against the 30 before, in
    /// ten-thousandths; none without a past.
    pub growth_bp: Option<i64>,
    /// The last 24 UTC hours, oldest first, the running one last.
    pub hours: [Hour; 24],
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
