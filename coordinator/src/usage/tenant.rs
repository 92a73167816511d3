//! What is kept of one tenant: rates over a short window, the UTC day, 24
//! hours, 7 days. Pure: the time is an argument, in microseconds since the
//! Unix epoch.

use serde::Serialize;
use webhost_proto::ids::{NodeId, TenantId};

use super::profile::Profile;
use super::sample::{METRICS, Metric, MetricSet, Sample};
use super::series::{ClosedHour, OpenHour};

/// Microseconds of an hour and of a day.
pub const HOUR_US: i64 = 3_600_000_000;
pub const DAY_US: i64 = 24 * HOUR_US;

/// Slots of the short window: its length is ten of them.
const SLOTS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Which slot of time, counted from the epoch; 0 is empty.
    index: i64,
    /// How much of it reports cover.
    covered_us: u64,
    cpu_us: u64,
    gps_points: u64,
    api_calls: u64,
    api_errors: u64,
    duration_us: u64,
}

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

#[derive(Clone, Copy, Debug, Default)]
struct Day {
    /// Days since the Unix epoch; 0 is empty.
    index: i64,
    gps_points: u64,
    api_calls: u64,
    api_errors: u64,
    batch_operations: u64,
    realtime_operations: u64,
    vehicles_max: u64,
    storage_max: u64,
    clients_max: u64,
}

