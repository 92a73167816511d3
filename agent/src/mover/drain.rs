//! The key log, applied until little is left.
//!
//! "Source" and "target" are those of the leg: on the way back the new side's
//! log is applied to the old copy.
//!
//! One source transaction takes keys off the log and reads their current rows
//! in one snapshot; it stays open until the target has committed, so that a
//! key is forgotten only after its row is durable there. Each batch is
//! compared on the target before it commits.

use futures_util::future::join4;
use tokio::time::Instant;
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

use super::catalog::Table;
use super::connect::Conn;
use super::error::MoveError;
use super::fence;
use super::leg::Leg;
use super::run::{Pair, Run};
use super::spec::{Drained, Progress};
use super::sql;
use super::statements::{self, Batch, Mode, TableSql};

/// A log this short ends a drain.
pub const SHORT: u64 = 200;

/// When this returns, the log was short, or writers kept it long for the time
/// we had; what remains is said. Idempotent.
///
/// # Errors
/// [`MoveError::Mismatch`] when the target keeps another row than was sent.
pub async fn run(run: &Run, pair: &Pair, leg: Leg) -> Result<Drained, MoveError> {
    let tables = run.guarded_tables(pair, leg).await?;
    let mut drain = Drain::prepare(run, pair, leg, &tables).await?;
    let drained = drain.until_short().await?;
    drain.vacuum().await?;
    Ok(drained)
}

/// A prepared drain over the pair's sessions.
pub struct Drain<'a> {
    run: &'a Run,
    leg: Leg,
    source: &'a Conn,
    target: &'a Conn,
    sql: Vec<TableSql<'a>>,
    take_off: Statement,
    /// Delete, insert, compare and (where there are references) the check of
    /// them; prepared when a table's first key comes by.
    apply: Vec<Option<Apply>>,
    references: Vec<String>,
    keys: u64,
}

