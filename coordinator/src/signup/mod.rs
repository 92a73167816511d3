//! Signup: a tenant comes, is decided about, and gets a slot.
//!
//! Everything that a signup changes is one transaction: the tenant, the
//! decision with its inputs, the reserved slot, the audit row, and the answer
//! under its `Idempotency-Key`. A tenant for whom no node is free is written
//! all the same, as `waiting`; [`waiting`] retries it whenever the fleet
//! changes, and takes back reservations that nobody used.
//!
//! **Invariant:** a tenant that was answered for is never lost.
//!
//! **Invariant:** the same key with the same request has one answer, however
//! often and however parallel it comes.

pub mod import;
pub mod request;
pub mod waiting;

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::Transaction;
use uuid::Uuid;
use webhost_proto::ids::{Epoch, TenantId};

pub use request::{Invalid, SignupRequest};

use crate::decide::plans::NodeKind;
use crate::decide::{Decision, Mode, Profile, ProfileOverrides, Usage, recommend};
use crate::fleet::{self, Demand, Policy};
use crate::link::Signal;
use crate::slots::Slots;
use crate::store::audit::{self, Entry};
use crate::store::decisions::{self, Outcome, Trigger};
use crate::store::idempotency::{self, Claim};
use crate::store::placements::{self, NewPlacement, Placement, PlacementState};
use crate::store::tenants::{self, NewTenant, Taken, Tenant, TenantState};
use crate::store::{Store, StoreError, nodes};

/// Why a signup is refused.
#[derive(Debug, thiserror::Error)]
pub enum SignupError {
    /// A field can't be taken.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Another tenant has it.
    #[error("{field} {value:?} is taken")]
    Taken {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// The key came with another request before.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for SignupError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a signup is answered with.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignupAnswer {
    #[schema(value_type = String)]
    pub customer_id: TenantId,
    pub slug: String,
    pub state: TenantState,
    /// Why it waits, where it does.
    pub state_reason: String,
    pub plan: String,
    #[schema(value_type = String)]
    pub decision_id: Uuid,
    pub decision: Decision,
    /// None while the tenant waits.
    pub placement: Option<Place>,
}

/// Where a tenant's slot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Place {
    #[schema(value_type = String)]
    pub node_id: webhost_proto::ids::NodeId,
    /// The node's name.
    pub node: String,
    pub region: String,
    pub mode: Mode,
    pub state: PlacementState,
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// When a reservation ends that nobody uses.
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
}

/// A slot with how it was chosen, or why there is none.
type Reserved = Result<(Place, fleet::Placed), String>;

/// The desk where tenants sign up. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    pub store: Store,
    pub slots: Slots,
    /// Only this mode is offered; both when none.
    pub mode: Option<Mode>,
    pub reservation: SignedDuration,
    pub reserved_slugs: std::sync::Arc<std::collections::BTreeSet<String>>,
    /// Raised when a slot may have come free, or a tenant waits.
    pub changed: Signal,
}

impl Desk {
    /// Signs a tenant up. `key` is the Idempotency-Key and belongs to `actor`.
    /// Answers the status and body to send, which a repetition gets as well.
    ///
    /// # Errors
    /// [`SignupError`]; nothing is written then.
    pub async fn sign_up(
        &self,
        request: &SignupRequest,
        actor: &str,
        key: Option<&str>,
    ) -> Result<(u16, serde_json::Value), SignupError> {
        let stated = request.check(&self.reserved_slugs, &self.slots.catalog)?;
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        // Two bearers can't collide in each other's keys, nor read answers.
        let key = key.map(|key| format!("{actor}\n{key}"));
        if let Some(key) = &key {
            match idempotency::claim(&tx, key, &request.fingerprint()).await? {
                Claim::Fresh => {}
                Claim::Answered { status, response } => return Ok((status, response)),
                Claim::Other => return Err(SignupError::KeyReused),
            }
        }
        let answer = self.write(&tx, request, &stated, actor).await?;
        let body = serde_json::to_value(&answer)
            .map_err(|error| StoreError::Corrupt { what: "answer", detail: error.to_string() })?;
        if let Some(key) = &key {
            idempotency::answer(&tx, key, 201, &body).await?;
        }
        tx.commit().await?;
        tracing::info!(tenant = %answer.customer_id, slug = %answer.slug, state = %answer.state,
            mode = %answer.decision.mode, plan = %answer.decision.plan, "tenant signed up");
        Ok((201, body))
    }

