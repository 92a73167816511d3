//! What was acknowledged, and how long every upload took.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

/// One upload from its first attempt to its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub tenant: Uuid,
    pub vehicle: Uuid,
    /// Since the load's start.
    pub started: Duration,
    /// Retries included: what the device felt.
    pub took: Duration,
    pub attempts: u32,
    /// The node that acknowledged it.
    pub node: String,
    pub rows: u64,
}

impl Upload {
    /// When it was acknowledged, since the load's start.
    pub fn ended(&self) -> Duration {
        self.started + self.took
    }
}

/// Everything that the load knows of its writes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Ids acknowledged, by tenant.
    pub acknowledged: BTreeMap<Uuid, Vec<Uuid>>,
    /// Ids whose outcome is unknown, by tenant.
    pub in_doubt: BTreeMap<Uuid, BTreeSet<Uuid>>,
    /// Device uploads in the order of their acknowledgement.
    pub uploads: Vec<Upload>,
    /// Uploads that an application refused for good: none is expected.
    pub refused: Vec<String>,
}

/// The ledger as all clients share it.
#[derive(Default)]
pub struct Shared {
    ledger: Mutex<Ledger>,
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An upload is about to be sent.
    pub fn sending(&self, tenant: Uuid, ids: &[Uuid]) {
        self.with(|ledger| ledger.in_doubt.entry(tenant).or_default().extend(ids));
    }

    /// It was acknowledged. `upload` is kept for device uploads.
    pub fn acknowledged(&self, tenant: Uuid, ids: &[Uuid], upload: Option<Upload>) {
        self.with(|ledger| {
            if let Some(open) = ledger.in_doubt.get_mut(&tenant) {
                for id in ids {
                    open.remove(id);
                }
            }
            ledger.acknowledged.entry(tenant).or_default().extend(ids);
            ledger.uploads.extend(upload);
        });
    }

    /// It was refused for good; nothing of it was written.
    pub fn refused(&self, tenant: Uuid, ids: &[Uuid], why: String) {
        self.with(|ledger| {
            if let Some(open) = ledger.in_doubt.get_mut(&tenant) {
                for id in ids {
                    open.remove(id);
                }
            }
            ledger.refused.push(why);
        });
    }

    /// Rows acknowledged so far.
    pub fn rows(&self) -> u64 {
        self.with(|ledger| ledger.acknowledged.values().map(|ids| ids.len() as u64).sum())
    }

    /// A copy of all of it.
    pub fn snapshot(&self) -> Ledger {
        self.with(|ledger| ledger.clone())
    }
}
