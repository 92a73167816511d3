//! The decision: mode, plan, and everything that led to them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::amount::{Cents, Hundredths};
use super::cost;
use super::needs::{HardRule, Unmet, hard_rules, smallest};
use super::plans::{Catalog, Infrastructure, Mode, Plan, PlanName};
use super::profile::{Compliance, Profile};
use super::scores::{Scores, Totals, scores};

/// What is to be put in place for a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Shared or its own.
    pub mode: Mode,
    /// Whose machines.
    pub infrastructure: Infrastructure,
    /// By which plan's sizes.
    pub plan: PlanName,
}

impl Target {
    fn of(plan: &Plan) -> Self {
        Self {
            mode: plan.mode,
            infrastructure: plan.mode.infrastructure(),
            plan: plan.name.clone(),
        }
    }
}

/// Another way to house the tenant that is worth a thought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alternative {
    /// Its mode.
    pub mode: Mode,
    /// Its plan: the smallest of that mode that satisfies the needs.
    pub plan: PlanName,
    /// Why one would.
    pub reason: String,
    /// Dollars a month that it would cost us more, where it costs more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimated_cost_increase: Option<Cents>,
    /// Dollars a month that it would save us, where it saves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimated_cost_savings: Option<Cents>,
    /// What the customer would pay more (or less) a month, in dollars.
    pub price_change: Cents,
    /// What that plan leaves unmet.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unmet_needs: Vec<Unmet>,
}

/// What the engine answers. It goes into the audit table as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// The recommended mode.
    pub mode: Mode,
    /// Who provides its machines.
    pub infrastructure: Infrastructure,
    /// The recommended plan: the smallest of that mode that satisfies every
    /// need, or the largest with `unmet_needs`.
    pub plan: PlanName,
    /// Why, in the seeds' words, the hard rules named.
    pub reason: String,
    /// 0..=1: the chosen score, or 1 by a hard rule.
    pub confidence: Hundredths,
    /// Both scores, whatever decided.
    pub scores: Scores,
    /// The rules that forbid a shared server.
    pub hard_rules: Vec<HardRule>,
    /// A compliance rule forbids a shared server: a tenant that lives on one
    /// all the same has a compliance issue.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compliance_issue: Option<String>,
    /// A need that no shared plan satisfies: a tenant that lives on a shared
    /// server all the same has a fit issue.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fit_issue: Option<String>,
    /// What the recommended plan leaves unsatisfied.
    pub unmet_needs: Vec<Unmet>,
    /// The plan that the customer pays for.
    pub bought_plan: PlanName,
    /// The recommendation is less than that.
    pub less_than_bought: bool,
    /// What may be put in place without asking: the recommendation, raised to
    /// the bought plan. None while a need is unmet: an administrator must look.
    pub granted: Option<Target>,
    /// Why an administrator must approve the recommendation as it stands;
    /// empty: nobody need be asked on the plan's account.
    pub needs_admin: Vec<String>,
    /// Other ways.
    pub alternatives: Vec<Alternative>,
    /// What to know: a latency that is best effort, what a forced move breaks.
    pub notes: Vec<String>,
    /// What the recommended plan costs us a month, in dollars.
    pub monthly_cost: Cents,
    /// True when an administrator forced the mode.
    pub forced: bool,
}

/// Recommends where a tenant should live. Shared costs are estimated for a
/// full server; [`recommend_at`] takes the real number of tenants on it.
///
/// ```
/// use webhost_coordinator::decide::{Catalog, Mode, Profile, recommend};
/// let catalog = Catalog::default();
/// let profile =
///     Profile::build("hobby", &Default::default(), &Default::default(), &catalog).unwrap();
/// let decision = recommend(&profile, &catalog);
/// assert_eq!((decision.mode, decision.plan.as_str()), (Mode::MultiTenant, "hobby"));
/// ```
pub fn recommend(profile: &Profile, catalog: &Catalog) -> Decision {
    recommend_at(profile, catalog, None)
}

