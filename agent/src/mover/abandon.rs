//! A move that its target will not help to undo: the source lets go alone.
//!
//! Once the source's fence row names no move, no cut-over matches it any more,
//! whatever the target or an old mover may believe. The target's rows stay
//! until it is back and is told to clean up.

use super::connect::Conn;
use super::error::{MoveError, Side};
use super::fence::{self, State};
use super::run::Run;
use super::undo;

/// When this returns, the source has nothing of the move. Idempotent.
///
/// # Errors
/// [`MoveError::Refused`] where the source is not active;
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn run(run: &Run) -> Result<(), MoveError> {
    if run.here != Side::Source {
        return Err(MoveError::refused("a move is abandoned at its source"));
    }
    let conn = run.beside().await?;
    serves(run, &conn).await?;
    undo::release(run, &conn).await?;
    run.fail.point("mid_abandon")?;
    undo::forget(run, &conn, "active").await
}

async fn serves(run: &Run, conn: &Conn) -> Result<(), MoveError> {
    // The row's lock waits for a cut-over that is still being committed.
    conn.batch("BEGIN").await?;
    let row = fence::read(conn, run.spec.tenant, true).await;
    conn.batch("ROLLBACK").await?;
    match row? {
        None => Ok(()),
        Some(row) if row.state == State::Active && row.epoch <= run.spec.epoch => Ok(()),
        Some(row) if row.state == State::Active => Err(MoveError::Interrupted(
            "the move was rolled back: finish it, there is nothing to abandon".into(),
        )),
        Some(row) => Err(MoveError::refused(format!(
            "the source does not serve tenant {} (its fence row says {}): the move goes forward",
            run.spec.tenant,
            row.state.as_str()
        ))),
    }
}
