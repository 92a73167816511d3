//! The way back: the old copy kept up to date by the key log in the other
//! direction, for as long as it is open.
//!
//! It is leg 1 of the move, armed and drained like leg 0, so that a roll back
//! is nothing but this leg's cut-over, and may come at any moment. Every batch
//! is compared by key; both sides are compared exactly once at the start and
//! then every hour (`[moves] way_back_verify_s`). What keeps a database out of reach is waited for: the log
//! keeps the keys meanwhile. A difference ends the way back, named; the new
//! side serves on.

use std::time::Duration;

use tokio::time::Instant;

use super::catalog::Table;
use super::drain::{Drain, SHORT};
use super::error::{Kind, MoveError};
use super::guard;
use super::jobs;
use super::leg::Leg;
use super::run::{Pair, Run};
use super::spec::{Progress, WayBack};
use super::sql;
use super::verify;

/// Drained keys after which the log is vacuumed, and the longest it waits.
const VACUUM_KEYS: u64 = 20_000;
const VACUUM_EVERY: Duration = Duration::from_secs(60);

/// What is carried over from one session of the way back to the next.
#[derive(Debug, Default)]
pub struct State {
    done: WayBack,
    verified: Option<Instant>,
    mirrored_at_us: i64,
}

/// Keeps the old copy up to date until the way back's time ends. Idempotent;
/// interrupted, a repetition goes on from the log.
///
/// # Errors
/// [`MoveError::Mismatch`], naming table and keys; [`MoveError`] of kind retry
/// or interrupted, after which `state` lets a new pair go on.
pub async fn run(
    run: &Run,
    pair: &Pair,
    leg: Leg,
    state: &mut State,
) -> Result<WayBack, MoveError> {
    let outcome = mirror(run, pair, leg, state).await;
    match outcome {
        // A row that no longer fits its table says little: DDL on the new
        // side closes the way back, and is named.
        Err(error @ MoveError::Database { .. }) if error.kind() == Kind::Refused => {
            Err(match run.guarded_tables(pair, leg).await {
                Err(changed @ MoveError::Refused(_)) => changed,
                _ => error,
            })
        }
        Err(error @ MoveError::Mismatch { .. }) => {
            tracing::error!(move_id = %run.spec.move_id, tenant = %run.spec.tenant, %error, "the way back is closed");
            Err(error)
        }
        other => other,
    }
}

async fn mirror(run: &Run, pair: &Pair, leg: Leg, state: &mut State) -> Result<WayBack, MoveError> {
    if run.spec.way_back_until_us == 0 {
        return Err(MoveError::refused("this move was ordered without a way back"));
    }
    let tables = run.tables(pair).await?;
    guard::arm(run, pair, leg, &tables).await?;
    // Retention and compression run again where the tenant is served.
    jobs::resume(leg.from(pair), &run.spec).await?;
    let tables = run.guarded_tables(pair, leg).await?;
    let mut drain = Drain::prepare(run, pair, leg, &tables).await?;
    let before = state.done.keys;
    let mut vacuumed = (Instant::now(), 0);
    let mut settle_at = Some(Instant::now() + run.tuning.settle_after);
    loop {
        if state.verified.is_none_or(|at| at.elapsed() >= run.tuning.way_back_verify) {
            // Most of what waits is counted here, as long as patience lasts; the
            // comparison drains by itself.
            drain.until_short().await?;
            drain.vacuum().await?;
            verify::run(run, pair, leg).await?;
            state.verified = Some(Instant::now());
            state.done.verifications += 1;
            state.done.verified_at_us = now_us();
        }
        let taken = drain.batch(Some(run.tuning.drain_batch)).await?;
        run.fail.on("mid_mirror", leg)?;
        state.done.keys = before + drain.drained();
        let short = taken <= SHORT;
        if short {
            state.mirrored_at_us = now_us();
        }
        report(run, state, leg.from(pair), short).await?;
        let since = drain.drained() - vacuumed.1;
        if since >= VACUUM_KEYS || since > 0 && vacuumed.0.elapsed() >= VACUUM_EVERY {
            drain.vacuum().await?;
            vacuumed = (Instant::now(), drain.drained());
        }
        if settle_at.is_some_and(|at| Instant::now() >= at) {
            let from = leg.from(pair);
            let settled = guard::settled(from, &run.spec, &tables, run.tuning.settle_after).await?;
            settle_at = (!settled).then(|| Instant::now() + run.tuning.settle_after);
        }
        let left = remaining(run);
        if left.is_zero() {
            return Ok(state.done);
        }
        if short {
            tokio::time::sleep(run.tuning.way_back_pause.min(left)).await;
        }
    }
}

/// What the way back needs, tried before the first cut-over and rolled back:
/// the log on the target, and a source that may be written to as the mover
/// does.
///
/// # Errors
/// [`MoveError::Refused`], saying what is missing.
pub async fn rehearse(run: &Run, pair: &Pair, tables: &[Table]) -> Result<(), MoveError> {
    let leg = Leg::BACK;
    let (from, to) = (leg.from(pair), leg.to(pair));
    let coming = guard::Kind::Coming { alone: false };
    guard::check(from, &run.spec, tables, coming).await?;
    let mut drain = Drain::prepare(run, pair, leg, tables).await?;
    drain.ready_all().await?;
    to.batch("BEGIN").await?;
    let allowed = to
        .batch(
            "SET LOCAL session_replication_role = replica; \
             CREATE TEMP TABLE webhost_fleet_rehearsal () ON COMMIT DROP",
        )
        .await;
    to.batch("ROLLBACK").await?;
    allowed.map_err(|error| {
        MoveError::refused(format!(
            "the way back could not be taken: {error}; on the {} a superuser must run \
             GRANT SET ON PARAMETER session_replication_role TO the agent's role, and its \
             database must let it create temporary tables",
            to.side()
        ))
    })
}

/// Whether a way back that failed so is tried again with new sessions.
pub fn goes_on(run: &Run, error: &MoveError) -> bool {
    passes(error) && !remaining(run).is_zero()
}

/// Whether its time ended while it waited for what [`goes_on`] waits for.
pub fn is_over(run: &Run, error: &MoveError) -> bool {
    passes(error) && remaining(run).is_zero()
}

fn passes(error: &MoveError) -> bool {
    matches!(error.kind(), Kind::Retry | Kind::Interrupted)
        && !matches!(error, MoveError::FailPoint(_))
}

/// How long the way back is still open.
pub fn remaining(run: &Run) -> Duration {
    let left = run.spec.way_back_until_us.saturating_sub(now_us());
    Duration::from_micros(u64::try_from(left).unwrap_or(0))
}

impl State {
    /// What has been done so far.
    pub fn done(&self) -> WayBack {
        self.done
    }
}

async fn report(
    run: &Run,
    state: &State,
    from: &super::connect::Conn,
    short: bool,
) -> Result<(), MoveError> {
    let log = sql::log_table(run.spec.move_id);
    // Counted only where it may be long; a short one was just emptied.
    let backlog: i64 =
        if short { 0 } else { from.one(&format!("select count(*) from {log}"), &[]).await?.get(0) };
    run.progress.send_replace(Progress {
        table: log,
        rows_done: state.done.keys,
        backlog: backlog.max(0).cast_unsigned(),
        verified_at_us: state.done.verified_at_us,
        mirrored_at_us: state.mirrored_at_us,
        ..Progress::default()
    });
    Ok(())
}

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
