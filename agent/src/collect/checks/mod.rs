//! Is what the customer uses alive? For dedicated nodes: the application, the
//! database, Redis and what stands before them, asked as a client would.
//!
//! A check answers within its limit or it failed; one failure is a hiccup,
//! [`DOWN_AFTER`] in a row are down. The overall state is that of the worst
//! check: `healthy`, `degraded` (one that is not vital is down, or one just
//! failed), `down`.

pub mod probe;

#[cfg(test)]
mod tests;

use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::probe::Probe;
use super::source::{Outcome, Source};
use crate::config::Check;

/// How long one round of checks may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many failures in a row are no hiccup.
pub const DOWN_AFTER: u32 = 3;

/// How a check, or all of them, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Healthy,
    Degraded,
    Down,
}

/// One check's latest result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub name: String,
    pub state: State,
    /// Microseconds until its answer, or its failure.
    pub took_us: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Why it failed; empty when it did not.
    pub message: String,
}

/// One reading: the checks in the configuration's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksReading {
    /// Which round of checks this is, from 1 on.
    pub round: u64,
    pub overall: State,
    pub checks: Vec<Checked>,
}

struct Entry {
    name: String,
    vital: bool,
    probe: Probe,
    failures: u32,
}

/// The source.
pub struct ChecksSource {
    entries: Vec<Entry>,
    every: Duration,
    last: Option<(Instant, ChecksReading)>,
}

impl ChecksSource {
    /// `every`: the time between two rounds of checks; between them the last
    /// round's word stands.
    ///
    /// # Errors
    /// A sentence, when the HTTP client can't be made.
    pub fn new(checks: &[Check], every: Duration) -> Result<Self, String> {
        let mut entries = Vec::with_capacity(checks.len());
        for check in checks {
            entries.push(Entry {
                name: check.name.clone(),
                vital: check.vital,
                probe: Probe::new(check)?,
                failures: 0,
            });
        }
        Ok(Self { entries, every, last: None })
    }

    async fn ask(&mut self) -> ChecksReading {
        // One that hangs takes no time from the others.
        let mut asking = Vec::with_capacity(self.entries.len());
        for entry in &mut self.entries {
            asking.push(entry.ask());
        }
        let checks = join_all(asking).await;
        let worst = |(entry, checked): (&Entry, &Checked)| match checked.state {
            State::Down if !entry.vital => State::Degraded,
            state => state,
        };
        let overall = self.entries.iter().zip(&checks).map(worst).max();
        let round = self.last.as_ref().map_or(0, |(_, last)| last.round) + 1;
        ChecksReading { round, overall: overall.unwrap_or(State::Healthy), checks }
    }
}

impl Entry {
    async fn ask(&mut self) -> Checked {
        let began = Instant::now();
        let asked = tokio::time::timeout(PATIENCE, self.probe.ask()).await;
        let asked =
            asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
        let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.failures = if asked.is_ok() { 0 } else { self.failures.saturating_add(1) };
        Checked {
            name: self.name.clone(),
            state: match self.failures {
                0 => State::Healthy,
                failures if failures < DOWN_AFTER => State::Degraded,
                _ => State::Down,
            },
            took_us,
            failures: self.failures,
            message: asked.err().unwrap_or_default(),
        }
    }
}

impl Source for ChecksSource {
    type Reading = ChecksReading;

    async fn read(&mut self) -> Outcome<ChecksReading> {
        let reading = match &self.last {
            Some((at, reading)) if at.elapsed() < self.every => reading.clone(),
            _ => {
                let reading = self.ask().await;
                self.last = Some((Instant::now(), reading.clone()));
                reading
            }
        };
        let failed: Vec<String> = reading
            .checks
            .iter()
            .filter(|checked| checked.state != State::Healthy)
            .map(|checked| {
                let word = if checked.state == State::Down { "is down" } else { "failed" };
                format!("{} {word}: {}", checked.name, checked.message)
            })
            .collect();
        if failed.is_empty() {
            Outcome::Good(reading)
        } else {
            Outcome::Partial(reading, failed.join("; "))
        }
    }
}
