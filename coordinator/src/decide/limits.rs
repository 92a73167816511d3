//! Usage against what the plan allows, and when that is told. Pure.
//!
//! A limit is *near* from 80 % of it and *crossed* above it. It is no longer
//! crossed at 95 % or less, nor near below 75 %: a tenant that wavers around a
//! boundary is told once. And of each limit and level at most once a UTC day,
//! however often it comes and goes.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plans::Plan;

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

/// The level at `used` of `allowed`, where it was `before`. Nothing is allowed
/// of what has a limit of 0.
pub fn level(used: u64, allowed: u64, before: Level) -> Level {
    let (used, allowed) = (u128::from(used) * 100, u128::from(allowed));
    let above = |percent: u128| used > allowed * percent;
    let from = |percent: u128| used >= allowed * percent && used > 0;
    if above(100) || (before == Level::Breach && above(BREACHED_ABOVE)) {
        Level::Breach
    } else if from(WARN_FROM) || (before >= Level::Warning && from(WARNED_DOWN_TO)) {
        Level::Warning
    } else {
        Level::Clear
    }
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

/// Looks at `used` of `allowed` on the UTC day `today`; none where the level
/// stays.
pub fn look(used: u64, allowed: u64, before: Known, today: Date) -> Option<Change> {
    let level = level(used, allowed, before.level);
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
            assert_eq!(level(used, 100, before), expected, "{used} after {before:?}");
        }
        assert_eq!(level(0, 0, Breach), Clear);
        assert_eq!(level(1, 0, Clear), Breach);
        assert_eq!(level(u64::MAX, u64::MAX, Clear), Warning);
    }

    #[test]
    fn each_level_is_told_once_a_day() {
        let day = |n: i8| Date::constant(2026, 11, n);
        let mut known = Known::default();
        let mut told = |used: u64, today: Date| {
            let change = look(used, 100, known, today)?;
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
