//! What the engine knows of one tenant: stated, measured, or by default.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::amount::{BasisPoints, Cents};
use super::plans::{Catalog, PlanName, Region};

/// A statement that can't be taken: the field, what it said, and why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ProfileError {
    /// The field as the caller named it.
    pub field: String,
    /// What is wrong with the value, which it names, and what to write.
    pub problem: String,
}

impl ProfileError {
    pub(super) fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }
}

/// A regime that a customer must comply with. SOC 2 and HIPAA forbid a shared
/// server; the others only weigh.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Compliance {
    /// SOC 2.
    Soc2,
    /// HIPAA.
    Hipaa,
    /// GDPR.
    Gdpr,
    /// ISO 27001.
    Iso27001,
    /// PCI DSS.
    Pci,
}

impl Compliance {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Soc2, Self::Hipaa, Self::Gdpr, Self::Iso27001, Self::Pci];

    /// The name in JSON: "soc2".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Soc2 => "soc2",
            Self::Hipaa => "hipaa",
            Self::Gdpr => "gdpr",
            Self::Iso27001 => "iso27001",
            Self::Pci => "pci",
        }
    }

    /// Whether it forbids a shared server.
    pub const fn forbids_shared(self) -> bool {
        matches!(self, Self::Soc2 | Self::Hipaa)
    }

    /// The regime of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|regime| regime.as_str() == name)
    }
}

impl fmt::Display for Compliance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a signup states and an administrator sets; what is silent takes its
/// default. In JSON the fields have the names below; the seeds' nested forms,
/// `performance_needs.latency_requirement` and
/// `usage_patterns.peak_concurrent_users`, are read too. Null is silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProfileOverrides {
    /// Dollars a month; not negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Cents>,
    /// Vehicles that are or will be tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vehicle_count: Option<u32>,
    /// Regimes to comply with; may be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compliance_requirements: Option<BTreeSet<Compliance>>,
    /// The response time wanted, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_requirement: Option<u32>,
    /// Where the users are: US, EU, APAC, or Fly.io's codes; never empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geographic_distribution: Option<Vec<String>>,
    /// Most users at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_concurrent_users: Option<u32>,
    /// GPS points a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gps_points_per_day: Option<u64>,
    /// GPS points a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gps_points_per_second: Option<u32>,
    /// Days that GPS points must be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Storage, in MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_mb: Option<u64>,
}

/// What was measured of one tenant. None is "not known", which never counts
/// for or against anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Usage {
    /// Vehicles in the tenant's database.
    pub vehicle_count: Option<u32>,
    /// GPS points of this UTC day, or of the busiest of the last 7 where that
    /// is known.
    pub gps_points_today: Option<u64>,
    /// The highest rate of GPS points, a second.
    pub gps_points_per_second: Option<u32>,
    /// Storage, in MB.
    pub storage_used_mb: Option<u64>,
    /// Most client connections at once, last 24 hours.
    pub peak_concurrent_users: Option<u32>,
    /// Database queries a second.
    pub queries_per_second: Option<u32>,
    /// Whole days since the oldest GPS point that is kept.
    pub retained_days: Option<u32>,
    /// Mean response time, milliseconds, rounded up.
    pub average_response_time_ms: Option<u32>,
    /// Share of requests that failed.
    pub error_rate: Option<BasisPoints>,
    /// Where its requests come from, where that is known.
    pub geographic_distribution: Option<Vec<String>>,
    /// CPU in use on the machine it lives on, as a share of the machine.
    pub node_cpu: Option<BasisPoints>,
    /// CPU that the tenant itself uses, as a share of the machine.
    pub cpu_of_node: Option<BasisPoints>,
    /// Tenants on the machine it lives on, itself included.
    pub tenants_on_node: Option<u32>,
}

