//! Which of two databases serves a tenant, looked at all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::{Client, Config};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::writers::{World, session};

/// How the two fence rows stand: which side writers may commit on. A tenant
/// without a row on the source was never moved: it is active there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub source: bool,
    pub target: bool,
}

impl Standing {
    /// The one side that is active; 0 is the source.
    pub fn one(self) -> Option<usize> {
        match (self.source, self.target) {
            (true, false) => Some(0),
            (false, true) => Some(1),
            _ => None,
        }
    }
}

/// Looks once, with sessions of its own.
///
/// # Errors
/// When a database can't be reached.
pub async fn standing(world: &World) -> anyhow::Result<Standing> {
    let (source, _a) = session(&world.source).await?;
    let (target, _b) = session(&world.target).await?;
    look(&source, &target, world.tenant).await
}

async fn look(source: &Client, target: &Client, tenant: Uuid) -> anyhow::Result<Standing> {
    let there = fence(target, tenant).await?;
    let here = fence(source, tenant).await?;
    Ok(standing_of(here.as_ref(), there.as_ref()))
}

fn standing_of(source: Option<&Fence>, target: Option<&Fence>) -> Standing {
    Standing {
        source: source.is_none_or(|fence| fence.state == "active"),
        target: target.is_some_and(|fence| fence.state == "active"),
    }
}

/// Whether both sides were active at one moment. Two databases can't be read
/// at once, and a tenant may go over between two reads, either way: only a
/// target's row that is the same before and after the source's was there
/// while the source's was read.
async fn both_active(source: &Client, target: &Client, tenant: Uuid) -> anyhow::Result<bool> {
    let before = fence(target, tenant).await?;
    let here = fence(source, tenant).await?;
    let after = fence(target, tenant).await?;
    let standing = standing_of(here.as_ref(), after.as_ref());
    Ok(before == after && standing.source && standing.target)
}

/// A fence row, and which version of it.
#[derive(PartialEq, Eq)]
struct Fence {
    state: String,
    version: String,
}

async fn fence(client: &Client, tenant: Uuid) -> anyhow::Result<Option<Fence>> {
    let exists: bool = client
        .query_one("select to_regclass('webhost_fleet.fence') is not null", &[])
        .await?
        .get(0);
    if !exists {
        return Ok(None);
    }
    let row = client
        .query_opt(
            "select state, xmin::text || ctid::text from webhost_fleet.fence \
             where customer_id = $1",
            &[&tenant],
        )
        .await;
    match row {
        Ok(row) => Ok(row.map(|row| Fence { state: row.get(0), version: row.get(1) })),
        // Dropped between the two statements.
        Err(error) if error.code().is_some_and(|code| code.code() == "42P01") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A look every few milliseconds, until it is ended.
pub struct Sides {
    stop: CancellationToken,
    looks: Arc<AtomicU64>,
    both: Arc<AtomicU64>,
    watcher: JoinSet<()>,
}

impl Sides {
    /// Begins to look for the tenant at source and target.
    pub fn watch(configs: [Config; 2], tenant: Uuid) -> Self {
        let stop = CancellationToken::new();
        let (looks, both) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut watcher = JoinSet::new();
        watcher.spawn(watch(configs, tenant, stop.clone(), Arc::clone(&looks), Arc::clone(&both)));
        Self { stop, looks, both, watcher }
    }

    /// How often it looked so far, and how often it saw two active sides.
    pub fn seen(&self) -> (u64, u64) {
        (self.looks.load(Ordering::SeqCst), self.both.load(Ordering::SeqCst))
    }

    /// The last look; answers as [`Sides::seen`].
    pub async fn end(mut self) -> (u64, u64) {
        self.stop.cancel();
        while self.watcher.join_next().await.is_some() {}
        self.seen()
    }
}

async fn watch(
    configs: [Config; 2],
    tenant: Uuid,
    stop: CancellationToken,
    looks: Arc<AtomicU64>,
    both: Arc<AtomicU64>,
) {
    let pause = Duration::from_millis(5);
    while !stop.is_cancelled() {
        let (Ok((source, _a)), Ok((target, _b))) =
            (session(&configs[0]).await, session(&configs[1]).await)
        else {
            tokio::time::sleep(pause).await;
            continue;
        };
        // Until a server dies, and the sessions with it.
        while !stop.is_cancelled() {
            let Ok(seen) = both_active(&source, &target, tenant).await else { break };
            // Whoever has seen the look sees what it saw.
            both.fetch_add(u64::from(seen), Ordering::SeqCst);
            looks.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(pause).await;
        }
    }
}
