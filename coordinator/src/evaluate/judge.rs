//! The facts of one tenant before the engine.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::GenericClient;

use crate::decide::migrate::{Approval, Migration, Residence, auto_approve, evaluate_migration};
use crate::decide::recommend::recommend_at;
use crate::decide::{
    Advice, Catalog, Decision, Mode, PlanName, Profile, ProfileError, Usage, WeekPeaks,
    recommend_plan,
};
use crate::signup::stated;
use crate::slots::Slots;
use crate::store::placements::{self, Placement, PlacementState};
use crate::store::tenants::Tenant;
use crate::store::{StoreError, moves};
use crate::usage::metrics;

/// Everything that the engine sees of a tenant; stored with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Stated, joined with what was measured.
    pub profile: Profile,
    /// What was measured.
    pub usage: Usage,
    /// How it lives today.
    pub residence: Residence,
    /// The week's largest figures.
    pub week: WeekPeaks,
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Where the tenant should live.
    pub decision: Decision,
    /// Whether it should move.
    pub migration: Migration,
    /// Who approves the move; none where it stays.
    pub approval: Option<Approval>,
    /// What plan would suit it.
    pub advice: Vec<Advice>,
}

/// Puts the facts before the engine.
pub fn judge(facts: &Facts, catalog: &Catalog) -> Verdict {
    let shared = facts.residence.mode == Mode::MultiTenant;
    let on_server = facts.usage.tenants_on_node.filter(|_| shared);
    let decision = recommend_at(&facts.profile, catalog, on_server);
    let migration = evaluate_migration(facts.residence.mode, &decision, catalog);
    let approval = match migration {
        Migration::Migrate { .. } => {
            Some(auto_approve(&decision, &facts.residence, &facts.usage, catalog))
        }
        Migration::Stay { .. } => None,
    };
    let advice = recommend_plan(&facts.profile, &facts.residence, &facts.week, catalog);
    Verdict { decision, migration, approval, advice }
}

/// Why a tenant's facts can't be had.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// It lives nowhere.
    #[error("tenant {0} has no active placement: there is nothing to evaluate")]
    Homeless(webhost_proto::ids::TenantId),
    /// Its stored profile or plan is refused by today's catalogue.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the facts of `tenant` as of `now`.
///
/// # Errors
/// [`FactsError`].
pub async fn facts(
    client: &impl GenericClient,
    slots: &Slots,
    tenant: &Tenant,
    now: Timestamp,
) -> Result<Facts, FactsError> {
    let home = placements::home(client, tenant.id)
        .await?
        .filter(|home| home.state == PlacementState::Active)
        .ok_or(FactsError::Homeless(tenant.id))?;
    let beside = placements::open_on(client, &[home.node_id.0]).await?;
    let living = beside.iter().filter(|other| other.state == PlacementState::Active).count();
    let usage = measured(slots, &home, u32::try_from(living).ok(), now);
    let stated = stated(tenant)?;
    let catalog = &slots.catalog;
    let profile = Profile::build(&tenant.plan, &stated, &usage, catalog)?;
    let since = placements::in_mode_since(client, tenant.id, home.mode).await?.unwrap_or(now);
    let days = now.duration_since(since).as_hours() / 24;
    let moved = moves::last_plan(client, tenant.id).await?;
    let residence = Residence {
        mode: home.mode,
        plan: served_by(&tenant.plan, moved.as_deref(), home.mode, catalog),
        days_in_mode: u32::try_from(days.max(0)).unwrap_or(u32::MAX),
    };
    let week = slots
        .book
        .tenant(tenant.id, now.as_microsecond())
        .map(|usage| metrics::week_peaks(&usage))
        .unwrap_or_default();
    Ok(Facts { profile, usage, residence, week })
}

/// What the book knows of a tenant that lives at `home`, which `tenants` share.
pub fn measured(slots: &Slots, home: &Placement, tenants: Option<u32>, now: Timestamp) -> Usage {
    let now_us = now.as_microsecond();
    match slots.book.tenant(home.tenant_id, now_us) {
        // Reported by another machine, before a move: it says nothing of here.
        Some(usage) if usage.node == home.node_id => {
            let node = slots.book.node(home.node_id, now_us);
            metrics::for_decision(&usage, node.as_ref(), tenants)
        }
        _ => Usage { tenants_on_node: tenants, ..Usage::default() },
    }
}

/// The plan by which a tenant is served: the one that its last move was made
/// for, where that is of today's mode and more than it bought.
fn served_by(bought: &str, moved: Option<&str>, mode: Mode, catalog: &Catalog) -> PlanName {
    let bought = PlanName::from(bought);
    let moved = moved
        .and_then(|name| catalog.plan(name))
        .filter(|plan| plan.mode == mode)
        .map(|plan| plan.name.clone());
    match moved {
        Some(moved) if catalog.rank(&moved) > catalog.rank(&bought) => moved,
        _ => bought,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_served_by_the_larger_of_what_it_bought_and_what_it_was_moved_for() {
        let catalog = Catalog::default();
        let check = |bought: &str, moved, mode, expected: &str| {
            assert_eq!(served_by(bought, moved, mode, &catalog).as_str(), expected);
        };
        let (multi, single) = (Mode::MultiTenant, Mode::SingleTenant);
        check("hobby", None, multi, "hobby");
        check("hobby", Some("starter"), single, "starter");
        check("business", Some("starter"), single, "business");
        check("hobby", Some("gone"), single, "hobby");
        check("starter", Some("hobby"), multi, "starter");
        check("hobby", Some("starter"), multi, "hobby");
    }
}
