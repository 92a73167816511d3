//! What is told of a tenant once a minute, because it is larger or moves more
//! slowly than the columns: where its requests come from, what most of them
//! took at most, its keys in Redis.
//!
//! Response times are the application's where it has a histogram, else those of
//! nginx's log, as everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;
use webhost_proto::wire::{CacheKeys, CountryRequests, ResponseTimes, TenantMinute};

use super::TenantRound;
use crate::collect::access_log::{AccessReading, AccessTenant};
use crate::collect::app::AppTenant;
use crate::link::merge::most;

/// How often at most.
const MINUTE: Duration = Duration::from_secs(60);
/// Tenants told of in one report; the others in the next. Some 150 bytes each
/// leave room for everything else in a message.
const AT_ONCE: usize = 200;
/// The largest number that the coordinator takes.
const MAX_VALUE: u64 = 1 << 53;

/// What was told, and what comes together until it is told again.
#[derive(Debug, Default)]
pub(super) struct Minutes {
    bounds: Vec<u64>,
    tenants: BTreeMap<TenantId, Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// Requests by country, of those that the log has counted.
    countries: BTreeMap<String, u64>,
    /// Requests of this minute by the application's bounds.
    buckets: Vec<u64>,
}

impl Minutes {
    /// What is to be told of `tenants` now. `access` is nginx's log as it was
    /// read last, and whether that was lately. Requests for tenants that live
    /// elsewhere are passed over.
    pub(super) fn tell(
        &mut self,
        tenants: &BTreeMap<TenantId, TenantRound>,
        bounds: &[u64],
        access: Option<(&AccessReading, bool)>,
        now: Instant,
    ) -> Vec<(TenantId, TenantMinute)> {
        if self.bounds != bounds {
            self.bounds = bounds.to_vec();
            self.tenants.values_mut().for_each(|told| told.buckets.clear());
        }
        let logged = access.iter().flat_map(|(reading, _)| reading.tenants.keys());
        let known: BTreeSet<TenantId> = tenants.keys().chain(logged).copied().collect();
        self.tenants.retain(|id, _| known.contains(id));
        let mut minutes = Vec::new();
        for id in known {
            let told = self.tenants.entry(id).or_default();
            let here = tenants.get(&id);
            told.count(here.and_then(|tenant| tenant.app.as_ref()), bounds.len());
            let lately = told.at.is_some_and(|at| now.saturating_duration_since(at) < MINUTE);
            if lately || minutes.len() >= AT_ONCE {
                continue;
            }
            let front =
                access.and_then(|(reading, fresh)| Some((reading.tenants.get(&id)?, fresh)));
            let countries = told.countries(front.map(|(front, _)| front));
            let recent = front.filter(|(_, fresh)| *fresh).map(|(front, _)| front);
            let minute = TenantMinute {
                tenant: 0,
                countries,
                response: by_buckets(bounds, &told.buckets).or_else(|| by_log(recent?)),
                cache: here.and_then(|tenant| tenant.redis).map(|redis| CacheKeys {
                    keys: redis.keys.min(MAX_VALUE),
                    error: redis.keys_error.min(MAX_VALUE),
                }),
            };
            if minute != TenantMinute::default() {
                told.at = Some(now);
                told.buckets.clear();
                minutes.extend(here.map(|_| (id, minute)));
            }
        }
        minutes
    }
}

impl Told {
    /// Adds what a round counted.
    fn count(&mut self, app: Option<&AppTenant>, bounds: usize) {
        let Some(app) = app.filter(|app| app.buckets.len() == bounds) else { return };
        self.buckets.resize(bounds, 0);
        for (sum, more) in self.buckets.iter_mut().zip(&app.buckets) {
            *sum = sum.saturating_add(*more);
        }
    }

    /// What the log has counted beyond what was told.
    fn countries(&mut self, front: Option<&AccessTenant>) -> Vec<CountryRequests> {
        let mut more = BTreeMap::new();
        for (country, total) in front.iter().flat_map(|front| &front.countries) {
            let told = self.countries.entry(country.clone()).or_default();
            let increase = total.saturating_sub(*told).min(MAX_VALUE);
            *told = *total;
            if increase > 0 {
                more.insert(country.clone(), increase);
            }
        }
        most(more)
    }
}

/// Of requests counted by bounds, each count holding those below; a request
/// beyond the last bound counts as if it had taken that. None of none.
fn by_buckets(bounds: &[u64], counts: &[u64]) -> Option<ResponseTimes> {
    let all = counts.iter().copied().max().filter(|all| *all > 0)?;
    let last = bounds.iter().rfind(|bound| **bound != u64::MAX)?;
    let quantile = |permille: u64| {
        let rank = (u128::from(all) * u128::from(permille)).div_ceil(1_000);
        let found = bounds.iter().zip(counts).find(|(_, count)| u128::from(**count) >= rank);
        found.map_or(*last, |(bound, _)| *bound).min(*last).min(MAX_VALUE)
    };
    Some(ResponseTimes { p50_us: quantile(500), p95_us: quantile(950), p99_us: quantile(990) })
}

