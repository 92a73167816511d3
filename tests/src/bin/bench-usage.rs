//! What remembering usage costs: the coordinator's memory for each tenant, the
//! rows and bytes of the history as its recorder writes it into a durable
//! PostgreSQL of its own, how fast a chart reads, and how long a restart takes
//! to know it all again.
//!
//! Prints each figure with its goal and writes `target/bench/usage.json`. The
//! arguments are tenants and days, 15,000 and 2 unless given.

use anyhow::Context;
use webhost_tests::measure::figures::Figures;
use webhost_tests::usage::{charts, history, memory, restart};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str, default: u32| -> anyhow::Result<u32> {
        let Some(text) = arguments.next() else { return Ok(default) };
        let number = text.parse().with_context(|| format!("{text:?} is no number of {name}"))?;
        anyhow::ensure!(number > 0, "the number of {name} must be at least 1");
        Ok(number)
    };
    let (tenants, days) = (number("tenants", 15_000)?, number("days", 2)?);
    anyhow::ensure!(days <= 14, "the days are all of one month: at most 14");
    let mut figures = Figures::default();
    // First, while the heap has nothing else in it.
    memory::measure(tenants, &mut figures)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let written = history::write(tenants, days, &mut figures).await?;
        charts::read(&written, &mut figures).await?;
        restart::measure(&written, &mut figures).await?;
        written.end().await
    })?;
    figures.write("usage")
}
