//! The fence, closed and opened: S1, S3 and what comes after them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join3, try_join};
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Row, SimpleQueryMessage, Statement};

use super::{FENCE_IDLE_TIMEOUT, FENCE_LOCK_TIMEOUT, publication};
use crate::mover::apply::Applier;
use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::leg::Leg;
use crate::mover::run::{Pair, Run};
use crate::mover::spec::CutOver;
use crate::mover::sql::{self, Lock, SCHEMA};
use crate::mover::statements::{self, Batch, Mode, TableSql};

/// A commit that waits for the disk, and so for all commits before it.
const FLUSH: &str = "BEGIN; SET LOCAL synchronous_commit = on; \
     SELECT pg_logical_emit_message(true, 'webhost_fleet', ''); COMMIT";

pub(super) enum Closed {
    Switched(CutOver),
    Blocked,
    /// The source's log was not read in time, or the target not ready.
    Slow,
}

pub(super) struct Fence<'a> {
    pub(super) run: &'a Run,
    pub(super) leg: Leg,
    /// The side that serves the tenant.
    pub(super) source: &'a Conn,
    /// The one that shall.
    pub(super) target: &'a Conn,
    pub(super) look_up: Statement,
    sequences: Option<Statement>,
    /// Each sequence, with how it counts.
    pub(super) increments: BTreeMap<String, i64>,
}

enum Prepared {
    Ready(usize),
    Not(Closed),
}

impl<'a> Fence<'a> {
    pub(super) async fn prepare(
        run: &'a Run,
        pair: &'a Pair,
        leg: Leg,
        tables: &'a [Table],
    ) -> Result<Self, MoveError> {
        let (source, target) = (leg.from(pair), leg.to(pair));
        let sql: Vec<TableSql<'a>> =
            tables.iter().map(|table| TableSql::on(table, &run.spec, leg)).collect();
        let look_up = source.prepare(&statements::look_up(&run.spec, leg, &sql)).await?;
        let mut names: Vec<&String> = tables.iter().flat_map(|table| &table.sequences).collect();
        names.sort();
        names.dedup();
        let increments = target
            .query(
                "select n.name, q.seqincrement from unnest($1::text[]) n(name) \
                 join pg_sequence q on q.seqrelid = n.name::regclass",
                &[&names],
            )
            .await?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let reads: Vec<String> = names
            .iter()
            .map(|name| format!("SELECT {}, last_value FROM {name}", sql::literal(name)))
            .collect();
        let sequences = if reads.is_empty() {
            None
        } else {
            Some(source.prepare(&reads.join(" UNION ALL ")).await?)
        };
        Ok(Self { run, leg, source, target, look_up, sequences, increments })
    }

    /// Does once without the fence what happens inside it, so that plans and
    /// caches are warm when writers wait.
    pub(super) async fn rehearse(&self, applier: &Applier<'_>) -> Result<(), MoveError> {
        let source = self.source;
        source.client().query(&self.look_up, &[]).await.map_err(|error| source.error(error))?;
        let sequences = self.sequence_values().await?;
        self.rehearse_target(applier, &sequences).await
    }

    pub(super) async fn sequence_values(&self) -> Result<Vec<Row>, MoveError> {
        let source = self.source;
        match &self.sequences {
            Some(read) => {
                source.client().query(read, &[]).await.map_err(|error| source.error(error))
            }
            None => Ok(Vec::new()),
        }
    }

    /// One attempt. An error before S3 rolls both sides back.
    ///
    /// **Invariant:** writers wait for this mover only between `at_fence` and
    /// `off_fence`; one that does not come so far in time is killed, and the
    /// next reads the fence rows.
    pub(super) async fn close(
        &self,
        applier: &Applier<'_>,
        patience: Duration,
    ) -> Result<Closed, MoveError> {
        self.run.requests.at_fence();
        let closed = self.closed(applier, patience).await;
        self.run.requests.off_fence();
        closed
    }

