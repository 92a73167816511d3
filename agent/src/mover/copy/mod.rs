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

mod meter;
mod parts;
mod pipe;

use tokio::time::Instant;

use self::meter::Meter;
use self::parts::plan;
use self::pipe::copy_part;
use super::catalog::Table;
use super::connect::Conn;
use super::error::{MoveError, Side};
use super::leg::Leg;
use super::run::{Pair, Run};
use super::spec::Copied;
use super::sql::SCHEMA;
use super::statements::TableSql;
use super::undo;

/// The ledger's line that closes a table.
const WHOLE: &str = "*";

/// When this returns, every row of the snapshot is on the target. Idempotent;
/// repeated after an interruption it copies what is missing.
///
/// # Errors
/// [`MoveError`]; a repetition resumes.
pub async fn run(run: &Run, pair: &Pair) -> Result<Copied, MoveError> {
    let tables = run.guarded_tables(pair, Leg::FORTH).await?;
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
