//! What a tenant needs that a plan doesn't offer, and the hard rules that
//! follow for shared servers.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plans::{Catalog, Mode, Plan};
use super::profile::{Compliance, Profile};

/// A need that plans put a limit to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Vehicles.
    Vehicles,
    /// GPS points a day.
    GpsPointsPerDay,
    /// GPS points a second.
    GpsPointsPerSecond,
    /// Most users at once.
    Users,
    /// Days that points are kept.
    RetentionDays,
    /// Number of places.
    Regions,
    /// Response time in milliseconds: less is more.
    LatencyMs,
    /// MB of storage.
    StorageMb,
}

impl Need {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vehicles => "vehicles",
            Self::GpsPointsPerDay => "gps_points_per_day",
            Self::GpsPointsPerSecond => "gps_points_per_second",
            Self::Users => "users",
            Self::RetentionDays => "retention_days",
            Self::Regions => "regions",
            Self::LatencyMs => "latency_ms",
            Self::StorageMb => "storage_mb",
        }
    }
}

/// A need beyond a plan's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unmet {
    /// Which need.
    pub need: Need,
    /// What the tenant needs.
    pub wanted: u64,
    /// What the plan offers.
    pub offered: u64,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.need.as_str();
        write!(f, "{name} {} needed, {} offered", self.wanted, self.offered)
    }
}

/// Every need with what is wanted and what `plan` offers, and whether that is
/// enough.
fn compared(profile: &Profile, plan: &Plan) -> [(Unmet, bool); 8] {
    let at_most =
        |need, wanted: u64, offered: u64| (Unmet { need, wanted, offered }, wanted <= offered);
    let latency = u64::from(profile.latency_requirement);
    let p95 = u64::from(plan.p95_ms);
    let users = u64::from(profile.peak_concurrent_users.unwrap_or(0));
    [
        at_most(Need::Vehicles, profile.vehicle_count.into(), plan.vehicles.into()),
        at_most(Need::GpsPointsPerDay, profile.gps_points_per_day, plan.gps_points_per_day),
        at_most(
            Need::GpsPointsPerSecond,
            profile.gps_points_per_second.into(),
            plan.gps_points_per_second.into(),
        ),
        at_most(Need::Users, users, plan.users.into()),
        at_most(Need::RetentionDays, profile.retention_days.into(), plan.retention_days.into()),
        at_most(Need::Regions, profile.regions.len() as u64, plan.regions.len() as u64),
        (Unmet { need: Need::LatencyMs, wanted: latency, offered: p95 }, p95 <= latency),
        at_most(Need::StorageMb, profile.storage_mb, plan.storage_mb()),
    ]
}

/// The needs that `plan` doesn't satisfy.
pub fn unmet(profile: &Profile, plan: &Plan) -> Vec<Unmet> {
    compared(profile, plan)
        .into_iter()
        .filter(|(_, enough)| !enough)
        .map(|(need, _)| need)
        .collect()
}

/// Whether `plan` satisfies every need. (That a shared plan may be forbidden
/// all the same is [`hard_rules`]' to say.)
pub fn satisfies(profile: &Profile, plan: &Plan) -> bool {
    compared(profile, plan).iter().all(|(_, enough)| *enough)
}

/// The smallest plan of `mode` that satisfies every need, or else the largest
/// one with what it leaves unmet. None if the catalogue has no such plan.
pub fn smallest<'a>(
    profile: &Profile,
    mode: Mode,
    catalog: &'a Catalog,
) -> Option<(&'a Plan, Vec<Unmet>)> {
    let mut largest = None;
    for plan in catalog.plans_of(mode) {
        if satisfies(profile, plan) {
            return Some((plan, Vec::new()));
        }
        largest = Some(plan);
    }
    largest.map(|plan| (plan, unmet(profile, plan)))
}

/// Why a tenant may not live on a shared server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "rule")]
pub enum HardRule {
    /// A regime forbids it. Nothing overrides that.
    Compliance {
        /// Which regime.
        regime: Compliance,
    },
    /// No shared plan offers what it needs.
    Fit {
        /// What is short.
        #[serde(flatten)]
        unmet: Unmet,
    },
}

impl HardRule {
    /// Whether the rule is one of compliance.
    pub const fn is_compliance(&self) -> bool {
        matches!(self, Self::Compliance { .. })
    }
}

impl fmt::Display for HardRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compliance { regime } => write!(f, "{regime} forbids a shared server"),
            Self::Fit { unmet } => write!(f, "no shared plan fits: {unmet}"),
        }
    }
}

/// The hard rules that forbid a shared server; none: the scores decide.
pub fn hard_rules(profile: &Profile, catalog: &Catalog) -> Vec<HardRule> {
    let compliance = profile
        .compliance_requirements
        .iter()
        .filter(|regime| regime.forbids_shared())
        .map(|regime| HardRule::Compliance { regime: *regime });
    let short = smallest(profile, Mode::MultiTenant, catalog).map(|(_, unmet)| unmet);
    let fit = short.into_iter().flatten().map(|unmet| HardRule::Fit { unmet });
    compliance.chain(fit).collect()
}
