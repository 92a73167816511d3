//! Usage against what the plan allows, and when that is told. Pure.
//!
//! A limit is *near* from 80 % of it and *crossed* above it. It is no longer
//! crossed at 95 % or less, nor near below 75 %: a tenant that wavers around a
//! boundary is told once. And of each limit and level at most once a UTC day,
//! however often it comes and goes.
//!
//! Retention is another kind: it doesn't fill up. A healthy tenant keeps what its
//! plan retains, and until a whole chunk of its table is old enough to be dropped
//! a chunk's length more. So it is never near, and crossed above the plan's days
//! and a grace ([`Bound::Age`]).

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plans::{Plan, Thresholds};

/// Something that a plan limits and agents measure.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Vehicles at the moment.
    Vehicles,
    /// GPS points of this UTC day.
    GpsPointsPerDay,
    /// GPS points a second, over the last minutes.
    GpsPointsPerSecond,
    /// MB of its own data.
    Storage,
    /// Users at once, the most of 24 hours.
    Users,
    /// Whole days since the oldest GPS point that is kept.
    Retention,
    /// Database queries a second, over the last minutes.
    QueriesPerSecond,
}

impl Limit {
    /// All, in a fixed order.
    pub const ALL: [Self; 7] = [
        Self::Vehicles,
        Self::GpsPointsPerDay,
        Self::GpsPointsPerSecond,
        Self::Storage,
        Self::Users,
        Self::Retention,
        Self::QueriesPerSecond,
    ];

    /// As JSON and the table write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vehicles => "vehicles",
            Self::GpsPointsPerDay => "gps_points_per_day",
            Self::GpsPointsPerSecond => "gps_points_per_second",
            Self::Storage => "storage",
            Self::Users => "users",
            Self::Retention => "retention",
            Self::QueriesPerSecond => "queries_per_second",
        }
    }

    /// What the plan allows.
    pub fn of(self, plan: &Plan) -> u64 {
        match self {
            Self::Vehicles => u64::from(plan.vehicles),
            Self::GpsPointsPerDay => plan.gps_points_per_day,
            Self::GpsPointsPerSecond => u64::from(plan.gps_points_per_second),
            Self::Storage => plan.storage_mb(),
            Self::Users => u64::from(plan.users),
            Self::Retention => u64::from(plan.retention_days),
            Self::QueriesPerSecond => u64::from(plan.queries_per_second),
        }
    }

    /// From where on it is near, and crossed.
    pub fn bound(self, plan: &Plan, thresholds: &Thresholds) -> Bound {
        let allowed = self.of(plan);
        match self {
            Self::Retention => {
                Bound::Age { days: allowed, grace: thresholds.retention_grace_days.into() }
            }
            _ => Bound::Amount(allowed),
        }
    }

    /// What its figures are in.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Vehicles => "vehicles",
            Self::GpsPointsPerDay => "points a day",
            Self::GpsPointsPerSecond => "points a second",
            Self::Storage => "MB",
            Self::Users => "users at once",
            Self::Retention => "days",
            Self::QueriesPerSecond => "queries a second",
        }
    }
}

/// How usage stands to a limit, from good to bad.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Well below.
    #[default]
    Clear,
    /// From 80 % on.
    Warning,
    /// Above it.
    Breach,
}

impl Level {
    /// As JSON and the table write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Warning => "warning",
            Self::Breach => "breach",
        }
    }
}

/// Shares of a limit, in percent.
const WARN_FROM: u128 = 80;
const WARNED_DOWN_TO: u128 = 75;
const BREACHED_ABOVE: u128 = 95;

/// What a plan allows of something, and so where its levels begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// So much of what fills up. Of 0 nothing is allowed.
    Amount(u64),
    /// So many days of what every tenant keeps as long as it may: above them by
    /// more than `grace` it is crossed, until a day less; it is never near.
    Age {
        /// What the plan allows.
        days: u64,
        /// Until what is too old is dropped.
        grace: u64,
    },
}

impl Bound {
    /// The use from which on it is near; none where that says nothing.
    pub fn near_from(self) -> Option<u64> {
        match self {
            Self::Amount(allowed) => Some(share(allowed, WARN_FROM).max(1)),
            Self::Age { .. } => None,
        }
    }

    /// The most that may be used without crossing it.
    pub const fn most(self) -> u64 {
        match self {
            Self::Amount(allowed) => allowed,
            Self::Age { days, grace } => days.saturating_add(grace),
        }
    }

    /// The level at `used`, where it was `before`.
    pub fn level(self, used: u64, before: Level) -> Level {
        let breached = before == Level::Breach;
        let near = match self {
            Self::Amount(allowed) => {
                let hundredfold = u128::from(used) * 100;
                if breached && hundredfold > u128::from(allowed) * BREACHED_ABOVE {
                    return Level::Breach;
                }
                let down_to = hundredfold >= u128::from(allowed) * WARNED_DOWN_TO && used > 0;
                self.near_from().is_some_and(|from| used >= from)
                    || (before >= Level::Warning && down_to)
            }
            Self::Age { days, grace } => {
                if breached && used > days.saturating_add(grace.saturating_sub(1)) {
                    return Level::Breach;
                }
                false
            }
        };
        if used > self.most() {
            Level::Breach
        } else if near {
            Level::Warning
        } else {
            Level::Clear
        }
    }
}

