//! The loop that no waiting tenant falls out of: it takes back reservations
//! that nobody used, marks nodes that fell silent as not connected, and gives free slots to those who wait, longest first.
//! It takes no input; it wakes by signal or period and reads the whole state.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::TenantId;

use super::{Desk, stated};
use crate::decide::{Profile, Usage, recommend};
use crate::store::audit::{self, Entry};
use crate::store::decisions::Trigger;
use crate::store::tenants::{self, TenantState};
use crate::store::{StoreError, idempotency, nodes, placements};

/// The most tenants that one look tries.
const MOST: i64 = 1000;
/// How long answers stay under their keys.
const KEY_DAYS: i32 = 7;

impl Desk {
    /// Runs until `shutdown`.
    pub async fn keep_waiting(self, period: Duration, shutdown: CancellationToken) {
        let mut changed = self.changed.listen();
        loop {
            match self.reconcile(Timestamp::now()).await {
                Ok((0, 0)) => {}
                Ok((expired, placed)) => {
                    tracing::info!(expired, placed, "reservations expired, waiting tenants placed");
                }
                Err(error) => tracing::warn!(%error, "waiting tenants were not looked through"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed.heard() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    /// One look: answers how many reservations expired and how many waiting
    /// tenants got a slot.
    ///
    /// # Errors
    /// [`StoreError`]; what was done before it stays done.
    pub async fn reconcile(&self, now: Timestamp) -> Result<(usize, usize), StoreError> {
        let expired = self.expire(now).await?;
        let waiting = {
            let client = self.store.client().await?;
            idempotency::forget(&**client, KEY_DAYS).await?;
            let since = now.saturating_sub(self.slots.silence).unwrap_or(Timestamp::MIN);
            nodes::forget_silent(&**client, since).await?;
            tenants::waiting(&**client, MOST).await?
        };
        let mut placed = 0;
        for tenant in waiting {
            match self.retry(tenant).await {
                Ok(true) => placed += 1,
                Ok(false) => {}
                // One tenant whose row can't be read must not keep the
                // others waiting.
                Err(StoreError::Corrupt { what, detail }) => {
                    tracing::error!(%tenant, what, detail, "a waiting tenant can't be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok((expired, placed))
    }

    async fn expire(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let expired = placements::expire_reserved(&tx, now).await?;
        for placement in &expired {
            let reason = "its reservation expired unused";
            tenants::set_state(&tx, placement.tenant_id, TenantState::Waiting, reason).await?;
            audit::record(
                &tx,
                &Entry {
                    actor: "system",
                    action: "slot.expired",
                    subject: "tenant",
                    subject_id: placement.tenant_id.to_string(),
                    detail: json!({ "node": placement.node_id, "since": placement.since }),
                },
            )
            .await?;
        }
        tx.commit().await?;
        Ok(expired.len())
    }

    /// Tries one tenant; answers whether it got a slot. A failed try writes
    /// nothing but a reason that changed, so that waiting leaves no heap of
    /// decisions.
    async fn retry(&self, tenant: TenantId) -> Result<bool, StoreError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let Some(row) = tenants::lock(&tx, tenant).await? else { return Ok(false) };
        if row.state != TenantState::Waiting || placements::home(&tx, tenant).await?.is_some() {
            return Ok(false);
        }
        let profile =
            Profile::build(&row.plan, &stated(&row)?, &Usage::default(), &self.slots.catalog)
                .map_err(|error| StoreError::Corrupt {
                    what: "tenants.profile",
                    detail: error.to_string(),
                })?;
        let decision = recommend(&profile, &self.slots.catalog);
        match self.reserve(&tx, tenant, &profile, &decision, Timestamp::now()).await? {
            Err(reason) => {
                if reason != row.state_reason {
                    tenants::set_state(&tx, tenant, TenantState::Waiting, &reason).await?;
                    tx.commit().await?;
                }
                Ok(false)
            }
            reserved => {
                self.settle(&tx, tenant, &profile, &decision, Trigger::Schedule, reserved).await?;
                tx.commit().await?;
                Ok(true)
            }
        }
    }
}
