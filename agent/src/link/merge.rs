//! Two reports in a row made one, for an agent that is away for long: the
//! counters are added, and of the gauges the larger ones stand, because what is
//! kept of an hour that is over is its maximum. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use webhost_proto::MAX_COUNTRIES;
use webhost_proto::ids::TenantId;
use webhost_proto::wire::{CountryRequests, DatabaseSample, HostSample, Metric, TenantMinute};

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
        | Metric::RequestDurationBucket
        | Metric::CpuThrottledUs
        | Metric::OomKills
        | Metric::IoReadBytes
        | Metric::IoWrittenBytes
        | Metric::NetworkRxBytes
        | Metric::NetworkTxBytes
        | Metric::Restarts
        | Metric::Queries => true,
        Metric::Unspecified
        | Metric::MemoryBytes
        | Metric::StorageBytes
        | Metric::DbConnections
        | Metric::DbConnectionsActive
        | Metric::ClientConnections
        | Metric::Vehicles
        | Metric::Tasks
        | Metric::Unhealthy
        | Metric::OldestPoint => false,
    }
}

/// `earlier` and `later` as one interval. For every tenant, metric, basis and
/// bound the counters' total is what both had. A tenant's gauge, measured and
/// attributed together, is the larger of both (the later one of equals), so
/// the maximum of any number of reports is the same in whatever order they are
/// merged. Host gauges, file systems, sources and times are the
/// later one's. The tenants are
/// the later one's in their order, then those that only the earlier one knew.
pub fn merge(earlier: &CollectedReport, later: &CollectedReport) -> CollectedReport {
    let mut tenants = later.tenants.clone();
    if earlier.tenants != later.tenants {
        let known: HashSet<TenantId> = later.tenants.iter().map(|(id, _)| *id).collect();
        tenants.extend(earlier.tenants.iter().filter(|(id, _)| !known.contains(id)).cloned());
    }
    let at: HashMap<TenantId, usize> =
        tenants.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let sums = [gauge_sums(earlier), gauge_sums(later)];
    let mut columns: BTreeMap<(i32, i32, u64), CollectedColumn> = BTreeMap::new();
    for (report, own, other, is_later) in
        [(earlier, &sums[0], &sums[1], false), (later, &sums[1], &sums[0], true)]
    {
        for column in &report.columns {
            let counter = is_counter(column.metric);
            let key = (column.metric as i32, column.basis as i32, column.bound);
            for ((tenant, _), value) in report.tenants.iter().zip(&column.values) {
                let Some(value) = value else { continue };
                let gauge = (*tenant, column.metric as i32);
                let stands = match (own.get(&gauge), other.get(&gauge)) {
                    (Some(own), Some(other)) if is_later => own >= other,
                    (Some(own), Some(other)) => own > other,
                    _ => true,
                };
                if !(counter || stands) {
                    continue;
                }
                let merged = columns.entry(key).or_insert_with(|| CollectedColumn {
                    values: vec![None; tenants.len()],
                    ..column.clone()
                });
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
        mounts: later.mounts.clone(),
        database: database(earlier.database.as_ref(), later.database.as_ref()),
        minutes: minutes(&earlier.minutes, &later.minutes),
        checks: later.checks.as_ref().or(earlier.checks.as_ref()).cloned(),
    }
}

/// Requests by country add up; of the rest the later one's stands.
fn minutes(
    earlier: &[(TenantId, TenantMinute)],
    later: &[(TenantId, TenantMinute)],
) -> Vec<(TenantId, TenantMinute)> {
    let mut merged: BTreeMap<TenantId, TenantMinute> = earlier.iter().cloned().collect();
    for (tenant, told) in later {
        let before = merged.remove(tenant).unwrap_or_default();
        let mut countries: BTreeMap<String, u64> = BTreeMap::new();
        for counted in before.countries.iter().chain(&told.countries) {
            let sum = countries.entry(counted.country.clone()).or_default();
            *sum = sum.saturating_add(counted.requests);
        }
        let minute = TenantMinute {
            tenant: 0,
            countries: most(countries),
            response: told.response.or(before.response),
            cache: told.cache.or(before.cache),
        };
        merged.insert(*tenant, minute);
    }
    merged.into_iter().collect()
}

/// The countries with most requests, as many as the coordinator takes; the
/// rest as "other", so that the sum stays.
pub fn most(countries: BTreeMap<String, u64>) -> Vec<CountryRequests> {
    const OTHER: &str = "other";
    let (rest, mut named): (Vec<_>, Vec<_>) =
        countries.into_iter().partition(|(country, _)| country == OTHER);
    named.sort_by_key(|(_, requests)| Reverse(*requests));
    let beyond = named.split_off(named.len().min(MAX_COUNTRIES));
    let rest: u64 = rest.iter().chain(&beyond).map(|(_, requests)| requests).sum();
    named.extend((rest > 0).then(|| (OTHER.to_owned(), rest)));
    named.into_iter().map(|(country, requests)| CountryRequests { country, requests }).collect()
}

/// The later one's gauges, both ones' counts.
fn database(
    earlier: Option<&DatabaseSample>,
    later: Option<&DatabaseSample>,
) -> Option<DatabaseSample> {
    let (Some(earlier), Some(later)) = (earlier, later) else {
        return later.or(earlier).cloned();
    };
    let mut merged = later.clone();
    merged.blocks_hit = merged.blocks_hit.saturating_add(earlier.blocks_hit);
    merged.blocks_read = merged.blocks_read.saturating_add(earlier.blocks_read);
    if let (Some(archiving), Some(before)) = (&mut merged.archiving, &earlier.archiving) {
        archiving.failures = archiving.failures.saturating_add(before.failures);
    }
    Some(merged)
}

/// Every gauge of every tenant, measured and attributed together.
fn gauge_sums(report: &CollectedReport) -> HashMap<(TenantId, i32), u64> {
    let mut sums: HashMap<(TenantId, i32), u64> = HashMap::new();
    for column in report.columns.iter().filter(|column| !is_counter(column.metric)) {
        for ((tenant, _), value) in report.tenants.iter().zip(&column.values) {
            if let Some(value) = value {
                let sum = sums.entry((*tenant, column.metric as i32)).or_default();
                *sum = sum.saturating_add(*value);
            }
        }
    }
    sums
}

#[cfg(test)]
pub(crate) mod tests;
