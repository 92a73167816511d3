//! The history of many tenants over days, written by the product's recorder, which
//! looks once an hour here rather than once a minute.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::time::Instant;
use webhost_coordinator::config::Usage;
use webhost_coordinator::embedded::{Embedded, Options};
use webhost_coordinator::store::Store;
use webhost_coordinator::store::history::Grain;
use webhost_coordinator::store::usage::{self, HourKey, Hourly};
use webhost_coordinator::usage::record::{Recorder, Retention};
use webhost_coordinator::usage::{Book, rollup};

use super::memory::{MONDAY, apply};
use super::tenants::{Reported, Tenants};
use crate::measure::figures::Figures;

/// The tenants of the goal on paper.
const ON_PAPER: f64 = 1_500_000.0;
const HOUR_US: i64 = 3_600_000_000;
/// Sums are written so many at once.
const AT_ONCE: usize = 2000;

/// What was written, on a PostgreSQL that runs.
pub struct Written {
    pub store: Store,
    pub book: Arc<Book>,
    pub tenants: u32,
    pub days: u32,
    /// How long history is kept.
    pub retention: Retention,
    /// A moment after the last hour was written.
    pub now: Timestamp,
    server: Embedded,
    _dir: TempDir,
}

impl Written {
    /// Ends the server.
    ///
    /// # Errors
    /// When that fails.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self { server, store, .. } = self;
        drop(store);
        tokio::task::spawn_blocking(move || drop(server)).await.context("PostgreSQL ends")
    }
}

/// Writes the history of `days` days and three hours.
///
/// # Errors
/// When PostgreSQL can't be started or refuses something.
pub async fn write(tenants: u32, days: u32, figures: &mut Figures) -> anyhow::Result<Written> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("postgres");
    let server = tokio::task::spawn_blocking(move || Embedded::start(&path, &Options::durable()));
    let server = server.await??;
    let store = Store::new(server.config("postgres"), 4)?;
    store.migrate().await?;
    let retention = Usage::default().retention();
    let book = Arc::new(Book::new(Duration::from_secs(300)));
    let recorder = Recorder::new(store.clone(), book.clone(), retention);
    let mut town = Tenants::new(tenants);
    let (mut applying, mut writing) = (Duration::ZERO, Duration::ZERO);
    let mut now = Timestamp::UNIX_EPOCH;
    let hours = i64::from(days) * 24 + 3;
    for hour in 0..hours {
        let mut sums = BTreeMap::new();
        for minute in hour * 60..(hour + 1) * 60 {
            let reports = town.minute(MONDAY + minute);
            let started = Instant::now();
            apply(&book, &reports, MONDAY + minute);
            applying += started.elapsed();
            add(&mut sums, &reports, (MONDAY + minute) * 60_000_000);
        }
        // Three minutes after the hour, as the recorder comes.
        now =
            Timestamp::from_microsecond(MONDAY * 60_000_000 + (hour + 1) * HOUR_US + 180_000_000)?;
        let started = Instant::now();
        recorder.look(now).await?;
        writing += started.elapsed();
        let client = store.client().await?;
        let sums: Vec<(HourKey, Hourly)> = sums.into_iter().collect();
        for part in sums.chunks(AT_ONCE) {
            usage::add(&**client, part).await?;
        }
    }
    let samples = f64::from(tenants) * (hours * 60) as f64;
    figures.more(
        "samples of tenants taken in",
        (samples / applying.as_secs_f64()).round(),
        "per s",
        None,
    );
    let hours_of_all = f64::from(tenants) * hours as f64;
    let rate = (hours_of_all / writing.as_secs_f64()).round();
    figures.more("tenants' hours written, days made of them included", rate, "per s", None);
    let written = Written { store, book, tenants, days, retention, now, server, _dir: dir };
    sizes(&written, figures).await?;
    Ok(written)
}

/// Adds a minute to the hour's sums, as reports do.
fn add(sums: &mut BTreeMap<HourKey, Hourly>, reports: &[Reported], at_us: i64) {
    for (node, samples) in reports {
        for (tenant, sample) in samples {
            let (key, row) = rollup::hourly(*tenant, *node, sample, at_us);
            let sum: &mut Hourly = sums.entry(key).or_default();
            sum.cpu_us += row.cpu_us;
            sum.gps_points += row.gps_points;
            sum.api_calls += row.api_calls;
            sum.api_errors += row.api_errors;
            sum.request_duration_us += row.request_duration_us;
            sum.batch_operations += row.batch_operations;
            sum.realtime_operations += row.realtime_operations;
            sum.memory_bytes_max = sum.memory_bytes_max.max(row.memory_bytes_max);
            sum.storage_bytes = row.storage_bytes;
            sum.db_connections_max = sum.db_connections_max.max(row.db_connections_max);
            sum.client_connections_max = sum.client_connections_max.max(row.client_connections_max);
            sum.vehicles = row.vehicles;
        }
    }
}

/// Rows and bytes a tenant and day, of each history, and what all of its
/// retention takes for the tenants of the goal.
async fn sizes(written: &Written, figures: &mut Figures) -> anyhow::Result<()> {
    let client = written.store.client().await?;
    let mut all = 0.0;
    for grain in Grain::ALL {
        let table = grain.table();
        // Of the last day that is whole. A table of hours holds a month.
        let day = match grain {
            Grain::Hours => format!("{table}_p202611"),
            Grain::Minutes | Grain::Fives => format!("{table}_p202611{}", 15 + written.days),
        };
        let sql = format!(
            "select count(*), count(distinct tenant_id), count(distinct at::date),
                    pg_total_relation_size('{day}') from {day}"
        );
        let row = client.query_one(&sql, &[]).await?;
        let [rows, tenants, days, bytes]: [i64; 4] =
            [row.get(0), row.get(1), row.get(2), row.get(3)];
        let each = (tenants * days).max(1) as f64;
        let kept = written.retention.of(grain).as_hours() as f64 / 24.0;
        let on_paper = bytes as f64 / each * kept * ON_PAPER / 1e9;
        all += on_paper;
        figures.less(&format!("{table}: rows a tenant and day"), rows as f64 / each, "", None);
        figures.less("  bytes a tenant and day, with index", bytes as f64 / each, "bytes", None);
        let name = format!("  on paper, 1.5 M tenants, {kept:.0} days");
        figures.less(&name, on_paper, "GB", None);
    }
    figures.less("all of the history on paper, 1.5 M tenants", all, "GB", None);
    Ok(())
}
