//! Which plan would suit a tenant better, from a week of measured usage. This
//! is advice for the customer and the operator; it moves nobody.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::amount::Hundredths;
use super::migrate::Residence;
use super::needs::{Need, hard_rules, satisfies, smallest};
use super::plans::{Catalog, Mode, Plan, PlanName};
use super::profile::Profile;

/// The largest figures of the last 7 days; None is "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct WeekPeaks {
    /// Vehicles.
    pub vehicles: Option<u64>,
    /// GPS points of the busiest UTC day.
    pub gps_points_per_day: Option<u64>,
    /// Storage, in MB.
    pub storage_mb: Option<u64>,
    /// Users at once.
    pub users: Option<u64>,
}

/// What is advised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdviceKind {
    /// From shared to its own machines.
    UpgradeMode,
    /// From its own machines to shared.
    DowngradeMode,
    /// The next plan up, same mode.
    UpgradePlan,
    /// The next plan down, same mode.
    DowngradePlan,
}

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Advice {
    /// What is advised.
    pub kind: AdviceKind,
    /// From this plan.
    pub from: PlanName,
    /// To this one.
    pub to: PlanName,
    /// Its mode.
    pub mode: Mode,
    /// Why, with the figure.
    pub reason: String,
    /// The largest of usage over limit, of today's plan.
    pub utilisation: Hundredths,
    /// The need with the largest share; None where nothing is known.
    pub binding: Option<Need>,
}

/// What is known of the week: need, amount, limit of `plan`.
fn shares(week: &WeekPeaks, plan: &Plan) -> impl Iterator<Item = (Need, u64, u64)> {
    let pairs = [
        (Need::Vehicles, week.vehicles, u64::from(plan.vehicles)),
        (Need::GpsPointsPerDay, week.gps_points_per_day, plan.gps_points_per_day),
        (Need::StorageMb, week.storage_mb, plan.storage_mb()),
        (Need::Users, week.users, u64::from(plan.users)),
    ];
    pairs.into_iter().filter_map(|(need, used, limit)| Some((need, used?, limit.max(1))))
}

/// The largest of usage over `plan`'s limits, rounded up to the hundredth, and
/// the need it belongs to. None where nothing was measured.
pub fn utilisation(week: &WeekPeaks, plan: &Plan) -> Option<(Hundredths, Need)> {
    shares(week, plan)
        .map(|(need, used, limit)| ((u128::from(used) * 100).div_ceil(u128::from(limit)), need))
        .max_by_key(|(share, _)| *share)
        .map(|(share, need)| (Hundredths(i64::try_from(share).unwrap_or(i64::MAX)), need))
}

/// Whether some use is above, or every known use below, `threshold` of its
/// limit; exact, never by way of a rounded share.
fn above(week: &WeekPeaks, plan: &Plan, threshold: Hundredths) -> bool {
    shares(week, plan).any(|(_, used, limit)| {
        i128::from(used) * 100 > i128::from(limit) * i128::from(threshold.0)
    })
}

fn below(week: &WeekPeaks, plan: &Plan, threshold: Hundredths) -> bool {
    let known = shares(week, plan).next().is_some();
    known
        && shares(week, plan).all(|(_, used, limit)| {
            i128::from(used) * 100 < i128::from(limit) * i128::from(threshold.0)
        })
}

/// Advises on the plan of a tenant that lives as `residence` says. Empty: the
/// plan suits, or too little is known.
///
/// In multi-tenant mode a utilisation above the upgrade threshold, or more
/// vehicles than the shared plan serves, suggests single-tenant. In
/// single-tenant mode a utilisation below the downgrade threshold, with no more
/// vehicles than the shared plan serves and no rule against it, suggests
/// multi-tenant. Within a mode, above suggests the next plan up; below the
/// threshold *of the next smaller plan's limits* suggests that one, if it
/// satisfies the profile's needs. A change of mode is advised alone.
pub fn recommend_plan(
    profile: &Profile,
    residence: &Residence,
    week: &WeekPeaks,
    catalog: &Catalog,
) -> Vec<Advice> {
    let Some(plan) = catalog.plan(residence.plan.as_str()) else {
        return Vec::new();
    };
    let (high, low) =
        (catalog.thresholds.auto_upgrade_threshold, catalog.thresholds.downgrade_threshold);
    let (used, binding) = match utilisation(week, plan) {
        Some((used, need)) => (used, Some(need)),
        None => (Hundredths(0), None),
    };
    let advice = |kind, to: &Plan, why: &str| Advice {
        kind,
        from: plan.name.clone(),
        to: to.name.clone(),
        mode: to.mode,
        reason: format!("{why} (utilisation {used} of {})", plan.name),
        utilisation: used,
        binding,
    };
    // The most vehicles that a shared plan serves: 5 in the seeds.
    let shared_vehicles =
        catalog.plans_of(Mode::MultiTenant).map(|plan| u64::from(plan.vehicles)).max().unwrap_or(0);
    let found = match residence.mode {
        Mode::MultiTenant => {
            let many = week.vehicles.is_some_and(|vehicles| vehicles > shared_vehicles);
            let crowded = above(week, plan, high) || many;
            smallest(profile, Mode::SingleTenant, catalog).filter(|_| crowded).map(|(to, _)| {
                advice(AdviceKind::UpgradeMode, to, "High usage suggests dedicated resources")
            })
        }
        Mode::SingleTenant if above(week, plan, high) => {
            let mut next = catalog.plans_of(Mode::SingleTenant).skip_while(|p| p.name != plan.name);
            next.nth(1).map(|to| {
                advice(AdviceKind::UpgradePlan, to, "High usage suggests the next plan up")
            })
        }
        Mode::SingleTenant => {
            let few = week.vehicles.is_some_and(|vehicles| vehicles <= shared_vehicles);
            let shareable =
                few && below(week, plan, low) && hard_rules(profile, catalog).is_empty();
            let shared = smallest(profile, Mode::MultiTenant, catalog).filter(|_| shareable);
            let smaller =
                || catalog.plans_of(Mode::SingleTenant).take_while(|p| p.name != plan.name).last();
            match shared {
                Some((to, _)) => Some(advice(
                    AdviceKind::DowngradeMode,
                    to,
                    "Low usage suggests shared resources",
                )),
                None => smaller().filter(|to| below(week, to, low) && satisfies(profile, to)).map(
                    |to| {
                        advice(
                            AdviceKind::DowngradePlan,
                            to,
                            "Low usage suggests the next plan down",
                        )
                    },
                ),
            }
        }
    };
    found.into_iter().collect()
}
