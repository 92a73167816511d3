//! A mode that an administrator forces. It may override the scores and every
//! rule of fit, and lists what it breaks; it never overrides compliance.

use super::amount::Hundredths;
use super::needs::hard_rules;
use super::plans::{Catalog, Mode};
use super::profile::Profile;
use super::recommend::{Choice, Decision, build};
use super::scores::scores;

/// A forced move that must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForceRefused {
    /// A compliance rule forbids the mode.
    #[error("{mode} can't be forced: {rule}; change the tenant's compliance_requirements first")]
    Compliance {
        /// The mode that was asked for.
        mode: Mode,
        /// The rules that forbid it.
        rule: String,
    },
}

/// The decision that `mode` makes: the smallest plan of that mode that
/// satisfies the needs, or its largest; `notes` and `needs_admin` list what it
/// breaks. Its confidence is 1 because a person decided, and nothing is
/// `granted`: what the administrator confirms is the decision itself.
///
/// # Errors
/// [`ForceRefused::Compliance`] when a compliance rule forbids `mode`.
pub fn forced(mode: Mode, profile: &Profile, catalog: &Catalog) -> Result<Decision, ForceRefused> {
    let rules = hard_rules(profile, catalog);
    let broken: Vec<String> = match mode {
        Mode::MultiTenant => rules.iter().map(ToString::to_string).collect(),
        Mode::SingleTenant => Vec::new(),
    };
    let compliance: Vec<String> =
        rules.iter().filter(|rule| rule.is_compliance()).map(ToString::to_string).collect();
    if mode == Mode::MultiTenant && !compliance.is_empty() {
        return Err(ForceRefused::Compliance { mode, rule: compliance.join("; ") });
    }
    let choice = Choice {
        mode,
        confidence: Hundredths::ONE,
        reason: "Manual migration requested by admin".to_owned(),
        scores: scores(profile),
        rules,
        tenants_on_server: None,
    };
    let mut decision = build(choice, profile, catalog);
    decision.forced = true;
    decision.granted = None;
    decision.notes.extend(broken.into_iter().map(|rule| format!("breaks: {rule}")));
    if decision.less_than_bought {
        let (plan, bought) = (&decision.plan, &decision.bought_plan);
        decision.notes.push(format!("breaks: {plan} is less than the bought plan {bought}"));
    }
    Ok(decision)
}