/// Everything that the engine decides from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    /// The bought plan, which is the floor.
    pub plan: PlanName,
    /// Dollars a month.
    pub budget: Cents,
    /// Vehicles.
    pub vehicle_count: u32,
    /// Regimes, each once.
    pub compliance_requirements: BTreeSet<Compliance>,
    /// Response time wanted, milliseconds.
    pub latency_requirement: u32,
    /// Places, each once, in the order stated; never empty.
    pub regions: Vec<Region>,
    /// Most users at one time; unknown scores nothing.
    pub peak_concurrent_users: Option<u32>,
    /// GPS points a day, 0 where unknown.
    pub gps_points_per_day: u64,
    /// GPS points a second, 0 where unknown.
    pub gps_points_per_second: u32,
    /// Days to keep, 0 where nothing was asked.
    pub retention_days: u32,
    /// MB of storage, 0 where unknown.
    pub storage_mb: u64,
}

/// The place of a tenant that names none, and its latency and vehicles.
const DEFAULT_REGION: &str = "US";
const DEFAULT_LATENCY_MS: u32 = 100;
const DEFAULT_VEHICLES: u32 = 1;

impl Profile {
    /// Joins what `plan`'s customer stated with what was measured.
    ///
    /// For quantities the larger of both holds: what a customer says it needs
    /// stands until somebody changes it, and what it really uses can't be
    /// talked away. Stated regions hold against measured ones, because a stray
    /// request from abroad is no need. Silent: the plan's price, 1 vehicle, no
    /// compliance, 100 ms, US, users unknown.
    ///
    /// # Errors
    /// [`ProfileError`] for an unknown plan (`plan`), an unknown or empty
    /// region list (`geographic_distribution`), a negative budget (`budget`).
    pub fn build(
        plan: &str,
        stated: &ProfileOverrides,
        usage: &Usage,
        catalog: &Catalog,
    ) -> Result<Self, ProfileError> {
        let Some(bought) = catalog.plan(plan) else {
            let names: Vec<&str> = catalog.plans.iter().map(|plan| plan.name.as_str()).collect();
            let problem = format!("{plan:?} is no plan; plans are {}", names.join(", "));
            return Err(ProfileError::new("plan", problem));
        };
        let budget = stated.budget.unwrap_or(bought.price);
        if budget < Cents(0) {
            return Err(ProfileError::new("budget", format!("{budget} is negative")));
        }
        let regions = stated
            .geographic_distribution
            .as_ref()
            .or(usage.geographic_distribution.as_ref().filter(|measured| !measured.is_empty()));
        let regions = match regions {
            Some(names) => places(names.iter().map(String::as_str), catalog)?,
            None => places([DEFAULT_REGION], catalog)?,
        };
        Ok(Self {
            plan: bought.name.clone(),
            budget,
            vehicle_count: stated
                .vehicle_count
                .max(usage.vehicle_count)
                .unwrap_or(DEFAULT_VEHICLES),
            compliance_requirements: stated.compliance_requirements.clone().unwrap_or_default(),
            latency_requirement: stated.latency_requirement.unwrap_or(DEFAULT_LATENCY_MS),
            regions,
            peak_concurrent_users: stated.peak_concurrent_users.max(usage.peak_concurrent_users),
            gps_points_per_day: stated
                .gps_points_per_day
                .max(usage.gps_points_today)
                .unwrap_or_default(),
            gps_points_per_second: stated
                .gps_points_per_second
                .max(usage.gps_points_per_second)
                .unwrap_or_default(),
            retention_days: stated.retention_days.unwrap_or_default(),
            storage_mb: stated.storage_mb.max(usage.storage_used_mb).unwrap_or_default(),
        })
    }
}

/// The places that `names` mean, each once.
fn places<'a>(
    names: impl IntoIterator<Item = &'a str>,
    catalog: &Catalog,
) -> Result<Vec<Region>, ProfileError> {
    const FIELD: &str = "geographic_distribution";
    let mut places = Vec::new();
    for name in names {
        let Some(place) = catalog.region(name) else {
            let words: Vec<&str> = catalog.regions.keys().map(String::as_str).collect();
            let words = words.join(", ");
            let problem = format!("{name:?} is no region; write {words} or a Fly.io region code");
            return Err(ProfileError::new(FIELD, problem));
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.is_empty() {
        return Err(ProfileError::new(
            FIELD,
            "is empty; name at least one region, or leave it out",
        ));
    }
    Ok(places)
}
