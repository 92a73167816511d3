//! The bulk of the rows, from one snapshot.
//!
//! The snapshot is taken after the last trigger is in place, so that whatever
//! it does not show is in the key log. Each part (a table, a partition, or a
//! range of pages of a large one) and its line in the ledger commit together
//! on the target; a restarted copy leaves out what is done.
//!
//! A restart has a later snapshot. Rows that changed in between may then show
//! up in another part than before: such keys are in the log, so it is enough
//! that a part of a table that was begun before skips keys that exist.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::catalog::Table;
use super::connect::Conn;
use super::error::{MoveError, Side};
use super::run::{Pair, Run};
use super::spec::{Copied, Progress};
use super::sql::{self, SCHEMA};
use super::statements::TableSql;
use super::undo;

/// One unit of the copy.
struct Part {
    /// Quoted: the table itself or a leaf of it.
    relation: String,
    /// The pages from (inclusive) and to (exclusive).
    from: u32,
    to: Option<u32>,
    /// Names the part in the ledger, with the file that the pages are of.
    id: String,
}

impl Part {
    fn filter(&self) -> String {
        let mut filter = String::new();
        if self.from > 0 {
            filter.push_str(&format!(" AND x.ctid >= '({},0)'", self.from));
        }
        if let Some(to) = self.to {
            filter.push_str(&format!(" AND x.ctid < '({to},0)'"));
        }
        filter
    }
}

/// The ledger's line that closes a table.
const WHOLE: &str = "*";

/// When this returns, every row of the snapshot is on the target. Idempotent;
/// repeated after an interruption it copies what is missing.
///
/// # Errors
/// [`MoveError`]; a repetition resumes.
pub async fn run(run: &Run, pair: &Pair) -> Result<Copied, MoveError> {
    let tables = run.guarded_tables(pair).await?;
    let started = Instant::now();
    let source = run.connect(Side::Source).await?;
    let target = run.connect(Side::Target).await?;
    source.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;

    let mut total = 0;
    let mut estimates = Vec::new();
    for table in &tables {
        let rows = estimate(&source, &TableSql::new(table, &run.spec), &table.name, false).await?;
        estimates.push(rows);
        total += rows;
    }
    let mut meter = Meter::new(run, total);
    for (number, table) in tables.iter().enumerate() {
        copy_table(run, pair, (&source, &target), number, table, &mut meter).await?;
    }
    source.batch("COMMIT").await?;
    // The application's first queries there need statistics. Without the
    // right to analyse, PostgreSQL warns and goes on.
    for table in &tables {
        target.batch(&format!("ANALYZE {}", table.name)).await?;
    }
    let row = target
        .one(
            &format!(
                "select coalesce(sum(rows), 0)::int8, coalesce(sum(bytes), 0)::int8 \
                 from {SCHEMA}.copied where move_id = $1"
            ),
            &[&run.spec.move_id.0],
        )
        .await?;
    run.fail.point("after_copy")?;
    Ok(Copied {
        rows: row.get::<_, i64>(0).max(0).cast_unsigned(),
        bytes: row.get::<_, i64>(1).max(0).cast_unsigned(),
        duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
    })
}

/// How many rows of the tenant the planner expects in `relation`.
pub(super) async fn estimate(
    conn: &Conn,
    sql: &TableSql<'_>,
    relation: &str,
    only: bool,
) -> Result<u64, MoveError> {
    let only = if only { "ONLY " } else { "" };
    let row = conn
        .one(
            &format!(
                "EXPLAIN (FORMAT JSON) SELECT 1 FROM {only}{relation} AS x WHERE {}",
                sql.of_tenant("x")
            ),
            &[],
        )
        .await?;
    let plan: serde_json::Value = row.get(0);
    Ok(plan
        .pointer("/0/Plan/Plan Rows")
        .and_then(serde_json::Value::as_f64)
        // Row estimates are far below 2^53.
        .map_or(0, |rows| rows.max(0.0) as u64))
}

