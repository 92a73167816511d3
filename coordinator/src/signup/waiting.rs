//! The loop that no waiting tenant falls out of: it takes back reservations
//! that nobody used, marks nodes that fell silent as not connected, and gives free slots to those who wait, longest first.
//! It takes no input; it wakes by signal or period and reads the whole state.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::TenantId;

use super::approve::Approved;
use super::reserve::Decided;
use super::{Desk, stated};
use crate::decide::{Profile, Usage, recommend};
use crate::store::audit::{self, Entry};
use crate::store::decisions::Trigger;
use crate::store::tenants::{self, Tenant, TenantState};
use crate::store::{StoreError, idempotency, nodes, placements};

/// So many waiting tenants are read at a time.
const PAGE: i64 = 1024;
/// So many of them are tried in one transaction.
const AT_ONCE: usize = 64;
/// How long answers stay under their keys.
const KEY_DAYS: i32 = 7;

impl Desk {
    /// Runs until `shutdown`.
    pub async fn keep_waiting(self, period: Duration, shutdown: CancellationToken) {
        let mut changed = self.changed.listen();
        loop {
            let looked = tokio::select! {
                () = shutdown.cancelled() => return,
                looked = self.reconcile(Timestamp::now()) => looked,
            };
            match looked {
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
    /// tenants got a slot. All of those who wait are tried, in their order:
    /// some that fit nowhere keep nobody behind them waiting.
    ///
    /// # Errors
    /// [`StoreError`]; what was done before it stays done.
    pub async fn reconcile(&self, now: Timestamp) -> Result<(usize, usize), StoreError> {
        let expired = self.expire(now).await?;
        {
            let client = self.store.client().await?;
            idempotency::forget(&**client, KEY_DAYS).await?;
            let since = now.saturating_sub(self.slots.silence).unwrap_or(Timestamp::MIN);
            nodes::forget_silent(&**client, since).await?;
        }
        let (mut placed, mut after) = (0, None);
        loop {
            let page = {
                let client = self.store.client().await?;
                tenants::waiting(&**client, after, PAGE).await?
            };
            let Some(last) = page.last() else { break };
            after = Some(*last);
            let ids: Vec<TenantId> = page.iter().map(|turn| turn.tenant).collect();
            for batch in ids.chunks(AT_ONCE) {
                placed += self.retry_all(batch).await?;
            }
        }
        Ok((expired, placed))
    }

    /// Tries some tenants together, and one by one where that fails: what is
    /// wrong with one of them must not keep the others waiting.
    async fn retry_all(&self, batch: &[TenantId]) -> Result<usize, StoreError> {
        match self.retry(batch).await {
            // Without a connection the others fare no better.
            Err(error @ (StoreError::Pool(_) | StoreError::NoConnection(_))) => Err(error),
            Err(error) => {
                tracing::warn!(%error, waiting = batch.len(), "a batch failed; one by one");
                let mut placed = 0;
                for tenant in batch {
                    match self.retry(&[*tenant]).await {
                        Ok(one) => placed += one,
                        Err(error @ (StoreError::Pool(_) | StoreError::NoConnection(_))) => {
                            return Err(error);
                        }
                        Err(error) => {
                            tracing::error!(%tenant, %error, "a waiting tenant can't be placed");
                        }
                    }
                }
                Ok(placed)
            }
            placed => placed,
        }
    }

    async fn expire(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let expired = placements::expire_reserved(&tx, now).await?;
        for placement in &expired {
            let reason = "its reservation expired unused";
            tenants::wait_again(&tx, placement.tenant_id, reason).await?;
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

    /// Tries some tenants in one transaction, in their order; answers how many
    /// got a slot. A failed try writes nothing but a reason that changed, so
    /// that waiting leaves no heap of decisions.
    async fn retry(&self, batch: &[TenantId]) -> Result<usize, StoreError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let (mut decided, mut reasons) = (Vec::new(), Vec::new());
        for tenant in batch {
            let Some(row) = tenants::lock(&tx, *tenant).await? else { continue };
            if row.state != TenantState::Waiting || placements::home(&tx, *tenant).await?.is_some()
            {
                continue;
            }
            match self.decide(&row) {
                Ok(one) => {
                    decided.push(one);
                    reasons.push(row.state_reason);
                }
                // One tenant whose row can't be read must not keep the
                // others waiting.
                Err(error) => {
                    tracing::error!(%tenant, %error, "a waiting tenant can't be read");
                }
            }
        }
        let reserved = self.reserve(&tx, &decided, Timestamp::now()).await?;
        let mut placed = 0;
        for ((one, reserved), before) in decided.iter().zip(&reserved).zip(&reasons) {
            match reserved {
                Err(reason) if reason == before => {}
                Err(reason) => {
                    tenants::set_state(&tx, one.tenant, TenantState::Waiting, reason).await?;
                }
                Ok(_) => {
                    self.settle(&tx, one, Trigger::Schedule, reserved).await?;
                    placed += 1;
                }
            }
        }
        tx.commit().await?;
        Ok(placed)
    }

    /// What is best for a waiting tenant, by what it stated and what an
    /// administrator allowed.
    pub(super) fn decide(&self, row: &Tenant) -> Result<Decided, StoreError> {
        let catalog = &self.slots.catalog;
        let profile =
            Profile::build(&row.plan, &stated(row)?, &Usage::default(), catalog).map_err(
                |error| StoreError::Corrupt { what: "tenants.profile", detail: error.to_string() },
            )?;
        let mut decision = recommend(&profile, catalog);
        if let Some(approved) = &row.approved {
            let approved: Approved = serde_json::from_value(approved.clone()).map_err(|error| {
                StoreError::Corrupt { what: "tenants.approved", detail: error.to_string() }
            })?;
            decision.allow(&approved.unmet, &approved.by, catalog);
        }
        Ok(Decided { tenant: row.id, epoch: row.epoch, profile, decision })
    }
}
