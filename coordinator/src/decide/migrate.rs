//! Whether a tenant should change its mode, and who may say yes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::amount::BasisPoints;
use super::plans::{Catalog, Mode, PlanName, Thresholds};
use super::profile::Usage;
use super::recommend::Decision;

/// How a tenant lives today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Residence {
    /// Its mode.
    pub mode: Mode,
    /// The plan by whose sizes and retention it is served, which may be more
    /// than it bought.
    pub plan: PlanName,
    /// Whole days since it came into this mode.
    pub days_in_mode: u32,
}

/// Whether to change the mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Migration {
    /// Another mode is recommended, with enough confidence.
    Migrate {
        /// From this mode.
        from: Mode,
        /// To this one.
        to: Mode,
        /// It lives where a compliance rule forbids it.
        compliance_issue: bool,
        /// It lives where its needs don't fit.
        fit_issue: bool,
    },
    /// It stays.
    Stay {
        /// Why.
        why: String,
    },
}

/// Compares the recommendation with today's mode: migrate if it differs and
/// the confidence is above `migrate_confidence`.
pub fn evaluate_migration(current: Mode, decision: &Decision, catalog: &Catalog) -> Migration {
    let needed = catalog.thresholds.migrate_confidence;
    if decision.mode == current {
        return Migration::Stay { why: format!("{current} is the recommended mode") };
    }
    if decision.confidence <= needed {
        let confidence = decision.confidence;
        let why = format!("confidence {confidence} in {} is not above {needed}", decision.mode);
        return Migration::Stay { why };
    }
    let shared = current == Mode::MultiTenant;
    Migration::Migrate {
        from: current,
        to: decision.mode,
        compliance_issue: shared && decision.compliance_issue.is_some(),
        fit_issue: shared && decision.fit_issue.is_some(),
    }
}

/// What makes a tenant's service bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "issue")]
pub enum PerformanceIssue {
    /// Its mean response takes too long.
    SlowResponses {
        /// Milliseconds.
        milliseconds: u32,
    },
    /// Too many of its requests fail.
    Errors {
        /// Share of requests.
        rate: BasisPoints,
    },
    /// Its machine is busy, and it is among the causes.
    BusyNode {
        /// CPU in use, share of the machine.
        cpu: BasisPoints,
    },
}

/// The performance issues that `usage` shows. A tenant is among the causes of
/// a busy machine if it is alone there, or takes at least an equal share (the
/// machine's use divided by its tenants).
pub fn performance_issues(usage: &Usage, thresholds: &Thresholds) -> Vec<PerformanceIssue> {
    let mut issues = Vec::new();
    if let Some(milliseconds) = usage.average_response_time_ms
        && milliseconds > thresholds.slow_response_ms
    {
        issues.push(PerformanceIssue::SlowResponses { milliseconds });
    }
    if let Some(rate) = usage.error_rate
        && rate > thresholds.error_rate
    {
        issues.push(PerformanceIssue::Errors { rate });
    }
    if let Some(cpu) = usage.node_cpu
        && cpu > thresholds.node_cpu
        && among_causes(cpu, usage)
    {
        issues.push(PerformanceIssue::BusyNode { cpu });
    }
    issues
}

fn among_causes(node: BasisPoints, usage: &Usage) -> bool {
    match (usage.cpu_of_node, usage.tenants_on_node) {
        (_, Some(0 | 1)) => true,
        (Some(own), Some(tenants)) => own.0.saturating_mul(i64::from(tenants)) >= node.0,
        _ => false,
    }
}

/// Which rule approves a move without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalRule {
    /// High confidence, and a performance or compliance issue.
    ConfidentWithIssue,
    /// Very high confidence, and long enough in its mode.
    ConfidentAndSettled,
}

/// Who approves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "approval")]
pub enum Approval {
    /// Nobody need be asked.
    Auto {
        /// By this rule.
        rule: ApprovalRule,
        /// With these facts.
        because: String,
    },
    /// An administrator must approve.
    Admin {
        /// Why, one reason an entry; never empty.
        why: Vec<String>,
    },
}