/// One tenant, as reports come in.
#[derive(Clone, Debug)]
pub struct Tracked {
    node: NodeId,
    at_us: i64,
    slot_us: i64,
    slots: [Slot; SLOTS],
    hours: [Hour; 24],
    days: [Day; 7],
    gauges: [u64; METRICS],
    seen: MetricSet,
    attributed: MetricSet,
    /// GPS points of the last 30 days and of the 30 before.
    months: Option<(u64, u64)>,
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
            slots: [Slot::default(); SLOTS],
            hours: [Hour::default(); 24],
            days: [Day::default(); 7],
            gauges: [0; METRICS],
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
            self.slots = [Slot::default(); SLOTS];
        }
        let newest = at_us >= self.at_us;
        self.at_us = self.at_us.max(at_us);
        for metric in Metric::ALL {
            if let Some(value) = sample.get(metric) {
                self.seen.insert(metric);
                if newest {
                    self.gauges[metric as usize] = value;
                    if sample.is_attributed(metric) {
                        self.attributed.insert(metric);
                    } else {
                        self.attributed.remove(metric);
                    }
                }
            }
        }
        let index = at_us / self.slot_us;
        let slot = &mut self.slots[position(index, SLOTS)];
        if slot.index < index {
            *slot = Slot { index, ..Slot::default() };
        }
        if slot.index == index {
            slot.covered_us += interval_us;
            slot.cpu_us += sample.or_zero(Metric::CpuUs);
            slot.gps_points += sample.or_zero(Metric::GpsPoints);
            slot.api_calls += sample.or_zero(Metric::ApiCalls);
            slot.api_errors += sample.or_zero(Metric::ApiErrors);
            slot.duration_us += sample.or_zero(Metric::RequestDurationUs);
        }
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
        self.note(at_us, sample)
    }

    /// Adds to the hour and the day of `at_us`, as a stored roll-up does
    /// after a restart.
    pub fn restore(&mut self, at_us: i64, part: &Restored) {
        self.at_us = self.at_us.max(at_us);
        let index = at_us / HOUR_US;
        self.profile.seen(index);
        let hour = &mut self.hours[position(index, 24)];
        if hour.index < index {
            *hour = Hour { index, ..Hour::default() };
        }
        if hour.index == index {
            hour.cpu_us += part.cpu_us;
            hour.gps_points += part.gps_points;
            hour.api_calls += part.api_calls;
            hour.memory_bytes_max = hour.memory_bytes_max.max(part.memory_bytes);
            hour.client_connections_max = hour.client_connections_max.max(part.client_connections);
        }
        let index = at_us / DAY_US;
        let day = &mut self.days[position(index, 7)];
        if day.index < index {
            *day = Day { index, ..Day::default() };
        }
        if day.index == index {
            day.gps_points += part.gps_points;
            day.api_calls += part.api_calls;
            day.api_errors += part.api_errors;
            day.batch_operations += part.batch_operations;
            day.realtime_operations += part.realtime_operations;
            day.vehicles_max = day.vehicles_max.max(part.vehicles);
            day.storage_max = day.storage_max.max(part.storage_bytes);
            day.clients_max = day.clients_max.max(part.client_connections);
        }
    }

    /// Sets a gauge that a stored roll-up remembers, until a report brings a
    /// newer one.
    pub fn restore_gauge(&mut self, metric: Metric, value: u64, attributed: bool) {
        if value > 0 {
            self.gauges[metric as usize] = value;
            self.seen.insert(metric);
            if attributed {
                self.attributed.insert(metric);
            }
        }
    }

    /// GPS points of the last 30 days and of the 30 before.
    pub fn set_months(&mut self, last: u64, before: u64) {
        self.months = Some((last, before));
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
        let mut window = Slot::default();
        for slot in &self.slots {
            if slot.index > now_slot - SLOTS as i64 && slot.index <= now_slot {
                window.covered_us += slot.covered_us;
                window.cpu_us += slot.cpu_us;
                window.gps_points += slot.gps_points;
                window.api_calls += slot.api_calls;
                window.api_errors += slot.api_errors;
                window.duration_us += slot.duration_us;
            }
        }
        let rate = |sum: u64, per_us: u64| -> u64 {
            if window.covered_us == 0 {
                0
            } else {
                saturate(u128::from(sum) * u128::from(per_us) / u128::from(window.covered_us))
            }
        };
        let now_hour = now_us / HOUR_US;
        let mut hours = [Hour::default(); 24];
        let mut peak_clients = self.gauge(Metric::ClientConnections);
        for (offset, out) in hours.iter_mut().enumerate() {
            let index = now_hour - 23 + offset as i64;
            out.index = index;
            let hour = &self.hours[position(index, 24)];
            if hour.index == index {
                *out = *hour;
                if hour.client_connections_max > 0 {
                    peak_clients = peak_clients.max(Some(hour.client_connections_max));
                }
            }
        }
        let now_day = now_us / DAY_US;
        let today = self.days[position(now_day, 7)];
        let today = if today.index == now_day { today } else { Day::default() };
        let week = self.days.iter().filter(|day| day.index > now_day - 7 && day.index <= now_day);
        let week = week.fold(Day::default(), |a, b| Day {
            gps_points: a.gps_points.max(b.gps_points),
            vehicles_max: a.vehicles_max.max(b.vehicles_max),
            storage_max: a.storage_max.max(b.storage_max),
            clients_max: a.clients_max.max(b.clients_max),
            ..a
        });
        TenantUsage {
            tenant,
            node: self.node,
            at_us: self.at_us,
            window_covered_ms: window.covered_us / 1000,
            cpu_millicores: self.seen.contains(Metric::CpuUs).then(|| rate(window.cpu_us, 1000)),
            gps_points_per_kilosecond: rate(window.gps_points, 1_000_000_000),
            requests_in_window: window.api_calls,
            mean_response_us: (window.api_calls > 0)
                .then(|| window.duration_us.div_ceil(window.api_calls)),
            error_rate_bp: (window.api_calls > 0).then(|| {
                let rate = u128::from(window.api_errors) * 10_000 / u128::from(window.api_calls);
                u32::try_from(rate).unwrap_or(u32::MAX)
            }),
            gps_points_today: today.gps_points,
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
            peak_clients_24h: peak_clients,
            week_gps_points_per_day: week.gps_points,
            week_vehicles: week.vehicles_max,
            week_storage_bytes: week.storage_max,
            week_clients: week.clients_max,
            growth_bp: self.months.and_then(|(last, before)| {
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
        self.seen.contains(metric).then(|| self.gauges[metric as usize])
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

fn position(index: i64, length: usize) -> usize {
    usize::try_from(index.rem_euclid(length as i64)).unwrap_or(0)
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
