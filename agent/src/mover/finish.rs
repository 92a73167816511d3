//! The end of a move: the way back is closed, and what it needed goes.
//!
//! It works after the cut-over and after a roll back alike: the side that
//! serves the tenant is freed of everything, the other one keeps its fence row
//! and a guard that only refuses, so that a writer that still comes there is
//! told the new place. The logs go only here, long after the last activation
//! was durable.
//!
//! Where the node with the old copy is gone for good, the side that serves is
//! freed alone ([`alone`]).

use super::connect::Conn;
use super::error::{MoveError, Side};
use super::guard;
use super::jobs;
use super::recover;
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
    free(run, serves).await?;
    forget(run, left).await
}

/// The same without the other side, whose node was given up for good. That
/// closes the way back: what is written from here on is logged for nobody.
/// Idempotent.
///
/// **Invariant:** only a side whose own row says that it serves the tenant is
/// freed. The other one's row says `moved`, and permits nothing without a
/// `moved` of this side's, which no cut-over writes without the guards that go
/// here.
///
/// # Errors
/// [`MoveError::Refused`] where this side's row doesn't say that;
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn alone(run: &Run) -> Result<(), MoveError> {
    let serves = run.beside().await?;
    if recover::beside(run).await?.serving.is_none() {
        return Err(MoveError::refused(format!(
            "the {} does not serve tenant {} by move {}: the move is not finished alone",
            serves.side(),
            run.spec.tenant,
            run.spec.move_id
        )));
    }
    run.fail.point("mid_finish")?;
    free(run, &serves).await
}

/// Frees the side that serves of the move's guards, log and rows.
async fn free(run: &Run, serves: &Conn) -> Result<(), MoveError> {
    // Another move that has guards there since is not in this list.
    if run.remembered(serves).await?.is_some() {
        guard::drop_triggers(serves, &run.spec).await?;
        guard::drop_log(serves, &run.spec).await?;
    }
    forget(run, serves).await
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
