//! The key log, applied until little is left.
//!
//! "Source" and "target" are those of the leg: on the way back the new side's
//! log is applied to the old copy.
//!
//! One source transaction takes keys off the log and reads their current rows
//! in one snapshot; it stays open until the target has committed, so that a
//! key is forgotten only after its row is durable there. Each batch is
//! compared on the target before it commits.

mod bulk;

use std::collections::BTreeSet;

use tokio::time::Instant;
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

use super::apply::{Applier, Check};
use super::catalog::Table;
use super::connect::Conn;
use super::error::MoveError;
use super::fence;
use super::leg::Leg;
use super::pressure::Gauge;
use super::run::{Pair, Run};
use super::spec::{Drained, Progress};
use super::sql;
use super::statements::{self, Batch, Mode};

/// A log this short ends a drain.
pub const SHORT: u64 = 200;
/// Where writers are too fast for that: so many batches, each of no more keys,
/// end it too. The fence takes as many.
const STEADY: (u32, u64) = (8, 2_000);
/// Drained keys after which the log is vacuumed: dead rows make its scans long.
const VACUUM_KEYS: u64 = 20_000;
/// Bulk batches in a row after which one that was to take all gives up: the
/// writers are faster, and only patience may wait for them.
const MOST_IN_BULK: u32 = 8;
/// What a key costs where a drain backs off, in bytes of a copy.
const KEY_BYTES: u64 = 400;

/// When this returns, the log was short, or writers kept it long for the time
/// we had; what remains is said. Idempotent.
///
/// # Errors
/// [`MoveError::Mismatch`] when the target keeps another row than was sent.
pub async fn run(run: &Run, pair: &Pair, leg: Leg) -> Result<Drained, MoveError> {
    let tables = run.guarded_tables(pair, leg).await?;
    let mut drain = Drain::prepare(run, pair, leg, &tables).await?;
    let gauge = Gauge::new(run.tuning.pressure);
    let drained = tokio::select! {
        drained = drain.gently(&gauge) => drained?,
        error = gauge.watch(run) => return Err(error),
    };
    drain.vacuum().await?;
    Ok(drained)
}

/// A prepared drain over the pair's sessions.
pub struct Drain<'a> {
    run: &'a Run,
    leg: Leg,
    source: &'a Conn,
    target: &'a Conn,
    applier: Applier<'a>,
    take_off: Statement,
    longer: Statement,
    /// Tables whose given table exists on the target.
    given: BTreeSet<usize>,
    /// Whether the source has its table of taken keys.
    taken: bool,
    /// Whether the log was longer than a small batch when the last one came.
    long: bool,
    keys: u64,
    vacuumed: u64,
}

impl<'a> Drain<'a> {
    /// Prepares what every batch needs.
    ///
    /// # Errors
    /// What a database said.
    pub async fn prepare(
        run: &'a Run,
        pair: &'a Pair,
        leg: Leg,
        tables: &'a [Table],
    ) -> Result<Self, MoveError> {
        let (source, target) = (leg.from(pair), leg.to(pair));
        let applier = Applier::new(target, &run.spec, leg, tables).await?;
        let take_off = statements::take_off(&run.spec, leg, &applier.sql);
        let longer = statements::longer(&run.spec);
        let (take_off, longer) =
            futures_util::future::try_join(source.prepare(&take_off), source.prepare(&longer))
                .await?;
        Ok(Self {
            run,
            leg,
            source,
            target,
            applier,
            take_off,
            longer,
            given: BTreeSet::new(),
            taken: false,
            long: false,
            keys: 0,
            vacuumed: 0,
        })
    }

    /// Prepares what no batch has asked for yet.
    ///
    /// # Errors
    /// What the database said that the rows go to.
    pub async fn ready_all(&mut self) -> Result<(), MoveError> {
        self.applier.ready_all().await
    }

