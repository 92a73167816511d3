//! What agents tell of a tenant once a minute: where its requests come from,
//! what most of them took at most, its keys in Redis. Kept apart from what every
//! tenant has, because few nodes have a log with countries or a Redis.
//!
//! Requests are counted for the running UTC day, since this process started;
//! the rest is the newest that was said, while it is fresh.

use std::collections::BTreeMap;

use serde::Serialize;
use webhost_proto::wire;

use super::metrics::UsageMetrics;
use super::tenant::DAY_US;

/// The most countries that are told apart for a tenant in a day; requests from
/// others count as "other".
const MAX_COUNTRIES: usize = 32;
/// How long what was said last is shown.
const FRESH_US: i64 = 5 * 60_000_000;

/// Of one tenant.
#[derive(Debug, Default)]
pub struct Minute {
    at_us: i64,
    response: Option<wire::ResponseTimes>,
    cache: Option<Box<wire::CacheKeys>>,
    located: Option<Box<Located>>,
}

/// Requests of one UTC day, by country.
#[derive(Debug, Default)]
struct Located {
    /// Since the Unix epoch.
    day: i64,
    requests: BTreeMap<Box<str>, u64>,
}

impl Minute {
    /// Takes in what was told of the tenant in a report that ended at `at_us`.
    pub fn apply(&mut self, told: &wire::TenantMinute, at_us: i64) {
        if at_us >= self.at_us {
            self.at_us = at_us;
            self.response = told.response;
            self.cache = told.cache.map(Box::new);
        }
        let day = at_us / DAY_US;
        if told.countries.is_empty() || self.located.as_ref().is_some_and(|of| of.day > day) {
            return;
        }
        let located = self.located.get_or_insert_default();
        if located.day < day {
            **located = Located { day, ..Located::default() };
        }
        for counted in &told.countries {
            let known = located.requests.contains_key(counted.country.as_str());
            let room = known || located.requests.len() < MAX_COUNTRIES;
            let country = if room { counted.country.as_str() } else { "other" };
            let sum = located.requests.entry(country.into()).or_default();
            *sum = sum.saturating_add(counted.requests);
        }
    }

    /// Says in `usage` what is known at `now_us`; what was measured stands for
    /// what the customer stated.
    pub fn show(&self, usage: &mut UsageMetrics, now_us: i64) {
        if let Some(located) = self.located.as_ref().filter(|of| of.day == now_us / DAY_US) {
            usage.geographic_distribution = Some(located.largest());
            usage.basis.insert("geographic_distribution", "measured");
            let requests = located.requests.iter();
            usage.requests_by_country =
                Some(requests.map(|(country, count)| (country.to_string(), *count)).collect());
        }
        if now_us.saturating_sub(self.at_us) > FRESH_US {
            return;
        }
        usage.response_times = self.response.map(|told| {
            usage.basis.insert("response_times", "measured");
            ResponseTimes { p50_us: told.p50_us, p95_us: told.p95_us, p99_us: told.p99_us }
        });
        usage.cache_keys = self.cache.as_ref().map(|told| {
            usage.basis.insert("cache_keys", "estimated");
            CacheKeys { keys: told.keys, error: told.error }
        });
    }
}

impl Located {
    /// The countries with at least a hundredth of the requests, most first.
    fn largest(&self) -> Vec<String> {
        let all: u128 = self.requests.values().map(|count| u128::from(*count)).sum();
        let mut found: Vec<(&str, u64)> = self
            .requests
            .iter()
            .map(|(country, count)| (country.as_ref(), *count))
            .filter(|(country, count)| *country != "other" && u128::from(*count) * 100 >= all)
            .collect();
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        found.into_iter().map(|(country, _)| country.to_owned()).collect()
    }
}

/// What half, 95 and 99 of 100 requests of the last minute or two took at most,
/// as far as the application's histogram or nginx's log tells durations apart.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct ResponseTimes {
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
}

/// Keys in Redis, estimated from some drawn at random; `error` is two standard
/// errors.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct CacheKeys {
    pub keys: u64,
    pub error: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(countries: &[(&str, u64)]) -> wire::TenantMinute {
        let counted = |(country, requests): &(&str, u64)| wire::CountryRequests {
            country: (*country).into(),
            requests: *requests,
        };
        let countries = countries.iter().map(counted).collect();
        wire::TenantMinute { countries, ..wire::TenantMinute::default() }
    }

    fn requests(minute: &Minute) -> Vec<(&str, u64)> {
        let located = minute.located.as_ref().expect("located");
        located.requests.iter().map(|(country, count)| (country.as_ref(), *count)).collect()
    }

    #[test]
    fn requests_add_up_for_a_day_and_then_begin_anew() {
        let mut minute = Minute::default();
        minute.apply(&told(&[("DE", 5), ("FR", 1)]), DAY_US);
        minute.apply(&told(&[("DE", 2)]), DAY_US + 60_000_000);
        assert_eq!(requests(&minute), [("DE", 7), ("FR", 1)]);
        minute.apply(&told(&[("PL", 3)]), 2 * DAY_US);
        // Out of the spool, of the day before.
        minute.apply(&told(&[("DE", 100)]), DAY_US + 120_000_000);
        assert_eq!(requests(&minute), [("PL", 3)]);
    }

    #[test]
    fn names_that_are_made_up_take_no_room() {
        let mut minute = Minute::default();
        for name in 0..10_000 {
            minute.apply(&told(&[(&format!("X{name:05}"), 1)]), DAY_US);
        }
        let located = minute.located.as_ref().expect("located");
        assert_eq!(located.requests.len(), MAX_COUNTRIES + 1);
        assert_eq!(located.requests.values().sum::<u64>(), 10_000);
    }

    #[test]
    fn a_few_strangers_are_no_place_of_the_customer() {
        let mut minute = Minute::default();
        minute.apply(&told(&[("AT", 60), ("DE", 930), ("US", 9), ("other", 1)]), DAY_US);
        assert_eq!(minute.located.expect("located").largest(), ["DE", "AT"]);
    }

    #[test]
    fn an_older_report_leaves_what_is_newer() {
        let mut minute = Minute::default();
        let times = |p50_us| wire::TenantMinute {
            response: Some(wire::ResponseTimes { p50_us, ..wire::ResponseTimes::default() }),
            ..wire::TenantMinute::default()
        };
        minute.apply(&times(5), 2 * DAY_US);
        minute.apply(&times(9), DAY_US);
        assert_eq!(minute.response.map(|times| times.p50_us), Some(5));
        minute.apply(&told(&[]), 2 * DAY_US);
        assert!(minute.response.is_none(), "nobody asked for anything lately");
    }
}
