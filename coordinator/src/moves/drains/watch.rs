//! Watching over the nodes that are to be empty by a time.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Drain, DrainError, look};
use crate::moves::Rules;
use crate::slots::Slots;
use crate::store::audit::{self, Entry};
use crate::store::nodes::{self, Node};
use crate::store::{Store, StoreError};

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(60);
/// So many late tenants are named.
const NAMED: usize = 20;

/// Tells somebody, once a deadline, that it will not be met, and once more if it
/// has come and was not.
pub struct Watch {
    /// The state database.
    pub store: Store,
    /// What tenants take, and where they fit.
    pub slots: Slots,
    /// What moves are held to.
    pub rules: Rules,
}

impl Watch {
    /// Looks until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.tick(Timestamp::now()).await {
                warn!(%error, "nodes that are to be empty can't be looked at");
            }
        }
    }

    /// Looks at every node of which nobody was told yet; answers of how many
    /// somebody is now. Of two coordinators one tells it.
    ///
    /// # Errors
    /// When the nodes can't be read. What is wrong with one is logged and keeps
    /// none of the others.
    pub async fn tick(&self, now: Timestamp) -> Result<usize, StoreError> {
        let nodes = nodes::to_be_empty(&**self.store.client().await?, now).await?;
        let mut told = 0;
        for node in nodes {
            match self.look_at(&node, now).await {
                Ok(is_told) => told += usize::from(is_told),
                Err(DrainError::NotShared(_)) => {}
                Err(error) => warn!(node = %node.name, %error, "a drain can't be looked at"),
            }
        }
        Ok(told)
    }

    async fn look_at(&self, node: &Node, now: Timestamp) -> Result<bool, DrainError> {
        let Some(by) = node.drain_by else { return Ok(false) };
        let mut client = self.store.client().await?;
        let (drain, _) = look(&**client, &self.slots, &self.rules, node.id, Some(by), now).await?;
        if drain.late == 0 {
            return Ok(false);
        }
        let tx = client.transaction().await.map_err(StoreError::from)?;
        if !nodes::told_of_drain(&*tx, node.id, by, now).await? {
            return Ok(false);
        }
        audit::record(&*tx, &notice(node, &drain)).await?;
        tx.commit().await.map_err(StoreError::from)?;
        warn!(node = %node.name, %by, late = drain.late, of = drain.tenants.len(),
            "a node will not be empty by its time");
        Ok(true)
    }
}

fn notice(node: &Node, drain: &Drain) -> Entry<'static> {
    let late = drain.tenants.iter().filter(|one| one.late).take(NAMED);
    let late: Vec<_> =
        late.map(|one| json!({ "tenant": one.slug, "ends": one.ends, "why": one.why })).collect();
    Entry {
        actor: "system",
        action: "node.drain_late",
        subject: "node",
        subject_id: node.id.to_string(),
        detail: json!({
            "by": drain.by,
            "ends": drain.ends,
            "late": drain.late,
            "of": drain.tenants.len(),
            "tenants": late,
        }),
    }
}
