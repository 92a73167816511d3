//! Where requests of a tenant go: its host name, the directory that tells
//! applications, and what name servers should answer.
//!
//! **Theory of operation.** The books (placements, tenants) say where a tenant
//! lives; triggers of the schema give every change a version. [`Routing`] is a
//! reconcile loop that wakes with the database's notification, from whichever
//! coordinator the change came, and by period: it names tenants that have no
//! host name yet, wakes those who wait for a change ([`Directory`]), and tells
//! the name servers ([`Dns`]) of what changed after the last change that they
//! were told, and again of what failed. So a switch and a roll back are both
//! just the books' changes, and nothing here can stop a move.
//!
//! **Invariant:** a tenant's version strictly increases, with every change of
//! its place; whoever asks for what came after a version misses nothing.
//! **Invariant:** a name server that fails is told again, and fails nobody.

mod directory;
mod dns;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

pub use self::directory::{Directory, Full};
pub use self::dns::{Dns, Recorded};
use crate::store::{Store, StoreError, places};

/// Looked at without a notification, this often.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two tries to listen.
const AGAIN: Duration = Duration::from_secs(1);
/// Host names published at a time.
const BATCH: i64 = 256;

/// The loop. It keeps nothing that a crash could cost: one that starts looks
/// through all places once.
pub struct Routing {
    store: Store,
    /// Tenants without a host name get "slug.domain"; none get none.
    domain: Option<String>,
    directory: Directory,
    dns: Box<dyn Dns>,
    /// Every change up to this version was published, or is on record as failed.
    told: AtomicI64,
}

impl Routing {
    /// A loop over `store`; [`Routing::run`] makes it run.
    pub fn new(
        store: Store,
        domain: Option<String>,
        directory: Directory,
        dns: Box<dyn Dns>,
    ) -> Self {
        Self { store, domain, directory, dns, told: AtomicI64::new(0) }
    }

    /// Until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let woken = crate::link::Signal::default();
        let mut wakes = woken.listen();
        let listening = async {
            loop {
                let began = Instant::now();
                if let Err(error) = self.store.listen(places::CHANNEL, || woken.notify()).await {
                    tracing::debug!(%error, "places are looked at by period");
                }
                tokio::time::sleep_until(began + AGAIN).await;
            }
        };
        let looking = async {
            loop {
                if let Err(error) = self.look().await {
                    tracing::warn!(%error, "places can't be looked at");
                }
                // Ends by a wake or by the period; both lead to a look.
                let _timed_out = tokio::time::timeout(PERIOD, wakes.heard()).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = listening => {}
            () = looking => {}
        }
    }

    /// One look at everything.
    ///
    /// # Errors
    /// When the state database can't be read.
    pub async fn look(&self) -> Result<(), StoreError> {
        let client = self.store.client().await?;
        if let Some(domain) = &self.domain {
            let named = places::name_hosts(&**client, domain).await?;
            if named > 0 {
                tracing::info!(named, domain, "tenants got host names");
            }
        }
        self.directory.refresh(&**client).await?;
        self.tell(&client).await
    }

    /// Publishes what changed, then what failed before: some [`BATCH`] host
    /// names of each, at most; the next look goes on.
    async fn tell(&self, client: &Client) -> Result<(), StoreError> {
        let mut room = BATCH;
        while room > 0 {
            let after = self.told.load(Ordering::Relaxed);
            let page = places::dns_changes(client, after, BATCH).await?;
            let Some((last, _)) = page.last() else { break };
            let last = *last;
            for due in page.into_iter().filter_map(|(_, due)| due) {
                self.publish(client, &due).await?;
                room -= 1;
            }
            // Only now: what could not be written down is tried again.
            self.told.fetch_max(last, Ordering::Relaxed);
        }
        for due in places::dns_failed(client, BATCH).await? {
            self.publish(client, &due).await?;
        }
        Ok(())
    }

    async fn publish(&self, client: &Client, due: &places::Due) -> Result<(), StoreError> {
        let (at, error) = match self.dns.set(&due.host, &due.place).await {
            Ok(()) => (Some(Timestamp::now()), String::new()),
            Err(error) => {
                tracing::warn!(host = due.host, place = due.place, error, "name server");
                (None, error)
            }
        };
        places::dns_told(client, due, at, &error).await
    }
}

#[cfg(test)]
mod tests;