    async fn closed(&self, applier: &Applier<'_>, patience: Duration) -> Result<Closed, MoveError> {
        let (source, target) = (self.source, self.target);
        let started = Instant::now();
        let prepared = self.take_and_prepare(applier, patience).await;
        let keys = match prepared {
            Ok(Prepared::Ready(keys)) => keys,
            Ok(Prepared::Not(closed)) => {
                self.give_back().await;
                return Ok(closed);
            }
            Err(error) => {
                self.give_back().await;
                return Err(error);
            }
        };

        // S3. An error here leaves it open whether `moved` was committed: both
        // transactions are let go, and the fence rows are read anew.
        let s3 =
            source.client().simple_query(&self.moved()).await.map_err(|error| source.error(error));
        let changed = match s3 {
            Ok(messages) => changed_rows(&messages),
            Err(error) => {
                self.roll_back().await;
                return Err(MoveError::Interrupted(format!(
                    "the commit of 'moved' was not confirmed ({error}); the fence rows decide"
                )));
            }
        };
        if changed != 1 {
            self.roll_back().await;
            return Err(MoveError::Interrupted(format!(
                "the fence row of the {} changed {changed} times instead of once; the fence rows decide",
                source.side()
            )));
        }
        self.run.fail.on("after_moved", self.leg)?;
        // T4.
        target.batch("COMMIT").await.map_err(|error| {
            MoveError::Interrupted(format!("the activation was not confirmed: {error}"))
        })?;
        self.run.release(self.leg, true);
        self.run.fail.on("before_place", self.leg)?;
        // Waiting writers wake up and are told the new place: its commit comes
        // before the lock opens, and need not wait for the disk.
        let text = format!(
            "BEGIN; SET LOCAL synchronous_commit = off; {}; COMMIT; {}",
            publication(self.run, self.leg),
            self.open()
        );
        source.batch(&text).await.map_err(|error| {
            MoveError::Interrupted(format!("the new place was not published: {error}"))
        })?;
        let fence_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let activated_at_us = jiff::Timestamp::now().as_microsecond();
        self.run.requests.off_fence();
        self.run.fail.on("after_activate", self.leg)?;
        // Nobody waits any more; nobody hears of it before it is durable.
        try_join(source.batch(FLUSH), target.batch(FLUSH)).await.map_err(|error| {
            MoveError::Interrupted(format!("the switch is not known to be durable: {error}"))
        })?;
        Ok(Closed::Switched(CutOver {
            epoch: self.leg.next().epoch(&self.run.spec),
            fence_us,
            keys_in_fence: keys as u64,
            activated_at_us,
            recovered: false,
        }))
    }

