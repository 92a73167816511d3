//! Before the point of no return: everything as it was.
//!
//! The source comes first, so that its writers are free at once and a cut-over
//! of this move is impossible from then on; then the target's copy goes, in
//! batches that each hold the target's fence row.

use super::catalog::Table;
use super::connect::Conn;
use super::error::MoveError;
use super::fence;
use super::finish;
use super::guard;
use super::run::{Pair, Run};
use super::sql::{self, Lock, SCHEMA};
use super::statements::TableSql;

/// Rows that one transaction deletes.
const BATCH: usize = 5_000;

/// When this returns, neither side has anything of the move. Idempotent.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked; a repetition resumes.
pub async fn run(run: &Run, pair: &Pair) -> Result<(), MoveError> {
    let spec = &run.spec;
    let on_target = run.remembered(&pair.target).await?;
    release(run, &pair.source).await?;
    run.fail.point("mid_undo")?;
    if let Some(tables) = &on_target {
        let row = pair
            .target
            .one(
                &format!("select was_empty, had_fence from {SCHEMA}.moves where move_id = $1"),
                &[&spec.move_id.0],
            )
            .await?;
        let (was_empty, had_fence): (bool, bool) = (row.get(0), row.get(1));
        pair.target
            .execute(&format!("delete from {SCHEMA}.copied where move_id = $1"), &[&spec.move_id.0])
            .await?;
        // Rows that were there before the guards are not ours to delete.
        if was_empty {
            // What belongs to the tenant through a parent goes before it.
            for table in tables.iter().rev() {
                delete_rows(run, &pair.target, table).await?;
            }
        }
        // A node that the tenant left by an earlier move, and that still has
        // its rows, keeps its guards.
        if stands_by(run, &pair.target).await? {
            // Without rows of the tenant behind it a tombstone needs no guard.
            if had_fence && !was_empty {
                guard::only_refuse(&pair.target, spec, tables).await?;
            } else {
                guard::drop_triggers(&pair.target, spec).await?;
            }
        }
        guard::drop_log(&pair.target, spec).await?;
    }
    forget(run, &pair.target, "standby").await?;
    forget(run, &pair.source, "active").await
}

/// The source lets go: no cut-over can match its fence row any more, and its
/// writers are free. Idempotent.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub(super) async fn release(run: &Run, source: &Conn) -> Result<(), MoveError> {
    let spec = &run.spec;
    if run.remembered(source).await?.is_none() {
        return Ok(());
    }
    // Before anything is removed.
    source
        .batch(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock_shared({lock}); \
             UPDATE {SCHEMA}.fence SET move_id = NULL WHERE customer_id = {tenant} \
               AND move_id = {ours} AND state = 'active'; COMMIT",
            lock = Lock::Fence(spec.tenant).key(),
            tenant = sql::tenant_literal(spec.tenant),
            ours = sql::move_literal(spec.move_id),
        ))
        .await?;
    guard::drop_triggers(source, spec).await?;
    guard::drop_log(source, spec).await
}

async fn stands_by(run: &Run, target: &Conn) -> Result<bool, MoveError> {
    Ok(fence::read(target, run.spec.tenant, false).await?.is_some_and(|fence| {
        fence.state == fence::State::Standby && fence.move_id == Some(run.spec.move_id)
    }))
}

/// Deletes the tenant's rows of one table on the target, batch by batch.
///
/// # Errors
/// [`MoveError::Refused`] where the target does not stand by for this move.
pub(super) async fn delete_rows(run: &Run, target: &Conn, table: &Table) -> Result<(), MoveError> {
    let sql = TableSql::new(table, &run.spec);
    let mut from = None;
    loop {
        target.batch("BEGIN; SET LOCAL session_replication_role = replica").await?;
        let outcome = async {
            fence::standby(&run.spec, target, "FOR UPDATE").await?;
            delete_some(target, &sql, &mut from).await
        }
        .await;
        match outcome {
            Ok(0) => return target.batch("COMMIT").await,
            Ok(_) => target.batch("COMMIT").await?,
            Err(error) => {
                if let Err(second) = target.batch("ROLLBACK").await {
                    tracing::debug!(%second, "rollback of a delete");
                }
                return Err(error);
            }
        }
    }
}

/// One batch, in the caller's transaction; answers how many rows went. Those
/// of a hypertable go in order of time, from `from` on.
async fn delete_some(
    target: &Conn,
    sql: &TableSql<'_>,
    from: &mut Option<String>,
) -> Result<u64, MoveError> {
    if let Some(next) = sql.next_times(from.as_deref(), BATCH) {
        let row = target.one(&next, &[]).await?;
        let (Some(first), Some(last)): (Option<String>, Option<String>) = (row.get(0), row.get(1))
        else {
            return Ok(0);
        };
        let Some(delete) = sql.delete_times(&first, &last) else { return Ok(0) };
        *from = Some(last);
        return target.execute(&delete, &[]).await;
    }
    // The outer condition on the tenant is not redundant: in a partitioned
    // table two rows can share a ctid.
    target
        .execute(
            &format!(
                "DELETE FROM {name} AS x WHERE {mine} AND x.ctid = ANY(ARRAY( \
                   SELECT y.ctid FROM {name} AS y WHERE {same} LIMIT {BATCH}))",
                name = sql.table.name,
                mine = sql.of_tenant("x"),
                same = sql.of_tenant("y"),
            ),
            &[],
        )
        .await
}

/// Removes the move's rows on one side, the fence row if it came with the
/// move, and our schema if nobody needs it. `state` is what its fence row says
/// while the move is not cut over.
///
/// # Errors
/// What the database said.
pub(super) async fn forget(run: &Run, conn: &Conn, state: &str) -> Result<(), MoveError> {
    let exists: bool =
        conn.one(&format!("select to_regclass('{SCHEMA}.moves') is not null"), &[]).await?.get(0);
    if !exists {
        return Ok(());
    }
    let tenant = sql::tenant_literal(run.spec.tenant);
    let ours = sql::move_literal(run.spec.move_id);
    // A target that had a tombstone gets it back.
    conn.batch(&format!(
        "BEGIN; \
         DELETE FROM {SCHEMA}.fence f WHERE f.customer_id = {tenant} AND f.state = '{state}' \
           AND (f.move_id = {ours} OR f.move_id IS NULL) \
           AND NOT coalesce((SELECT m.had_fence FROM {SCHEMA}.moves m WHERE m.move_id = {ours}), f.state = 'active'); \
         UPDATE {SCHEMA}.fence SET state = 'moved', move_id = NULL WHERE customer_id = {tenant} \
           AND state = 'standby' AND move_id = {ours}; \
         COMMIT"
    ))
    .await?;
    finish::forget(run, conn).await?;
    fence::drop_schema_if_unused(conn).await
}
