//! The switch: four round trips, one process, one source transaction.
//!
//! S1 closes the fence and reads the rest of the log; T2 applies it on the
//! target, compares it, and prepares `active` in an open transaction; S3
//! commits `moved` (**the point of no return**); T4 commits the target. Up to
//! S3 any failure rolls both back and the writers go on.
//!
//! "Source" and "target" are those of the leg: a roll back is the same switch
//! with the roles exchanged.
//!
//! The fence's lock belongs to the session, not to the transaction: it is held
//! past S3 until T4, so that writers who wait at the source are sent to the
//! target only when it serves them. A mover that freezes or hangs at the fence
//! is killed and replaced by its supervisor; where that is frozen too (a machine
//! that was suspended), the sessions lose the fence by the timeouts.
//! The new place is published after T4 for the same reason: until then the
//! source's refusal names none, which means "try again here".
//!
//! T4 need not wait for the disk. A target that crashes right after it, and
//! loses it, says `standby` again while the source says `moved`: the way
//! forward, from a log that is still there. No write that the target has
//! acknowledged is lost by that, for its own commit would have flushed T4 with
//! it. **Invariant:** nobody acts on an activation that is not durable: the
//! cut-over answers after a flush of both sides, and whoever reads the fence
//! rows later locks them in a transaction whose commit waits for the disk.

mod activation;
mod fence;
mod forward;

pub use forward::forward;

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use self::fence::{Closed, Fence};
use super::catalog::Table;
use super::drain::Drain;
use super::error::MoveError;
use super::guard;
use super::leg::Leg;
use super::run::{Pair, Run};
use super::spec::CutOver;
use super::sql::{self, Lock, SCHEMA};

/// How long writers may queue behind one attempt to close the fence.
const FENCE_LOCK_TIMEOUT: &str = "250ms";
/// A frozen mover gives the tenant back after this.
const FENCE_IDLE_TIMEOUT: &str = "3s";
/// How long the first attempt may keep writers until the log is read and the
/// target ready to serve them. Each further one has half as much again, up to
/// the most, which a mover at its fence is given anyway.
const READY_WITHIN: Duration = Duration::from_millis(700);
/// What the first attempt and the park before it may take together: less than
/// requests are parked for.
const PARKED_WITHIN: Duration = Duration::from_millis(850);
/// With less than this nothing can be ready.
const READY_AT_LEAST: Duration = Duration::from_millis(100);
const READY_AT_MOST: Duration = Duration::from_millis(1_500);
/// Between two attempts writers catch their breath.
const PAUSE: Duration = Duration::from_millis(300);
/// A log with more rows than this is not read inside the fence.
const MOST_ROWS: i64 = 10_000;
/// After so many drains that left more the switch is given back: the writers
/// are faster.
const TOO_LONG: u32 = 3;

/// Switches the tenant. When this returns well, the target is active.
///
/// # Errors
/// [`MoveError::Blocked`] when the fence could not be closed, and where writers
/// are faster than the drain; any error before S3 leaves the source active;
/// after it a repetition goes forward.
pub async fn run(run: &Run, pair: &Pair, leg: Leg) -> Result<CutOver, MoveError> {
    let tables = run.guarded_tables(pair, leg).await?;
    if leg == Leg::FORTH {
        complete(run, pair, &tables).await?;
    }
    let mut drain = Drain::prepare(run, pair, leg, &tables).await?;
    let fence = Fence::prepare(run, pair, leg, &tables).await?;
    let mut patience = READY_WITHIN;
    let mut too_long = 0;
    for attempt in 1..=run.tuning.fence_attempts.max(1) {
        if !approach(&mut drain, &fence).await? {
            tracing::info!(attempt, "the log is too long for the fence");
            too_long += 1;
            if too_long == TOO_LONG {
                return Err(MoveError::Blocked {
                    what: format!("the cut-over of tenant {}", run.spec.tenant),
                    blockers: "its own writers, who are faster than the drain".into(),
                });
            }
            continue;
        }
        let parked = Instant::now();
        run.park().await;
        let limit = match attempt {
            1 => patience.min(PARKED_WITHIN.saturating_sub(parked.elapsed())),
            _ => patience,
        };
        if limit < READY_AT_LEAST {
            // The park itself took that long: the machine stood still. A limit
            // of zero would be none.
            tracing::info!(attempt, parked = ?parked.elapsed(), "requests waited for the park");
            run.release(leg, false);
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        match fence.close(drain.applier(), limit).await? {
            Closed::Switched(result) => return Ok(result),
            Closed::Blocked => {
                tracing::info!(attempt, "the fence could not be closed yet");
            }
            Closed::Slow => {
                tracing::info!(attempt, ?patience, "the switch was not ready in time");
                patience = (patience * 3 / 2).min(READY_AT_MOST);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(MoveError::Blocked {
        what: format!("the cut-over of tenant {}", run.spec.tenant),
        blockers: guard::blockers(leg.from(pair), guard::Held::Lock(Lock::Fence(run.spec.tenant)))
            .await?,
    })
}

/// Drains, and warms what the fence needs. False where writers outran that: the
/// fence would have much to read, and nobody may wait for it.
async fn approach(drain: &mut Drain<'_>, fence: &Fence<'_>) -> Result<bool, MoveError> {
    drain.until_short().await?;
    if drain.is_longer(MOST_ROWS).await? {
        drain.batch(None).await?;
    }
    drain.vacuum().await?;
    // The rehearsal reads the log as the fence will.
    if drain.is_longer(MOST_ROWS).await? {
        return Ok(false);
    }
    match fence.rehearse(drain.ready().await?).await {
        // Somebody is in the way there: the fence itself will meet them.
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
        other => other?,
    }
    // What came meanwhile.
    drain.batch(None).await?;
    Ok(!drain.is_longer(MOST_ROWS).await?)
}

/// Refuses a cut-over before the copy was completed.
async fn complete(run: &Run, pair: &Pair, tables: &[Table]) -> Result<(), MoveError> {
    let closed: i64 = pair
        .target
        .one(
            &format!("select count(*) from {SCHEMA}.copied where move_id = $1 and part = '*'"),
            &[&run.spec.move_id.0],
        )
        .await?
        .get(0);
    if usize::try_from(closed).is_ok_and(|closed| closed == tables.len()) {
        return Ok(());
    }
    Err(MoveError::refused(format!(
        "the copy is not complete ({closed} of {} tables): run the step copy first",
        tables.len()
    )))
}

/// Tells writers at the side that was left where the tenant is served now.
fn publication(run: &Run, leg: Leg) -> String {
    let spec = &run.spec;
    format!(
        "UPDATE {SCHEMA}.fence SET place = {place}, updated_at = clock_timestamp() \
         WHERE customer_id = {tenant} AND state = 'moved' AND epoch = {next} AND move_id = {ours} \
           AND place <> {place}",
        place = sql::literal(leg.new_place(spec)),
        tenant = sql::tenant_literal(spec.tenant),
        next = leg.next().epoch_sql(spec),
        ours = sql::move_literal(spec.move_id),
    )
}

/// Publishes the new place once more, for a mover that died before it did.
///
/// # Errors
/// What that side said.
pub(super) async fn publish(run: &Run, pair: &Pair, leg: Leg) -> Result<(), MoveError> {
    leg.from(pair).batch(&publication(run, leg)).await
}
