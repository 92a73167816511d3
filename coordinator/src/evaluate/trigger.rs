//! Who is due, and why: plain functions of what is known and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::decide::limits::Limit;
use crate::decide::migrate::{PerformanceIssue, performance_issues};
use crate::decide::plans::{Plan, Thresholds};
use crate::decide::profile::Usage;
use crate::moves::timing::later;
use crate::store::decisions::Trigger;

/// Something about a tenant that is to be looked at when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// More vehicles than its plan.
    Vehicles,
    /// More GPS points a day than its plan.
    GpsPointsPerDay,
    /// More GPS points a second than its plan.
    GpsPointsPerSecond,
    /// More storage than its plan.
    Storage,
    /// More users at once than its plan.
    Users,
    /// Points that are older than its plan retains, by more than the grace.
    Retention,
    /// More database queries a second than its plan.
    QueriesPerSecond,
    /// Its requests take too long.
    SlowResponses,
    /// Its requests fail.
    Errors,
    /// Its machine is busy, and it is among the causes.
    BusyNode,
}

/// The troubles that `usage` shows against `plan`, in a fixed order. What is
/// not known is no trouble.
pub fn troubles(usage: &Usage, plan: &Plan, thresholds: &Thresholds) -> Vec<Trouble> {
    let of = |limit: Limit| match limit {
        Limit::Vehicles => (Trouble::Vehicles, usage.vehicle_count.map(u64::from)),
        Limit::GpsPointsPerDay => (Trouble::GpsPointsPerDay, usage.gps_points_today),
        Limit::GpsPointsPerSecond => {
            (Trouble::GpsPointsPerSecond, usage.gps_points_per_second.map(u64::from))
        }
        Limit::Storage => (Trouble::Storage, usage.storage_used_mb),
        Limit::Users => (Trouble::Users, usage.peak_concurrent_users.map(u64::from)),
        Limit::Retention => (Trouble::Retention, usage.retained_days.map(u64::from)),
        Limit::QueriesPerSecond => {
            (Trouble::QueriesPerSecond, usage.queries_per_second.map(u64::from))
        }
    };
    let crossed = |limit: Limit| {
        let (trouble, used) = of(limit);
        used.is_some_and(|used| used > limit.bound(plan, thresholds).most()).then_some(trouble)
    };
    let mut found: Vec<Trouble> = Limit::ALL.into_iter().filter_map(crossed).collect();
    found.extend(performance_issues(usage, thresholds).iter().map(|issue| match issue {
        PerformanceIssue::SlowResponses { .. } => Trouble::SlowResponses,
        PerformanceIssue::Errors { .. } => Trouble::Errors,
        PerformanceIssue::BusyNode { .. } => Trouble::BusyNode,
    }));
    found
}

/// What is remembered of a tenant's troubles. A crash forgets it: then every
/// trouble that is still there leads to one more evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When each trouble was evaluated last, and whether it is still there.
    troubles: BTreeMap<Trouble, Evaluated>,
    /// When the last evaluation failed; none once one succeeds.
    failed_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Evaluated {
    at: Timestamp,
    /// It has been there ever since.
    lasting: bool,
}

impl Known {
    /// Those of `now_there` that began since they were evaluated last, and
    /// were not evaluated within `gap`.
    pub fn begun(&self, now_there: &[Trouble], gap: Duration, now: Timestamp) -> Vec<Trouble> {
        now_there
            .iter()
            .copied()
            .filter(|trouble| match self.troubles.get(trouble) {
                None => true,
                Some(last) => !last.lasting && later(last.at, gap) <= now,
            })
            .collect()
    }

    /// Troubles that are no longer there may begin again.
    pub fn observe(&mut self, now_there: &[Trouble]) {
        for (trouble, evaluated) in &mut self.troubles {
            evaluated.lasting &= now_there.contains(trouble);
        }
    }

    /// An evaluation failed at `now`: its cause is most likely the tenant's own
    /// data, so that the next try waits (see [`Known::rests`]). The troubles
    /// stay to be looked at.
    pub fn failed(&mut self, now: Timestamp) {
        self.failed_at = Some(now);
    }

    /// Whether the last evaluation failed less than `gap` before `now`.
    pub fn rests(&self, gap: Duration, now: Timestamp) -> bool {
        self.failed_at.is_some_and(|at| now < later(at, gap))
    }

    /// An evaluation saw them.
    pub fn evaluated(&mut self, seen: &[Trouble], now: Timestamp) {
        self.failed_at = None;
        for trouble in seen {
            self.troubles.insert(*trouble, Evaluated { at: now, lasting: true });
        }
    }
}

