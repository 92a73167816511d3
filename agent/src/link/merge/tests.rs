use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;
use webhost_proto::wire::{Basis, HealthChecks, Mount, ResponseTimes};

use super::*;

type Key = (TenantId, i32, i32, u64);

fn totals(reports: &[&CollectedReport]) -> BTreeMap<Key, u64> {
    let mut totals = BTreeMap::new();
    for report in reports {
        for column in report.columns.iter().filter(|column| is_counter(column.metric)) {
            for ((tenant, _), value) in report.tenants.iter().zip(&column.values) {
                if let Some(value) = value {
                    let key = (*tenant, column.metric as i32, column.basis as i32, column.bound);
                    *totals.entry(key).or_insert(0) += value;
                }
            }
        }
    }
    totals
}

/// The largest of each tenant's gauges, measured and attributed together.
fn gauges(reports: &[&CollectedReport]) -> BTreeMap<(TenantId, i32), u64> {
    let mut largest = BTreeMap::new();
    for report in reports {
        let mut sums: BTreeMap<(TenantId, i32), u64> = BTreeMap::new();
        for column in report.columns.iter().filter(|column| !is_counter(column.metric)) {
            for ((tenant, _), value) in report.tenants.iter().zip(&column.values) {
                if let Some(value) = value {
                    *sums.entry((*tenant, column.metric as i32)).or_insert(0) += value;
                }
            }
        }
        for (key, sum) in sums {
            let largest = largest.entry(key).or_insert(0);
            *largest = sum.max(*largest);
        }
    }
    largest
}

/// Any report of up to five of eight tenants.
/// What is told by the minute of tenant `id`.
fn minute(id: u128, requests: u64) -> (TenantId, TenantMinute) {
    let countries = [("DE".to_owned(), requests), (format!("C{}", requests % 20), 1)];
    let response = Some(ResponseTimes { p50_us: id as u64, ..ResponseTimes::default() });
    let countries = most(countries.into());
    (TenantId(Uuid::from_u128(id)), TenantMinute { countries, response, ..TenantMinute::default() })
}

fn located(reports: &[&CollectedReport]) -> BTreeMap<TenantId, u64> {
    let mut sums = BTreeMap::new();
    for (tenant, told) in reports.iter().flat_map(|report| &report.minutes) {
        assert!(told.countries.len() <= MAX_COUNTRIES + 1);
        let requests = told.countries.iter().map(|counted| counted.requests);
        *sums.entry(*tenant).or_default() += requests.sum::<u64>();
    }
    sums
}

#[test]
fn only_the_countries_with_most_requests_keep_their_names() {
    let many = (1..=20).map(|at| (format!("C{at:02}"), at)).chain([("other".to_owned(), 5)]);
    let kept = most(many.collect());
    assert_eq!((kept[0].country.as_str(), kept[0].requests), ("C20", 20));
    assert_eq!(kept.len(), MAX_COUNTRIES + 1);
    let last = kept.last().expect("some");
    assert_eq!((last.country.as_str(), last.requests), ("other", 5 + (1..=8).sum::<u64>()));
    assert!(most(BTreeMap::new()).is_empty());
}