async fn copy_table(
    run: &Run,
    pair: &Pair,
    (source, target): (&Conn, &Conn),
    number: usize,
    table: &Table,
    meter: &mut Meter<'_>,
) -> Result<(), MoveError> {
    let spec = &run.spec;
    let tab = i32::try_from(number).unwrap_or(i32::MAX);
    meter.table(&table.name);
    let done: Vec<(String, i64, i64)> = target
        .query(
            &format!(
                "select part, rows, bytes from {SCHEMA}.copied where move_id = $1 and tab = $2"
            ),
            &[&spec.move_id.0, &tab],
        )
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    for (_, rows, bytes) in &done {
        meter.skip(rows.max(&0).cast_unsigned(), bytes.max(&0).cast_unsigned());
    }
    if done.iter().any(|(part, ..)| part == WHOLE) {
        return Ok(());
    }
    let parts = plan(run, source, table).await?;
    // A table that was rewritten since (VACUUM FULL) has other rows in the
    // same pages, and no log knows of it: that table starts anew.
    let files: Vec<&str> = parts.iter().filter_map(|part| part.id.split(':').next()).collect();
    let rewritten = done
        .iter()
        .any(|(part, ..)| part.split(':').next().is_some_and(|file| !files.contains(&file)));
    let mut begun = !done.is_empty();
    if rewritten {
        undo::delete_rows(run, &pair.target, table).await?;
        target
            .execute(
                &format!("delete from {SCHEMA}.copied where move_id = $1 and tab = $2"),
                &[&spec.move_id.0, &tab],
            )
            .await?;
        begun = false;
    }
    for part in &parts {
        if !rewritten && done.iter().any(|(id, ..)| *id == part.id) {
            continue;
        }
        copy_part(run, (source, target), tab, table, part, begun, meter).await?;
        run.fail.point("between_parts")?;
        if pair.source.client().is_closed() || pair.target.client().is_closed() {
            return Err(MoveError::Interrupted("the session with the mover's lock ended".into()));
        }
    }
    target
        .execute(
            &format!(
                "insert into {SCHEMA}.copied (move_id, tab, part, rows, bytes) values ($1, $2, $3, 0, 0) \
                 on conflict do nothing"
            ),
            &[&spec.move_id.0, &tab, &WHOLE],
        )
        .await?;
    Ok(())
}

/// The parts of a table: its leaves, and ranges of pages where the tenant owns
/// a good share of a large one (a range is read whole, whoever owns the rows).
async fn plan(run: &Run, source: &Conn, table: &Table) -> Result<Vec<Part>, MoveError> {
    let relations = source
        .query(
            "select format('%I.%I', n.nspname, c.relname), c.relfilenode, greatest(c.reltuples, 0)::float8, \
             (pg_relation_size(c.oid) / current_setting('block_size')::int8)::int8 \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.oid = $1::text::regclass and c.relkind = 'r' \
                or c.relkind = 'r' and c.oid in (select relid from pg_partition_tree($1::text::regclass)) \
             order by 1",
            &[&table.name],
        )
        .await?;
    let step = run.tuning.copy_part_pages.max(1);
    let mut parts = Vec::new();
    for row in &relations {
        let (relation, file): (String, u32) = (row.get(0), row.get(1));
        let pages = u32::try_from(row.get::<_, i64>(3)).unwrap_or(u32::MAX);
        let mine =
            estimate(source, &TableSql::new(table, &run.spec), &relation, true).await? as f64;
        let many = mine * 4.0 >= row.get::<_, f64>(2);
        let mut from = 0;
        if many {
            while pages.saturating_sub(from) > step {
                let to = from + step;
                parts.push(Part {
                    id: format!("{file}:{relation}:{from}-{to}"),
                    relation: relation.clone(),
                    from,
                    to: Some(to),
                });
                from = to;
            }
        }
        parts.push(Part { id: format!("{file}:{relation}:{from}-"), relation, from, to: None });
    }
    Ok(parts)
}

