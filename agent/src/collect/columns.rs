//! From tenants to columns: one array a metric and basis, only where a value
//! is known of anybody.

use std::collections::BTreeMap;

use webhost_proto::ids::TenantId;
use webhost_proto::wire::{Basis, Metric};

use super::app::AppTenant;
use super::detail;
use super::round::TenantRound;
use crate::link::report::CollectedColumn;

/// The largest value that the coordinator takes: what a float of the
/// application holds exactly.
const MAX_VALUE: u64 = 1 << 53;

/// The columns of a round, in the order of `tenants`. `storage_measured` says
/// whether the storage is one tenant's alone.
pub(super) fn columns(
    tenants: &BTreeMap<TenantId, TenantRound>,
    bounds: &[u64],
    storage_measured: bool,
) -> Vec<CollectedColumn> {
    use Basis::{Attributed, Measured};
    let mut columns = Vec::new();
    let mut add =
        |metric: Metric, basis: Basis, bound: u64, value: &dyn Fn(&TenantRound) -> Option<u64>| {
            let values: Vec<Option<u64>> =
                tenants.values().map(|t| value(t).map(|v| v.min(MAX_VALUE))).collect();
            if values.iter().any(Option::is_some) {
                columns.push(CollectedColumn { metric, basis, bound, values });
            }
        };
    add(Metric::CpuUs, Measured, 0, &|t| t.own_cpu_us);
    add(Metric::CpuUs, Attributed, 0, &|t| t.cpu_us);
    add(Metric::MemoryBytes, Measured, 0, &|t| t.own_memory_bytes);
    add(Metric::MemoryBytes, Attributed, 0, &|t| t.memory_bytes);
    add(Metric::GpsPoints, Measured, 0, &|t| t.app.as_ref()?.gps_points);
    add(Metric::GpsPoints, Attributed, 0, &|t| {
        let told = t.app.as_ref().and_then(|app| app.gps_points);
        if told.is_some() { None } else { t.stored_points }
    });
    // What the application counts is the truth; nginx's log stands in for it.
    let told = |t: &TenantRound, value: fn(&AppTenant) -> Option<u64>| value(t.app.as_ref()?);
    add(Metric::ApiCalls, Measured, 0, &|t| {
        told(t, |app| app.api_calls).or(t.front.map(|front| front.calls))
    });
    add(Metric::ApiErrors, Measured, 0, &|t| {
        told(t, |app| app.api_errors).or(t.front.map(|front| front.errors))
    });
    add(Metric::RequestDurationUs, Measured, 0, &|t| {
        told(t, |app| app.request_duration_us).or(t.front.map(|front| front.duration_us))
    });
    add(Metric::BatchOperations, Measured, 0, &|t| t.app.as_ref()?.batch_operations);
    add(Metric::RealtimeOperations, Measured, 0, &|t| t.app.as_ref()?.realtime_operations);
    for (index, bound) in bounds.iter().enumerate() {
        add(Metric::RequestDurationBucket, Measured, *bound, &|t| {
            t.app.as_ref()?.buckets.get(index).copied()
        });
    }
    let basis = if storage_measured { Measured } else { Attributed };
    add(Metric::StorageBytes, basis, 0, &|t| t.storage_bytes);
    add(Metric::DbConnections, Measured, 0, &|t| Some(t.named_connections?.0));
    add(Metric::DbConnections, Attributed, 0, &|t| Some(t.connections?.0));
    add(Metric::DbConnectionsActive, Measured, 0, &|t| Some(t.named_connections?.1));
    add(Metric::DbConnectionsActive, Attributed, 0, &|t| Some(t.connections?.1));
    add(Metric::ClientConnections, Measured, 0, &|t| {
        told(t, |app| app.client_connections).or(t.front.map(|front| front.clients))
    });
    // The application's gauge is newer than the survey's count.
    add(Metric::Vehicles, Measured, 0, &|t| {
        t.app.as_ref().and_then(|app| app.vehicles).or(t.vehicles)
    });
    add(Metric::Queries, Measured, 0, &|t| t.app.as_ref()?.queries);
    add(Metric::OldestPoint, Measured, 0, &|t| t.app.as_ref()?.oldest_point);
    for (at, metric) in detail::COUNTED.into_iter().enumerate() {
        // Most of these stand still for hours: said only when one moves.
        if tenants.values().any(|t| t.detail.counts[at].is_some_and(|more| more > 0)) {
            add(metric, Measured, 0, &|t| t.detail.counts[at]);
        }
    }
    add(Metric::Tasks, Measured, 0, &|t| t.detail.tasks);
    add(Metric::Unhealthy, Measured, 0, &|t| t.detail.unhealthy);
    columns
}
