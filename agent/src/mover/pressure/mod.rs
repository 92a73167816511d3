//! Backing off where the databases have other things to do.
//!
//! Two small probes, one a side, measure what a write costs there right now:
//! a transaction that has to be flushed, with a count of who else is at work
//! and who waits for a lock. [`controller::next`] turns a pair of them into a
//! rate; what is sent is spent against it. Where nobody else is at work nobody
//! can be hurt, and the rate is unlimited.

pub mod controller;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use self::controller::Limits;
use self::controller::{Pace, Sample, next};
use super::connect::Conn;
use super::error::{MoveError, Side};
use super::run::Run;

/// Between two probes.
const EVERY: Duration = Duration::from_millis(200);

/// What may be sent, and what was.
pub struct Gauge {
    limits: Limits,
    state: Mutex<State>,
}

struct State {
    pace: Pace,
    /// When all that was sent is paid for.
    paid: Instant,
    sent: u64,
}

impl Gauge {
    /// Unlimited until a probe says otherwise.
    pub fn new(limits: Limits) -> Self {
        let state = State { pace: Pace::default(), paid: Instant::now(), sent: 0 };
        Self { limits, state: Mutex::new(state) }
    }

    /// Counts `bytes`; answers until when to wait, if at all.
    pub fn spend(&self, now: Instant, bytes: u64) -> Option<Instant> {
        let mut state = self.state();
        state.sent = state.sent.saturating_add(bytes);
        let rate = state.pace.rate?;
        let price = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        state.paid = state.paid.max(now) + price;
        Some(state.paid)
    }

    /// Probes both sides until it is dropped; returns only with an error.
    ///
    /// # Errors
    /// What ended a probe's session.
    pub async fn watch(&self, run: &Run) -> MoveError {
        match self.probes(run).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn probes(&self, run: &Run) -> Result<std::convert::Infallible, MoveError> {
        let source = run.connect(Side::Source).await?;
        let target = run.connect(Side::Target).await?;
        let (mut last, mut sent) = (Instant::now(), 0);
        loop {
            tokio::time::sleep(EVERY).await;
            let (here, there) = futures_util::future::join(sample(&source), sample(&target)).await;
            let samples = [here?, there?];
            let mut state = self.state();
            let took = last.elapsed();
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            let rate = (state.sent - sent).saturating_mul(1_000_000) / micros;
            (last, sent) = (Instant::now(), state.sent);
            let before = state.pace.rate;
            state.pace = next(&state.pace, &self.limits, &samples, rate);
            if before.is_none() && state.pace.rate.is_some() {
                tracing::info!(?samples, "the copy backs off: somebody else is slower for it");
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // No code panics while it holds this; a poisoned value is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One probe: an empty message in the log of writes, flushed like a commit.
async fn sample(conn: &Conn) -> Result<Sample, MoveError> {
    let started = Instant::now();
    let row = conn
        .one(
            "select count(*) filter (where state = 'active')::int4, \
                    count(*) filter (where wait_event_type = 'Lock')::int4, \
                    pg_logical_emit_message(true, 'webhost_fleet', '')::text \
             from pg_stat_activity where backend_type = 'client backend' \
             and application_name not like 'webhost-mover%'",
            &[],
        )
        .await?;
    let count = |at: usize| u32::try_from(row.get::<_, i32>(at)).unwrap_or(0);
    Ok(Sample {
        latency_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        active: count(0),
        waiting: count(1),
    })
}
