//! The one check that a configured catalogue must pass; after it the engine
//! takes plans, shapes and thresholds as they are.

use std::collections::BTreeSet;

use super::amount::{BasisPoints, Cents, Hundredths};
use super::plans::{Catalog, Mode, NodeKind, Plan};

/// Old points go by chunks of the table, which are hours to a year long.
const MOST_GRACE_DAYS: u32 = 366;

/// What is wrong with a catalogue: the key it stands at, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("catalog.{key}: {problem}")]
pub struct CatalogError {
    /// Path of the key below `catalog`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

fn wrong<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, CatalogError> {
    Err(CatalogError { key: key.into(), problem: problem.into() })
}

fn ensure(
    good: bool,
    key: impl Into<String>,
    problem: impl Into<String>,
) -> Result<(), CatalogError> {
    if good { Ok(()) } else { wrong(key, problem) }
}

impl Catalog {
    /// Checks the whole catalogue.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key.
    pub fn validate(&self) -> Result<(), CatalogError> {
        self.validate_shapes()?;
        self.validate_regions()?;
        self.validate_plans()?;
        self.validate_costs()?;
        self.validate_thresholds()
    }

    fn validate_shapes(&self) -> Result<(), CatalogError> {
        let mut names = BTreeSet::new();
        for shape in &self.shapes {
            let key = |field: &str| format!("shapes.{}.{field}", shape.name);
            ensure(!shape.name.is_empty(), "shapes", "a shape has no name")?;
            ensure(names.insert(&shape.name), key("name"), "the shape stands here twice")?;
            let sizes = [
                ("cpu_millicores", shape.cpu_millicores),
                ("memory_mb", shape.memory_mb),
                ("disk_gb", shape.disk_gb),
                ("db_connections", shape.db_connections),
                ("gps_points_per_second", shape.gps_points_per_second),
                ("max_tenants", u64::from(shape.max_tenants)),
            ];
            for (field, size) in sizes {
                ensure(size > 0, key(field), "must be more than 0")?;
                // Far above any machine; keeps every later product in range.
                ensure(size <= 1_000_000_000, key(field), "must be at most 1000000000")?;
            }
            let one = shape.kind == NodeKind::Shared || shape.max_tenants == 1;
            ensure(one, key("max_tenants"), "a dedicated machine carries 1 tenant")?;
        }
        Ok(())
    }

    fn validate_regions(&self) -> Result<(), CatalogError> {
        for (word, place) in &self.regions {
            let known = self.places.contains(place);
            ensure(known, format!("regions.{word}"), format!("place {place} is not in places"))?;
        }
        let us = self.region("US").is_some();
        ensure(us, "regions.US", "is missing; it is where a silent customer is taken to be")
    }

    fn validate_plans(&self) -> Result<(), CatalogError> {
        let mut names = BTreeSet::new();
        for plan in &self.plans {
            ensure(!plan.name.0.is_empty(), "plans", "a plan has no name")?;
            let key = format!("plans.{}", plan.name);
            ensure(names.insert(&plan.name), format!("{key}.name"), "the plan stands here twice")?;
            self.validate_plan(plan, &key)?;
        }
        for mode in [Mode::MultiTenant, Mode::SingleTenant] {
            ensure(self.plans_of(mode).next().is_some(), "plans", format!("no plan is {mode}"))?;
        }
        for pair in self.plans.windows(2) {
            if let [small, large] = pair {
                grows(small, large)?;
            }
        }
        Ok(())
    }

    fn validate_plan(&self, plan: &Plan, key: &str) -> Result<(), CatalogError> {
        let limits = [
            ("vehicles", u64::from(plan.vehicles)),
            ("gps_points_per_day", plan.gps_points_per_day),
            ("retention_days", u64::from(plan.retention_days)),
            ("volume_gb", u64::from(plan.volume_gb)),
            ("p95_ms", u64::from(plan.p95_ms)),
            ("gps_points_per_second", u64::from(plan.gps_points_per_second)),
            ("users", u64::from(plan.users)),
            ("queries_per_second", u64::from(plan.queries_per_second)),
        ];
        for (field, limit) in limits {
            ensure(limit > 0, format!("{key}.{field}"), "must be more than 0")?;
        }
        ensure(plan.price >= Cents(0), format!("{key}.price"), "must not be negative")?;
        ensure(!plan.regions.is_empty(), format!("{key}.regions"), "needs at least one place")?;
        for region in &plan.regions {
            let known = self.places.contains(region);
            ensure(known, format!("{key}.regions"), format!("place {region} is not in places"))?;
        }
        let kind = match plan.mode {
            Mode::MultiTenant => NodeKind::Shared,
            Mode::SingleTenant => NodeKind::Dedicated,
        };
        match self.shape(&plan.shape) {
            None => return wrong(format!("{key}.shape"), format!("no shape is {:?}", plan.shape)),
            Some(shape) if shape.kind != kind => {
                let problem = format!("{} needs a {} shape", plan.mode, kind.as_str());
                return wrong(format!("{key}.shape"), problem);
            }
            Some(_) => {}
        }
        match (plan.mode, plan.cost) {
            (Mode::MultiTenant, Some(_)) => {
                wrong(format!("{key}.cost"), "a shared plan's cost is computed; leave it out")
            }
            (Mode::SingleTenant, None) => {
                wrong(format!("{key}.cost"), "a single-tenant plan states its cost a month")
            }
            (Mode::SingleTenant, Some(cost)) if cost < Cents(0) => {
                wrong(format!("{key}.cost"), "must not be negative")
            }
            _ => Ok(()),
        }
    }

