//! The switch: four round trips, one process, one source transaction.
//!
//! S1 closes the fence and reads the rest of the log; T2 applies it on the
//! target, compares it, and prepares `active` in an open transaction; S3
//! commits `moved` (**the point of no return**); T4 commits the target. Up to
//! S3 any failure rolls both back and the writers go on.
//!
//! The fence's lock belongs to the session, not to the transaction: it is held
//! past S3 until T4, so that writers who wait at the source are sent to the
//! target only when it serves them. A frozen mover loses it by the timeouts.
//! The new place is published after T4 for the same reason: until then the
//! source's refusal names none, which means "try again here".

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join3;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Row, SimpleQueryMessage, Statement};

use super::catalog::Table;
use super::copy;
use super::drain::Drain;
use super::error::MoveError;
use super::guard;
use super::run::{Pair, Run};
use super::spec::CutOver;
use super::sql::{self, Lock, SCHEMA};
use super::statements::{self, Batch, Mode, TableSql};

/// How long writers may queue behind one attempt to close the fence.
const FENCE_LOCK_TIMEOUT: &str = "250ms";
/// A frozen mover gives the tenant back after this.
const FENCE_IDLE_TIMEOUT: &str = "3s";
/// Between two attempts writers catch their breath.
const PAUSE: Duration = Duration::from_millis(300);
/// More keys than this are not applied inside the fence.
const MOST_KEYS: usize = 10_000;
/// Sequences on the target start this far above both sides' values.
const SEQUENCE_MARGIN: i64 = 1000;