    async fn write(
        &self,
        tx: &Transaction<'_>,
        request: &SignupRequest,
        stated: &ProfileOverrides,
        actor: &str,
    ) -> Result<SignupAnswer, SignupError> {
        let id = request.customer_id.map_or_else(TenantId::generate, TenantId);
        let profile = Profile::build(&request.plan, stated, &Usage::default(), &self.slots.catalog)
            .map_err(Invalid::from)?;
        let decision = recommend(&profile, &self.slots.catalog);
        let new = NewTenant {
            id,
            slug: request.slug.clone(),
            name: request.name.trim().to_owned(),
            email: request.email.clone(),
            company_name: request.company_name.clone(),
            billing_email: request.billing_email.clone(),
            plan: request.plan.clone(),
            profile: json!(stated),
            state: TenantState::Waiting,
            state_reason: String::new(),
        };
        match tenants::insert(tx, &new).await? {
            Ok(()) => {}
            Err(Taken::Slug) => {
                return Err(SignupError::Taken { field: "slug", value: new.slug });
            }
            Err(Taken::Id) => {
                return Err(SignupError::Taken { field: "customer_id", value: id.to_string() });
            }
        }
        if !request.host.is_empty() && !tenants::set_host(tx, id, &request.host).await? {
            return Err(SignupError::Taken { field: "host", value: request.host.clone() });
        }
        audit::record(
            tx,
            &Entry {
                actor,
                action: "tenant.signed_up",
                subject: "tenant",
                subject_id: id.to_string(),
                detail: json!({ "slug": new.slug, "plan": new.plan }),
            },
        )
        .await?;
        let reserved = self.reserve(tx, id, &profile, &decision, Timestamp::now()).await?;
        let (decision_id, placement) =
            self.settle(tx, id, &profile, &decision, Trigger::Signup, reserved).await?;
        let tenant = tenants::get(tx, id).await?.ok_or_else(|| lost(id))?;
        Ok(SignupAnswer {
            customer_id: id,
            slug: tenant.slug,
            state: tenant.state,
            state_reason: tenant.state_reason,
            plan: tenant.plan,
            decision_id,
            decision,
            placement,
        })
    }

    /// Writes the decision with what came of it: a reserved slot, or the
    /// reason why the tenant waits.
    async fn settle(
        &self,
        tx: &Transaction<'_>,
        tenant: TenantId,
        profile: &Profile,
        decision: &Decision,
        trigger: Trigger,
        reserved: Reserved,
    ) -> Result<(Uuid, Option<Place>), StoreError> {
        let (outcome, state, reason, choice) = match &reserved {
            Ok((_, placed)) => {
                (Outcome::Placed, TenantState::Provisioning, String::new(), json!(placed))
            }
            Err(reason) => (Outcome::Unplaced, TenantState::Waiting, reason.clone(), json!(reason)),
        };
        let inputs = json!({ "profile": profile, "usage": null, "placement": choice });
        let decision_id =
            decisions::insert(tx, tenant, trigger, &inputs, &json!(decision), outcome).await?;
        tenants::set_state(tx, tenant, state, &reason).await?;
        audit::record(
            tx,
            &Entry {
                actor: "system",
                action: if reserved.is_ok() { "slot.reserved" } else { "tenant.waiting" },
                subject: "tenant",
                subject_id: tenant.to_string(),
                detail: json!({ "decision": decision_id, "placement": choice, "reason": reason }),
            },
        )
        .await?;
        Ok((decision_id, reserved.ok().map(|(place, _)| place)))
    }

