//! Writes the history: hours that are over, once a minute; days that are over,
//! made of their five minutes; and drops what is older than it is to be kept.
//!
//! **Invariant:** an hour is written once by who saw it, whole, and a day once by
//! whoever comes first. What can't be written stays in memory, up to a bound,
//! and is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use webhost_proto::ids::TenantId;

use super::book::Book;
use super::hours::fives;
use super::profile::{ROWS, percentiles};
use super::series::{ALL, COLUMNS, ClosedHour, Values, coarser};
use super::tenant::HOUR_US;
use crate::store::history::{self, Grain, Stretch};
use crate::store::{Store, StoreError};

/// How often the recorder looks.
const PERIOD: Duration = Duration::from_secs(60);
/// An hour waits so long for reports that are late.
const GRACE_US: i64 = 2 * 60_000_000;
/// A day is made so long after its end: every coordinator has written its last
/// hour by then.
const DAY_GRACE: SignedDuration = SignedDuration::from_mins(10);
/// So many hours, or tenants of a day, at once.
const AT_ONCE: usize = 1000;

/// How long the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub minutes: SignedDuration,
    pub fives: SignedDuration,
    pub hours: SignedDuration,
}

impl Retention {
    /// Of one grain.
    pub fn of(&self, grain: Grain) -> SignedDuration {
        match grain {
            Grain::Minutes => self.minutes,
            Grain::Fives => self.fives,
            Grain::Hours => self.hours,
        }
    }
}

/// Writes what the book has of hours that are over.
pub struct Recorder {
    store: Store,
    book: Arc<Book>,
    retention: Retention,
}

impl Recorder {
    /// A recorder; [`Recorder::run`] makes it look.
    pub fn new(store: Store, book: Arc<Book>, retention: Retention) -> Self {
        Self { store, book, retention }
    }

    /// Looks until `shutdown`; then writes what there is of the running hour.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.look(Timestamp::now()).await {
                tracing::warn!(%error, "usage was not recorded; again in a minute");
            }
        }
        if let Err(error) = self.write(i64::MAX).await {
            tracing::warn!(%error, "the running hour was not recorded; its sums are");
        }
    }

    /// One look at `now`: hours, days, and what is too old.
    ///
    /// # Errors
    /// [`StoreError`]; what was written before stays written.
    pub async fn look(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write((now.as_microsecond() - GRACE_US).div_euclid(HOUR_US)).await?;
        self.make_days(now).await?;
        self.drop_old(now).await
    }

    /// Writes every hour before `hour` (since the Unix epoch).
    async fn write(&self, hour: i64) -> Result<(), StoreError> {
        let mut over = self.book.take_over(hour);
        while !over.is_empty() {
            let count = over.len().min(AT_ONCE);
            match self.write_hours(&over[..count]).await {
                Ok(()) => drop(over.drain(..count)),
                Err(error) => {
                    self.book.give_back(over);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn write_hours(&self, hours: &[(TenantId, ClosedHour)]) -> Result<(), StoreError> {
        let (mut by_minute, mut by_five) = (Vec::new(), Vec::new());
        for (tenant, hour) in hours {
            let minutes = hour.minutes();
            let at = start(hour.hour);
            let row = |values| Stretch { tenant: *tenant, at, values, percentiles: None };
            by_five.push(row(fives(&minutes)));
            by_minute.push(row(minutes));
        }
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        for (grain, rows) in [(Grain::Minutes, by_minute), (Grain::Fives, by_five)] {
            history::prepare(&tx, grain, rows.iter().map(|row| row.at)).await?;
            history::copy(&tx, grain, &rows).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Makes the hours of every day that is over and has none yet.
    async fn make_days(&self, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let mut client = self.store.client().await?;
            let tx = (**client).transaction().await?;
            if !history::lock_days(&tx).await? {
                return Ok(());
            }
            let Some(day) = history::next_day(&tx).await? else { return Ok(()) };
            if now.duration_since(day) < SignedDuration::from_hours(24) + DAY_GRACE {
                return Ok(());
            }
            let tenants = history::tenants_of_day(&tx, day).await?;
            history::prepare(&tx, Grain::Hours, [day]).await?;
            for part in tenants.chunks(AT_ONCE) {
                let hours = history::fives_of_day(&tx, day, part).await?;
                history::copy(&tx, Grain::Hours, &days(day, &hours)).await?;
            }
            history::day_is_made(&tx, day).await?;
            tx.commit().await?;
            tracing::info!(%day, tenants = tenants.len(), "a day of usage is recorded");
        }
    }

    async fn drop_old(&self, now: Timestamp) -> Result<(), StoreError> {
        for grain in Grain::ALL {
            let before = now.saturating_sub(self.retention.of(grain)).unwrap_or(Timestamp::MIN);
            let mut client = self.store.client().await?;
            let tx = (**client).transaction().await?;
            let dropped = history::drop_before(&tx, grain, before).await?;
            tx.commit().await?;
            if !dropped.is_empty() {
                tracing::info!(?dropped, "usage that is too old was dropped");
            }
        }
        Ok(())
    }
}

fn start(hour: i64) -> Timestamp {
    // Hours come of times that are in jiff's range.
    Timestamp::from_second(hour.saturating_mul(3600)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The rows of `day` of the five minutes of its hours, by tenant.
fn days(day: Timestamp, hours: &[Stretch]) -> Vec<Stretch> {
    let mut tenants: BTreeMap<TenantId, Vec<Option<[Values; COLUMNS]>>> = BTreeMap::new();
    for row in hours {
        let of_day = usize::try_from(row.at.duration_since(day).as_hours()).unwrap_or(24);
        let known = tenants.entry(row.tenant).or_insert_with(|| vec![None; 24]);
        let Some(slot) = known.get_mut(of_day) else { continue };
        match slot {
            None => *slot = Some(row.values.clone()),
            // Another coordinator saw the rest of this hour.
            Some(values) => values.iter_mut().zip(&row.values).for_each(|(a, b)| join(a, b)),
        }
    }
    tenants
        .into_iter()
        .map(|(tenant, hours)| {
            let mut values: [Values; COLUMNS] = std::array::from_fn(|_| Vec::with_capacity(24));
            let mut usual: [Values; ROWS] = std::array::from_fn(|_| Vec::with_capacity(24));
            for hour in hours {
                let hour = hour.unwrap_or_else(|| std::array::from_fn(|_| vec![None]));
                for (at, values) in values.iter_mut().enumerate() {
                    values.extend(coarser(&hour[at], hour[at].len(), ALL[at].fold));
                }
                let of_hour = percentiles(|column| &hour[column]);
                for (usual, value) in usual.iter_mut().zip(of_hour) {
                    usual.push(value.map(i32::from));
                }
            }
            Stretch { tenant, at: day, values, percentiles: Some(usual) }
        })
        .collect()
}

/// Takes in what is known of `more`; the larger where both are.
pub(super) fn join(values: &mut Values, more: &[Option<i32>]) {
    for (value, more) in values.iter_mut().zip(more) {
        *value = (*value).max(*more);
    }
}

#[cfg(test)]
mod tests;
