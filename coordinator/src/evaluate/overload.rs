//! Shared nodes that are overloaded: looked for every five minutes, and told in
//! the audit trail once a UTC day, with the tenant that causes it most and the
//! moves that would end it. It moves nobody: `plan --apply` does.
//!
//! One look above the limit is none yet: a node is overloaded when two of the last
//! three are.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tracing::warn;
use webhost_proto::ids::{NodeId, TenantId};

use super::Evaluator;
use crate::fleet::plan::{Overload, Why};
use crate::fleet::{Plan, Policy, plan};
use crate::store::audit::{self, Entry};
use crate::store::{StoreError, tenants};

/// From one look to the next.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// Looks that count, and how many of them must be above the limit.
const LOOKS: u8 = 0b111;
const ABOVE: u32 = 2;
const TOLD: &str = "node.overloaded";

/// What the last looks found.
#[derive(Debug, Default)]
pub(super) struct Looks {
    at: Option<Timestamp>,
    /// A bit for each of the last three in which the node was above its limit, the
    /// newest lowest; a node without any is not in.
    above: HashMap<NodeId, u8>,
}

impl Looks {
    /// Whether it is time for another one; then it is taken to be made at `now`.
    fn begin(&mut self, now: Timestamp) -> bool {
        if self.at.is_some_and(|at| now.duration_since(at) < WINDOW) {
            return false;
        }
        self.at = Some(now);
        true
    }

    /// Takes in which nodes are above their limits; answers those that were in two
    /// of three looks, this one among them.
    fn take(&mut self, above: &[NodeId]) -> Vec<NodeId> {
        for looks in self.above.values_mut() {
            *looks = *looks << 1 & LOOKS;
        }
        for node in above {
            *self.above.entry(*node).or_default() |= 1;
        }
        self.above.retain(|_, looks| *looks != 0);
        let often = |node: &&NodeId| self.above[*node].count_ones() >= ABOVE;
        above.iter().filter(often).copied().collect()
    }
}

impl Evaluator {
    /// Looks at the shared nodes at `now`, where that is due; answers how many
    /// somebody is told of. The caller holds the lease.
    ///
    /// # Errors
    /// [`StoreError`]; what was told before stays told.
    pub(super) async fn look_at_nodes(&self, now: Timestamp) -> Result<usize, StoreError> {
        if !self.looks().begin(now) {
            return Ok(0);
        }
        let mut client = self.store.client().await?;
        let snapshot = self.slots.survey(&**client, now).await?;
        let policy = Policy::of(&self.slots.catalog);
        // A large fleet takes a second.
        let planned = tokio::task::spawn_blocking(move || plan(&snapshot, &policy)).await;
        let made = match planned {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => {
                warn!(%error, "the shared nodes can't be looked at");
                return Ok(0);
            }
            Err(error) => {
                warn!(%error, "the look at the shared nodes was not finished");
                return Ok(0);
            }
        };
        let found: Vec<&Overload> = made.relieved.iter().chain(&made.overloaded).collect();
        let above: Vec<NodeId> = found.iter().map(|one| one.node).collect();
        let often = self.looks().take(&above);
        let today = TimeZone::UTC.to_datetime(now).date().to_zoned(TimeZone::UTC);
        let today = today.map_or(now, |day| day.timestamp());
        let mut told = 0;
        for one in found.into_iter().filter(|one| often.contains(&one.node)) {
            let tx = (**client).transaction().await?;
            if audit::is_told_since(&tx, TOLD, &one.node.to_string(), today).await? {
                continue;
            }
            let slug = match one.noisiest {
                Some(tenant) => tenants::get(&tx, tenant).await?.map(|row| row.slug),
                None => None,
            };
            let notice = notice(one, slug, &made);
            audit::record(&tx, &notice).await?;
            tx.commit().await?;
            warn!(node = %one.node, detail = %notice.detail, "a node is overloaded");
            told += 1;
        }
        Ok(told)
    }
}

fn notice(one: &Overload, slug: Option<String>, made: &Plan) -> Entry<'static> {
    let relief: Vec<(TenantId, NodeId)> = made
        .moves()
        .filter(|step| step.from == one.node && step.why == Why::Relieve)
        .map(|step| (step.tenant, step.to))
        .collect();
    let steps: Vec<_> =
        relief.iter().map(|(tenant, to)| json!({ "tenant": tenant, "to": to })).collect();
    let advice = if steps.is_empty() {
        "not enough of it fits elsewhere: one more shared node is needed"
    } else {
        "webhost-coordinator plan --apply relieves it"
    };
    Entry {
        actor: "system",
        action: TOLD,
        subject: "node",
        subject_id: one.node.to_string(),
        detail: json!({
            "dimension": one.dimension,
            "hour": one.hour,
            "carries": one.dimension.show(one.carries),
            "limit": one.dimension.show(one.limit),
            "noisiest": one.noisiest,
            "noisiest_slug": slug,
            "relief": steps,
            "advice": advice,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_three_looks_are_an_overload_and_one_is_none() {
        let (mut looks, node, other) = (Looks::default(), NodeId::generate(), NodeId::generate());
        let mut look = |above: &[NodeId]| looks.take(above);
        assert_eq!(look(&[node]), []);
        assert_eq!(look(&[node, other]), [node]);
        assert_eq!(look(&[other]), [other]);
        assert_eq!(look(&[node]), [node], "this one, and the one before the last");
        assert_eq!(look(&[]), []);
        assert_eq!(look(&[]), []);
        assert_eq!(look(&[node]), [], "long ago");
        assert_eq!(looks.above.len(), 1);
    }

    #[test]
    fn looks_are_five_minutes_apart() {
        let mut looks = Looks::default();
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).expect("a time");
        assert!(looks.begin(at(0)));
        assert!(!looks.begin(at(299)));
        assert!(looks.begin(at(300)));
    }
}
