//! A move that an administrator wants, whatever the scores say. Compliance
//! holds all the same, and what else the mode breaks is listed.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;
use webhost_proto::ids::{MoveId, TenantId};

use super::judge::{self, FactsError};
use crate::decide::{Decision, ForceRefused, Mode, forced};
use crate::moves::request::request_in;
use crate::moves::{Approval, MoveRefused, NewMove};
use crate::slots::Slots;
use crate::store::decisions::{self, Outcome, Trigger};
use crate::store::{Store, StoreError, tenants};

/// A forced move that was begun.
#[derive(Clone, Debug, Serialize)]
pub struct Forced {
    /// What the mode means for the tenant: its plan, and what it breaks.
    pub decision: Decision,
    /// Where it is stored.
    pub decision_id: Uuid,
    /// The move, approved by who forced it.
    pub move_id: MoveId,
}

/// Why a move was not forced.
#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    /// A compliance rule forbids it.
    #[error(transparent)]
    Refused(#[from] ForceRefused),
    /// The tenant's facts can't be had.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The move can't begin.
    #[error(transparent)]
    Move(#[from] MoveRefused),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ForceError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Begins the move of `tenant` to `mode` because `actor` wants it, for `reason`
/// (else the decision's): the decision, the move and their audit in one
/// transaction.
///
/// # Errors
/// [`ForceError`]; nothing is written then.
pub async fn force(
    store: &Store,
    slots: &Slots,
    tenant: TenantId,
    mode: Mode,
    reason: Option<String>,
    actor: &str,
) -> Result<Forced, ForceError> {
    let now = Timestamp::now();
    let mut client = store.client().await?;
    let tx = (**client).transaction().await?;
    let row = tenants::lock(&tx, tenant).await?.ok_or(MoveRefused::UnknownTenant(tenant))?;
    let facts = judge::facts(&tx, slots, &row, now).await?;
    let decision = forced(mode, &facts.profile, &slots.catalog)?;
    let inputs = json!({
        "profile": facts.profile,
        "usage": facts.usage,
        "residence": facts.residence,
        "forced_by": actor,
    });
    let outcome = Outcome::Migrate;
    let stored = json!(decision);
    let decision_id =
        decisions::insert(&tx, tenant, Trigger::Admin, &inputs, &stored, outcome).await?;
    let new = NewMove {
        tenant,
        mode: mode.as_str().to_owned(),
        plan: decision.plan.to_string(),
        regions: facts.profile.regions.iter().map(|region| region.0.clone()).collect(),
        target: None,
        requested_by: actor.to_owned(),
        reason: reason.unwrap_or_else(|| decision.reason.clone()),
        decision_id: Some(decision_id),
        approval: Approval::Given { by: actor.to_owned() },
    };
    let move_id = request_in(&tx, new, now).await?;
    tx.commit().await?;
    Ok(Forced { decision, decision_id, move_id })
}