    /// S1, and T2 as long as `patience` lasts for both.
    async fn take_and_prepare(
        &self,
        applier: &Applier<'_>,
        patience: Duration,
    ) -> Result<Prepared, MoveError> {
        let started = Instant::now();
        let (spec, source) = (&self.run.spec, self.source);
        let tenant = sql::tenant_literal(spec.tenant);
        // The statements after the lock have new snapshots: they see what the
        // last writer committed.
        let lock = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{FENCE_LOCK_TIMEOUT}'; \
             SET LOCAL idle_in_transaction_session_timeout = '{FENCE_IDLE_TIMEOUT}'; \
             SET LOCAL statement_timeout = {}; \
             SET LOCAL synchronous_commit = on; \
             SELECT pg_advisory_lock({}); \
             SELECT 1 FROM {SCHEMA}.fence WHERE customer_id = {tenant} AND state = 'active' \
               AND epoch = {} AND move_id = {} FOR UPDATE",
            patience.as_millis(),
            Lock::Fence(spec.tenant).key(),
            self.leg.epoch_sql(spec),
            sql::move_literal(spec.move_id),
        );
        let (locked, rows, sequences) = join3(
            source.client().simple_query(&lock),
            source.client().query(&self.look_up, &[]),
            self.sequence_values(),
        )
        .await;
        let locked = match locked {
            Ok(messages) => messages,
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Ok(Prepared::Not(Closed::Blocked));
            }
            Err(error) => return Err(source.error(error)),
        };
        // One row from the lock, one from the fence.
        let found =
            locked.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count();
        if found != 2 {
            return Err(MoveError::refused(format!(
                "the fence row of the {} is not active for move {} at epoch {}",
                source.side(),
                spec.move_id,
                self.leg.epoch(spec)
            )));
        }
        let rows = match rows {
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                return Ok(Prepared::Not(Closed::Slow));
            }
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Ok(Prepared::Not(Closed::Blocked));
            }
            rows => rows.map_err(|error| source.error(error))?,
        };
        let batch = Batch::of(&rows);
        let sequences = sequences?;
        let left = patience.saturating_sub(started.elapsed());
        self.run.fail.on("after_take", self.leg)?;
        let keys = batch.keys;
        let prepared = self.prepare_target(applier, &batch, &sequences, Mode::Update);
        // What the target still works on then, its ROLLBACK comes behind.
        let Ok(prepared) = timeout(left, prepared).await else {
            return Ok(Prepared::Not(Closed::Slow));
        };
        match prepared {
            // A swap of unique values inside the last keys: the next drain
            // sorts it out.
            Err(error)
                if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
                    || error.code() == Some(&SqlState::UNIQUE_VIOLATION) =>
            {
                return Ok(Prepared::Not(Closed::Blocked));
            }
            outcome => outcome?,
        }
        self.run.fail.on("after_prepare", self.leg)?;
        Ok(Prepared::Ready(keys))
    }

    fn moved(&self) -> String {
        let spec = &self.run.spec;
        format!(
            "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
             SET idle_session_timeout = '{FENCE_IDLE_TIMEOUT}'; \
             UPDATE {SCHEMA}.fence SET state = 'moved', epoch = {next}, place = '', updated_at = clock_timestamp() \
             WHERE customer_id = {tenant} AND state = 'active' AND epoch = {epoch} AND move_id = {ours}; COMMIT",
            next = self.leg.next().epoch_sql(spec),
            tenant = sql::tenant_literal(spec.tenant),
            epoch = self.leg.epoch_sql(spec),
            ours = sql::move_literal(spec.move_id),
        )
    }

    /// Opens the source's fence lock again; harmless where it is not held.
    fn open(&self) -> String {
        format!(
            "SET idle_session_timeout = 0; SELECT pg_advisory_unlock({})",
            Lock::Fence(self.run.spec.tenant).key()
        )
    }

    /// Before S3: writers and requests go on where they were, at once; the
    /// target may still be at work on what it was asked.
    async fn give_back(&self) {
        roll_back(self.source, &self.rolled_back()).await;
        self.run.release(self.leg, false);
        self.run.requests.off_fence();
        roll_back(self.target, "ROLLBACK").await;
    }

    /// The source first: its writers wait.
    pub(super) async fn roll_back(&self) {
        roll_back(self.source, &self.rolled_back()).await;
        roll_back(self.target, "ROLLBACK").await;
    }

    fn rolled_back(&self) -> String {
        format!("ROLLBACK; {}", self.open())
    }
}

/// How many rows the string's one UPDATE changed; its other statements, SET
/// and COMMIT, count none.
fn changed_rows(messages: &[SimpleQueryMessage]) -> u64 {
    messages
        .iter()
        .map(|message| match message {
            SimpleQueryMessage::CommandComplete(count) => *count,
            _ => 0,
        })
        .sum()
}

/// A connection that is gone has rolled back by itself.
async fn roll_back(conn: &Conn, text: &str) {
    if let Err(error) = conn.batch(text).await {
        tracing::debug!(%error, "rollback of a fence");
    }
}
