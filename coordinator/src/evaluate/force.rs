//! A move that an administrator wants, whatever the scores say. Compliance
//! holds all the same, and what else the mode breaks is listed.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;
use webhost_proto::ids::{MoveId, NodeId, TenantId};

use super::judge::{self, FactsError};
use crate::decide::{Decision, ForceRefused, Mode, forced};
use crate::moves::request::request_in;
use crate::moves::{Approval, Kind, MoveRefused, NewMove};
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

/// What is wanted of a tenant.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whom to move.
    pub tenant: TenantId,
    /// Into which mode.
    pub mode: Mode,
    /// What the move must be; any kind without.
    pub kind: Option<Kind>,
    /// To which node; placement chooses without.
    pub target: Option<NodeId>,
    /// For the audit; else the decision's.
    pub reason: Option<String>,
    /// So many rows may stay behind without asking.
    pub confirm_rows: u64,
    /// Only the preflight and its report.
    pub dry_run: bool,
}

/// Why a move was not forced.
#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    /// A compliance rule forbids it.
    #[error(transparent)]
    Refused(#[from] ForceRefused),
    /// It would be a move of another kind.
    #[error("this would be {found} move, not {wanted}: the tenant is in mode {mode}")]
    Kind {
        /// What was asked for.
        wanted: Kind,
        /// What it would be.
        found: Kind,
        /// Where the tenant lives.
        mode: Mode,
    },
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

/// Begins the move that `actor` wants: the decision, the move and their audit
/// in one transaction.
///
/// # Errors
/// [`ForceError`]; nothing is written then.
pub async fn force(
    store: &Store,
    slots: &Slots,
    wanted: Wanted,
    actor: &str,
) -> Result<Forced, ForceError> {
    let Wanted { tenant, mode, .. } = wanted;
    let now = Timestamp::now();
    let mut client = store.client().await?;
    let tx = (**client).transaction().await?;
    let row = tenants::lock(&tx, tenant).await?.ok_or(MoveRefused::UnknownTenant(tenant))?;
    let facts = judge::facts(&tx, slots, &row, now).await?;
    let found = Kind::of(facts.residence.mode, mode);
    if let Some(kind) = wanted.kind.filter(|kind| *kind != found) {
        let mode = facts.residence.mode;
        return Err(ForceError::Kind { wanted: kind, found, mode });
    }
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
        target: wanted.target,
        requested_by: actor.to_owned(),
        reason: wanted.reason.unwrap_or_else(|| decision.reason.clone()),
        decision_id: Some(decision_id),
        approval: Approval::Given { by: actor.to_owned() },
        dry_run: wanted.dry_run,
        confirm_rows: wanted.confirm_rows,
    };
    let move_id = request_in(&tx, new, now).await?;
    tx.commit().await?;
    Ok(Forced { decision, decision_id, move_id })
}
