//! Progress and throttle of a copy.

use std::time::Duration;

use tokio::time::Instant;

use crate::mover::run::Run;
use crate::mover::spec::Progress;

/// How often progress is published.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Counts, reports and throttles.
pub(super) struct Meter<'a> {
    run: &'a Run,
    started: Instant,
    reported: Instant,
    /// Rows of this run alone, which the throttle counts.
    sent: u64,
    progress: Progress,
}

impl<'a> Meter<'a> {
    pub(super) fn new(run: &'a Run, total: u64) -> Self {
        let now = Instant::now();
        let progress = Progress { rows_total: total, ..Progress::default() };
        Self { run, started: now, reported: now, sent: 0, progress }
    }

    pub(super) fn table(&mut self, name: &str) {
        self.progress.table = name.to_owned();
        self.publish();
    }

    pub(super) fn skip(&mut self, rows: u64, bytes: u64) {
        self.progress.rows_done += rows;
        self.progress.bytes_done += bytes;
    }

    /// Counts a row; answers until when to wait, if the throttle says so.
    pub(super) fn row(&mut self, bytes: usize) -> Option<Instant> {
        self.sent += 1;
        self.progress.rows_done += 1;
        self.progress.bytes_done += bytes as u64;
        if !self.sent.is_multiple_of(256) {
            return None;
        }
        let now = Instant::now();
        if now.duration_since(self.reported) >= REPORT_EVERY {
            self.reported = now;
            self.publish();
        }
        let limit = self.run.spec.max_rows_per_second;
        if limit == 0 {
            return None;
        }
        let due = self.started + Duration::from_micros(self.sent.saturating_mul(1_000_000) / limit);
        (due > now).then_some(due)
    }

    fn publish(&mut self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.progress.rows_per_second = self.sent.saturating_mul(1000) / millis;
        self.progress.rows_total = self.progress.rows_total.max(self.progress.rows_done);
        self.run.progress.send_replace(self.progress.clone());
    }
}
