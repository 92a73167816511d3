//! Import: a node's database carries tenants already, and they are adopted.
//!
//! The node's agent is asked which tenants it has; a dry run shows what would
//! be adopted and what not, with the reason. Adopted tenants live there at
//! once (`active`), and count against the node's slots.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;
use tokio_postgres::Transaction;
use webhost_proto::ids::{Epoch, NodeId, TenantId};
use webhost_proto::wire::{ListTenants, ListedTenant, command, command_reply};

use super::{Desk, request};
use crate::decide::Mode;
use crate::link::Signals;
use crate::store::audit::{self, Entry};
use crate::store::nodes::{Node, NodeKind};
use crate::store::placements::{self, NewPlacement, PlacementState};
use crate::store::tenants::{self, NewTenant, TenantState};
use crate::store::{StoreError, commands};

/// How long the agent may take to look through its database.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why an import can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The agent did not answer.
    #[error("the agent of node {0} did not answer within 25 s; is it connected?")]
    Silent(String),
    /// The agent can't.
    #[error("the agent of node {node} refuses: {why}")]
    Refused {
        /// Which node.
        node: String,
        /// In its words.
        why: String,
    },
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ImportError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What becomes of one tenant of the node's database.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Found {
    /// As the node gives it, "" where it is no UUID.
    pub customer_id: String,
    pub slug: String,
    pub name: String,
    pub plan: String,
    pub vehicles: u64,
    pub storage_bytes: u64,
    pub verdict: Verdict,
    /// Why it is refused, or where it is known from.
    pub reason: String,
}

/// What becomes of a found tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// New: adopted, or would be.
    Adopt,
    /// Placed on this node already.
    Known,
    /// Can't be adopted; the reason says why.
    Refuse,
}

/// The outcome of an import or of its dry run.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Import {
    pub node: String,
    /// False: a dry run, nothing was written.
    pub applied: bool,
    pub tenants: Vec<Found>,
    /// How many of each verdict.
    pub counts: BTreeMap<&'static str, usize>,
}

impl Desk {
    /// Asks the node which tenants it carries, and adopts them where `apply`
    /// is set. A tenant without a plan of its own gets `default_plan`.
    ///
    /// # Errors
    /// [`ImportError`]; nothing is adopted then.
    pub async fn import(
        &self,
        signals: &Signals,
        node: &Node,
        apply: bool,
        default_plan: Option<&str>,
        actor: &str,
    ) -> Result<Import, ImportError> {
        let listed = self.ask(signals, node).await?;
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let found = self.adopt(&tx, node, listed, default_plan, actor).await?;
        let mut counts = BTreeMap::new();
        for one in &found {
            let word = match one.verdict {
                Verdict::Adopt => "adopt",
                Verdict::Known => "known",
                Verdict::Refuse => "refuse",
            };
            *counts.entry(word).or_insert(0) += 1;
        }
        // The dry run does everything and then lets go of it, so what it
        // shows is what would be.
        if apply {
            tx.commit().await?;
            self.changed.notify();
        } else {
            tx.rollback().await?;
        }
        Ok(Import { node: node.name.clone(), applied: apply, tenants: found, counts })
    }