struct Apply {
    delete: Statement,
    /// Only in [`Mode::Replace`].
    delete_all: Statement,
    update: Option<Statement>,
    insert: Statement,
    compare: Statement,
    references: Option<Statement>,
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
        let sql: Vec<TableSql<'a>> =
            tables.iter().map(|table| TableSql::new(table, &run.spec)).collect();
        let take_off = source.prepare(&statements::take_off(&run.spec, leg, &sql)).await?;
        Ok(Self {
            apply: tables.iter().map(|_| None).collect(),
            references: references(tables),
            run,
            leg,
            source,
            target,
            sql,
            take_off,
            keys: 0,
        })
    }

    /// Batches until the log is short or patience ends.
    ///
    /// # Errors
    /// As for [`Drain::batch`].
    pub async fn until_short(&mut self) -> Result<Drained, MoveError> {
        let until = Instant::now() + self.run.tuning.drain_patience;
        let started = Instant::now();
        loop {
            let taken = self.batch(Some(self.run.tuning.drain_batch)).await?;
            let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            self.run.progress.send_replace(Progress {
                table: sql::log_table(self.run.spec.move_id),
                rows_done: self.keys,
                rows_per_second: self.keys.saturating_mul(1000) / millis,
                ..Progress::default()
            });
            if taken <= SHORT || Instant::now() >= until {
                break;
            }
        }
        let remaining: i64 = self
            .source
            .one(&format!("select count(*) from {}", sql::log_table(self.run.spec.move_id)), &[])
            .await?
            .get(0);
        Ok(Drained { keys: self.keys, remaining: remaining.max(0).cast_unsigned() })
    }

    /// One batch of up to `limit` log rows (all for none); answers how many
    /// distinct keys it had.
    ///
    /// # Errors
    /// [`MoveError::Mismatch`]; [`MoveError::Refused`] when a row points to a
    /// reference that the target lacks; what a database said. The log keeps
    /// the keys then.
    pub async fn batch(&mut self, limit: Option<i64>) -> Result<u64, MoveError> {
        match self.attempt(limit, Mode::Update).await {
            // Two rows swapped a secondary unique value, or the batch had only
            // one of them.
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                self.attempt(None, Mode::Replace).await
            }
            other => other,
        }
    }

    async fn attempt(&mut self, limit: Option<i64>, mode: Mode) -> Result<u64, MoveError> {
        let outcome = self.transact(limit, mode).await;
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
        self.run.fail.on("mid_drain", self.leg)?;

        target
            .batch(
                "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL synchronous_commit = on",
            )
            .await?;
        fence::waits(&self.run.spec, self.leg, target, "FOR UPDATE").await?;
        for (number, group) in &batch.groups {
            self.ready(*number).await?;
            let (Some(sql), Some(Some(apply))) = (self.sql.get(*number), self.apply.get(*number))
            else {
                return Err(MoveError::refused(format!(
                    "the key log names the unknown table {number}"
                )));
            };
            let target = self.target;
            let keys: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
                group.keys.iter().map(|column| column as _).collect();
            let mut keys_and_rows = keys.clone();
            keys_and_rows.push(&group.rows);
            let rows: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&group.rows];
            let client = target.client();
            let delete = match mode {
                Mode::Update => &apply.delete,
                Mode::Replace => &apply.delete_all,
            };
            let update = async {
                match (&apply.update, mode) {
                    (Some(update), Mode::Update) => client.execute(update, &rows).await,
                    _ => Ok(0),
                }
            };
            // In one round trip: the first poll of each sends it, in order.
            let (deleted, updated, inserted, compared) = join4(
                client.execute(delete, &keys_and_rows),
                update,
                client.execute(&apply.insert, &rows),
                client.query(&apply.compare, &keys_and_rows),
            )
            .await;
            deleted.map_err(|error| target.error(error))?;
            updated.map_err(|error| target.error(error))?;
            inserted.map_err(|error| target.error(error))?;
            let wrong = compared.map_err(|error| target.error(error))?;
            if !wrong.is_empty() {
                let keys: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
                return Err(MoveError::Mismatch {
                    table: sql.table.name.clone(),
                    keys: keys.join(" "),
                });
            }
            if let Some(check) = &apply.references {
                let missing =
                    client.query(check, &keys).await.map_err(|error| target.error(error))?;
                if let Some(row) = missing.first() {
                    let what: String = row.get(0);
                    return Err(MoveError::refused(format!(
                        "a row of {} points to a row that the {} lacks: {what}",
                        sql.table.name,
                        target.side()
                    )));
                }
            }
        }
        self.target.batch("COMMIT").await?;
        self.run.fail.on("between_commits", self.leg)?;
        self.source.batch("COMMIT").await?;
        let keys = rows.len() as u64;
        self.keys += keys;
        Ok(keys)
    }

    /// Prepares what no batch has asked for yet.
    ///
    /// # Errors
    /// What the database said that the rows go to.
    pub async fn ready_all(&mut self) -> Result<(), MoveError> {
        for number in 0..self.sql.len() {
            self.ready(number).await?;
        }
        Ok(())
    }

    async fn ready(&mut self, number: usize) -> Result<(), MoveError> {
        let Some(sql) = self.sql.get(number) else { return Ok(()) };
        let Some(slot) = self.apply.get_mut(number) else { return Ok(()) };
        if slot.is_some() {
            return Ok(());
        }
        let target = self.target;
        let arg = |at: usize| format!("${}::text[]", at + 1);
        let rows = format!("${}::text[]", sql.key_width() + 1);
        let references = &self.references;
        *slot = Some(Apply {
            delete: target.prepare(&sql.delete(&arg, &rows, Mode::Update)).await?,
            delete_all: target.prepare(&sql.delete(&arg, &rows, Mode::Replace)).await?,
            update: match sql.update("$1::text[]") {
                Some(update) => Some(target.prepare(&update).await?),
                None => None,
            },
            insert: target.prepare(&sql.insert("$1::text[]")).await?,
            compare: target.prepare(&sql.compare(&arg, &rows)).await?,
            references: match sql.dangling(&arg, |parent| references.iter().any(|r| r == parent)) {
                Some(check) => Some(target.prepare(&check).await?),
                None => None,
            },
        });
        Ok(())
    }

    /// Makes the log's scan short again.
    ///
    /// # Errors
    /// What the source said.
    pub async fn vacuum(&self) -> Result<(), MoveError> {
        self.source.batch(&format!("VACUUM {}", sql::log_table(self.run.spec.move_id))).await
    }

    /// Keys drained so far.
    pub fn drained(&self) -> u64 {
        self.keys
    }
}

/// Tables outside the tenant's that its rows point to.
pub fn references(tables: &[Table]) -> Vec<String> {
    tables
        .iter()
        .flat_map(|table| &table.foreign_keys)
        .map(|key| key.parent.clone())
        .filter(|parent| !tables.iter().any(|table| table.name == *parent))
        .collect()
}
