//! `evaluate`: what an evaluation would decide now, without doing it.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use webhost_proto::ids::TenantId;

use super::fleet::desk;
use super::{CliError, Format, output};
use crate::config::Config;
use crate::decide::Catalog;
use crate::decide::migrate::{Approval, Migration};
use crate::evaluate::judge::{self, judge};
use crate::evaluate::{Facts, FactsError, Verdict};
use crate::slots::Slots;
use crate::store::{Store, evaluation, tenants};
use crate::usage::rollup;

/// Who is looked at.
#[derive(Clone, Debug, Args)]
pub(super) struct Given {
    /// Its slug or id; every active tenant without one.
    tenant: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// What would be decided about one tenant.
#[derive(Debug, Serialize)]
struct Looked {
    tenant: TenantId,
    slug: String,
    /// None where it can't be evaluated; `error` says why.
    facts: Option<Facts>,
    verdict: Option<Verdict>,
    error: Option<String>,
}

pub(super) async fn run(config: &Config, store: &Store, given: Given) -> Result<(), CliError> {
    let slots = desk(config, store).slots;
    let now = Timestamp::now();
    rollup::reload(store, &slots.book, now).await?;
    let looked = look(store, &slots, given.tenant.as_deref(), now).await?;
    if given.format.json {
        return output::json(&looked);
    }
    let rows = looked.iter().map(|one| row(one, &slots.catalog)).collect();
    output::table(&["TENANT", "LIVES", "WOULD", "CONFIDENCE", "APPROVED BY", "PLAN", "WHY"], rows)?;
    output::line(
        "nothing was decided: the service evaluates by the clock and when a limit is crossed",
    )
}

/// What would be decided of the tenant of that name, or of all active ones, by
/// their slugs.
async fn look(
    store: &Store,
    slots: &Slots,
    name: Option<&str>,
    now: Timestamp,
) -> Result<Vec<Looked>, CliError> {
    let client = store.client().await?;
    let mut candidates = evaluation::candidates(&**client).await?;
    if let Some(name) = name {
        let found = match name.parse::<TenantId>() {
            Ok(id) => tenants::get(&**client, id).await?,
            Err(_) => tenants::by_slug(&**client, name).await?,
        };
        let none = || CliError::Other(format!("there is no tenant {name:?}"));
        let id = found.ok_or_else(none)?.id;
        candidates.retain(|candidate| candidate.tenant == id);
        if candidates.is_empty() {
            let why = "is not active: only active tenants are evaluated";
            return Err(CliError::Other(format!("{name} {why}")));
        }
    }
    let mut looked = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let Some(row) = tenants::get(&**client, candidate.tenant).await? else { continue };
        let (facts, error) = match judge::facts(&**client, slots, &row, now).await {
            Ok(facts) => (Some(facts), None),
            Err(FactsError::Store(error)) => return Err(error.into()),
            Err(error) => (None, Some(error.to_string())),
        };
        let verdict = facts.as_ref().map(|facts| judge(facts, &slots.catalog));
        looked.push(Looked { tenant: row.id, slug: row.slug, facts, verdict, error });
    }
    looked.sort_by(|a, b| a.slug.cmp(&b.slug));
    Ok(looked)
}

fn row(one: &Looked, catalog: &Catalog) -> Vec<String> {
    let (Some(facts), Some(verdict)) = (&one.facts, &one.verdict) else {
        let why = one.error.clone().unwrap_or_default();
        let none = String::new;
        return vec![one.slug.clone(), none(), none(), none(), none(), none(), why];
    };
    let (would, why) = match &verdict.migration {
        Migration::Migrate { to, .. } => (format!("move, {to}"), verdict.decision.reason.clone()),
        Migration::Stay { why } => ("stay".to_owned(), why.clone()),
    };
    let approved = match &verdict.approval {
        None => "–",
        Some(Approval::Auto { .. }) => "rule",
        Some(Approval::Admin { .. }) => "a person",
    };
    let bought = &facts.residence.plan;
    let plan = match verdict.advice.first() {
        Some(advice) => format!("{bought}, better {}", advice.to),
        None if catalog.plan(bought.as_str()).is_none() => {
            format!("{bought}, not in the catalogue")
        }
        None => bought.to_string(),
    };
    vec![
        one.slug.clone(),
        facts.residence.mode.to_string(),
        would,
        verdict.decision.confidence.to_string(),
        approved.to_owned(),
        plan,
        why,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::plans::NodeKind;
    use crate::link::NodeEvents;
    use crate::store::{decisions, moves};
    use crate::world::{World, catalog, report, small};

    #[tokio::test]
    async fn what_would_be_decided_is_shown_and_nothing_is_written() {
        let world = World::new(catalog(7)).await;
        let node = world.node("shared-1", NodeKind::Shared).await;
        let (calm, _) = world.sign_up(small("calm")).await;
        let (busy, _) = world.sign_up(small("busy")).await;
        let rows = [(calm, 10, 3), (busy, 10, 700)];
        world.ingest.report(node, report(1, &rows)).await.expect("applies");
        world.sign_up(small("new")).await;
        let (slots, now) = (&world.desk.slots, Timestamp::now());
        let look = async |name| look(&world.store, slots, name, now).await;
        let client = world.store.client().await.expect("a client");
        let decided = async || {
            let rows = decisions::list(&**client, None, None, 100).await.expect("reads");
            rows.iter().map(|row| row.id).collect::<Vec<_>>()
        };
        let before = decided().await;
        let all = look(None).await.expect("looks");
        let slugs: Vec<&str> = all.iter().map(|one| one.slug.as_str()).collect();
        assert_eq!(slugs, ["busy", "calm"], "the new one is not active yet");
        let shown: Vec<Vec<String>> = all.iter().map(|one| row(one, &slots.catalog)).collect();
        assert_eq!(
            (shown[0][1].as_str(), shown[0][2].as_str()),
            ("multi_tenant", "move, single_tenant")
        );
        assert_eq!(shown[1][2], "stay", "{shown:?}");
        assert_eq!(look(Some("calm")).await.expect("looks").len(), 1);
        let error = look(Some("nobody")).await.expect_err("refused").to_string();
        assert_eq!(error, "there is no tenant \"nobody\"");
        let error = look(Some("new")).await.expect_err("refused").to_string();
        assert_eq!(error, "new is not active: only active tenants are evaluated");
        assert_eq!(decided().await, before);
        assert!(moves::open_of(&**client, busy).await.expect("reads").is_none());
    }
}