pub(crate) fn any_report() -> impl Strategy<Value = CollectedReport> {
    let tenants = proptest::sample::subsequence((0..8_u128).collect::<Vec<_>>(), 0..=5);
    let metrics = proptest::sample::subsequence(
        vec![
            (Metric::CpuUs, Basis::Measured, 0),
            (Metric::CpuUs, Basis::Attributed, 0),
            (Metric::ApiCalls, Basis::Measured, 0),
            (Metric::RequestDurationBucket, Basis::Measured, 50_000),
            (Metric::RequestDurationBucket, Basis::Measured, u64::MAX),
            (Metric::MemoryBytes, Basis::Measured, 0),
            (Metric::MemoryBytes, Basis::Attributed, 0),
            (Metric::Vehicles, Basis::Measured, 0),
            (Metric::OomKills, Basis::Measured, 0),
            (Metric::Tasks, Basis::Measured, 0),
        ],
        0..=10,
    );
    (tenants, metrics).prop_flat_map(|(tenants, metrics)| {
        let count = tenants.len();
        let value = proptest::option::of(0..1_000_000_u64);
        let values =
            proptest::collection::vec(proptest::collection::vec(value, count), metrics.len());
        (values, 1..10_000_u32, 0..1_000_000_u64).prop_map(move |(values, interval_ms, busy)| {
            CollectedReport {
                mounts: vec![Mount { path: "/".into(), total_mib: busy, free_mib: 1 }],
                database: (busy % 2 == 0)
                    .then(|| DatabaseSample { blocks_hit: busy, ..DatabaseSample::default() }),
                collected_at_us: 1,
                interval_ms,
                tenants: tenants
                    .iter()
                    .map(|id| (TenantId(Uuid::from_u128(*id)), format!("t{id}")))
                    .collect(),
                host: HostSample { cpu_busy_us: busy, uptime_s: busy, ..HostSample::default() },
                columns: metrics
                    .iter()
                    .zip(values)
                    .map(|((metric, basis, bound), values)| CollectedColumn {
                        metric: *metric,
                        basis: *basis,
                        bound: *bound,
                        values,
                    })
                    .collect(),
                sources: Vec::new(),
                minutes: tenants
                    .iter()
                    .filter(|id| **id % 2 == 0)
                    .map(|id| minute(*id, busy))
                    .collect(),
                checks: (busy % 3 == 0).then(HealthChecks::default),
            }
        })
    })
}

proptest! {
    #[test]
    fn counters_keep_their_totals_and_gauges_their_maxima(
        earlier in any_report(),
        later in any_report(),
    ) {
        let merged = merge(&earlier, &later);
        prop_assert_eq!(totals(&[&merged]), totals(&[&earlier, &later]));
        prop_assert_eq!(gauges(&[&merged]), gauges(&[&earlier, &later]));
        prop_assert_eq!(located(&[&merged]), located(&[&earlier, &later]));
        let last = later.checks.as_ref().or(earlier.checks.as_ref());
        prop_assert_eq!(merged.checks.as_ref(), last);
        prop_assert_eq!(merged.interval_ms, earlier.interval_ms + later.interval_ms);
        prop_assert_eq!(
            merged.host.cpu_busy_us,
            earlier.host.cpu_busy_us + later.host.cpu_busy_us
        );
        prop_assert_eq!(merged.host.uptime_s, later.host.uptime_s);
        prop_assert_eq!(&merged.mounts, &later.mounts);
        let hit = |report: &CollectedReport| report.database.as_ref().map(|read| read.blocks_hit);
        let sum = [hit(&earlier), hit(&later)].into_iter().flatten().reduce(|a, b| a + b);
        prop_assert_eq!(hit(&merged), sum);
        for column in &merged.columns {
            prop_assert_eq!(column.values.len(), merged.tenants.len());
        }
        let distinct: HashSet<_> =
            merged.tenants.iter().map(|(id, _)| id).collect();
        prop_assert_eq!(distinct.len(), merged.tenants.len());
        if earlier.tenants == later.tenants {
            prop_assert_eq!(&merged.tenants, &later.tenants);
        }
    }

    #[test]
    fn the_order_of_merging_changes_no_total_and_no_maximum(
        one in any_report(),
        two in any_report(),
        three in any_report(),
    ) {
        let left = merge(&merge(&one, &two), &three);
        let right = merge(&one, &merge(&two, &three));
        prop_assert_eq!(totals(&[&left]), totals(&[&right]));
        prop_assert_eq!(gauges(&[&left]), gauges(&[&one, &two, &three]));
        prop_assert_eq!(gauges(&[&left]), gauges(&[&right]));
    }
}
