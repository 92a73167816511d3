//! Durable placements: tenants that wait get their slots in batches, each a
//! transaction on a PostgreSQL that keeps what it acknowledges.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_coordinator::decide::Catalog;
use webhost_coordinator::embedded::{Embedded, Options};
use webhost_coordinator::fleet::{Demand, Home, Policy};
use webhost_coordinator::slots::Slots;
use webhost_coordinator::slots::take::Wanted;
use webhost_coordinator::store::Store;
use webhost_coordinator::usage::Book;
use webhost_proto::ids::{Epoch, TenantId};

use super::ax52::Tenants;
use crate::measure::figures::Figures;

/// Tenants that wait, and servers for them.
const TENANTS: u32 = 10_000;
const SERVERS: u32 = 100;

/// Places them all, in batches of each size.
///
/// # Errors
/// When PostgreSQL can't be started, or a tenant finds no place.
pub async fn all(figures: &mut Figures) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("postgres");
    let server = tokio::task::spawn_blocking(move || Embedded::start(&path, &Options::durable()));
    let server = server.await??;
    let store = Store::new(server.config("postgres"), 4)?;
    store.migrate().await?;
    let slots = Slots {
        book: Arc::new(Book::new(Duration::from_secs(300))),
        catalog: Arc::new(Catalog::default()),
        silence: SignedDuration::from_secs(86_400),
    };
    let mut tenants = Tenants::new(19);
    let wanted: Vec<Wanted> = (1..=TENANTS)
        .map(|n| Wanted {
            tenant: TenantId(Uuid::from_u128(u128::from(n))),
            demand: Demand {
                need: tenants.next(true).need(),
                home: Home::Shared { near: Vec::new() },
            },
            epoch: Epoch(1),
        })
        .collect();
    // A signup names the next best too; here only the choice is measured.
    let policy = Policy { runners_up: 0, ..Policy::of(&slots.catalog) };
    let goal = Some(20_000.0);
    for (batch, goal) in [(1, None), (100, None), (1000, None), (5000, goal)] {
        // A tenth of them one by one: that is slow enough.
        let wanted = if batch == 1 { &wanted[..500] } else { &wanted[..] };
        fill(&store).await?;
        let started = Instant::now();
        for part in wanted.chunks(batch) {
            let mut client = store.client().await?;
            let tx = client.transaction().await?;
            let chosen = slots.take(&*tx, part, &policy, Timestamp::now(), None).await?;
            tx.commit().await?;
            ensure!(chosen.iter().all(Result::is_ok), "a tenant found no place");
        }
        let rate = wanted.len() as f64 / started.elapsed().as_secs_f64();
        let name = format!("durable placements, batches of {batch}, {SERVERS} servers");
        figures.more(&name, rate.round(), "per s", goal);
        let client = store.client().await?;
        let count: i64 = client.query_one("select count(*) from placements", &[]).await?.get(0);
        ensure!(count == i64::try_from(wanted.len())?, "{count} placements were stored");
    }
    drop(store);
    tokio::task::spawn_blocking(move || drop(server)).await.context("PostgreSQL ends")
}

/// Waiting tenants, empty servers, no placements.
async fn fill(store: &Store) -> anyhow::Result<()> {
    let client = store.client().await?;
    client
        .batch_execute(&format!(
            "truncate tenants, nodes, places cascade;
             insert into tenants (id, slug, name, email, plan)
             select lpad(to_hex(n), 32, '0')::uuid, 't' || n, 't', 't@example.com', 'hobby'
             from generate_series(1, {TENANTS}) n;
             insert into nodes (id, name, kind, shape, region, state, last_seen_at)
             select lpad(to_hex(n), 32, '0')::uuid, 'n' || n, 'shared', 'ax52', 'iad', 'active', now()
             from generate_series(1, {SERVERS}) n;
             analyze"
        ))
        .await?;
    Ok(())
}
