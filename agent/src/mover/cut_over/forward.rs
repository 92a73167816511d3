//! The way on after the point of no return, for a mover that died on it.

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::fence::Fence;
use super::publish;
use crate::mover::apply::Applier;
use crate::mover::error::MoveError;
use crate::mover::leg::Leg;
use crate::mover::run::{Pair, Run};
use crate::mover::spec::CutOver;
use crate::mover::statements::{Batch, Mode};

/// After `moved` was committed and the target was not: applies what is left of
/// the log and activates. Only forward; idempotent.
///
/// # Errors
/// What the target said; a repetition tries again.
pub async fn forward(run: &Run, pair: &Pair, leg: Leg) -> Result<CutOver, MoveError> {
    let source = leg.from(pair);
    let Some(tables) = run.remembered(source).await? else {
        return Err(MoveError::refused(format!(
            "the {} says moved, but its list of tables for move {} is gone",
            source.side(),
            run.spec.move_id
        )));
    };
    let started = Instant::now();
    // No writer can commit there, so what is read now is the end.
    let fence = Fence::prepare(run, pair, leg, &tables).await?;
    let rows =
        source.client().query(&fence.look_up, &[]).await.map_err(|error| source.error(error))?;
    let batch = Batch::of(&rows);
    let sequences = fence.sequence_values().await?;
    let mut applier = Applier::new(leg.to(pair), &run.spec, leg, &tables).await?;
    applier.ready(&batch).await?;
    for mode in [Mode::Update, Mode::Replace] {
        match fence.prepare_target(&applier, &batch, &sequences, mode).await {
            Ok(()) => break,
            Err(error) => {
                fence.roll_back().await;
                if mode == Mode::Replace || error.code() != Some(&SqlState::UNIQUE_VIOLATION) {
                    return Err(error);
                }
            }
        }
    }
    leg.to(pair).batch("SET LOCAL synchronous_commit = on; COMMIT").await?;
    publish(run, pair, leg).await?;
    Ok(CutOver {
        epoch: leg.next().epoch(&run.spec),
        fence_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        keys_in_fence: batch.keys as u64,
        activated_at_us: jiff::Timestamp::now().as_microsecond(),
        recovered: true,
    })
}