    async fn ask(&self, signals: &Signals, node: &Node) -> Result<Vec<ListedTenant>, ImportError> {
        let mut replies = signals.replies.listen();
        let expires = Timestamp::now().saturating_add(SignedDuration::from_secs(25));
        let command = {
            let client = self.store.client().await?;
            let kind = command::Kind::ListTenants(ListTenants {});
            commands::enqueue(&**client, node.id, None, kind, expires.unwrap_or(Timestamp::MAX))
                .await?
        };
        signals.commands.notify();
        let wait = async {
            loop {
                let sent = {
                    let client = self.store.client().await?;
                    commands::get(&**client, command).await?
                };
                if let Some(reply) = sent.and_then(|sent| sent.reply) {
                    return Ok::<_, StoreError>(reply);
                }
                // The reply may come in by another coordinator's link, of
                // which no signal tells; then the period finds it.
                tokio::select! {
                    () = replies.heard() => {}
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
        };
        let silent = || ImportError::Silent(node.name.clone());
        let reply = tokio::time::timeout(PATIENCE, wait).await.map_err(|_| silent())??;
        match reply.outcome {
            Some(command_reply::Outcome::TenantList(list)) => Ok(list.tenants),
            Some(command_reply::Outcome::Failed(failed)) => {
                Err(ImportError::Refused { node: node.name.clone(), why: failed.message })
            }
            _ => Err(ImportError::Refused {
                node: node.name.clone(),
                why: "it answered something else than a list of tenants".into(),
            }),
        }
    }

    async fn adopt(
        &self,
        tx: &Transaction<'_>,
        node: &Node,
        listed: Vec<ListedTenant>,
        default_plan: Option<&str>,
        actor: &str,
    ) -> Result<Vec<Found>, StoreError> {
        let fleet = self.slots.snapshot(tx, node.kind, Timestamp::now()).await?;
        let state = fleet.iter().find(|state| state.id == node.id);
        let mut free = state.map_or(0, |s| s.max_tenants.saturating_sub(s.load.tenants));
        let homes = self.homes(tx, &listed).await?;
        let mut found = Vec::with_capacity(listed.len());
        for one in listed {
            let id = TenantId::from_wire(&one.tenant_id);
            let plan = if one.plan.is_empty() { default_plan.unwrap_or("") } else { &one.plan };
            let mut row = Found {
                customer_id: id.as_ref().map(ToString::to_string).unwrap_or_default(),
                slug: one.slug.clone(),
                name: one.name.clone(),
                plan: plan.to_owned(),
                vehicles: one.vehicles,
                storage_bytes: one.storage_bytes,
                verdict: Verdict::Refuse,
                reason: String::new(),
            };
            match id {
                Err(error) => row.reason = error.to_string(),
                Ok(id) => match homes.get(&id) {
                    Some(home) if *home == node.id => row.verdict = Verdict::Known,
                    Some(home) => row.reason = format!("it lives on node {home}"),
                    None if free == 0 => row.reason = "the node has no free slot".into(),
                    None => match self.adopt_one(tx, node, id, &one, plan, actor).await? {
                        Ok(()) => {
                            free -= 1;
                            row.verdict = Verdict::Adopt;
                        }
                        Err(reason) => row.reason = reason,
                    },
                },
            }
            found.push(row);
        }
        Ok(found)
    }

    async fn homes(
        &self,
        tx: &Transaction<'_>,
        listed: &[ListedTenant],
    ) -> Result<HashMap<TenantId, NodeId>, StoreError> {
        let ids: Vec<_> = listed
            .iter()
            .filter_map(|one| TenantId::from_wire(&one.tenant_id).ok())
            .map(|id| id.0)
            .collect();
        let homes = placements::homes(tx, &ids).await?;
        Ok(homes.into_iter().map(|home| (home.tenant_id, home.node_id)).collect())
    }

    /// Writes one tenant and its active placement, or says why not. A tenant
    /// that waits (its signup came before the import) is adopted where it is.
    async fn adopt_one(
        &self,
        tx: &Transaction<'_>,
        node: &Node,
        id: TenantId,
        listed: &ListedTenant,
        plan: &str,
        actor: &str,
    ) -> Result<Result<(), String>, StoreError> {
        let epoch = match tenants::lock(tx, id).await? {
            Some(known) if known.state == TenantState::Waiting => {
                tenants::set_state(tx, id, TenantState::Active, "").await?;
                known.epoch
            }
            Some(known) => {
                return Ok(Err(format!("the tenant is {} and lives nowhere", known.state)));
            }
            None => {
                // A reserved slug may live on: it was given before the rule.
                if let Err(error) = request::slug(&listed.slug, &BTreeSet::new()) {
                    return Ok(Err(error.to_string()));
                }
                if let Err(error) = request::plan(plan, &self.slots.catalog) {
                    return Ok(Err(error.to_string()));
                }
                let new = NewTenant {
                    id,
                    slug: listed.slug.clone(),
                    name: listed.name.clone(),
                    email: listed.email.clone(),
                    company_name: String::new(),
                    billing_email: String::new(),
                    plan: plan.to_owned(),
                    profile: json!({}),
                    state: TenantState::Active,
                    state_reason: String::new(),
                };
                if tenants::insert(tx, &new).await?.is_err() {
                    return Ok(Err(format!("slug {:?} is another tenant's", listed.slug)));
                }
                Epoch(1)
            }
        };
        placements::insert(
            tx,
            &NewPlacement {
                tenant_id: id,
                node_id: node.id,
                mode: match node.kind {
                    NodeKind::Shared => Mode::MultiTenant,
                    NodeKind::Dedicated => Mode::SingleTenant,
                },
                state: PlacementState::Active,
                epoch,
                expires_at: None,
            },
        )
        .await?;
        audit::record(
            tx,
            &Entry {
                actor,
                action: "tenant.imported",
                subject: "tenant",
                subject_id: id.to_string(),
                detail: json!({ "node": node.id, "slug": listed.slug, "plan": plan }),
            },
        )
        .await?;
        Ok(Ok(()))
    }
}
