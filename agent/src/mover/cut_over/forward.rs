//! The way on after the point of no return, for a mover that died on it.

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::activation::batch_of;
use super::fence::Fence;
use super::publish;
use crate::mover::error::MoveError;
use crate::mover::run::{Pair, Run};
use crate::mover::spec::CutOver;
use crate::mover::statements::Mode;

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