fn by_log(front: &AccessTenant) -> Option<ResponseTimes> {
    Some(ResponseTimes {
        p50_us: front.recent.quantile_us(500)?,
        p95_us: front.recent.quantile_us(950)?,
        p99_us: front.recent.quantile_us(990)?,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::collect::redis::RedisTenant;

    const INF: u64 = u64::MAX;

    #[test]
    fn quantiles_of_a_histogram_by_table() {
        for (bounds, counts, expected) in [
            (&[10, 20, INF][..], &[50, 95, 100][..], Some([10, 20, 20])),
            (&[10, 20, INF], &[49, 94, 100], Some([20, 20, 20])),
            (&[10, 20, 40], &[100, 100, 100], Some([10, 10, 10])),
            (&[10, INF], &[0, 3], Some([10, 10, 10])),
            (&[10, INF], &[0, 0], None),
            (&[INF], &[5], None),
            (&[], &[], None),
            (&[10, INF], &[], None),
        ] {
            let found = by_buckets(bounds, counts).map(|t| [t.p50_us, t.p95_us, t.p99_us]);
            assert_eq!(found, expected, "{bounds:?} {counts:?}");
        }
    }

    fn id(n: u128) -> TenantId {
        TenantId(Uuid::from_u128(n))
    }

    fn log(tenants: &[(u128, u64, u64)]) -> AccessReading {
        let tenant = |(n, german, french): &(u128, u64, u64)| {
            let countries = [("DE".to_owned(), *german), ("FR".to_owned(), *french)].into();
            let mut told = AccessTenant { countries, ..AccessTenant::default() };
            told.recent.add(1_000);
            (id(*n), told)
        };
        AccessReading { tenants: tenants.iter().map(tenant).collect(), unknown: 0 }
    }

    fn counts(minute: &TenantMinute) -> Vec<(&str, u64)> {
        minute.countries.iter().map(|c| (c.country.as_str(), c.requests)).collect()
    }

    #[test]
    fn a_tenants_countries_are_told_once_a_minute_and_each_request_once() {
        let mut minutes = Minutes::default();
        let began = Instant::now();
        let here: BTreeMap<_, _> = [(id(1), TenantRound::default())].into();
        let mut at = |second: u64, told: &AccessReading| {
            let now = began + Duration::from_secs(second);
            minutes.tell(&here, &[], Some((told, second < 200)), now)
        };
        let first = at(0, &log(&[(1, 3, 0), (2, 9, 9)]));
        assert_eq!(first.len(), 1, "tenant 2 lives elsewhere");
        assert_eq!(counts(&first[0].1), [("DE", 3)]);
        let response = first[0].1.response.expect("a request");
        assert!((1_000..=1_125).contains(&response.p99_us), "{response:?}");
        assert!(at(59, &log(&[(1, 5, 1), (2, 9, 9)])).is_empty());
        let second = at(60, &log(&[(1, 5, 2), (2, 9, 9)]));
        assert_eq!(counts(&second[0].1), [("DE", 2), ("FR", 2)]);
        // The log could not be read of late: what it counted stands, its
        // response times don't.
        let third = at(200, &log(&[(1, 6, 2)]));
        assert_eq!(counts(&third[0].1), [("DE", 1)]);
        assert_eq!(third[0].1.response, None);
        assert!(at(300, &log(&[(1, 6, 2)])).is_empty(), "nothing to tell");
    }

    #[test]
    fn the_applications_histogram_comes_together_for_a_minute_and_beats_the_log() {
        let mut minutes = Minutes::default();
        let began = Instant::now();
        let mut at = |second: u64, bounds: &[u64], buckets: Vec<u64>| {
            let app = Some(AppTenant { buckets, ..AppTenant::default() });
            let redis = Some(RedisTenant { keys: 7, keys_error: 2, bytes: 0 });
            let here = [(id(1), TenantRound { app, redis, ..TenantRound::default() })].into();
            let (now, read) = (began + Duration::from_secs(second), log(&[(1, 0, 0)]));
            minutes.tell(&here, bounds, Some((&read, true)), now).pop().map(|(_, told)| told)
        };
        let told = at(0, &[10, INF], vec![0, 0]).expect("the keys");
        assert_eq!(told.cache, Some(CacheKeys { keys: 7, error: 2 }));
        assert!(told.response.is_some_and(|times| times.p50_us > 10), "of the log");
        for second in 1..60 {
            assert_eq!(at(second, &[10, 30, INF], vec![1, 2, 2]), None);
        }
        let times = at(60, &[10, 30, INF], vec![0, 40, 40]).and_then(|told| told.response);
        // 59 of 158 took at most 10.
        assert_eq!(times.map(|times| (times.p50_us, times.p99_us)), Some((30, 30)));
        // Other bounds begin anew.
        assert_eq!(at(61, &[10, 30, INF], vec![100, 100, 100]), None);
        let times = at(120, &[5, INF], vec![9, 9]).and_then(|told| told.response);
        assert_eq!(times.map(|times| times.p50_us), Some(5));
    }
}
