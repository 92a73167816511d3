//! How fast the chart of any tenant and metric reads, at each grain.

use std::io::Write;

use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use webhost_coordinator::store::history;
use webhost_coordinator::usage::chart;
use webhost_coordinator::usage::series::ALL;

use super::history::Written;
use super::tenants::Tenants;
use crate::measure::figures::{Figures, millis, quantile};

/// Charts of each kind.
const CHARTS: usize = 2000;

/// Reads random charts of the last day, month and two years, and prints what
/// PostgreSQL does for one of each.
///
/// # Errors
/// When PostgreSQL refuses something.
pub async fn read(written: &Written, figures: &mut Figures) -> anyhow::Result<()> {
    let Written { store, book, retention, now, .. } = written;
    let client = store.client().await?;
    let mut rng = StdRng::seed_from_u64(6);
    let hours = SignedDuration::from_hours;
    for (name, span) in [
        ("a day by the minute", hours(23)),
        ("a month by five minutes", hours(30 * 24)),
        ("two years by the hour", hours(730 * 24)),
    ] {
        let from = now.checked_sub(span)?;
        let mut took = Vec::with_capacity(CHARTS);
        let mut known = 0;
        for _ in 0..CHARTS {
            let tenant = Tenants::id(rng.random_range(0..written.tenants));
            let column = rng.random_range(0..ALL.len());
            let started = Instant::now();
            let drawn =
                chart::read(&**client, book, retention, tenant, column, (from, *now), *now).await?;
            took.push(u64::try_from(started.elapsed().as_micros())?);
            known += drawn.values.iter().flatten().count();
        }
        anyhow::ensure!(known > CHARTS, "charts of {name} are empty");
        took.sort_unstable();
        let goal = Some(20.0);
        let figure = format!("chart of any tenant and metric, {name}, p50");
        figures.less(&figure, millis(quantile(&took, 500)), "ms", goal);
        figures.less("  p99", millis(quantile(&took, 990)), "ms", goal);
        let grain = chart::grain(from, *now, *now, retention);
        let plan = history::plan_of(&**client, grain, Tenants::id(7), 1, from, *now).await?;
        for line in plan {
            writeln!(std::io::stdout().lock(), "    {line}")?;
        }
    }
    Ok(())
}
