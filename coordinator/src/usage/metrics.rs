//! The `usage_metrics` of the API, by the names that the seeds give them, and
//! what the decision engine and the placement take from the same figures.

use std::collections::BTreeMap;

use serde::Serialize;
use webhost_proto::units::{Bytes, MilliCpu};

use super::hourly::{Hour, peak_hours};
use super::minute::{CacheKeys, ResponseTimes};
use super::node::NodeUsage;
use super::profile::Buckets;
use super::sample::Metric;
use super::season::Season;
use super::tenant::TenantUsage;
use crate::decide::advise::WeekPeaks;
use crate::decide::amount::BasisPoints;
use crate::decide::profile::Usage;
use crate::fleet::load::{Amounts, MilliConnections, MilliPoints};
use crate::fleet::need::{CONNECTIONS, CPU, GPS, Need};

/// Usage of one tenant, as the API shows it. Null is "not known".
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct UsageMetrics {
    pub vehicle_count: Option<u64>,
    /// Of the UTC day, as `api_calls_today`.
    pub gps_points_today: u64,
    pub api_calls_today: u64,
    pub storage_used_mb: Option<u64>,
    /// Most client connections at once, last 24 hours.
    pub peak_concurrent_users: Option<u64>,
    /// Mean over the short window; null without a request in it.
    pub average_response_time_ms: Option<f64>,
    /// Share of the requests in the short window that failed, 0 to 1.
    pub error_rate: Option<f64>,
    /// Where a node's access log has countries ("measured"): those with at least
    /// a hundredth of today's requests, most first; else as the customer stated
    /// it ("stated").
    pub geographic_distribution: Option<Vec<String>>,
    /// Of the UTC day, since this coordinator started; null where no access log
    /// has countries.
    pub requests_by_country: Option<BTreeMap<String, u64>>,
    /// Null without requests, or where nobody counts them by duration.
    pub response_times: Option<ResponseTimes>,
    /// Null where no Redis is looked at.
    pub cache_keys: Option<CacheKeys>,
    /// GPS points of the last 30 days against the 30 before: 0.1 is 10 % more.
    pub growth_rate: Option<f64>,
    pub resource_utilization: ResourceUtilization,
    pub patterns: Patterns,
    /// Per metric: "measured" (read directly), "attributed" (a shared
    /// process, split by a share of work), "estimated" (from a part, drawn at
    /// random) or "stated".
    pub basis: BTreeMap<&'static str, &'static str>,
    /// The node that reported it.
    #[schema(value_type = String)]
    pub node: webhost_proto::ids::NodeId,
    /// When, in microseconds since the Unix epoch.
    pub reported_at_us: i64,
    /// How much of the short window the reports cover.
    pub window_covered_ms: u64,
}

/// Shares of the machine that the tenant lives on, 0 to 1.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ResourceUtilization {
    /// The tenant's own CPU.
    pub cpu_utilization: Option<f64>,
    /// The CPU of the whole machine.
    pub node_cpu_utilization: Option<f64>,
    pub memory_utilization: Option<f64>,
    pub database_connections: Option<u64>,
    pub disk_utilization: Option<f64>,
    pub cpu_millicores: Option<u64>,
    pub memory_bytes: Option<u64>,
}

/// How the use is spread over time.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Patterns {
    /// UTC hours of the day with at least four fifths of the busiest hour's
    /// API calls and GPS points, last 24 hours.
    pub peak_hours: Vec<u32>,
    /// The shares of the weekdays and months; null until four weeks are known.
    pub seasonal_patterns: Option<Season>,
    /// Of the UTC day, as `real_time_operations`.
    pub batch_operations: u64,
    pub real_time_operations: u64,
    /// The last 24 UTC hours, oldest first.
    pub hours: Vec<Hour>,
    /// The usual day: 24 UTC hours, each the 95th percentile of its
    /// five-minute values.
    pub usual: Usual,
}

/// The 24 hourly buckets of weekdays and weekends; both the same for the first
/// 14 days.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Usual {
    /// Whole days of history that are behind it.
    pub history_days: i64,
    /// Each of thousandths of a core, hundredths of a connection, hundredths of
    /// a GPS point a second.
    pub weekday: Vec<Vec<u16>>,
    pub weekend: Vec<Vec<u16>>,
}

impl From<&TenantUsage> for Usual {
    fn from(usage: &TenantUsage) -> Self {
        let (weekday, weekend) = usage.profile.buckets();
        let rows = |buckets: Buckets| buckets.iter().map(|row| row.to_vec()).collect();
        let history_days = usage.history_days;
        Self { history_days, weekday: rows(weekday), weekend: rows(weekend) }
    }
}

fn share(part: Option<u64>, whole: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a share for a reader; decisions use integers")]
    part.filter(|_| whole > 0).map(|part| part as f64 / whole as f64)
}

