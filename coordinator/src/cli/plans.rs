//! `plan`, `drain`, `explain` and `simulate`: what placement would do, and why.
//! Nothing moves without --apply, and then by the moves' own way: each is
//! looked at again when it begins, and keeps to their limits.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use webhost_proto::ids::{NodeId, TenantId};

use super::drain::{minute, window};
use super::fleet::{MOST, OPERATOR, desk};
use super::{CliError, Format, output};
use crate::config::Config;
use crate::decide::NodeShape;
use crate::evaluate::{self, accuracy as outcomes};
use crate::fleet::forecast::shape_for;
use crate::fleet::growth::{Growth, Week, chart, grow};
use crate::fleet::plan::{Move as Step, Overload, Why};
use crate::fleet::words::words;
use crate::fleet::{Plan, Policy, Refusal, Snapshot, Verdict, explain, plan, verify};
use crate::moves::Rules;
use crate::moves::drains::ahead::Ahead;
use crate::moves::drains::policy;
use crate::slots::Slots;
use crate::store::{Store, nodes, tenants};
use crate::usage::rollup;

pub(super) const NOT_APPLIED: &str = "nothing was moved; add --apply to begin the moves";

/// Whether the plan is carried out, and how it is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Carry {
    /// Begin the moves; without it, nothing is changed.
    #[arg(long)]
    pub(super) apply: bool,
    #[command(flatten)]
    pub(super) format: Format,
}

/// What to simulate.
#[derive(Clone, Debug, Args)]
pub(super) struct Simulate {
    /// Tenants in the first week.
    #[arg(long, default_value_t = 40)]
    from: u32,
    /// Tenants in the last week.
    #[arg(long, default_value_t = 4000)]
    to: u32,
    /// How many weeks.
    #[arg(long, default_value_t = 52, value_parser = clap::value_parser!(u32).range(2..=520))]
    weeks: u32,
    /// The same seed gives the same tenants.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write a chart there as well.
    #[arg(long)]
    svg: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// The fleet as it is, with the names that people know.
struct Survey {
    snapshot: Snapshot,
    policy: Policy,
    shapes: Vec<NodeShape>,
    nodes: HashMap<NodeId, String>,
    slugs: HashMap<TenantId, String>,
    slots: Slots,
    ahead: Ahead,
    now: Timestamp,
}

impl Survey {
    async fn of(config: &Config, store: &Store) -> Result<Self, CliError> {
        let slots = desk(config, store).slots;
        let now = Timestamp::now();
        rollup::reload(store, &slots.book, now).await?;
        let client = store.client().await?;
        let snapshot = slots.survey(&**client, now).await?;
        let nodes = nodes::list(&**client, None, MOST).await?;
        let tenants = tenants::list(&**client, None, None, MOST).await?;
        let rules = Rules::from(&config.moves);
        let ahead = Ahead::read(&**client, &slots, &rules, now).await?;
        Ok(Self {
            snapshot,
            policy: policy(&slots, &rules),
            shapes: config.catalog.shapes.clone(),
            nodes: nodes.into_iter().map(|node| (node.id, node.name)).collect(),
            slugs: tenants.into_iter().map(|tenant| (tenant.id, tenant.slug)).collect(),
            slots,
            ahead,
            now,
        })
    }

