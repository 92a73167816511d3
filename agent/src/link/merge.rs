//! Two reports in a row made one, for an agent that is away for long: the
//! counters are added, of the gauges the later ones stand. Pure.

use std::collections::BTreeMap;

use webhost_proto::ids::TenantId;
use webhost_proto::wire::{HostSample, Metric};

use super::report::{CollectedColumn, CollectedReport};

/// Whether values of this metric are increases, which add up.
pub fn is_counter(metric: Metric) -> bool {
    match metric {
        Metric::CpuUs
        | Metric::GpsPoints
        | Metric::ApiCalls
        | Metric::ApiErrors
        | Metric::RequestDurationUs
        | Metric::BatchOperations
        | Metric::RealtimeOperations
        | Metric::RequestDurationBucket => true,
        Metric::Unspecified
        | Metric::MemoryBytes
        | Metric::StorageBytes
        | Metric::DbConnections
        | Metric::DbConnectionsActive
        | Metric::ClientConnections
        | Metric::Vehicles => false,
    }
}

/// `earlier` and `later` as one interval. For every tenant, metric, basis and
/// bound the counters' total is what both had; gauges, sources and times are
/// the later one's. The tenants are the later one's in their order, then
/// those that only the earlier one knew.
pub fn merge(earlier: &CollectedReport, later: &CollectedReport) -> CollectedReport {
    let mut tenants = later.tenants.clone();
    if earlier.tenants != later.tenants {
        let known: std::collections::HashSet<TenantId> =
            later.tenants.iter().map(|(id, _)| *id).collect();
        tenants.extend(earlier.tenants.iter().filter(|(id, _)| !known.contains(id)).cloned());
    }
    let at: BTreeMap<TenantId, usize> =
        tenants.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let mut columns: BTreeMap<(i32, i32, u64), CollectedColumn> = BTreeMap::new();
    for (report, is_later) in [(earlier, false), (later, true)] {
        for column in &report.columns {
            let counter = is_counter(column.metric);
            if !counter && !is_later {
                continue;
            }
            let key = (column.metric as i32, column.basis as i32, column.bound);
            let merged = columns.entry(key).or_insert_with(|| CollectedColumn {
                values: vec![None; tenants.len()],
                ..column.clone()
            });
            for ((tenant, _), value) in report.tenants.iter().zip(&column.values) {
                let Some(value) = value else { continue };
                let Some(sum) = at.get(tenant).and_then(|at| merged.values.get_mut(*at)) else {
                    continue;
                };
                *sum = Some(sum.unwrap_or(0).saturating_add(*value));
            }
        }
    }
    CollectedReport {
        collected_at_us: later.collected_at_us,
        interval_ms: earlier.interval_ms.saturating_add(later.interval_ms),
        tenants,
        host: HostSample {
            cpu_busy_us: earlier.host.cpu_busy_us.saturating_add(later.host.cpu_busy_us),
            network_rx_bytes: earlier
                .host
                .network_rx_bytes
                .saturating_add(later.host.network_rx_bytes),
            network_tx_bytes: earlier
                .host
                .network_tx_bytes
                .saturating_add(later.host.network_tx_bytes),
            ..later.host
        },
        columns: columns.into_values().collect(),
        sources: later.sources.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
