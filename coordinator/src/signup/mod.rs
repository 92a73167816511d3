//! Signup: a tenant comes, is decided about, and gets a slot.
//!
//! Everything that a signup changes is one transaction: the tenant, the
//! decision with its inputs, the reserved slot, the audit row, and the answer
//! under its `Idempotency-Key`. Signups that come at once share a transaction
//! ([`queue`]). A tenant for whom no node is free is written all the same, as
//! `waiting`; [`waiting`] retries it whenever the fleet changes, and takes back
//! reservations that nobody used.
//!
//! **Invariant:** a tenant that was answered for is never lost.
//!
//! **Invariant:** the same key with the same request has one answer, however
//! often and however parallel it comes.

pub mod approve;
pub mod import;
pub mod queue;
pub mod request;
mod reserve;
pub mod waiting;

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::Transaction;
use uuid::Uuid;
use webhost_proto::ids::{Epoch, TenantId};

pub use queue::Queue;
use queue::{Answer, Asked};
pub use request::{Invalid, SignupRequest};
use reserve::{Decided, Reserved};

use crate::decide::plans::NodeKind;
use crate::decide::{Decision, Mode, Profile, ProfileOverrides, Usage, recommend};
use crate::link::Signal;
use crate::slots::Slots;
use crate::store::audit::{self, Entry};
use crate::store::decisions::Trigger;
use crate::store::idempotency::{self, Claim};
use crate::store::placements::{self, Placement, PlacementState};
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
    /// Those who sign up at the moment.
    pub queue: Queue,
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
        self.answer(Asked {
            request: request.clone(),
            stated,
            actor: actor.to_owned(),
            // Two bearers can't collide in each other's keys, nor read answers.
            key: key.map(|key| format!("{actor}\n{key}")),
        })
        .await
    }

    /// Writes signups in one transaction; answers each, in their order. No two
    /// have the same key.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is written then, of any of them.
    async fn write(&self, batch: &[&Asked]) -> Result<Vec<Answer>, StoreError> {
        let mut client = self.store.client().await?;
        let mut tx = (**client).transaction().await?;
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(batch.len());
        let (mut decided, mut whose) = (Vec::new(), Vec::new());
        for (at, asked) in batch.iter().enumerate() {
            let part = tx.transaction().await?;
            let answer = match self.enter(&part, asked).await {
                Ok(Entered::Decided(one)) => {
                    part.commit().await?;
                    decided.push(*one);
                    whose.push(at);
                    None
                }
                Ok(Entered::Answered(status, body)) => Some(Ok((status, body))),
                Err(SignupError::Store(error)) => return Err(error),
                Err(refused) => {
                    part.rollback().await?;
                    Some(Err(refused))
                }
            };
            answers.push(answer);
        }
        let reserved = self.reserve(&tx, &decided, Timestamp::now()).await?;
        for ((one, reserved), at) in decided.into_iter().zip(reserved).zip(whose) {
            let decision_id = self.settle(&tx, &one, Trigger::Signup, &reserved).await?;
            let answer = answer(&batch[at].request, one, decision_id, reserved);
            let body = serde_json::to_value(&answer).map_err(|error| StoreError::Corrupt {
                what: "answer",
                detail: error.to_string(),
            })?;
            if let Some(key) = &batch[at].key {
                idempotency::answer(&tx, key, 201, &body).await?;
            }
            tracing::info!(tenant = %answer.customer_id, slug = %answer.slug, state = %answer.state,
                mode = %answer.decision.mode, plan = %answer.decision.plan, "a tenant signs up");
            answers[at] = Some(Ok((201, body)));
        }
        tx.commit().await?;
        answers.into_iter().map(|one| one.ok_or_else(unanswered)).collect()
    }

    /// Writes the tenant itself under its key, and decides about it.
    async fn enter(&self, tx: &Transaction<'_>, asked: &Asked) -> Result<Entered, SignupError> {
        let Asked { request, stated, actor, key } = asked;
        if let Some(key) = key {
            match idempotency::claim(tx, key, &request.fingerprint()).await? {
                Claim::Fresh => {}
                Claim::Answered { status, response } => {
                    return Ok(Entered::Answered(status, response));
                }
                Claim::Other => return Err(SignupError::KeyReused),
            }
        }
        let tenant = request.customer_id.map_or_else(TenantId::generate, TenantId);
        let profile = Profile::build(&request.plan, stated, &Usage::default(), &self.slots.catalog)
            .map_err(Invalid::from)?;
        let decision = recommend(&profile, &self.slots.catalog);
        let new = NewTenant {
            id: tenant,
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
        let taken = |field, value| Err(SignupError::Taken { field, value });
        match tenants::insert(tx, &new).await? {
            Ok(()) => {}
            Err(Taken::Slug) => return taken("slug", new.slug),
            Err(Taken::Id) => return taken("customer_id", tenant.to_string()),
        }
        if !request.host.is_empty() && !tenants::set_host(tx, tenant, &request.host).await? {
            return taken("host", request.host.clone());
        }
        audit::record(
            tx,
            &Entry {
                actor,
                action: "tenant.signed_up",
                subject: "tenant",
                subject_id: tenant.to_string(),
                detail: json!({ "slug": new.slug, "plan": new.plan }),
            },
        )
        .await?;
        let epoch = Epoch(1);
        Ok(Entered::Decided(Box::new(Decided { tenant, epoch, profile, decision })))
    }
}

/// What a signup came to before it has a place.
enum Entered {
    /// It is written.
    Decided(Box<Decided>),
    /// It was answered before: status and body.
    Answered(u16, serde_json::Value),
}

fn answer(
    request: &SignupRequest,
    one: Decided,
    decision_id: Uuid,
    reserved: Reserved,
) -> SignupAnswer {
    let (state, state_reason, placement) = match reserved {
        Ok((place, _)) => (TenantState::Provisioning, String::new(), Some(place)),
        Err(reason) => (TenantState::Waiting, reason, None),
    };
    SignupAnswer {
        customer_id: one.tenant,
        slug: request.slug.clone(),
        state,
        state_reason,
        plan: request.plan.clone(),
        decision_id,
        decision: one.decision,
        placement,
    }
}

fn unanswered() -> StoreError {
    StoreError::Corrupt { what: "signup", detail: "a batch left one unanswered".into() }
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
