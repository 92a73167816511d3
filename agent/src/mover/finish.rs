//! After the switch: what the move no longer needs goes.
//!
//! The fence rows stay on both sides, and the source keeps its guard: a writer
//! that still comes there is told the new place. The key log goes only here,
//! long after the target's activation was durable.

use super::connect::Conn;
use super::error::MoveError;
use super::guard;
use super::run::{Pair, Run};
use super::sql::{self, SCHEMA};

/// When this returns, the target carries no guard, log or ledger of the move,
/// and the source a guard that only refuses. Idempotent.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn run(run: &Run, pair: &Pair) -> Result<(), MoveError> {
    let spec = &run.spec;
    if let Some(tables) = run.remembered(&pair.source).await? {
        guard::stop_logging(&pair.source, spec, &tables).await?;
        guard::drop_triggers(&pair.target, spec, &tables).await?;
        run.fail.point("mid_finish")?;
        pair.source
            .batch(&format!("DROP TABLE IF EXISTS {}", sql::log_table(spec.move_id)))
            .await?;
    }
    forget(run, &pair.target).await?;
    forget(run, &pair.source).await
}

/// Removes the move's own rows on one side; the fence row stays.
///
/// # Errors
/// What the database said.
pub(super) async fn forget(run: &Run, conn: &Conn) -> Result<(), MoveError> {
    let exists: bool =
        conn.one(&format!("select to_regclass('{SCHEMA}.moves') is not null"), &[]).await?.get(0);
    if !exists {
        return Ok(());
    }
    conn.batch(&format!(
        "BEGIN; DELETE FROM {SCHEMA}.copied WHERE move_id = {id}; \
         DELETE FROM {SCHEMA}.moves WHERE move_id = {id}; COMMIT",
        id = sql::move_literal(run.spec.move_id)
    ))
    .await
}
