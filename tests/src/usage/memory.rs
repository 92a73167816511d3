//! What the coordinator keeps of a tenant in memory.

use std::time::Duration;

use anyhow::Context;
use webhost_coordinator::usage::Book;
use webhost_proto::wire;

use super::tenants::{Reported, Tenants};
use crate::measure::figures::Figures;

/// Microseconds of a minute.
const MINUTE_US: i64 = 60_000_000;
/// Monday, 2026-11-16 00:00 UTC, in minutes since the Unix epoch.
pub const MONDAY: i64 = 20_773 * 24 * 60;

/// Reports every minute of two hours for all tenants, has what is over taken out
/// each minute as the recorder does, and says what the process has grown by in the
/// second.
///
/// # Errors
/// When the process' figures can't be read.
pub fn measure(tenants: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let mut town = Tenants::new(tenants);
    // The reports of a minute are there whenever it is looked at: what is counted
    // is what the book keeps of them.
    let reports = town.minute(MONDAY);
    let before = resident()?;
    drop(reports);
    let book = Book::new(Duration::from_secs(300));
    let mut grown = Vec::new();
    for minute in 0..120 {
        let reports = town.minute(MONDAY + minute);
        apply(&book, &reports, MONDAY + minute);
        if minute >= 60 {
            grown.push(resident()?.saturating_sub(before));
        }
        drop(reports);
        drop(book.take_over(MONDAY + minute - 2));
    }
    let each = |bytes: u64| bytes as f64 / f64::from(tenants);
    let mean = grown.iter().sum::<u64>() / grown.len().max(1) as u64;
    let most = grown.iter().copied().max().unwrap_or_default();
    let name = format!("memory a tenant, {tenants} tenants, mean of an hour (resident)");
    figures.less(&name, each(mean), "bytes", Some(1024.0));
    figures.less("  the most", each(most), "bytes", Some(1024.0));
    drop(book);
    Ok(())
}

/// Takes a minute's reports into the book.
pub fn apply(book: &Book, reports: &[Reported], minute: i64) {
    let report = wire::Report::default();
    for (node, samples) in reports {
        book.apply(*node, &report, samples, minute * MINUTE_US, MINUTE_US.unsigned_abs());
    }
}

/// Bytes of this process that are in memory.
fn resident() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").context("read /proc/self/statm")?;
    let pages = text.split(' ').nth(1).context("statm has a second number")?;
    Ok(pages.parse::<u64>()? * rustix::param::page_size() as u64)
}