async fn copy_part(
    run: &Run,
    (source, target): (&Conn, &Conn),
    tab: i32,
    table: &Table,
    part: &Part,
    begun: bool,
    meter: &mut Meter<'_>,
) -> Result<(), MoveError> {
    let spec = &run.spec;
    let sql = TableSql::new(table, spec);
    let columns = table.copied().join(", ");
    let format = if table.binary() { "binary" } else { "text" };
    let selected: Vec<String> = table.copied().iter().map(|name| format!("x.{name}")).collect();
    let from = format!(
        "COPY (SELECT {} FROM ONLY {} AS x WHERE {}{}) TO STDOUT (FORMAT {format})",
        selected.join(", "),
        part.relation,
        sql.of_tenant("x"),
        part.filter()
    );
    target.batch("BEGIN; SET LOCAL session_replication_role = replica").await?;
    standby(run, target, "FOR SHARE").await?;
    let into = if begun {
        target
            .batch(&format!(
                "CREATE TEMP TABLE webhost_fleet_part ON COMMIT DROP AS SELECT {columns} FROM {} WITH NO DATA",
                table.name
            ))
            .await?;
        "pg_temp.webhost_fleet_part".to_owned()
    } else {
        table.name.clone()
    };

    let rows_out = source.client().copy_out(&from).await.map_err(|error| source.error(error))?;
    let sink = target
        .client()
        .copy_in::<_, Bytes>(&format!("COPY {into} ({columns}) FROM STDIN (FORMAT {format})"))
        .await
        .map_err(|error| target.error(error))?;
    tokio::pin!(rows_out);
    tokio::pin!(sink);
    let mut buffer = BytesMut::with_capacity(BUFFER * 2);
    let mut bytes = 0_u64;
    while let Some(row) = rows_out.next().await {
        let row = row.map_err(|error| source.error(error))?;
        bytes += row.len() as u64;
        buffer.extend_from_slice(&row);
        let pause = meter.row(row.len());
        if buffer.len() >= BUFFER {
            let full = std::mem::replace(&mut buffer, BytesMut::with_capacity(BUFFER * 2));
            sink.send(full.freeze()).await.map_err(|error| target.error(error))?;
            run.fail.point("mid_copy")?;
        }
        if let Some(until) = pause {
            tokio::time::sleep_until(until).await;
        }
    }
    if !buffer.is_empty() {
        sink.send(buffer.freeze()).await.map_err(|error| target.error(error))?;
    }
    run.fail.point("mid_copy")?;
    let rows = sink.finish().await.map_err(|error| target.error(error))?;
    if begun {
        let key: Vec<&str> = table.key_columns().map(|column| column.name.as_str()).collect();
        target
            .batch(&format!(
                "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} \
                 FROM pg_temp.webhost_fleet_part ON CONFLICT ({}) DO NOTHING",
                table.name,
                key.join(", ")
            ))
            .await?;
    }
    target
        .execute(
            &format!(
                "insert into {SCHEMA}.copied (move_id, tab, part, rows, bytes) values ($1, $2, $3, $4, $5)"
            ),
            &[
                &spec.move_id.0,
                &tab,
                &part.id,
                &rows.cast_signed(),
                &bytes.cast_signed(),
            ],
        )
        .await?;
    target.batch("COMMIT").await
}

/// Locks the target's fence row, in the transaction that is about to write
/// rows there, and refuses unless it stands by for this very move.
///
/// # Errors
/// [`MoveError::Refused`].
pub(super) async fn standby(run: &Run, target: &Conn, lock: &str) -> Result<(), MoveError> {
    let rows = target.query(&standby_query(run, lock), &[]).await?;
    if rows.len() == 1 { Ok(()) } else { Err(not_standby(run)) }
}

pub(super) fn standby_query(run: &Run, lock: &str) -> String {
    format!(
        "SELECT epoch FROM {SCHEMA}.fence WHERE customer_id = {} AND move_id = {} \
         AND state = 'standby' AND epoch = {} {lock}",
        sql::tenant_literal(run.spec.tenant),
        sql::move_literal(run.spec.move_id),
        run.spec.epoch_sql()
    )
}

pub(super) fn not_standby(run: &Run) -> MoveError {
    MoveError::refused(format!(
        "the target does not stand by for move {} of tenant {} at epoch {}; nothing was written there",
        run.spec.move_id, run.spec.tenant, run.spec.epoch
    ))
}

/// Bytes that are sent at once.
const BUFFER: usize = 64 * 1024;

/// Counts, reports and throttles.
struct Meter<'a> {
    run: &'a Run,
    started: Instant,
    reported: Instant,
    /// Rows of this run alone, which the throttle counts.
    sent: u64,
    progress: Progress,
}

/// How often progress is published.
const REPORT_EVERY: Duration = Duration::from_millis(250);

impl<'a> Meter<'a> {
    fn new(run: &'a Run, total: u64) -> Self {
        let now = Instant::now();
        let progress = Progress { rows_total: total, ..Progress::default() };
        Self { run, started: now, reported: now, sent: 0, progress }
    }

    fn table(&mut self, name: &str) {
        self.progress.table = name.to_owned();
        self.publish();
    }

    fn skip(&mut self, rows: u64, bytes: u64) {
        self.progress.rows_done += rows;
        self.progress.bytes_done += bytes;
    }

    /// Counts a row; answers until when to wait, if the throttle says so.
    fn row(&mut self, bytes: usize) -> Option<Instant> {
        self.sent += 1;
        self.progress.rows_done += 1;
        self.progress.bytes_done += bytes as u64;
        if !self.sent.is_multiple_of(256) {
            return None;
        }
        let now = Instant::now();
        if now.duration_since(self.reported) >= REPORT_EVERY {
            self.reported = now;
            self.publish();
        }
        let limit = self.run.spec.max_rows_per_second;
        if limit == 0 {
            return None;
        }
        let due = self.started + Duration::from_micros(self.sent.saturating_mul(1_000_000) / limit);
        (due > now).then_some(due)
    }

    fn publish(&mut self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.progress.rows_per_second = self.sent.saturating_mul(1000) / millis;
        self.progress.rows_total = self.progress.rows_total.max(self.progress.rows_done);
        self.run.progress.send_replace(self.progress.clone());
    }
}
