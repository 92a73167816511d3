//! Progress and throttle of a copy, shared by its streams.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::mover::pressure::Gauge;
use crate::mover::run::Run;
use crate::mover::spec::Progress;

/// How often progress is published.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Counts, reports and throttles.
pub(super) struct Meter<'a> {
    run: &'a Run,
    gauge: &'a Gauge,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    reported: Instant,
    /// Rows of this run alone, which the order's limit counts.
    sent: u64,
    progress: Progress,
}

impl<'a> Meter<'a> {
    pub(super) fn new(run: &'a Run, gauge: &'a Gauge, total: u64) -> Self {
        let now = Instant::now();
        let progress = Progress { rows_total: total, ..Progress::default() };
        let state = Mutex::new(State { reported: now, sent: 0, progress });
        Self { run, gauge, started: now, state }
    }

    pub(super) fn table(&self, name: &str) {
        let mut state = self.state();
        name.clone_into(&mut state.progress.table);
        self.publish(&mut state);
    }

    pub(super) fn skip(&self, rows: u64, bytes: u64) {
        let mut state = self.state();
        state.progress.rows_done += rows;
        state.progress.bytes_done += bytes;
    }

    /// Counts what was sent; answers until when to wait: as the order's limit
    /// says, or the databases' health.
    pub(super) fn sent(&self, rows: u64, bytes: u64) -> Option<Instant> {
        let now = Instant::now();
        let health = self.gauge.spend(now, bytes);
        let mut state = self.state();
        state.sent += rows;
        state.progress.rows_done += rows;
        state.progress.bytes_done += bytes;
        if now.duration_since(state.reported) >= REPORT_EVERY {
            state.reported = now;
            self.publish(&mut state);
        }
        let limit = match self.run.spec.max_rows_per_second {
            0 => None,
            limit => Some(
                self.started + Duration::from_micros(state.sent.saturating_mul(1_000_000) / limit),
            ),
        };
        limit.max(health).filter(|due| *due > now)
    }

    fn publish(&self, state: &mut State) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        state.progress.rows_per_second = state.sent.saturating_mul(1000) / millis;
        state.progress.rows_total = state.progress.rows_total.max(state.progress.rows_done);
        self.run.progress.send_replace(state.progress.clone());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // No code panics while it holds this; a poisoned value is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