    /// The prepared statements of every table.
    ///
    /// # Errors
    /// What the target said.
    pub(super) async fn ready(&mut self) -> Result<&Applier<'a>, MoveError> {
        self.applier.ready_all().await?;
        Ok(&self.applier)
    }

    /// They, as far as they are prepared.
    pub(super) fn applier(&self) -> &Applier<'a> {
        &self.applier
    }

    /// Batches until the log is short or patience ends.
    ///
    /// # Errors
    /// As for [`Drain::batch`].
    pub async fn until_short(&mut self) -> Result<Drained, MoveError> {
        // Nobody watches this one.
        self.gently(&Gauge::new(self.run.tuning.pressure)).await
    }

    /// The same, as fast as `gauge` lets it go; but half of the time it works,
    /// and all of it while writers keep the log long: it must end.
    async fn gently(&mut self, gauge: &Gauge) -> Result<Drained, MoveError> {
        let started = Instant::now();
        let until = started + self.run.tuning.drain_patience;
        let mut steady = 0;
        let (mut before, mut since) = (self.length().await?, 0);
        loop {
            let began = Instant::now();
            let taken = self.batch(Some(self.run.tuning.drain_batch)).await?;
            since += taken;
            let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            self.run.progress.send_replace(Progress {
                table: sql::log_table(self.run.spec.move_id),
                rows_done: self.keys,
                rows_per_second: self.keys.saturating_mul(1000) / millis,
                ..Progress::default()
            });
            // Few keys may have been logged many times: a long log goes on.
            steady = if !self.long && taken <= STEADY.1 { steady + 1 } else { 0 };
            let short = !self.long && taken <= SHORT;
            if short || steady >= STEADY.0 || Instant::now() >= until {
                break;
            }
            let now = Instant::now();
            let Some(due) = gauge.spend(now, taken * KEY_BYTES) else { continue };
            let length = if self.long { self.length().await? } else { 0 };
            if !self.long || gains(before, length, since) {
                tokio::time::sleep_until(due.min(now + now.duration_since(began))).await;
            }
            (before, since) = (length, 0);
        }
        Ok(Drained { keys: self.keys, remaining: self.length().await? })
    }

    /// Rows of the log.
    async fn length(&self) -> Result<u64, MoveError> {
        let log = sql::log_table(self.run.spec.move_id);
        let rows: i64 = self.source.one(&format!("select count(*) from {log}"), &[]).await?.get(0);
        Ok(rows.max(0).cast_unsigned())
    }

    /// One batch of up to `limit` log rows (all for none, unless writers are
    /// faster than the bulk); answers how many distinct keys it had. A log
    /// longer than a small batch goes in bulk.
    ///
    /// # Errors
    /// [`MoveError::Mismatch`]; [`MoveError::Refused`] when a row points to a
    /// reference that the target lacks; what a database said. The log keeps
    /// the keys then.
    pub async fn batch(&mut self, limit: Option<i64>) -> Result<u64, MoveError> {
        let mut all = 0;
        let mut in_bulk = 0;
        self.long = false;
        while let Some(bulk) = self.run.tuning.drain_bulk
            && self.is_longer(self.run.tuning.drain_batch).await?
        {
            all += match self.attempt(Some(bulk), Mode::Update, true).await {
                Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                    self.attempt(None, Mode::Replace, true).await?
                }
                other => other?,
            };
            if self.keys - self.vacuumed >= VACUUM_KEYS {
                self.vacuum().await?;
            }
            in_bulk += 1;
            if limit.is_some() || in_bulk >= MOST_IN_BULK {
                self.long = true;
                return Ok(all);
            }
        }
        let last = match self.attempt(limit, Mode::Update, false).await {
            // Two rows swapped a secondary unique value, or the batch had only
            // one of them.
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                self.attempt(None, Mode::Replace, false).await?
            }
            other => other?,
        };
        Ok(all + last)
    }

    async fn attempt(
        &mut self,
        limit: Option<i64>,
        mode: Mode,
        bulk: bool,
    ) -> Result<u64, MoveError> {
        let outcome =
            if bulk { self.bulk(limit, mode).await } else { self.transact(limit, mode).await };
        if outcome.is_err() {
            // Both roll back; a connection that is gone did so by itself, and
            // the first error is the one to tell.
            for conn in [self.target, self.source] {
                if let Err(error) = conn.batch("ROLLBACK").await {
                    tracing::debug!(%error, "rollback after a failed batch");
                }
            }
        }
        outcome
    }

    async fn transact(&mut self, limit: Option<i64>, mode: Mode) -> Result<u64, MoveError> {
        let (source, target) = (self.source, self.target);
        source
            .batch("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL synchronous_commit = off")
            .await?;
        let rows = source
            .client()
            .query(&self.take_off, &[&limit])
            .await
            .map_err(|error| source.error(error))?;
        if rows.is_empty() {
            source.batch("ROLLBACK").await?;
            return Ok(0);
        }
        let batch = Batch::of(&rows);
        self.applier.ready(&batch).await?;
        self.run.fail.on("mid_drain", self.leg)?;

        target
            .batch(
                "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL synchronous_commit = on",
            )
            .await?;
        fence::waits(&self.run.spec, self.leg, target, "FOR UPDATE").await?;
        let cold = self.applier.cold(&batch, mode).await?;
        self.applier.apply(&batch, &cold, mode, Check::References).await?;
        self.target.batch("COMMIT").await?;
        self.run.fail.on("between_commits", self.leg)?;
        self.source.batch("COMMIT").await?;
        let keys = rows.len() as u64;
        self.keys += keys;
        Ok(keys)
    }

    /// Makes the log's scan short again.
    ///
    /// # Errors
    /// What the source said.
    pub async fn vacuum(&mut self) -> Result<(), MoveError> {
        self.vacuumed = self.keys;
        self.source.batch(&format!("VACUUM {}", sql::log_table(self.run.spec.move_id))).await
    }

    /// Keys drained so far.
    pub fn drained(&self) -> u64 {
        self.keys
    }
}

/// Whether a log of `before` rows that `taken` keys were taken off since, and
/// that has `after` rows now, got less than half as many new ones: then there
/// is time to rest.
fn gains(before: u64, after: u64, taken: u64) -> bool {
    let came = (after + taken).saturating_sub(before);
    came.saturating_mul(2) <= taken
}

#[cfg(test)]
mod tests {
    use super::gains;

    #[test]
    fn a_drain_rests_only_while_it_gains() {
        assert!(gains(100_000, 80_000, 20_000), "nobody writes");
        assert!(gains(100_000, 90_000, 20_000), "half as many came");
        assert!(!gains(100_000, 90_001, 20_000), "more than half came");
        assert!(!gains(100_000, 120_000, 20_000), "it grows");
        assert!(gains(100_000, 80_000, 500), "one key many times");
        assert!(!gains(0, 5_000, 20_000), "it was short a moment ago");
    }
}
