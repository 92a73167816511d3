//! Who waits for a change of a place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_postgres::GenericClient;
use webhost_proto::ids::TenantId;

use crate::store::{StoreError, places};

/// Requests that may wait at a time.
const WAITERS: usize = 1_024;
/// Changes that are remembered by tenant; beyond it every waiter looks.
const REMEMBERED: usize = 100_000;
const BATCH: i64 = 1_000;

/// Too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{WAITERS} requests wait for a change already; ask without wait_s")]
pub struct Full;

/// What was seen of the directory. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    /// The longest that a request may wait.
    longest: Duration,
}

struct Shared {
    /// The newest version that was seen.
    latest: watch::Sender<i64>,
    /// The newest version of tenants that changed since `floor`.
    changed: Mutex<(i64, HashMap<TenantId, i64>)>,
}

/// One waiting request.
pub struct Waiter {
    directory: Directory,
    seen: watch::Receiver<i64>,
    deadline: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Directory {
    /// Nothing seen yet.
    pub fn new(longest: Duration) -> Self {
        let shared = Shared { latest: watch::Sender::new(0), changed: Mutex::default() };
        Self { shared: Arc::new(shared), slots: Arc::new(Semaphore::new(WAITERS)), longest }
    }

    /// Reads what changed, and wakes those who wait.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn refresh(&self, client: &impl GenericClient) -> Result<(), StoreError> {
        let before = *self.shared.latest.borrow();
        let mut last = before;
        if before == 0 {
            // Nobody waits for what was before us: they read it.
            last = places::latest(client).await?;
            self.changed().0 = last;
        } else {
            loop {
                let page = places::since(client, last, BATCH).await?;
                let mut changed = self.changed();
                for entry in &page {
                    last = last.max(entry.version);
                    changed.1.insert(entry.customer_id, entry.version);
                }
                if changed.1.len() > REMEMBERED {
                    *changed = (last, HashMap::new());
                }
                if page.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                    break;
                }
            }
        }
        if last > before {
            self.shared.latest.send_replace(last);
        }
        Ok(())
    }

    /// Takes a place among those who wait; before the first look at the
    /// database, so that no change slips in between.
    ///
    /// # Errors
    /// [`Full`].
    pub fn wait(&self, at_most: Duration) -> Result<Waiter, Full> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| Full)?;
        let mut seen = self.shared.latest.subscribe();
        seen.mark_unchanged();
        let deadline = Instant::now() + at_most.min(self.longest);
        Ok(Waiter { directory: self.clone(), seen, deadline, _slot: slot })
    }

    fn changed(&self) -> std::sync::MutexGuard<'_, (i64, HashMap<TenantId, i64>)> {
        // No code panics while it holds the lock; a poisoned map is whole.
        self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Returns true when something changed, of `tenant` where one is named,
    /// that is newer than `after`; false when the time is over.
    pub async fn changed(&mut self, tenant: Option<TenantId>, after: i64) -> bool {
        loop {
            let changed = tokio::time::timeout_at(self.deadline, self.seen.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return false;
            }
            let latest = *self.seen.borrow_and_update();
            let Some(tenant) = tenant else {
                if latest > after {
                    return true;
                }
                continue;
            };
            let changes = self.directory.changed();
            if changes.0 > after || changes.1.get(&tenant).is_some_and(|version| *version > after) {
                return true;
            }
        }
    }
}