/// [`recommend`], with the costs of a shared server that carries
/// `tenants_on_server` tenants.
pub fn recommend_at(
    profile: &Profile,
    catalog: &Catalog,
    tenants_on_server: Option<u32>,
) -> Decision {
    let scores = scores(profile);
    let totals = Totals { multi_tenant: scores.multi_tenant, single_tenant: scores.single_tenant };
    let rules = hard_rules(profile, catalog);
    let (mode, confidence) = if rules.is_empty() {
        totals.choose(catalog.thresholds.choose_score)
    } else {
        (Mode::SingleTenant, Hundredths::ONE)
    };
    let reason = reason(mode, profile, confidence, &rules);
    build(Choice { mode, confidence, reason, scores, rules, tenants_on_server }, profile, catalog)
}

/// A mode that is chosen, and by what.
pub(super) struct Choice {
    pub(super) mode: Mode,
    pub(super) confidence: Hundredths,
    pub(super) reason: String,
    pub(super) scores: Scores,
    pub(super) rules: Vec<HardRule>,
    pub(super) tenants_on_server: Option<u32>,
}

/// The decision around a chosen mode.
pub(super) fn build(choice: Choice, profile: &Profile, catalog: &Catalog) -> Decision {
    let Choice { mode, confidence, reason, scores, rules, tenants_on_server } = choice;
    let found = smallest(profile, mode, catalog);
    let plan = found.as_ref().map(|(plan, _)| *plan);
    let unmet_needs = found.map(|(_, unmet)| unmet).unwrap_or_default();
    let bought = catalog.plan(profile.plan.as_str());
    let rank = |plan: Option<&Plan>| plan.and_then(|plan| catalog.rank(&plan.name));
    let less_than_bought = rank(plan) < rank(bought);

    let mut needs_admin = Vec::new();
    if plan.is_none() {
        needs_admin.push(format!("the catalogue has no {mode} plan"));
    }
    if !unmet_needs.is_empty() {
        needs_admin.push(format!("no plan satisfies: {}", list(&unmet_needs)));
    }
    let granted = if !needs_admin.is_empty() {
        None
    } else if less_than_bought {
        bought.map(Target::of)
    } else {
        plan.map(Target::of)
    };
    let name = plan.map_or_else(|| profile.plan.clone(), |plan| plan.name.clone());
    if less_than_bought {
        needs_admin.push(format!("{name} is less than the bought plan {}", profile.plan));
    }
    let issue = |compliance: bool| {
        let rules: Vec<&HardRule> =
            rules.iter().filter(|rule| rule.is_compliance() == compliance).collect();
        (!rules.is_empty()).then(|| list(&rules))
    };
    let (compliance_issue, fit_issue) = (issue(true), issue(false));
    let price_of = Prices { catalog, tenants_on_server };
    Decision {
        mode,
        infrastructure: mode.infrastructure(),
        plan: name,
        reason,
        confidence,
        scores,
        compliance_issue,
        fit_issue,
        unmet_needs,
        bought_plan: profile.plan.clone(),
        less_than_bought,
        granted,
        needs_admin,
        alternatives: alternatives(mode, plan, profile, &rules, &price_of),
        notes: best_effort(plan, profile).into_iter().collect(),
        monthly_cost: plan.map(|plan| price_of.cost(plan)).unwrap_or_default(),
        hard_rules: rules,
        forced: false,
    }
}

impl Decision {
    /// An administrator lets it be put in place although `unmet` needs stay:
    /// the recommended plan is granted where it leaves just those. The mode
    /// stays as it is, so no hard rule is overridden.
    pub fn allow(&mut self, unmet: &[Unmet], by: &str, catalog: &Catalog) {
        if self.granted.is_some() || self.unmet_needs.is_empty() || self.unmet_needs != unmet {
            return;
        }
        let of =
            |name: &PlanName| catalog.plan(name.as_str()).filter(|plan| plan.mode == self.mode);
        // Never less than what is paid for.
        let plan = if self.less_than_bought { of(&self.bought_plan) } else { of(&self.plan) };
        self.granted = plan.map(Target::of);
        if self.granted.is_some() {
            self.notes.push(format!("{by} allows what stays unmet: {}", list(&self.unmet_needs)));
        }
    }
}

