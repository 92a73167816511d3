//! The end of a move: the way back is closed, and what it needed goes.
//!
//! It works after the cut-over and after a roll back alike: the side that
//! serves the tenant is freed of everything, the other one keeps its fence row
//! and a guard that only refuses, so that a writer that still comes there is
//! told the new place. The logs go only here, long after the last activation
//! was durable.

use super::connect::Conn;
use super::error::{MoveError, Side};
use super::guard;
use super::jobs;
use super::run::{Pair, Run};
use super::sql::{self, SCHEMA};

/// When this returns, the `serving` side carries no guard, log or ledger of
/// the move, and the other one a guard that only refuses. Idempotent.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn run(run: &Run, pair: &Pair, serving: Side) -> Result<(), MoveError> {
    let spec = &run.spec;
    let serves = pair.side(serving);
    let left = pair.side(serving.other());
    // The guards first: what still logs needs its log.
    if let Some(tables) = run.remembered(left).await? {
        guard::only_refuse(left, spec, &tables).await?;
        guard::drop_log(left, spec).await?;
    }
    run.fail.point("mid_finish")?;
    // Another move that has guards there since is not in this list.
    if run.remembered(serves).await?.is_some() {
        guard::drop_triggers(serves, spec).await?;
        guard::drop_log(serves, spec).await?;
    }
    forget(run, serves).await?;
    forget(run, left).await
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
    jobs::resume(conn, &run.spec).await?;
    conn.batch(&format!(
        "BEGIN; DELETE FROM {SCHEMA}.copied WHERE move_id = {id}; \
         DELETE FROM {SCHEMA}.moves WHERE move_id = {id}; COMMIT",
        id = sql::move_literal(run.spec.move_id)
    ))
    .await
}