/// Builds the API's view. `node` is the load of the machine where the tenant
/// lives; `stated` the regions of its profile; `season` what its history shows;
/// `hours` its last 24 ([`super::hourly::read`]).
/// [`super::Book::show_minute`] adds what is told by the minute.
pub fn usage_metrics(
    usage: &TenantUsage,
    node: Option<&NodeUsage>,
    stated: Option<Vec<String>>,
    season: Option<Season>,
    hours: &[Hour; 24],
) -> UsageMetrics {
    let mut basis = BTreeMap::new();
    for (name, metric) in [
        ("vehicle_count", Metric::Vehicles),
        ("gps_points_today", Metric::GpsPoints),
        ("api_calls_today", Metric::ApiCalls),
        ("storage_used_mb", Metric::StorageBytes),
        ("peak_concurrent_users", Metric::ClientConnections),
        ("average_response_time_ms", Metric::RequestDurationUs),
        ("error_rate", Metric::ApiErrors),
        ("growth_rate", Metric::GpsPoints),
        ("cpu_utilization", Metric::CpuUs),
        ("memory_utilization", Metric::MemoryBytes),
        ("database_connections", Metric::DbConnections),
        ("disk_utilization", Metric::StorageBytes),
        ("batch_operations", Metric::BatchOperations),
        ("real_time_operations", Metric::RealtimeOperations),
    ] {
        if usage.seen.contains(metric) {
            let attributed = usage.attributed.contains(metric);
            basis.insert(name, if attributed { "attributed" } else { "measured" });
        }
    }
    if stated.is_some() {
        basis.insert("geographic_distribution", "stated");
    }
    let whole_cpu = node.map_or(0, |node| u64::from(node.cpu_count) * 1000);
    UsageMetrics {
        vehicle_count: usage.vehicles,
        gps_points_today: usage.gps_points_today,
        api_calls_today: usage.api_calls_today,
        storage_used_mb: usage.storage_bytes.map(|bytes| bytes / 1_000_000),
        peak_concurrent_users: usage.peak_clients_24h,
        average_response_time_ms: share(usage.mean_response_us, 1000),
        error_rate: share(usage.error_rate_bp.map(u64::from), 10_000),
        geographic_distribution: stated,
        requests_by_country: None,
        response_times: None,
        cache_keys: None,
        #[allow(clippy::cast_precision_loss, reason = "a share for a reader")]
        growth_rate: usage.growth_bp.map(|bp| bp as f64 / 10_000.0),
        resource_utilization: ResourceUtilization {
            cpu_utilization: share(usage.cpu_millicores, whole_cpu),
            node_cpu_utilization: share(node.and_then(|node| node.cpu_bp), 10_000),
            memory_utilization: share(
                usage.memory_bytes,
                node.map_or(0, |node| node.memory_total_bytes),
            ),
            database_connections: usage.db_connections,
            disk_utilization: share(
                usage.storage_bytes,
                node.map_or(0, |node| node.disk_total_bytes),
            ),
            cpu_millicores: usage.cpu_millicores,
            memory_bytes: usage.memory_bytes,
        },
        patterns: Patterns {
            peak_hours: peak_hours(hours),
            seasonal_patterns: season,
            batch_operations: usage.batch_operations_today,
            real_time_operations: usage.realtime_operations_today,
            hours: hours.to_vec(),
            usual: usage.into(),
        },
        basis,
        node: usage.node,
        reported_at_us: usage.at_us,
        window_covered_ms: usage.window_covered_ms,
    }
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn points(value: u64) -> BasisPoints {
    BasisPoints(i64::try_from(value).unwrap_or(i64::MAX))
}

/// What the decision engine takes of a tenant's usage. The GPS points of a
/// day are those of the busiest of the last 7.
pub fn for_decision(
    usage: &TenantUsage,
    node: Option<&NodeUsage>,
    tenants_on_node: Option<u32>,
) -> Usage {
    let whole_cpu = node.map_or(0, |node| u64::from(node.cpu_count) * 1000);
    Usage {
        vehicle_count: usage.vehicles.map(small),
        gps_points_today: usage.seen.contains(Metric::GpsPoints).then_some(usage.week.gps_points),
        gps_points_per_second: usage
            .seen
            .contains(Metric::GpsPoints)
            .then(|| small(usage.gps_points_per_kilosecond.div_ceil(1000))),
        storage_used_mb: usage.storage_bytes.map(|bytes| bytes / 1_000_000),
        peak_concurrent_users: usage.peak_clients_24h.map(small),
        queries_per_second: usage.queries_per_second.map(small),
        retained_days: usage.retained_days.map(small),
        average_response_time_ms: usage.mean_response_us.map(|us| small(us.div_ceil(1000))),
        error_rate: usage.error_rate_bp.map(|bp| points(u64::from(bp))),
        geographic_distribution: None,
        node_cpu: node.and_then(|node| node.cpu_bp).map(points),
        cpu_of_node: usage
            .cpu_millicores
            .filter(|_| whole_cpu > 0)
            .map(|used| points(used.saturating_mul(10_000) / whole_cpu)),
        tenants_on_node,
    }
}

/// The week's largest figures, for the advice on plans.
pub fn week_peaks(usage: &TenantUsage) -> WeekPeaks {
    let known = |metric, value| usage.seen.contains(metric).then_some(value);
    WeekPeaks {
        vehicles: known(Metric::Vehicles, usage.week.vehicles),
        gps_points_per_day: known(Metric::GpsPoints, usage.week.gps_points),
        storage_mb: known(Metric::StorageBytes, usage.week.storage_bytes / 1_000_000),
        users: known(Metric::ClientConnections, usage.week.clients),
    }
}

/// What a tenant takes of its node, for placement: of the time-varying
/// dimensions the larger of the last minutes and of the busiest hour of its
/// usual day. What was not seen takes `average`.
pub fn amounts(usage: &TenantUsage, average: Amounts) -> Amounts {
    let [cpu, _, gps] = usage.profile.busiest().map(u64::from);
    // The profile's points are hundredths.
    let gps = gps * 10;
    Amounts {
        // After a restart the usual day is there before the rates are.
        cpu: match usage.cpu_millicores {
            None if cpu == 0 => average.cpu,
            now => MilliCpu(now.unwrap_or(0).max(cpu)),
        },
        memory: usage
            .memory_bytes
            .map_or(average.memory, |now| Bytes(now.max(usage.memory_bytes_max))),
        disk: usage.storage_bytes.map_or(average.disk, Bytes),
        db_connections: usage
            .db_connections
            .map_or(average.db_connections, |now| MilliConnections(now.saturating_mul(1000))),
        gps: if usage.seen.contains(Metric::GpsPoints) || gps > 0 {
            MilliPoints(usage.gps_points_per_kilosecond.max(gps))
        } else {
            average.gps
        },
    }
}

/// A tenant's own figures weigh more every day, and after so many days alone.
pub const BLEND_DAYS: i64 = 7;

/// What a tenant takes of its node through a day, for placement: of each hour
/// its usual figures ([`super::profile`]), and in the running one what it takes
/// now where that is more. While an hour is not known, the tenant is taken to be
/// as busy then as ever: nothing is packed closer for want of figures.
///
/// `class` is what its like take as a rule: a new tenant is charged with that
/// where it is more than its own figures, and with a seventh less of the
/// difference every day.
pub fn need(usage: &TenantUsage, class: Amounts) -> Need {
    let mut need = Need::flat(&amounts(usage, class));
    let running = usize::try_from(usage.hour.rem_euclid(24)).unwrap_or(0);
    for at in 0..24 {
        let now = |value: u64| if at == running { value } else { 0 };
        let [cpu, connections, gps] = usage.profile.expect(at).map(|row| row.map(u64::from));
        if let Some(cpu) = cpu {
            need.set_hour(CPU, at, cpu.max(now(usage.cpu_millicores.unwrap_or(0))));
        }
        // The profile's connections and points are hundredths.
        if let Some(connections) = connections {
            let held = usage.db_connections.unwrap_or(0).saturating_mul(1000);
            need.set_hour(CONNECTIONS, at, (connections * 10).max(now(held)));
        }
        if let Some(gps) = gps {
            need.set_hour(GPS, at, (gps * 10).max(now(usage.gps_points_per_kilosecond)));
        }
    }
    blend(&mut need, &Need::flat(&class), usage.history_days);
    need
}

/// Raises `own` towards `class` where it is less: by all of the difference
/// without history, by none after [`BLEND_DAYS`].
fn blend(own: &mut Need, class: &Need, days: i64) {
    let left = u64::try_from(BLEND_DAYS - days.clamp(0, BLEND_DAYS)).unwrap_or(0);
    let all = BLEND_DAYS.unsigned_abs();
    let raised = |own: u32, class: u32| {
        let more = u64::from(class.saturating_sub(own)) * left / all;
        own.saturating_add(small(more))
    };
    for (day, class) in own.hourly.iter_mut().zip(&class.hourly) {
        for (hour, class) in day.iter_mut().zip(class) {
            let value = raised(u32::from(*hour), u32::from(*class));
            *hour = u16::try_from(value).unwrap_or(u16::MAX);
        }
    }
    own.memory = raised(own.memory, class.memory);
    own.disk = raised(own.disk, class.disk);
}

/// What a host as a whole takes, strangers and the system included.
pub fn host_amounts(node: &NodeUsage) -> Amounts {
    Amounts {
        cpu: MilliCpu(node.cpu_millicores.unwrap_or(0)),
        memory: Bytes(node.memory_used_bytes),
        disk: Bytes(node.disk_used_bytes),
        db_connections: MilliConnections(node.db_connections.saturating_mul(1000)),
        gps: MilliPoints(0),
    }
}