/// Costs of plans, with the number of tenants that a shared server has.
struct Prices<'a> {
    catalog: &'a Catalog,
    tenants_on_server: Option<u32>,
}

impl Prices<'_> {
    fn cost(&self, plan: &Plan) -> Cents {
        let full = || cost::full_server(plan, self.catalog);
        cost::of_plan(plan, &self.catalog.costs, self.tenants_on_server.unwrap_or_else(full))
    }
}

fn alternatives(
    mode: Mode,
    plan: Option<&Plan>,
    profile: &Profile,
    rules: &[HardRule],
    prices: &Prices<'_>,
) -> Vec<Alternative> {
    let regimes = &profile.compliance_requirements;
    let (other, reason, offered) = match mode {
        Mode::MultiTenant => (
            Mode::SingleTenant,
            "Consider upgrading if growth continues",
            profile.vehicle_count > 8 || !regimes.is_empty(),
        ),
        Mode::SingleTenant => (
            Mode::MultiTenant,
            "Could save costs with shared resources",
            // A shared server that a rule forbids is no alternative.
            profile.vehicle_count <= 5
                && profile.budget < Cents::dollars(100)
                && regimes.is_empty()
                && rules.is_empty(),
        ),
    };
    let found = smallest(profile, other, prices.catalog);
    let (Some(plan), Some((alternative, unmet_needs)), true) = (plan, found, offered) else {
        return Vec::new();
    };
    let change = prices.cost(alternative) - prices.cost(plan);
    let saving = Cents(0) - change;
    vec![Alternative {
        mode: other,
        plan: alternative.name.clone(),
        reason: reason.to_owned(),
        estimated_cost_increase: (change >= Cents(0)).then_some(change),
        estimated_cost_savings: (saving > Cents(0)).then_some(saving),
        price_change: alternative.price - plan.price,
        unmet_needs,
    }]
}

/// On a shared server a response time is best effort, and the decision says so
/// where one was wanted that the table only just promises.
fn best_effort(plan: Option<&Plan>, profile: &Profile) -> Option<String> {
    let plan = plan.filter(|plan| plan.mode == Mode::MultiTenant)?;
    (profile.latency_requirement < 100).then(|| {
        format!(
            "{} ms is best effort on a shared server ({} states p95 {} ms)",
            profile.latency_requirement, plan.name, plan.p95_ms
        )
    })
}

/// The seeds' sentence. Their code puts each fragment before those it has, so
/// the last one tested is read first; that order is kept.
fn reason(mode: Mode, profile: &Profile, confidence: Hundredths, rules: &[HardRule]) -> String {
    let regimes = &profile.compliance_requirements;
    let (kind, fragments) = match mode {
        Mode::MultiTenant => (
            "multi-tenant",
            vec![
                (regimes.is_empty(), "No special compliance needs"),
                (profile.vehicle_count <= 5, "Small fleet size"),
                (profile.budget < Cents::dollars(50), "Budget-conscious customer"),
            ],
        ),
        Mode::SingleTenant => (
            "single-tenant",
            vec![
                (profile.latency_requirement < 50, "High performance requirements"),
                (regimes.contains(&Compliance::Hipaa), "HIPAA compliance required"),
                (regimes.contains(&Compliance::Soc2), "SOC 2 compliance required"),
                (profile.vehicle_count > 10, "Large fleet requires dedicated resources"),
            ],
        ),
    };
    let mut parts: Vec<String> = fragments
        .into_iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, fragment)| fragment.to_owned())
        .collect();
    parts.extend(rules.iter().map(|rule| format!("hard rule: {rule}")));
    let colon = if parts.is_empty() { "" } else { ": " };
    let parts = parts.join(", ");
    format!("Recommended {kind} deployment{colon}{parts} (confidence: {confidence})")
}

pub(super) fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