    /// Takes a slot under the lock of the node rows.
    async fn reserve(
        &self,
        tx: &Transaction<'_>,
        tenant: TenantId,
        profile: &Profile,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<Reserved, StoreError> {
        let Some(target) = &decision.granted else {
            return Ok(Err(format!(
                "an administrator must look: {}",
                decision.needs_admin.join("; ")
            )));
        };
        if let Some(only) = self.mode.filter(|only| *only != target.mode) {
            return Ok(Err(format!("{} is needed, and only {only} is offered here", target.mode)));
        }
        let catalog = &self.slots.catalog;
        let Some(plan) = catalog.plan(target.plan.as_str()) else {
            return Ok(Err(format!("plan {} is not in the catalogue", target.plan)));
        };
        let kind = kind_of(target.mode);
        let snapshot = self.slots.snapshot(tx, kind, now).await?;
        let demand = Demand::of(plan, profile, None, catalog);
        let placed = match fleet::place(&snapshot, &demand, &Policy::of(catalog)) {
            Ok(placed) => placed,
            Err(no_room) => {
                return Ok(Err(format!(
                    "no {} node is free: {}",
                    kind.as_str(),
                    no_room.summary()
                )));
            }
        };
        let epoch = tenants::get(tx, tenant).await?.map_or(Epoch(1), |tenant| tenant.epoch);
        let expires_at = Some(now.saturating_add(self.reservation).unwrap_or(Timestamp::MAX));
        placements::insert(
            tx,
            &NewPlacement {
                tenant_id: tenant,
                node_id: placed.node,
                mode: target.mode,
                state: PlacementState::Reserved,
                epoch,
                expires_at,
            },
        )
        .await?;
        let place = home(tx, tenant).await?.ok_or_else(|| lost(tenant))?;
        Ok(Ok((place, placed)))
    }
}

/// The kind of node that houses tenants of `mode`.
pub fn kind_of(mode: Mode) -> NodeKind {
    match mode {
        Mode::MultiTenant => NodeKind::Shared,
        Mode::SingleTenant => NodeKind::Dedicated,
    }
}

fn lost(tenant: TenantId) -> StoreError {
    StoreError::Corrupt { what: "tenants", detail: format!("no row for {tenant}") }
}

/// Where a tenant lives, with the node's name.
///
/// # Errors
/// [`StoreError`].
pub async fn home(
    client: &impl tokio_postgres::GenericClient,
    tenant: TenantId,
) -> Result<Option<Place>, StoreError> {
    let Some(placement) = placements::home(client, tenant).await? else { return Ok(None) };
    place(client, &placement).await.map(Some)
}

/// A placement with its node's name.
///
/// # Errors
/// [`StoreError`].
pub async fn place(
    client: &impl tokio_postgres::GenericClient,
    placement: &Placement,
) -> Result<Place, StoreError> {
    let node = nodes::get(client, placement.node_id).await?.ok_or_else(|| StoreError::Corrupt {
        what: "placements.node_id",
        detail: placement.node_id.to_string(),
    })?;
    Ok(Place {
        node_id: node.id,
        node: node.name,
        region: node.region,
        mode: placement.mode,
        state: placement.state,
        epoch: placement.epoch,
        expires_at: placement.expires_at,
    })
}

/// The stated profile of a stored tenant.
///
/// # Errors
/// [`StoreError::Corrupt`] when the row can't be read any more.
pub fn stated(tenant: &Tenant) -> Result<ProfileOverrides, StoreError> {
    ProfileOverrides::from_json(&tenant.profile).map_err(|error| StoreError::Corrupt {
        what: "tenants.profile",
        detail: format!("tenant {}: {error}", tenant.id),
    })
}