/// Why a tenant is due at `now`; none when it is not. `begun` are the troubles
/// that began, `evaluated_at` is none where plan or profile changed since (or
/// it was never evaluated).
pub fn due(
    evaluated_at: Option<Timestamp>,
    plan_changed: bool,
    begun: &[Trouble],
    interval: Duration,
    now: Timestamp,
) -> Option<Trigger> {
    match evaluated_at {
        None if plan_changed => Some(Trigger::PlanChange),
        _ if !begun.is_empty() => Some(Trigger::Limit),
        None => Some(Trigger::Schedule),
        Some(at) => (later(at, interval) <= now).then_some(Trigger::Schedule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{BasisPoints, Catalog};

    #[test]
    fn each_limit_is_crossed_above_it_not_at_it() {
        let catalog = Catalog::default();
        let plan = catalog.plan("hobby").expect("hobby");
        let check = |usage: Usage, expected: &[Trouble]| {
            assert_eq!(troubles(&usage, plan, &catalog.thresholds), expected, "{usage:?}");
        };
        let none = Usage::default;
        check(none(), &[]);
        check(Usage { vehicle_count: Some(5), ..none() }, &[]);
        check(Usage { vehicle_count: Some(6), ..none() }, &[Trouble::Vehicles]);
        check(Usage { gps_points_today: Some(50_000), ..none() }, &[]);
        check(Usage { gps_points_today: Some(50_001), ..none() }, &[Trouble::GpsPointsPerDay]);
        check(Usage { gps_points_per_second: Some(500), ..none() }, &[]);
        check(Usage { gps_points_per_second: Some(501), ..none() }, &[Trouble::GpsPointsPerSecond]);
        check(Usage { storage_used_mb: Some(6000), ..none() }, &[]);
        check(Usage { storage_used_mb: Some(6001), ..none() }, &[Trouble::Storage]);
        check(Usage { peak_concurrent_users: Some(50), ..none() }, &[]);
        check(Usage { peak_concurrent_users: Some(51), ..none() }, &[Trouble::Users]);
        check(Usage { retained_days: Some(38), ..none() }, &[]);
        check(Usage { retained_days: Some(39), ..none() }, &[Trouble::Retention]);
        check(Usage { queries_per_second: Some(1000), ..none() }, &[]);
        check(Usage { queries_per_second: Some(1001), ..none() }, &[Trouble::QueriesPerSecond]);
        check(Usage { average_response_time_ms: Some(200), ..none() }, &[]);
        check(Usage { average_response_time_ms: Some(201), ..none() }, &[Trouble::SlowResponses]);
        check(Usage { error_rate: Some(BasisPoints(501)), ..none() }, &[Trouble::Errors]);
        let busy = |own| Usage {
            node_cpu: Some(BasisPoints(8001)),
            cpu_of_node: Some(BasisPoints(own)),
            tenants_on_node: Some(10),
            ..none()
        };
        check(busy(801), &[Trouble::BusyNode]);
        check(busy(700), &[]);
    }

    #[test]
    fn a_trouble_counts_once_until_it_ends_and_not_twice_within_the_gap() {
        let gap = Duration::from_secs(900);
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).expect("a time");
        let (slow, cars) = (Trouble::SlowResponses, Trouble::Vehicles);
        let mut known = Known::default();
        assert_eq!(known.begun(&[slow], gap, at(0)), [slow]);
        known.evaluated(&[slow], at(0));
        assert_eq!(known.begun(&[slow], gap, at(10_000)), [], "it lasts");
        assert_eq!(known.begun(&[slow, cars], gap, at(10_000)), [cars], "another began");
        known.observe(&[]);
        assert_eq!(known.begun(&[slow], gap, at(899)), [], "within the gap");
        assert_eq!(known.begun(&[slow], gap, at(900)), [slow], "it began again");
        known.observe(&[slow]);
        assert_eq!(known.begun(&[slow], gap, at(901)), [slow], "until it is evaluated");
    }

    #[test]
    fn what_failed_rests_and_its_troubles_are_looked_at_then() {
        let gap = Duration::from_secs(900);
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).expect("a time");
        let mut known = Known::default();
        assert!(!known.rests(gap, at(0)));
        known.failed(at(0));
        assert!(known.rests(gap, at(899)) && !known.rests(gap, at(900)));
        assert_eq!(known.begun(&[Trouble::Errors], gap, at(900)), [Trouble::Errors]);
        known.evaluated(&[Trouble::Errors], at(900));
        assert!(!known.rests(gap, at(900)));
    }

    #[test]
    fn the_clock_the_plan_and_troubles_make_due() {
        let interval = Duration::from_secs(6 * 3600);
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let ago = |seconds: i64| Some(Timestamp::from_second(1_000_000 - seconds).expect("time"));
        let trouble = [Trouble::Errors];
        assert_eq!(due(None, false, &[], interval, now), Some(Trigger::Schedule));
        assert_eq!(due(None, true, &trouble, interval, now), Some(Trigger::PlanChange));
        assert_eq!(due(None, false, &trouble, interval, now), Some(Trigger::Limit));
        assert_eq!(due(ago(1), false, &trouble, interval, now), Some(Trigger::Limit));
        assert_eq!(due(ago(6 * 3600 - 1), false, &[], interval, now), None);
        assert_eq!(due(ago(6 * 3600), false, &[], interval, now), Some(Trigger::Schedule));
    }
}
