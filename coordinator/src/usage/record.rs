//! Writes the history, once a minute: parts that are over; hours that are over, of
//! their parts, which then teach the tenants' usual days; days that are over, of
//! their hours. And drops what is older than it is to be kept.
//!
//! **Invariant:** a part is written once by who saw it, and an hour and a day are
//! made once by whoever comes first, after all of their parts are written. A part
//! that comes later than that has the hour's five minutes written once more, of all
//! that there is, and readers take the larger: of sums and levels that is the
//! whole, of CPU it may be a part's. A day is never made again: what comes later
//! is in its five minutes and in the hourly sums alone. What can't be written stays
//! in memory, up to a bound, and is tried again; written twice, it counts once.
//! Nothing is dropped that is still to be made something of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Transaction;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::book::Book;
use super::hours::fives;
use super::part::{PART, Part};
use super::profile::{ROWS, percentiles};
use super::series::{ALL, COLUMNS, CONNECTIONS, CPU, GPS, Values, coarser};
use crate::store::history::{self, Grain, Stretch, parts};
use crate::store::{Store, StoreError};

/// How often the recorder looks.
const PERIOD: Duration = Duration::from_secs(60);
/// A part waits so long for reports that are late.
const GRACE: SignedDuration = SignedDuration::from_mins(2);
/// An hour is made so long after its end: the last part that has minutes of it is
/// over by then.
const LAST_PART: SignedDuration = SignedDuration::from_mins(PART as i64);
const MINUTES: usize = 60;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A day is made so long after its end: what other coordinators have of it is
/// written by then.
const DAY_GRACE: SignedDuration = SignedDuration::from_mins(30);
/// So many parts, or tenants of an hour or a day, at once.
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

