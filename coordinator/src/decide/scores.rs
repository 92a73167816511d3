//! The two scores, factor by factor, in whole hundredths.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::amount::{Cents, Hundredths};
use super::plans::Mode;
use super::profile::{Compliance, Profile};

/// Where both scores start.
const START: i16 = 50;

/// What is weighed, in the seeds' order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// Dollars a month.
    Budget,
    /// Vehicles.
    VehicleCount,
    /// Regimes.
    Compliance,
    /// Response time wanted.
    Latency,
    /// How many places.
    Regions,
    /// Most users at once.
    PeakConcurrentUsers,
}

impl Factor {
    /// All, in the order in which they are summed.
    pub const ALL: [Self; 6] = [
        Self::Budget,
        Self::VehicleCount,
        Self::Compliance,
        Self::Latency,
        Self::Regions,
        Self::PeakConcurrentUsers,
    ];
}

/// What one factor added to each score, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points {
    /// To the multi-tenant score.
    pub multi: i16,
    /// To the single-tenant score.
    pub single: i16,
}

/// One factor of a decision, as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contribution {
    /// Which factor.
    pub factor: Factor,
    /// The value that was seen: "30.00", "soc2, gdpr", "unknown".
    pub value: String,
    /// Added to the multi-tenant score.
    pub multi_tenant: Hundredths,
    /// Added to the single-tenant score.
    pub single_tenant: Hundredths,
}

/// Both scores, 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// The multi-tenant score.
    pub multi_tenant: Hundredths,
    /// The single-tenant score.
    pub single_tenant: Hundredths,
}

/// Both scores and what they are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scores {
    /// The multi-tenant score, 0..=1.
    pub multi_tenant: Hundredths,
    /// The single-tenant score, 0..=1.
    pub single_tenant: Hundredths,
    /// Both start at this.
    pub start: Hundredths,
    /// Factor by factor; with `start` they add up to the scores before those
    /// are clamped to 0..=1.
    pub contributions: Vec<Contribution>,
}

/// The table: what each factor adds, in the order of [`Factor::ALL`]. Source:
/// the seeds' scoring functions, as settled in the decision table.
pub fn points(profile: &Profile) -> [Points; 6] {
    let dollars = Cents::dollars;
    let budget = profile.budget;
    let vehicles = profile.vehicle_count;
    let compliance = &profile.compliance_requirements;
    let latency = profile.latency_requirement;
    let many_regions = profile.regions.len() > 1;
    [
        Points {
            multi: if budget < dollars(50) {
                30
            } else if budget < dollars(100) {
                10
            } else {
                -20
            },
            single: if budget > dollars(100) {
                30
            } else if budget > dollars(50) {
                10
            } else {
                -20
            },
        },
        Points {
            multi: match vehicles {
                0..=5 => 20,
                6..=10 => 0,
                _ => -30,
            },
            single: match vehicles {
                0..=5 => -10,
                6..=10 => 10,
                _ => 30,
            },
        },
        Points {
            multi: if compliance.is_empty() { 10 } else { -40 },
            single: if compliance.contains(&Compliance::Soc2) {
                40
            } else if compliance.contains(&Compliance::Hipaa) {
                50
            } else {
                0
            },
        },
        Points {
            multi: match latency {
                0..50 => -30,
                50..=100 => 0,
                _ => 10,
            },
            single: match latency {
                0..50 => 30,
                50..100 => 10,
                _ => 0,
            },
        },
        Points {
            multi: if many_regions { -20 } else { 10 },
            single: if many_regions { 30 } else { 0 },
        },
        Points {
            multi: match profile.peak_concurrent_users {
                Some(0..20) => 10,
                Some(101..) => -30,
                Some(_) | None => 0,
            },
            single: 0,
        },
    ]
}

/// The two scores alone: what an evaluation of a whole fleet needs.
pub fn totals(profile: &Profile) -> Totals {
    let points = points(profile);
    let clamp = |sum: i16| Hundredths(i64::from(sum.clamp(0, 100)));
    Totals {
        multi_tenant: clamp(START + points.iter().map(|p| p.multi).sum::<i16>()),
        single_tenant: clamp(START + points.iter().map(|p| p.single).sum::<i16>()),
    }
}

impl Totals {
    /// The mode that the scores choose, and the chosen score: multi-tenant
    /// above `at_once`, else single-tenant above it, else the larger, and
    /// single-tenant on a tie.
    pub fn choose(self, at_once: Hundredths) -> (Mode, Hundredths) {
        let multi = (Mode::MultiTenant, self.multi_tenant);
        let single = (Mode::SingleTenant, self.single_tenant);
        if self.multi_tenant > at_once {
            multi
        } else if self.single_tenant > at_once {
            single
        } else if self.multi_tenant > self.single_tenant {
            multi
        } else {
            single
        }
    }
}

/// The two scores with each factor's value and contribution.
pub fn scores(profile: &Profile) -> Scores {
    let Totals { multi_tenant, single_tenant } = totals(profile);
    let contributions = Factor::ALL
        .into_iter()
        .zip(points(profile))
        .map(|(factor, points)| Contribution {
            factor,
            value: value_seen(factor, profile),
            multi_tenant: Hundredths(i64::from(points.multi)),
            single_tenant: Hundredths(i64::from(points.single)),
        })
        .collect();
    let start = Hundredths(i64::from(START));
    Scores { multi_tenant, single_tenant, start, contributions }
}

fn value_seen(factor: Factor, profile: &Profile) -> String {
    match factor {
        Factor::Budget => profile.budget.to_string(),
        Factor::VehicleCount => profile.vehicle_count.to_string(),
        Factor::Compliance if profile.compliance_requirements.is_empty() => "none".to_owned(),
        Factor::Compliance => join(profile.compliance_requirements.iter()),
        Factor::Latency => format!("{} ms", profile.latency_requirement),
        Factor::Regions => join(profile.regions.iter()),
        Factor::PeakConcurrentUsers => match profile.peak_concurrent_users {
            Some(users) => users.to_string(),
            None => "unknown".to_owned(),
        },
    }
}

fn join<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> String {
    items.fold(String::new(), |mut text, item| {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String can't fail.
        let _ = write!(text, "{comma}{item}");
        text
    })
}
