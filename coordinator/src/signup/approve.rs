//! A signup whose needs no plan satisfies: an administrator lets it have the
//! largest one all the same.
//!
//! What is approved is those needs and no others: where the profile asks for
//! more afterwards, the tenant waits for an administrator again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use webhost_proto::ids::TenantId;

use super::Desk;
use crate::decide::needs::Unmet;
use crate::store::audit::{self, Entry};
use crate::store::tenants::{self, Tenant, TenantState};
use crate::store::{StoreError, placements};

/// Who let a tenant have a plan that leaves these needs unmet; kept with the
/// tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// "token NAME" or "operator".
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// In a sentence.
    pub why: String,
    /// What stays unmet.
    pub unmet: Vec<Unmet>,
}

/// Why a signup was not approved.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// No such tenant.
    #[error("there is no tenant {0}")]
    Unknown(TenantId),
    /// The audit trail would say nothing.
    #[error("say why it is approved, for the audit trail")]
    NoReason,
    /// It does not wait for that.
    #[error("tenant {slug} is {state}{reason}: there is no unmet need to approve")]
    NotWaiting {
        /// Which tenant.
        slug: String,
        /// Its state.
        state: TenantState,
        /// ", " and why it waits, or nothing.
        reason: String,
    },
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ApproveError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Desk {
    /// Lets a waiting tenant have the largest plan of its mode although needs
    /// stay unmet, with an audit row; answers what. It gets its place as soon
    /// as there is one.
    ///
    /// # Errors
    /// [`ApproveError`]; nothing is written then.
    pub async fn approve(
        &self,
        tenant: TenantId,
        actor: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<Approved, ApproveError> {
        if why.trim().is_empty() {
            return Err(ApproveError::NoReason);
        }
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let row = tenants::lock(&tx, tenant).await?.ok_or(ApproveError::Unknown(tenant))?;
        let homeless = placements::home(&tx, tenant).await?.is_none();
        if row.state != TenantState::Waiting || !homeless {
            return Err(refused(row));
        }
        let decision = self.decide(&row)?.decision;
        if decision.granted.is_some() || decision.unmet_needs.is_empty() {
            return Err(refused(row));
        }
        let approved = Approved {
            by: actor.to_owned(),
            at: now,
            why: why.to_owned(),
            unmet: decision.unmet_needs,
        };
        tenants::set_approved(&tx, tenant, &json!(approved)).await?;
        let entry = Entry {
            actor,
            action: "tenant.needs_approved",
            subject: "tenant",
            subject_id: tenant.to_string(),
            detail: json!({ "plan": decision.plan, "unmet": approved.unmet, "reason": why }),
        };
        audit::record(&tx, &entry).await?;
        tx.commit().await?;
        self.changed.notify();
        Ok(approved)
    }
}

fn refused(row: Tenant) -> ApproveError {
    let reason = match row.state_reason.as_str() {
        "" => String::new(),
        reason => format!(", {reason}"),
    };
    ApproveError::NotWaiting { slug: row.slug, state: row.state, reason }
}
