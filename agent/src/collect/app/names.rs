//! Which series of the application's page means which metric of ours.

use std::collections::BTreeMap;

/// A metric that the application counts per tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// GPS points that were accepted. Counter.
    GpsPoints,
    /// API calls. Counter.
    ApiCalls,
    /// API calls that failed. Counter.
    ApiErrors,
    /// Bulk operations. Counter.
    BatchOperations,
    /// Real-time operations. Counter.
    RealtimeOperations,
    /// Request time. Histogram, in seconds.
    RequestDuration,
    /// Clients connected now. Gauge.
    ClientConnections,
    /// Vehicles. Gauge.
    Vehicles,
    /// Statements sent to the database. Counter.
    Queries,
    /// Of when the oldest GPS point is, in seconds since the epoch. Gauge.
    OldestPoint,
}

const ALL: [(Family, &str, &str); 10] = [
    (Family::GpsPoints, "gps_points", "webhost_gps_points_total"),
    (Family::ApiCalls, "api_calls", "webhost_api_calls_total"),
    (Family::ApiErrors, "api_errors", "webhost_api_errors_total"),
    (Family::BatchOperations, "batch_operations", "webhost_batch_operations_total"),
    (Family::RealtimeOperations, "realtime_operations", "webhost_realtime_operations_total"),
    (Family::RequestDuration, "request_duration", "webhost_request_duration_seconds"),
    (Family::ClientConnections, "client_connections", "webhost_connected_clients"),
    (Family::Vehicles, "vehicles", "webhost_vehicles"),
    (Family::Queries, "queries", "webhost_db_queries_total"),
    (Family::OldestPoint, "oldest_point", "webhost_oldest_gps_point_timestamp_seconds"),
];

impl Family {
    /// By its key in `[app.names]`.
    pub fn by_key(key: &str) -> Option<Self> {
        ALL.iter().find(|(_, known, _)| *known == key).map(|(family, _, _)| *family)
    }

    /// The keys of `[app.names]`.
    pub fn keys() -> Vec<&'static str> {
        ALL.iter().map(|(_, key, _)| *key).collect()
    }
}

/// What one series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// A value of a family as it stands.
    Plain(Family),
    /// `_sum` of the request durations.
    DurationSum,
    /// `_count` of the request durations.
    DurationCount,
    /// `_bucket` of the request durations.
    DurationBucket,
    /// When the application's process started, in seconds since the epoch.
    ProcessStart,
}

/// The names to look for.
#[derive(Clone, Debug)]
pub struct Names {
    plain: Vec<(String, Family)>,
    duration: String,
}

impl Names {
    /// The defaults, with what the configuration overrides; keys that are not
    /// metrics were refused when it was checked.
    pub fn new(overrides: &BTreeMap<String, String>) -> Self {
        let mut plain = Vec::new();
        let mut duration = String::new();
        for (family, key, default) in ALL {
            let name = overrides.get(key).map_or(default, String::as_str).to_owned();
            if family == Family::RequestDuration {
                duration = name;
            } else {
                plain.push((name, family));
            }
        }
        Self { plain, duration }
    }

    /// What the series called `name` is, if it is one of ours.
    pub fn find(&self, name: &str) -> Option<Series> {
        if let Some(suffix) = name.strip_prefix(self.duration.as_str()) {
            match suffix {
                "_bucket" => return Some(Series::DurationBucket),
                "_sum" => return Some(Series::DurationSum),
                "_count" => return Some(Series::DurationCount),
                _ => {}
            }
        }
        if let Some((_, family)) = self.plain.iter().find(|(known, _)| known == name) {
            return Some(Series::Plain(*family));
        }
        (name == "process_start_time_seconds").then_some(Series::ProcessStart)
    }
}