/// Decides who approves moving a tenant from `residence` to what `decision`
/// recommends. What the plan protects comes first: an unmet need, less than
/// the bought plan, a shorter retention or a smaller limit than today's always
/// asks an administrator, however high the confidence.
pub fn auto_approve(
    decision: &Decision,
    residence: &Residence,
    usage: &Usage,
    catalog: &Catalog,
) -> Approval {
    let mut why = decision.needs_admin.clone();
    why.extend(shrinks(residence, decision, catalog));
    if !why.is_empty() {
        return Approval::Admin { why };
    }
    let t = &catalog.thresholds;
    let confidence = decision.confidence;
    let issues = performance_issues(usage, t);
    let forbidden = decision
        .compliance_issue
        .as_ref()
        .filter(|_| residence.mode == Mode::MultiTenant && decision.mode == Mode::SingleTenant);
    let issue = forbidden.cloned().or_else(|| issues.first().map(describe));
    if confidence > t.approve_confidence_with_issue
        && let Some(issue) = &issue
    {
        let because = format!("confidence {confidence}, and {issue}");
        return Approval::Auto { rule: ApprovalRule::ConfidentWithIssue, because };
    }
    let days = residence.days_in_mode;
    if confidence > t.approve_confidence_settled && days > t.settled_days {
        let because = format!("confidence {confidence}, and {days} days in {}", residence.mode);
        return Approval::Auto { rule: ApprovalRule::ConfidentAndSettled, because };
    }
    if confidence <= t.approve_confidence_with_issue {
        let least = t.approve_confidence_with_issue;
        why.push(format!("confidence {confidence} is not above {least}"));
    }
    if issue.is_none() {
        why.push("no performance or compliance issue".to_owned());
    }
    if confidence <= t.approve_confidence_settled {
        let least = t.approve_confidence_settled;
        why.push(format!("confidence {confidence} is not above {least}"));
    }
    if days <= t.settled_days {
        why.push(format!("{days} days in {} are not more than {}", residence.mode, t.settled_days));
    }
    Approval::Admin { why }
}

fn describe(issue: &PerformanceIssue) -> String {
    match issue {
        PerformanceIssue::SlowResponses { milliseconds } => {
            format!("a mean response of {milliseconds} ms")
        }
        PerformanceIssue::Errors { rate } => format!("an error rate of {rate}"),
        PerformanceIssue::BusyNode { cpu } => {
            format!("a share of {cpu} of its machine's CPU in use, to which it contributes")
        }
    }
}

/// What the tenant would lose against how it is served today.
fn shrinks(residence: &Residence, decision: &Decision, catalog: &Catalog) -> Vec<String> {
    let Some(after) = catalog.plan(decision.plan.as_str()) else {
        return vec![format!("plan {} is not in the catalogue", decision.plan)];
    };
    let Some(before) = catalog.plan(residence.plan.as_str()) else {
        return vec![format!("today's plan {} is not in the catalogue", residence.plan)];
    };
    let limits = [
        ("retention_days", u64::from(before.retention_days), u64::from(after.retention_days)),
        ("vehicles", u64::from(before.vehicles), u64::from(after.vehicles)),
        ("gps_points_per_day", before.gps_points_per_day, after.gps_points_per_day),
        ("storage_mb", before.storage_mb(), after.storage_mb()),
        ("users", u64::from(before.users), u64::from(after.users)),
        ("regions", before.regions.len() as u64, after.regions.len() as u64),
        (
            "gps_points_per_second",
            u64::from(before.gps_points_per_second),
            u64::from(after.gps_points_per_second),
        ),
        (
            "queries_per_second",
            u64::from(before.queries_per_second),
            u64::from(after.queries_per_second),
        ),
    ];
    limits
        .into_iter()
        .filter(|(_, before, after)| after < before)
        .map(|(limit, before, after)| format!("{limit} would shrink from {before} to {after}"))
        .collect()
}
