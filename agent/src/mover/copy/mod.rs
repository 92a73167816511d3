//! The bulk of the rows, from one snapshot.
//!
//! The snapshot is taken after the last trigger is in place, so that whatever
//! it does not show is in the key log. Each part (a table, a partition, or a
//! range of pages of a large one) and its line in the ledger commit together
//! on the target; a restarted copy leaves out what is done. Parts go over a
//! few streams at once where there are cores for them; all see one snapshot.
//!
//! A restart has a later snapshot. Rows that changed in between may then show
//! up in another part than before: such keys are in the log, so it is enough
//! that a part of a table that was begun before skips keys that exist.
//!
//! On a node of the tenant's own, the indexes of large empty tables are put
//! aside meanwhile ([`set_aside`](super::set_aside)): building one over rows
//! that are there costs a fraction of feeding it one random key at a time.

mod meter;
pub(in crate::mover) mod parts;
mod pipe;
mod streams;

use tokio::time::Instant;

use self::meter::Meter;
use self::streams::Plan;
use super::catalog::Table;
use super::connect::Conn;
use super::error::{MoveError, Side};
use super::leg::Leg;
use super::pressure::Gauge;
use super::run::{Pair, Run};
use super::set_aside;
use super::spec::{Copied, Progress};
use super::sql::SCHEMA;
use super::statements::TableSql;

/// The ledger's line that closes a table.
const WHOLE: &str = "*";

/// When this returns, every row of the snapshot is on the target, with every
/// index. Idempotent; repeated after an interruption it copies what is missing.
///
/// # Errors
/// [`MoveError`]; a repetition resumes.
pub async fn run(run: &Run, pair: &Pair) -> Result<Copied, MoveError> {
    let tables = run.guarded_tables(pair, Leg::FORTH).await?;
    let started = Instant::now();
    let source = run.connect(Side::Source).await?;
    let target = run.connect(Side::Target).await?;
    source.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;

    let mut estimates = Vec::new();
    for table in &tables {
        let rows = estimate(&source, &TableSql::new(table, &run.spec), &table.name, false).await?;
        estimates.push(rows);
    }
    if run.spec.target_dedicated {
        let large = tables.iter().zip(&estimates);
        // A hypertable's indexes are the extension's to clone.
        let large = large.filter(|(table, rows)| {
            **rows >= run.tuning.set_aside_rows && table.hypertable.is_none()
        });
        set_aside::away(run, &target, large.map(|(table, _)| table)).await?;
    }
    run.fail.point("after_set_aside")?;
    let gauge = Gauge::new(run.tuning.pressure);
    let meter = Meter::new(run, &gauge, estimates.iter().sum());
    let plan = Plan::make(run, pair, (&source, &target), &tables, &meter).await?;
    let piping = Instant::now();
    let work = streams::run(run, pair, plan, (source, target), &meter);
    // The watch ends with the work.
    let target = tokio::select! {
        copied = work => copied?,
        error = gauge.watch(run) => return Err(error),
    };
    let piped = piping.elapsed();

    run.fail.point("mid_indexes")?;
    let building = Instant::now();
    let tell = |index: &str| {
        let table = format!("index {index}");
        run.progress.send_modify(|progress| progress.table = table);
    };
    let indexes = set_aside::back(&run.spec, &target, &tell).await?;
    let built = building.elapsed();
    // All is as it was.
    if indexes > 0 {
        run.guarded_tables(pair, Leg::FORTH).await?;
    }
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
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let copied = Copied {
        rows: row.get::<_, i64>(0).max(0).cast_unsigned(),
        bytes: row.get::<_, i64>(1).max(0).cast_unsigned(),
        duration_us: micros(started.elapsed()),
        piped_us: micros(piped),
        indexes_us: if indexes > 0 { micros(built) } else { 0 },
    };
    run.progress.send_modify(|progress| {
        *progress =
            Progress { rows_done: copied.rows, bytes_done: copied.bytes, ..progress.clone() };
    });
    Ok(copied)
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
                sql.in_scope("x")
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

/// What the ledger says of one table.
struct Done {
    /// Part, rows, bytes.
    parts: Vec<(String, i64, i64)>,
}

impl Done {
    async fn read(run: &Run, target: &Conn, tab: i32) -> Result<Self, MoveError> {
        let sql = format!(
            "select part, rows, bytes from {SCHEMA}.copied where move_id = $1 and tab = $2"
        );
        let rows = target.query(&sql, &[&run.spec.move_id.0, &tab]).await?;
        Ok(Self { parts: rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect() })
    }

    fn is_whole(&self) -> bool {
        self.has(WHOLE)
    }

    fn has(&self, id: &str) -> bool {
        self.parts.iter().any(|(part, ..)| part == id)
    }

    fn count(&self, meter: &Meter<'_>) {
        for (_, rows, bytes) in &self.parts {
            meter.skip(rows.max(&0).cast_unsigned(), bytes.max(&0).cast_unsigned());
        }
    }
}

/// Closes a table in the ledger.
async fn close(run: &Run, target: &Conn, tab: i32) -> Result<(), MoveError> {
    let sql = format!(
        "insert into {SCHEMA}.copied (move_id, tab, part, rows, bytes) values ($1, $2, $3, 0, 0) \
         on conflict do nothing"
    );
    target.execute(&sql, &[&run.spec.move_id.0, &tab, &WHOLE]).await?;
    Ok(())
}

/// Where a table is numbered in the ledger.
fn number(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}

/// The table's statements, for its parts.
fn sql_of<'a>(run: &Run, table: &'a Table) -> TableSql<'a> {
    TableSql::new(table, &run.spec)
}
