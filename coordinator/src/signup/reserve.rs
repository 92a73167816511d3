//! Places for tenants that were decided about: taken for a whole batch under
//! one lock of the node rows, and written with the decisions that asked for
//! them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::Transaction;
use uuid::Uuid;
use webhost_proto::ids::{Epoch, NodeId, TenantId};

use super::{Desk, Place, kind_of, lost};
use crate::decide::{Decision, Profile};
use crate::fleet::{Demand, Need, Placed, Policy};
use crate::slots::take::Wanted;
use crate::store::audit::{self, Entry as Noted};
use crate::store::decisions::{self, Outcome, Trigger};
use crate::store::placements::PlacementState;
use crate::store::tenants::{self, TenantState};
use crate::store::{StoreError, nodes};

/// A place with how it was chosen, or why there is none.
pub(super) type Reserved = Result<(Place, Placed), String>;

/// A tenant that was decided about and lives nowhere.
pub(super) struct Decided {
    pub tenant: TenantId,
    pub epoch: Epoch,
    pub profile: Profile,
    pub decision: Decision,
}

impl Desk {
    /// Takes places for all of `decided`, in their order; the answers stand in
    /// the same order. Each place is kept for the desk's time of reservation.
    pub(super) async fn reserve(
        &self,
        tx: &Transaction<'_>,
        decided: &[Decided],
        now: Timestamp,
    ) -> Result<Vec<Reserved>, StoreError> {
        let mut wanted = Vec::with_capacity(decided.len());
        let mut refused = Vec::with_capacity(decided.len());
        for one in decided {
            match self.demand(one) {
                Ok(demand) => {
                    wanted.push(Wanted { tenant: one.tenant, demand, epoch: one.epoch });
                    refused.push(None);
                }
                Err(reason) => refused.push(Some(reason)),
            }
        }
        let expires_at = Some(now.saturating_add(self.reservation).unwrap_or(Timestamp::MAX));
        let policy = Policy::of(&self.slots.catalog);
        let taken = self.slots.take(tx, &wanted, &policy, now, expires_at).await?;
        let mut taken = wanted.iter().zip(taken);
        let mut named: HashMap<NodeId, (String, String)> = HashMap::new();
        let mut reserved = Vec::with_capacity(decided.len());
        for (one, reason) in decided.iter().zip(refused) {
            if let Some(reason) = reason {
                reserved.push(Err(reason));
                continue;
            }
            let Some((wanted, outcome)) = taken.next() else { return Err(lost(one.tenant)) };
            let mode = match &one.decision.granted {
                Some(target) => target.mode,
                None => return Err(lost(one.tenant)),
            };
            let placed = match outcome {
                Ok(placed) => placed,
                Err(no_room) => {
                    reserved.push(Err(no_room.said(kind_of(mode))));
                    continue;
                }
            };
            let (node, region) = match named.entry(placed.node) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(unknown) => {
                    let node = nodes::get(tx, placed.node).await?;
                    let node = node.ok_or_else(|| lost(one.tenant))?;
                    unknown.insert((node.name, node.region)).clone()
                }
            };
            let place = Place {
                node_id: placed.node,
                node,
                region,
                mode,
                state: PlacementState::Reserved,
                epoch: wanted.epoch,
                expires_at,
            };
            reserved.push(Ok((place, placed)));
        }
        Ok(reserved)
    }

    /// What the tenant needs, or why nothing can be given to it.
    fn demand(&self, one: &Decided) -> Result<Demand, String> {
        let decision = &one.decision;
        let Some(target) = &decision.granted else {
            let why = decision.needs_admin.join("; ");
            return Err(format!("an administrator must look: {why}"));
        };
        if let Some(only) = self.mode.filter(|only| *only != target.mode) {
            return Err(format!("{} is needed, and only {only} is offered here", target.mode));
        }
        let catalog = &self.slots.catalog;
        let Some(plan) = catalog.plan(target.plan.as_str()) else {
            return Err(format!("plan {} is not in the catalogue", target.plan));
        };
        // A new tenant is taken to be as its like are.
        let class = self.slots.book.class(plan.name.as_str()).map(|class| Need::flat(&class));
        Ok(Demand::of(plan, &one.profile, class, catalog))
    }

    /// Writes the decision with what came of it: a reserved place, or the
    /// reason why the tenant waits. Answers the decision's id.
    pub(super) async fn settle(
        &self,
        tx: &Transaction<'_>,
        one: &Decided,
        trigger: Trigger,
        reserved: &Reserved,
    ) -> Result<Uuid, StoreError> {
        let (outcome, state, reason, choice) = match reserved {
            Ok((_, placed)) => (Outcome::Placed, TenantState::Provisioning, "", json!(placed)),
            Err(reason) => {
                (Outcome::Unplaced, TenantState::Waiting, reason.as_str(), json!(reason))
            }
        };
        let tenant = one.tenant;
        let inputs = json!({ "profile": one.profile, "usage": null, "placement": choice });
        let decision = json!(one.decision);
        let decision_id =
            decisions::insert(tx, tenant, trigger, &inputs, &decision, outcome).await?;
        tenants::set_state(tx, tenant, state, reason).await?;
        audit::record(
            tx,
            &Noted {
                actor: "system",
                action: if reserved.is_ok() { "slot.reserved" } else { "tenant.waiting" },
                subject: "tenant",
                subject_id: tenant.to_string(),
                detail: json!({ "decision": decision_id, "placement": choice, "reason": reason }),
            },
        )
        .await?;
        Ok(decision_id)
    }
}
