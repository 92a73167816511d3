//! Which of the two databases serves the tenant, looked at all the time.

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
    // The target first: were it active by right, the source had been closed
    // before, and must be seen closed after.
    let there = state(target, tenant).await?;
    let here = state(source, tenant).await?;
    Ok(Standing {
        source: here.is_none_or(|state| state == "active"),
        target: there.is_some_and(|state| state == "active"),
    })
}

async fn state(client: &Client, tenant: Uuid) -> anyhow::Result<Option<String>> {
    let exists: bool = client
        .query_one("select to_regclass('webhost_fleet.fence') is not null", &[])
        .await?
        .get(0);
    if !exists {
        return Ok(None);
    }
    let row = client
        .query_opt("select state from webhost_fleet.fence where customer_id = $1", &[&tenant])
        .await;
    match row {
        Ok(row) => Ok(row.map(|row| row.get(0))),
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
    /// Begins to look.
    pub fn watch(world: &World) -> Self {
        let stop = CancellationToken::new();
        let (looks, both) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut watcher = JoinSet::new();
        let (configs, tenant) = ([world.source.clone(), world.target.clone()], world.tenant);
        watcher.spawn(watch(configs, tenant, stop.clone(), Arc::clone(&looks), Arc::clone(&both)));
        Self { stop, looks, both, watcher }
    }

    /// How often it looked, and how often it saw two active sides.
    pub async fn end(mut self) -> (u64, u64) {
        self.stop.cancel();
        while self.watcher.join_next().await.is_some() {}
        (self.looks.load(Ordering::Relaxed), self.both.load(Ordering::Relaxed))
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
            let Ok(standing) = look(&source, &target, tenant).await else { break };
            looks.fetch_add(1, Ordering::Relaxed);
            both.fetch_add(u64::from(standing.source && standing.target), Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
    }
}
