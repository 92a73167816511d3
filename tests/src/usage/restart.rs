//! How long a restarted coordinator takes to know all tenants again.

use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use tokio::time::Instant;
use webhost_coordinator::store::Store;
use webhost_coordinator::store::history::{self, Grain};
use webhost_coordinator::usage::{Book, rollup};

use super::history::Written;
use super::tenants::Tenants;
use crate::measure::figures::Figures;

/// So many days of sums, and of hours, are read.
const SUMS: u32 = 7;
const HOURS: u32 = 28;

/// Repeats the last whole day into the past, so that there is as much as a
/// restart reads, then fills an empty book.
///
/// # Errors
/// When PostgreSQL refuses something, or the new book says something else than
/// the old one.
pub async fn measure(written: &Written, figures: &mut Figures) -> anyhow::Result<()> {
    let Written { store, book, now, .. } = written;
    more(store, written.days).await?;
    let again = Book::new(Duration::from_secs(300));
    let started = Instant::now();
    rollup::reload(store, &again, *now).await?;
    let name = format!("restart: {} tenants known again", written.tenants);
    figures.less(&name, started.elapsed().as_secs_f64(), "s", None);
    for n in [0, written.tenants / 2, written.tenants - 1] {
        let of = |book: &Book| {
            let usage = book.tenant(Tenants::id(n), now.as_microsecond());
            let usage = usage.with_context(|| format!("tenant {n} is not known"))?;
            Ok::<_, anyhow::Error>((usage.gps_points_today, usage.vehicles, usage.memory_bytes_max))
        };
        ensure!(of(book)? == of(&again)?, "tenant {n} differs after the restart");
    }
    Ok(())
}

async fn more(store: &Store, days: u32) -> anyhow::Result<()> {
    let mut client = store.client().await?;
    let tx = (**client).transaction().await?;
    for back in days..SUMS {
        let shift = (back - days + 1) * 24;
        tx.execute(
            &format!(
                "insert into usage_hourly
                 select tenant_id, node_id, hour - interval '{shift} hours', cpu_us, gps_points,
                        api_calls, api_errors, request_duration_us, batch_operations,
                        realtime_operations, memory_bytes_max, storage_bytes, db_connections_max,
                        client_connections_max, vehicles, attributed
                 from usage_hourly where hour >= $1::timestamptz and hour < $1::timestamptz + interval '24 hours'"
            ),
            &[&first()?],
        )
        .await?;
    }
    for back in 1..=HOURS.saturating_sub(days) {
        let day = first()? - jiff::SignedDuration::from_hours(i64::from(back) * 24);
        history::prepare(&tx, Grain::Hours, [day]).await?;
        let sql = "insert into usage_hours
                   select tenant_id, $1, cpu, gps_points, api_calls, api_errors, request_time,
                          memory, storage, db_connections, client_connections, vehicles,
                          cpu_p95, connections_p95, gps_p95
                   from usage_hours where at = $2";
        tx.execute(sql, &[&day, &first()?]).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The first day that was written.
fn first() -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_second(super::memory::MONDAY * 60)?)
}