    fn node(&self, id: NodeId) -> String {
        self.nodes.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    fn slug(&self, id: TenantId) -> String {
        self.slugs.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Other(error.to_string())
}

pub(super) async fn plan_all(config: &Config, store: &Store, carry: Carry) -> Result<(), CliError> {
    let survey = Survey::of(config, store).await?;
    let made = plan(&survey.snapshot, &survey.policy).map_err(failed)?;
    carry_out(store, &survey, &made, carry).await
}

/// Prints the plan, and begins its moves where that was asked for. A plan that
/// the checker does not pass is neither.
async fn carry_out(
    store: &Store,
    survey: &Survey,
    plan: &Plan,
    carry: Carry,
) -> Result<(), CliError> {
    verify(&survey.snapshot, &survey.policy, plan).map_err(|broken| {
        failed(format!("the plan does not pass its own check and is dropped: {broken}"))
    })?;
    if carry.format.json {
        output::json(plan)?;
    } else {
        print(survey, plan)?;
    }
    if !carry.apply {
        let left = !plan.waves.is_empty() && !carry.format.json;
        return if left { output::line(NOT_APPLIED) } else { Ok(()) };
    }
    let steps: Vec<Step> = plan.moves().copied().collect();
    begin(store, &survey.slots, &steps, |id| survey.slug(id), carry).await
}

/// Begins moves in their order, and prints what came of each.
pub(super) async fn begin(
    store: &Store,
    slots: &Slots,
    steps: &[Step],
    slug: impl Fn(TenantId) -> String,
    carry: Carry,
) -> Result<(), CliError> {
    let mut refused = 0;
    for (tenant, begun) in evaluate::carry(store, slots, steps, OPERATOR).await {
        let line = match begun {
            Ok(id) => format!("{}: move {id} is asked for", slug(tenant)),
            Err(error) => {
                refused += 1;
                format!("{}: {error}", slug(tenant))
            }
        };
        if !carry.format.json {
            output::line(&line)?;
        }
    }
    match refused {
        0 => Ok(()),
        n => Err(failed(format!("{n} moves could not begin; plan again for what is left"))),
    }
}

fn print(survey: &Survey, plan: &Plan) -> Result<(), CliError> {
    let snapshot = &survey.snapshot;
    output::line(&format!(
        "{} tenants that could be moved, on {} shared nodes",
        snapshot.tenants.len(),
        snapshot.nodes.len()
    ))?;
    let overloads = |overloads: &[Overload], end: &str| -> Result<(), CliError> {
        for one in overloads {
            let at = one.hour.map_or_else(String::new, |hour| format!(" at {hour:02}:00 UTC"));
            output::line(&format!(
                "{} is overloaded: {} of {}{at}{}; {end}",
                survey.node(one.node),
                one.dimension.show(one.carries),
                one.dimension.show(one.limit),
                one.noisiest.map_or_else(String::new, |tenant| format!(
                    ", most of all by {}",
                    survey.slug(tenant)
                )),
            ))?;
        }
        Ok(())
    };
    overloads(&plan.relieved, "it will be relieved")?;
    overloads(&plan.overloaded, "not enough of it fits elsewhere: one more shared node is needed")?;
    for stuck in &plan.stuck {
        let need = snapshot.tenants.iter().find(|tenant| tenant.id == stuck.tenant);
        let shape = need.and_then(|one| shape_for(&one.need, &survey.shapes, &survey.policy));
        let then = match shape {
            Some(shape) => format!("one more shared node is needed, {}", shape.name),
            None => "it needs a node of its own".to_owned(),
        };
        let (slug, node) = (survey.slug(stuck.tenant), survey.node(stuck.node));
        output::line(&format!("{slug} must leave {node} and fits nowhere: {then}"))?;
    }
    if plan.waves.is_empty() {
        return output::line("no moves");
    }
    let steps: Vec<Step> = plan.moves().copied().collect();
    let mut times = survey.ahead.times(&steps, &survey.slots, survey.now).into_iter();
    let mut rows = Vec::new();
    for (wave, moves) in (1..).zip(&plan.waves) {
        for step in moves {
            let times = times.next().unwrap_or_default();
            rows.push(vec![
                format!("{wave}"),
                survey.slug(step.tenant),
                survey.node(step.from),
                survey.node(step.to),
                match step.why {
                    Why::Relieve => "relieve",
                    Why::Drain => "drain",
                    Why::Consolidate => "consolidate",
                }
                .to_owned(),
                step.disk.to_string(),
                window(times.window, survey.now),
                minute(times.begins),
                minute(times.ends),
            ]);
        }
    }
    let headings =
        ["WAVE", "TENANT", "FROM", "TO", "WHY", "MIB", "NEXT WINDOW", "BEGINS (UTC)", "ENDS (UTC)"];
    output::table(&headings, rows)?;
    for node in &plan.emptied {
        output::line(&format!("{} is empty then", survey.node(*node)))?;
    }
    output::line("times are estimates, after the moves that wait already")
}

pub(super) async fn explain_one(
    config: &Config,
    store: &Store,
    name: &str,
    format: Format,
) -> Result<(), CliError> {
    let survey = Survey::of(config, store).await?;
    let by_slug = survey.slugs.iter().find(|(_, slug)| *slug == name).map(|(id, _)| *id);
    let Some(tenant) = name.parse::<TenantId>().ok().or(by_slug) else {
        return Err(failed(format!("there is no tenant {name:?}")));
    };
    let lines = explain(&survey.snapshot, &survey.policy, tenant).map_err(failed)?;
    let lines = lines.ok_or_else(|| {
        failed(format!("{name} can't be moved now: it is not active on a shared node, or moves"))
    })?;
    if format.json {
        return output::json(&lines);
    }
    let rows = lines.iter().map(|line| {
        let (verdict, why) = match line.verdict {
            Verdict::Home { binding, filled } => (
                "home".to_owned(),
                format!("its {binding} is at {} % of what may be filled", filled.0),
            ),
            Verdict::Fits { rank, binding, filled } => {
                (format!("fits, {rank}"), format!("its {binding} would be at {} %", filled.0))
            }
            Verdict::Refused(refusal) => ("no".to_owned(), said(&survey, &refusal)),
        };
        vec![survey.node(line.node), verdict, why]
    });
    output::table(&["NODE", "VERDICT", "WHY"], rows.collect())
}

/// A refusal in a few words.
fn said(survey: &Survey, refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoRoomIn { dimension, hour, wanted, free } => {
            let at = hour.map_or_else(String::new, |hour| format!(" at {hour:02}:00 UTC"));
            let missing = dimension.show(wanted.saturating_sub(*free));
            format!("{missing} missing{at}: {} wanted", dimension.show(*wanted))
        }
        Refusal::Full { tenants } => format!("all slots are taken: {tenants}"),
        Refusal::NotActive { standing } => format!("it is {standing:?}").to_lowercase(),
        Refusal::NotSeen => "its agent is silent".to_owned(),
        Refusal::OtherRegion => "it stands elsewhere".to_owned(),
        Refusal::Pinned { node } => format!("the tenant is pinned to {}", survey.node(*node)),
        Refusal::Apart { tenant } => format!("{} lives there", survey.slug(*tenant)),
        Refusal::JustLeft => "the tenant left it within the week".to_owned(),
        other => format!("it {}", words(other.kind(), 1)),
    }
}

pub(super) async fn accuracy(
    config: &Config,
    store: &Store,
    days: u32,
    format: Format,
) -> Result<(), CliError> {
    let client = store.client().await?;
    let thresholds = &config.catalog.thresholds;
    let found = outcomes::of_days(&**client, thresholds, days, Timestamp::now()).await?;
    if format.json {
        return output::json(&found);
    }
    let row = |what: &str, part: u64, whole: u64, percent: Option<u64>| {
        let percent = percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent} %"));
        vec![what.to_owned(), part.to_string(), whole.to_string(), percent]
    };
    let ended = found.issues_ended_percent;
    let rows = vec![
        row("tenants that stayed for 7 days", found.stayed, found.stays, found.stayed_percent),
        row("performance issues that ended", found.issues_ended, found.with_issues, ended),
        row(
            "decisions for another mode than before",
            found.changed_mind,
            found.reconsidered,
            found.changed_mind_percent,
        ),
    ];
    output::table(&["WHAT", "COUNT", "OF", "SHARE"], rows)
}

/// The year of growth: made-up tenants, the real catalogue and policy.
pub(super) fn simulate(config: &Config, what: &Simulate) -> Result<(), CliError> {
    let growth = Growth { from: what.from, to: what.to, weeks: what.weeks, seed: what.seed };
    let weeks = grow(&config.catalog, &Policy::of(&config.catalog), &growth)
        .ok_or_else(|| failed("the catalogue has no shape of a shared node"))?;
    if let Some(path) = &what.svg {
        std::fs::write(path, chart::svg(&weeks))
            .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    }
    if what.format.json {
        return output::json(&json!({ "growth": growth, "weeks": weeks }));
    }
    let row = |week: &Week| {
        vec![
            week.week.to_string(),
            week.tenants.to_string(),
            week.servers.to_string(),
            week.bound.to_string(),
            format!("{}.{:02}", week.cents_per_tenant / 100, week.cents_per_tenant % 100),
            week.moves.to_string(),
            week.overloaded.to_string(),
        ]
    };
    let headings = ["WEEK", "TENANTS", "SERVERS", "AT LEAST", "$/TENANT", "MOVES", "OVERLOADED"];
    output::table(&headings, weeks.iter().map(row).collect())
}