/// Switches the tenant. When this returns well, the target is active.
///
/// # Errors
/// [`MoveError::Blocked`] when the fence could not be closed; any error before
/// S3 leaves the source active; after it a repetition goes forward.
pub async fn run(run: &Run, pair: &Pair) -> Result<CutOver, MoveError> {
    let tables = run.guarded_tables(pair).await?;
    complete(run, pair, &tables).await?;
    let mut drain = Drain::prepare(run, pair, &tables).await?;
    let fence = Fence::prepare(run, pair, &tables).await?;
    for attempt in 1..=run.tuning.fence_attempts.max(1) {
        drain.until_short().await?;
        drain.vacuum().await?;
        // What came during the vacuum; it also warms both sides' sessions.
        drain.batch(None).await?;
        fence.rehearse().await?;
        match fence.close().await? {
            Closed::Switched(result) => return Ok(result),
            Closed::TooMuch(keys) => tracing::info!(keys, "too many keys for the fence"),
            Closed::Blocked => {
                tracing::info!(attempt, "the fence could not be closed yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(MoveError::Blocked {
        what: format!("the cut-over of tenant {}", run.spec.tenant),
        blockers: guard::blockers(&pair.source, guard::Held::Lock(Lock::Fence(run.spec.tenant)))
            .await?,
    })
}

/// Refuses a cut-over before the copy was completed.
async fn complete(run: &Run, pair: &Pair, tables: &[Table]) -> Result<(), MoveError> {
    let closed: i64 = pair
        .target
        .one(
            &format!("select count(*) from {SCHEMA}.copied where move_id = $1 and part = '*'"),
            &[&run.spec.move_id.0],
        )
        .await?
        .get(0);
    if usize::try_from(closed).is_ok_and(|closed| closed == tables.len()) {
        return Ok(());
    }
    Err(MoveError::refused(format!(
        "the copy is not complete ({closed} of {} tables): run the step copy first",
        tables.len()
    )))
}

enum Closed {
    Switched(CutOver),
    Blocked,
    TooMuch(usize),
}

struct Fence<'a> {
    run: &'a Run,
    pair: &'a Pair,
    sql: Vec<TableSql<'a>>,
    look_up: Statement,
    sequences: Option<Statement>,
    /// Each sequence, with how it counts.
    increments: BTreeMap<String, i64>,
}

impl<'a> Fence<'a> {
    async fn prepare(run: &'a Run, pair: &'a Pair, tables: &'a [Table]) -> Result<Self, MoveError> {
        let sql: Vec<TableSql<'a>> =
            tables.iter().map(|table| TableSql::new(table, &run.spec)).collect();
        let look_up = pair.source.prepare(&statements::look_up(&run.spec, &sql)).await?;
        let mut names: Vec<&String> = tables.iter().flat_map(|table| &table.sequences).collect();
        names.sort();
        names.dedup();
        let mut increments = BTreeMap::new();
        for name in &names {
            let row = pair
                .target
                .one(
                    "select seqincrement from pg_sequence where seqrelid = $1::text::regclass",
                    &[*name],
                )
                .await?;
            increments.insert((*name).clone(), row.get(0));
        }
        let reads: Vec<String> = names
            .iter()
            .map(|name| format!("SELECT {}, last_value FROM {name}", sql::literal(name)))
            .collect();
        let sequences = if reads.is_empty() {
            None
        } else {
            Some(pair.source.prepare(&reads.join(" UNION ALL ")).await?)
        };
        Ok(Self { run, pair, sql, look_up, sequences, increments })
    }

    /// Runs the fence's reads once without the fence, so that plans and caches
    /// are warm when writers wait.
    async fn rehearse(&self) -> Result<(), MoveError> {
        let source = &self.pair.source;
        source.client().query(&self.look_up, &[]).await.map_err(|error| source.error(error))?;
        self.sequence_values().await?;
        Ok(())
    }

    async fn sequence_values(&self) -> Result<Vec<Row>, MoveError> {
        let source = &self.pair.source;
        match &self.sequences {
            Some(read) => {
                source.client().query(read, &[]).await.map_err(|error| source.error(error))
            }
            None => Ok(Vec::new()),
        }
    }

    /// One attempt. An error before S3 rolls both sides back.
    async fn close(&self) -> Result<Closed, MoveError> {
        let (source, target) = (&self.pair.source, &self.pair.target);
        let started = Instant::now();
        let prepared = self.take_and_prepare().await;
        let keys = match prepared {
            Ok(Prepared::Ready(keys)) => keys,
            Ok(Prepared::Not(closed)) => {
                self.roll_back().await;
                return Ok(closed);
            }
            Err(error) => {
                self.roll_back().await;
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
                "the source's fence row changed {changed} times instead of once; the fence rows decide"
            )));
        }
        self.run.fail.point("after_moved")?;
        // T4.
        target.batch("COMMIT").await.map_err(|error| {
            MoveError::Interrupted(format!("the target's activation was not confirmed: {error}"))
        })?;
        self.run.fail.point("before_place")?;
        // Waiting writers wake up and are told the new place.
        source.batch(&format!("{}; {}", publication(self.run), self.open())).await.map_err(
            |error| MoveError::Interrupted(format!("the new place was not published: {error}")),
        )?;
        let fence_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.run.fail.point("after_activate")?;
        Ok(Closed::Switched(CutOver {
            epoch: self.run.spec.epoch.next(),
            fence_us,
            keys_in_fence: keys as u64,
            activated_at_us: jiff::Timestamp::now().as_microsecond(),
            recovered: false,
        }))
    }

    /// S1 and T2.
    async fn take_and_prepare(&self) -> Result<Prepared, MoveError> {
        let (spec, source) = (&self.run.spec, &self.pair.source);
        let tenant = sql::tenant_literal(spec.tenant);
        // The statements after the lock have new snapshots: they see what the
        // last writer committed.
        let lock = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{FENCE_LOCK_TIMEOUT}'; \
             SET LOCAL idle_in_transaction_session_timeout = '{FENCE_IDLE_TIMEOUT}'; \
             SET LOCAL synchronous_commit = on; \
             SELECT pg_advisory_lock({}); \
             SELECT 1 FROM {SCHEMA}.fence WHERE customer_id = {tenant} AND state = 'active' \
               AND epoch = {} AND move_id = {} FOR UPDATE",
            Lock::Fence(spec.tenant).key(),
            spec.epoch_sql(),
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
                "the source's fence row is not active for move {} at epoch {}",
                spec.move_id, spec.epoch
            )));
        }
        let batch = batch_of(&rows.map_err(|error| source.error(error))?);
        if batch.keys > MOST_KEYS {
            return Ok(Prepared::Not(Closed::TooMuch(batch.keys)));
        }
        let sequences = sequences?;
        self.run.fail.point("after_take")?;
        let keys = batch.keys;
        match self.prepare_target(&batch, &sequences, Mode::Update).await {
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
        self.run.fail.point("after_prepare")?;
        Ok(Prepared::Ready(keys))
    }

    /// T2: everything but the commit, in one round trip. An error of any
    /// statement ends the string; what the others answer is checked here.
    async fn prepare_target(
        &self,
        batch: &Batch,
        sequences: &[Row],
        mode: Mode,
    ) -> Result<(), MoveError> {
        let target = &self.pair.target;
        let text = self.activation(batch, sequences, mode);
        let messages =
            target.client().simple_query(&text).await.map_err(|error| target.error(error))?;
        let mut standby = false;
        let mut activated = false;
        for message in &messages {
            if let SimpleQueryMessage::Row(row) = message {
                // The statements answer with one to three columns.
                let column = |at: usize| row.try_get(at).ok().flatten();
                match (column(0), column(1)) {
                    (Some("standby"), _) => standby = true,
                    (Some("active"), _) => activated = true,
                    (Some("differs"), Some(what)) => {
                        return Err(MoveError::Mismatch {
                            table: column(2).unwrap_or_default().to_owned(),
                            keys: what.to_owned(),
                        });
                    }
                    (Some("dangling"), Some(what)) => {
                        return Err(MoveError::refused(format!(
                            "a row points to a row that the target lacks: {what}"
                        )));
                    }
                    _ => {}
                }
            }
        }
        if standby && activated { Ok(()) } else { Err(copy::not_standby(self.run)) }
    }

    /// The target's transaction up to, and without, its commit.
    fn activation(&self, batch: &Batch, sequences: &[Row], mode: Mode) -> String {
        let spec = &self.run.spec;
        let tenant = sql::tenant_literal(spec.tenant);
        let mut text = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{FENCE_LOCK_TIMEOUT}'; \
             SET LOCAL idle_in_transaction_session_timeout = '{FENCE_IDLE_TIMEOUT}'; \
             SET LOCAL synchronous_commit = on; SET LOCAL session_replication_role = replica; \
             SELECT pg_advisory_xact_lock({}); \
             SELECT 'standby' FROM ({}) AS s; ",
            Lock::Fence(spec.tenant).key(),
            copy::standby_query(self.run, "FOR UPDATE"),
        );
        let mut checks = String::new();
        for (number, group) in &batch.groups {
            let Some(sql) = self.sql.get(*number) else { continue };
            let keys: Vec<String> = group
                .keys
                .iter()
                .map(|column| sql::text_array(column.iter().map(|key| Some(key.as_str()))))
                .collect();
            let rows = sql::text_array(group.rows.iter().map(Option::as_deref));
            let arg = |at: usize| keys.get(at).cloned().unwrap_or_default();
            text.push_str(&sql.delete(&arg, &rows, mode));
            text.push_str("; ");
            if mode == Mode::Update
                && let Some(update) = sql.update(&rows)
            {
                text.push_str(&update);
                text.push_str("; ");
            }
            text.push_str(&sql.insert(&rows));
            text.push_str("; ");
            checks.push_str(&format!(
                "SELECT 'differs', c.what, {} FROM ({}) AS c(what); ",
                sql::literal(&sql.table.name),
                sql.compare(&arg, &rows)
            ));
            if let Some(check) = sql.dangling(&arg, |_| true) {
                checks.push_str(&format!("SELECT 'dangling', c.what FROM ({check}) AS c(what); "));
            }
        }
        text.push_str(&checks);
        for row in sequences {
            let (name, value): (String, i64) = (row.get(0), row.get(1));
            let up = self.increments.get(&name).is_none_or(|increment| *increment > 0);
            let (pick, margin) =
                if up { ("greatest", SEQUENCE_MARGIN) } else { ("least", -SEQUENCE_MARGIN) };
            // Never back: what the target gave out stays given out.
            text.push_str(&format!(
                "SELECT setval({literal}::regclass, least(greatest({pick}(s.last_value, {value}) + {margin}, q.seqmin), q.seqmax)) \
                 FROM {name} AS s, pg_sequence AS q WHERE q.seqrelid = {literal}::regclass; ",
                literal = sql::literal(&name),
            ));
        }
        text.push_str(&format!(
            "UPDATE {SCHEMA}.fence SET state = 'active', epoch = {next}, place = '', updated_at = clock_timestamp() \
             WHERE customer_id = {tenant} AND state = 'standby' AND epoch = {epoch} AND move_id = {ours} \
             RETURNING 'active'",
            next = spec.epoch.next().0,
            epoch = spec.epoch_sql(),
            ours = sql::move_literal(spec.move_id),
        ));
        text
    }

    fn moved(&self) -> String {
        let spec = &self.run.spec;
        format!(
            "SET LOCAL idle_in_transaction_session_timeout = 0; SET idle_session_timeout = '{FENCE_IDLE_TIMEOUT}'; \
             UPDATE {SCHEMA}.fence SET state = 'moved', epoch = {next}, place = '', updated_at = clock_timestamp() \
             WHERE customer_id = {tenant} AND state = 'active' AND epoch = {epoch} AND move_id = {ours}; COMMIT",
            next = spec.epoch.next().0,
            tenant = sql::tenant_literal(spec.tenant),
            epoch = spec.epoch_sql(),
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

    async fn roll_back(&self) {
        // The source first: its writers wait. A connection that is gone has
        // rolled back by itself.
        let open = format!("ROLLBACK; {}", self.open());
        for (conn, text) in [(&self.pair.source, open.as_str()), (&self.pair.target, "ROLLBACK")] {
            if let Err(error) = conn.batch(text).await {
                tracing::debug!(%error, "rollback of a fence");
            }
        }
    }
}

/// Tells writers at the source where the tenant is served now.
fn publication(run: &Run) -> String {
    let spec = &run.spec;
    format!(
        "UPDATE {SCHEMA}.fence SET place = {place}, updated_at = clock_timestamp() \
         WHERE customer_id = {tenant} AND state = 'moved' AND epoch = {next} AND move_id = {ours} \
           AND place <> {place}",
        place = sql::literal(&spec.target_place),
        tenant = sql::tenant_literal(spec.tenant),
        next = spec.epoch.next().0,
        ours = sql::move_literal(spec.move_id),
    )
}

/// Publishes the new place once more, for a mover that died before it did.
///
/// # Errors
/// What the source said.
pub(super) async fn publish(run: &Run, pair: &Pair) -> Result<(), MoveError> {
    pair.source.batch(&publication(run)).await
}

enum Prepared {
    Ready(usize),
    Not(Closed),
}

fn batch_of(rows: &[Row]) -> Batch {
    let mut batch = Batch::default();
    for row in rows {
        let tab: i16 = row.get(0);
        batch.push(usize::try_from(tab).unwrap_or(usize::MAX), row.get(1), row.get(2));
    }
    batch
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

/// After `moved` was committed and the target was not: applies what is left of
/// the log and activates. Only forward; idempotent.
///
/// # Errors
/// What the target said; a repetition tries again.
pub async fn forward(run: &Run, pair: &Pair) -> Result<CutOver, MoveError> {
    let Some(tables) = run.remembered(&pair.source).await? else {
        return Err(MoveError::refused(format!(
            "the source says moved, but its list of tables for move {} is gone",
            run.spec.move_id
        )));
    };
    let started = Instant::now();
    // No writer can commit on the source, so what is read now is the end.
    let fence = Fence::prepare(run, pair, &tables).await?;
    let rows = pair
        .source
        .client()
        .query(&fence.look_up, &[])
        .await
        .map_err(|error| pair.source.error(error))?;
    let batch = batch_of(&rows);
    let sequences = fence.sequence_values().await?;
    for mode in [Mode::Update, Mode::Replace] {
        match fence.prepare_target(&batch, &sequences, mode).await {
            Ok(()) => break,
            Err(error) => {
                fence.roll_back().await;
                if mode == Mode::Replace || error.code() != Some(&SqlState::UNIQUE_VIOLATION) {
                    return Err(error);
                }
            }
        }
    }
    pair.target.batch("COMMIT").await?;
    publish(run, pair).await?;
    Ok(CutOver {
        epoch: run.spec.epoch.next(),
        fence_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        keys_in_fence: batch.keys as u64,
        activated_at_us: jiff::Timestamp::now().as_microsecond(),
        recovered: true,
    })
}