/// Writes what the book has of parts that are over, and what is made of them.
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

    /// Looks until `shutdown`; then writes what there is of the running parts.
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
            tracing::warn!(%error, "the running minutes were not recorded; their sums are");
        }
    }

    /// One look at `now`: parts, hours, days, and what is too old.
    ///
    /// # Errors
    /// [`StoreError`]; what was written before stays written.
    pub async fn look(&self, now: Timestamp) -> Result<(), StoreError> {
        let over = now.saturating_sub(GRACE).unwrap_or(Timestamp::MIN);
        self.write(over.as_second().div_euclid(60)).await?;
        self.make_hours(over.saturating_sub(LAST_PART).unwrap_or(Timestamp::MIN)).await?;
        self.book.learn(&**self.store.client().await?).await?;
        self.make_days(now).await?;
        self.drop_old(now).await
    }

    /// Writes every part that is over at `minute` (since the Unix epoch).
    async fn write(&self, minute: i64) -> Result<(), StoreError> {
        let mut over = self.book.take_over(minute);
        let mut written = 0;
        while written < over.len() {
            let count = (over.len() - written).min(AT_ONCE);
            if let Err(error) = self.write_parts(&over[written..written + count]).await {
                self.book.give_back(over.split_off(written));
                return Err(error);
            }
            written += count;
        }
        Ok(())
    }

    async fn write_parts(&self, some: &[(TenantId, Part)]) -> Result<(), StoreError> {
        let mut client = self.store.client().await?;
        // Partitions apart: who makes one must not wait for anything else. The next
        // day's as well, so that a part's last minutes find their hour.
        let ends = some.iter().flat_map(|(_, part)| {
            let start = parts::start(part);
            [start, start + parts::PART_LENGTH]
        });
        let tx = (**client).transaction().await?;
        history::prepare(&tx, Grain::Minutes, ends).await?;
        tx.commit().await?;
        let tx = (**client).transaction().await?;
        parts::copy_parts(&tx, some).await?;
        let mut late_rows = Vec::new();
        if let Some(before) = parts::made_before_for_share(&tx).await? {
            for (hour, tenants) in late(some, before) {
                history::prepare(&tx, Grain::Fives, [hour]).await?;
                late_rows.extend(make_hour(&tx, hour, &tenants).await?);
            }
        }
        tx.commit().await?;
        for Stretch { tenant, at, values, .. } in late_rows {
            let fives = [CPU, CONNECTIONS, GPS].map(|column| values[column].clone());
            self.book.learn_hour((tenant, at, fives), true);
        }
        Ok(())
    }

    /// Makes the five minutes of every hour that ended at `over` or before and has
    /// none yet.
    async fn make_hours(&self, over: Timestamp) -> Result<(), StoreError> {
        while let Some(hour) = self.due(over).await? {
            let mut client = self.store.client().await?;
            let tx = (**client).transaction().await?;
            if !history::lock_days(&tx).await? || parts::next_hour(&tx).await? != Some(hour) {
                return Ok(());
            }
            // First, so that who writes a part meanwhile waits, and sees that it is
            // late.
            parts::hours_are_made(&tx, hour + HOUR).await?;
            for some in parts::tenants_of_hour(&tx, hour).await?.chunks(AT_ONCE) {
                make_hour(&tx, hour, some).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// The next hour that is to be made, where it ended at `over` or before; there
    /// is a partition for it. Made apart, because that locks out readers.
    async fn due(&self, over: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let next = parts::next_hour(&tx).await?;
        let Some(hour) = next.filter(|hour| over.duration_since(*hour) >= HOUR) else {
            return Ok(None);
        };
        history::prepare(&tx, Grain::Fives, [hour]).await?;
        tx.commit().await?;
        Ok(Some(hour))
    }

    /// Makes the hours of every day whose five minutes are made and that has none
    /// yet.
    async fn make_days(&self, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let mut client = self.store.client().await?;
            let tx = (**client).transaction().await?;
            if !history::lock_days(&tx).await? {
                return Ok(());
            }
            let Some(day) = history::next_day(&tx).await? else { return Ok(()) };
            let made = parts::made_before(&tx).await?;
            let is_early = now.duration_since(day) < DAY + DAY_GRACE;
            if is_early || made.is_none_or(|before| before < day + DAY) {
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
            let mut before = now.saturating_sub(self.retention.of(grain)).unwrap_or(Timestamp::MIN);
            let mut client = self.store.client().await?;
            let tx = (**client).transaction().await?;
            let needed = match grain {
                Grain::Minutes => {
                    // A part begins before its last minutes.
                    before = before.saturating_sub(parts::PART_LENGTH).unwrap_or(before);
                    Some(parts::made_before(&tx).await?.unwrap_or(Timestamp::MIN))
                }
                Grain::Fives => history::next_day(&tx).await?,
                Grain::Hours => None,
            };
            let before = needed.map_or(before, |needed| before.min(needed));
            let dropped = history::drop_before(&tx, grain, before).await?;
            tx.commit().await?;
            if !dropped.is_empty() {
                tracing::info!(?dropped, "usage that is too old was dropped");
            }
        }
        Ok(())
    }
}

/// The hours before `before` that parts have minutes of, with their tenants.
fn late(some: &[(TenantId, Part)], before: Timestamp) -> BTreeMap<Timestamp, Vec<Uuid>> {
    let mut hours: BTreeMap<Timestamp, Vec<Uuid>> = BTreeMap::new();
    for (tenant, part) in some {
        let first = parts::start(part).as_second().div_euclid(3600) * 3600;
        let end = parts::start(part) + parts::PART_LENGTH;
        let of = [first, first + 3600].map(Timestamp::from_second);
        for hour in of.into_iter().flatten().filter(|hour| *hour < before.min(end)) {
            let tenants = hours.entry(hour).or_default();
            if tenants.last() != Some(&tenant.0) {
                tenants.push(tenant.0);
            }
        }
    }
    hours
}

/// Writes the five minutes of an hour of some tenants, and answers them. Their
/// partition is there.
async fn make_hour(
    tx: &Transaction<'_>,
    hour: Timestamp,
    tenants: &[Uuid],
) -> Result<Vec<Stretch>, StoreError> {
    let mut minutes: BTreeMap<TenantId, [Values; COLUMNS]> = BTreeMap::new();
    for (tenant, part) in parts::parts_of_hour(tx, hour, tenants).await? {
        let first = hour.as_second().div_euclid(60);
        let known =
            minutes.entry(tenant).or_insert_with(|| std::array::from_fn(|_| vec![None; MINUTES]));
        part.draw(first, known);
    }
    // A part may have minutes of the hour before or after alone.
    minutes.retain(|_, known| known.iter().flatten().any(Option::is_some));
    let rows: Vec<Stretch> = minutes
        .into_iter()
        .map(|(tenant, minutes)| Stretch {
            tenant,
            at: hour,
            values: fives(&minutes),
            percentiles: None,
        })
        .collect();
    history::copy(tx, Grain::Fives, &rows).await?;
    Ok(rows)
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