/// `percent` of `whole`, rounded up; `percent` is at most 100.
fn share(whole: u64, percent: u128) -> u64 {
    u64::try_from((u128::from(whole) * percent).div_ceil(100)).unwrap_or(u64::MAX)
}

/// What is remembered of a limit of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Where it stands.
    pub level: Level,
    /// The UTC day on which a warning was told last.
    pub warned_on: Option<Date>,
    /// And a breach.
    pub breached_on: Option<Date>,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// To be remembered.
    pub known: Known,
    /// To be told: the new level, where it was not told today, and that all is
    /// well again.
    pub told: Option<Level>,
}

/// Looks at `used` of what `bound` allows on the UTC day `today`; none where the
/// level stays.
pub fn look(used: u64, bound: Bound, before: Known, today: Date) -> Option<Change> {
    let level = bound.level(used, before.level);
    if level == before.level {
        return None;
    }
    let mut known = Known { level, ..before };
    let told_today = |on: Option<Date>| on == Some(today);
    let told = match level {
        Level::Clear => true,
        // Coming down from a breach is no news.
        Level::Warning => before.level == Level::Clear && !told_today(before.warned_on),
        Level::Breach => !told_today(before.breached_on),
    };
    match level {
        Level::Warning if told => known.warned_on = Some(today),
        Level::Breach if told => known.breached_on = Some(today),
        _ => {}
    }
    Some(Change { known, told: told.then_some(level) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_own_way_down() {
        use Level::{Breach, Clear, Warning};
        for (used, before, expected) in [
            (0, Clear, Clear),
            (79, Clear, Clear),
            (80, Clear, Warning),
            (100, Clear, Warning),
            (101, Clear, Breach),
            (100, Breach, Breach),
            (96, Breach, Breach),
            (95, Breach, Warning),
            (75, Warning, Warning),
            (74, Warning, Clear),
            (74, Breach, Clear),
            (79, Breach, Warning),
        ] {
            assert_eq!(Bound::Amount(100).level(used, before), expected, "{used} after {before:?}");
        }
        assert_eq!(Bound::Amount(0).level(0, Breach), Clear);
        assert_eq!(Bound::Amount(0).level(1, Clear), Breach);
        assert_eq!(Bound::Amount(u64::MAX).level(u64::MAX, Clear), Warning);
        // 80 % of 6 are 4.8.
        assert_eq!(Bound::Amount(6).near_from(), Some(5));
        assert_eq!(
            [4, 5].map(|used| Bound::Amount(6).level(used, Clear)),
            [Clear, Warning],
            "a level begins where near_from says"
        );
    }

    #[test]
    fn an_age_is_never_near_and_crossed_when_no_chunk_explains_it() {
        use Level::{Breach, Clear, Warning};
        let month = Bound::Age { days: 30, grace: 8 };
        assert_eq!((month.near_from(), month.most()), (None, 38));
        for (days, before, expected) in [
            (0, Clear, Clear),
            (24, Clear, Clear),
            (30, Clear, Clear),
            // A week's chunk whose newest point is 30 days old.
            (37, Clear, Clear),
            (38, Clear, Clear),
            (39, Clear, Breach),
            (38, Breach, Breach),
            (37, Breach, Clear),
            // As an older coordinator told it.
            (30, Warning, Clear),
        ] {
            assert_eq!(month.level(days, before), expected, "{days} after {before:?}");
        }
        let strict = Bound::Age { days: 30, grace: 0 };
        assert_eq!([30, 31].map(|days| strict.level(days, Clear)), [Clear, Breach]);
        assert_eq!(strict.level(30, Breach), Clear);
        let longest = Bound::Age { days: u64::MAX, grace: 8 };
        assert_eq!(longest.level(u64::MAX, Breach), Clear);
    }

    #[test]
    fn only_retention_has_a_grace() {
        let catalog = crate::decide::Catalog::default();
        let plan = catalog.plan("hobby").expect("hobby");
        for limit in Limit::ALL {
            let bound = limit.bound(plan, &catalog.thresholds);
            let grace = bound.most() - limit.of(plan);
            assert_eq!(grace, if limit == Limit::Retention { 8 } else { 0 }, "{limit:?}");
        }
    }

    #[test]
    fn each_level_is_told_once_a_day() {
        let day = |n: i8| Date::constant(2026, 11, n);
        let mut known = Known::default();
        let mut told = |used: u64, today: Date| {
            let change = look(used, Bound::Amount(100), known, today)?;
            known = change.known;
            change.told
        };
        assert_eq!(told(85, day(1)), Some(Level::Warning));
        assert_eq!(told(86, day(1)), None, "it stays");
        assert_eq!(told(120, day(1)), Some(Level::Breach));
        assert_eq!(told(90, day(1)), None, "less bad is no news");
        assert_eq!(told(120, day(1)), None, "told today");
        assert_eq!(told(10, day(1)), Some(Level::Clear));
        assert_eq!(told(90, day(1)), None, "told today");
        assert_eq!(told(10, day(2)), Some(Level::Clear));
        assert_eq!(told(90, day(2)), Some(Level::Warning), "another day");
        assert_eq!(told(120, day(2)), Some(Level::Breach));
    }
}
