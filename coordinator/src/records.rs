//! How long the coordinator's own records are kept: decisions, commands, the
//! histories of moves, sums of hours, tokens, the audit trail. What is older is
//! deleted, a little at a time.
//!
//! **Invariant:** nothing is deleted that a move which has not ended needs, or
//! a decision that a move refers to.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Records;
use crate::store::old::{Old, delete};
use crate::store::{Store, StoreError};

/// How often old rows are looked for.
const PERIOD: Duration = Duration::from_secs(3600);
/// So many rows are deleted at a time.
const AT_ONCE: i64 = 2000;
/// The pause between two such times: the work of the day goes first.
const PAUSE: Duration = Duration::from_millis(100);

/// Deletes old records.
pub struct Keeper {
    store: Store,
    kept: Records,
    at_once: i64,
    pause: Duration,
}

impl Keeper {
    /// Keeps records as long as `kept` says.
    pub const fn new(store: Store, kept: Records) -> Self {
        Self { store, kept, at_once: AT_ONCE, pause: PAUSE }
    }

    /// Looks until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                looked = self.tick(Timestamp::now()) => if let Err(error) = looked {
                    warn!(%error, "old records were not deleted; again in an hour");
                },
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Deletes everything that is too old at `now`; answers how many rows of
    /// each table. May be ended anywhere.
    ///
    /// # Errors
    /// [`StoreError`]; what was deleted before it stays deleted.
    pub async fn tick(&self, now: Timestamp) -> Result<Vec<(Old, u64)>, StoreError> {
        let (mut all, mut failed) = (Vec::new(), None);
        for what in Old::ALL {
            let days = self.kept.days(what);
            let back = SignedDuration::from_hours(i64::from(days) * 24);
            let Ok(before) = now.checked_sub(back) else { continue };
            let deleted = match if days == 0 { Ok(0) } else { self.delete(what, before).await } {
                Ok(deleted) => deleted,
                // One table that can't be cleared keeps no other from it.
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            if deleted > 0 {
                info!(table = what.table(), deleted, days, "old records deleted");
            }
            all.push((what, deleted));
        }
        failed.map_or(Ok(all), Err)
    }
}

impl Keeper {
    async fn delete(&self, what: Old, before: Timestamp) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let some = {
                let client = self.store.client().await?;
                delete(&**client, what, before, self.at_once).await?
            };
            deleted += some;
            if some < self.at_once.unsigned_abs() {
                return Ok(deleted);
            }
            tokio::time::sleep(self.pause).await;
        }
    }
}

#[cfg(test)]
mod tests;