    fn validate_costs(&self) -> Result<(), CatalogError> {
        let rate = self.costs.dollars_per_euro;
        let key = "costs.dollars_per_euro";
        ensure(rate > BasisPoints(0) && rate.0 <= 1_000_000, key, "must be above 0, at most 100")?;
        for item in &self.costs.shared_server {
            let good = (0..=10_000_000_000).contains(&item.euros.0);
            let key = format!("costs.shared_server.{}", item.name);
            ensure(good, key, "must be from 0 to 100000000")?;
        }
        Ok(())
    }

    fn validate_thresholds(&self) -> Result<(), CatalogError> {
        let t = &self.thresholds;
        let shares = [
            ("place_limit", t.place_limit),
            ("act_limit", t.act_limit),
            ("relieve_to", t.relieve_to),
            ("choose_score", t.choose_score),
            ("migrate_confidence", t.migrate_confidence),
            ("approve_confidence_with_issue", t.approve_confidence_with_issue),
            ("approve_confidence_settled", t.approve_confidence_settled),
            ("auto_upgrade_threshold", t.auto_upgrade_threshold),
            ("downgrade_threshold", t.downgrade_threshold),
        ];
        for (field, share) in shares {
            let good = share > Hundredths(0) && share <= Hundredths::ONE;
            ensure(good, format!("thresholds.{field}"), "must be above 0 and at most 1")?;
        }
        for (field, share) in [("error_rate", t.error_rate), ("node_cpu", t.node_cpu)] {
            let good = share > BasisPoints(0) && share <= BasisPoints(10_000);
            ensure(good, format!("thresholds.{field}"), "must be above 0 and at most 1")?;
        }
        let below = |good, field: &str, other: &str| {
            ensure(good, format!("thresholds.{field}"), format!("must be below {other}"))
        };
        below(t.relieve_to < t.act_limit, "relieve_to", "act_limit")?;
        below(t.place_limit < t.act_limit, "place_limit", "act_limit")?;
        let apart = t.downgrade_threshold < t.auto_upgrade_threshold;
        below(apart, "downgrade_threshold", "auto_upgrade_threshold")?;
        let good = t.retention_grace_days <= MOST_GRACE_DAYS;
        let problem = format!("must be at most {MOST_GRACE_DAYS}: no chunk is longer");
        ensure(good, "thresholds.retention_grace_days", problem)
    }
}

/// Each plan offers at least what the one before it offers, for more money:
/// the order of the list is what "smaller" and "floor" mean.
fn grows(small: &Plan, large: &Plan) -> Result<(), CatalogError> {
    let key = |field: &str| format!("plans.{}.{field}", large.name);
    let more = format!("must be more than {}'s: plans are listed from small to large", small.name);
    ensure(large.price > small.price, key("price"), more)?;
    let least = format!("must not be less than {}'s: limits grow", small.name);
    let limits = [
        ("vehicles", u64::from(small.vehicles), u64::from(large.vehicles)),
        ("gps_points_per_day", small.gps_points_per_day, large.gps_points_per_day),
        ("retention_days", u64::from(small.retention_days), u64::from(large.retention_days)),
        ("regions", small.regions.len() as u64, large.regions.len() as u64),
        ("volume_gb", u64::from(small.volume_gb), u64::from(large.volume_gb)),
        (
            "gps_points_per_second",
            u64::from(small.gps_points_per_second),
            u64::from(large.gps_points_per_second),
        ),
        ("users", u64::from(small.users), u64::from(large.users)),
        (
            "queries_per_second",
            u64::from(small.queries_per_second),
            u64::from(large.queries_per_second),
        ),
    ];
    for (field, before, after) in limits {
        ensure(after >= before, key(field), least.clone())?;
    }
    ensure(small.mode <= large.mode, key("mode"), "shared plans stand before single-tenant plans")?;
    let faster = small.mode != large.mode || large.p95_ms <= small.p95_ms;
    ensure(faster, key("p95_ms"), format!("must not be more than {}'s", small.name))
}
