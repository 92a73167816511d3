//! How long a move has patience, as configuration.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::state::{Step, Undo};

/// The times of the driver. All of them absolute once they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often all open moves are looked at without a signal.
    pub period: Duration,
    /// The pause before the second try of a step; doubles with every try.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Patience with steps that only ask: tunnel, preflight, guards.
    pub short_step: Duration,
    /// Patience with the copy.
    pub copy: Duration,
    /// Patience with drain and verification, each.
    pub long_step: Duration,
    /// How long one cut-over command may take before it is asked again.
    pub cut_over_attempt: Duration,
    /// How long the cut-over may be tried before a source that is still
    /// active is given up.
    pub cut_over: Duration,
    /// How long one command of a step that is never given up may take.
    pub patient_attempt: Duration,
    /// How long the ticket outlives what a move may take at most.
    pub ticket: Duration,
    /// Without progress for that long, somebody is told.
    pub stuck_after: Duration,
    /// Progress is written to the store at most this often per move.
    pub progress_every: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            period: Duration::from_secs(1),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            short_step: minutes(10),
            copy: minutes(24 * 60),
            long_step: minutes(6 * 60),
            cut_over_attempt: minutes(2),
            cut_over: minutes(60),
            patient_attempt: minutes(60),
            ticket: minutes(14 * 24 * 60),
            stuck_after: minutes(5),
            progress_every: Duration::from_secs(1),
        }
    }
}

impl From<&crate::config::Moves> for Timing {
    fn from(config: &crate::config::Moves) -> Self {
        let stuck_after = Duration::from_secs(config.stuck_after_s);
        Self { stuck_after, ..Self::default() }
    }
}

impl Timing {
    /// Patience with a step; none where it is never given up.
    pub const fn budget(&self, step: Step) -> Option<Duration> {
        match step {
            Step::OpenTunnel | Step::Preflight | Step::Guard | Step::CloseTunnel => {
                Some(self.short_step)
            }
            Step::Copy => Some(self.copy),
            Step::Drain | Step::Verify => Some(self.long_step),
            Step::CutOver => Some(self.cut_over),
            Step::Route | Step::Finish => None,
        }
    }

    /// Patience with a step back.
    pub const fn undo_budget(&self, undo: Undo) -> Option<Duration> {
        match undo {
            Undo::Source => None,
            Undo::Tunnel => Some(self.short_step),
        }
    }

    /// When a command that is sent now expires: with its step, except where a
    /// step is asked for again and again.
    pub fn expiry(
        &self,
        step: Option<Step>,
        now: Timestamp,
        deadline: Option<Timestamp>,
    ) -> Timestamp {
        match step {
            Some(Step::CutOver) => later(now, self.cut_over_attempt),
            _ => deadline.filter(|end| *end > now).unwrap_or(later(now, self.patient_attempt)),
        }
    }

    /// The pause after the `attempts`-th try: doubles from `first_pause` up to
    /// `longest_pause`. No jitter: the driver begins few moves at once.
    pub fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(self.longest_pause)
    }
}

/// `now` and a while; the end of time where that overflows.
pub fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| now.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let timing = Timing::default();
        let pauses: Vec<u128> =
            [1, 2, 3, 8, 9, 60, u32::MAX].map(|n| timing.pause(n).as_millis()).to_vec();
        assert_eq!(pauses, [200, 400, 800, 25_600, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn a_command_lives_as_long_as_its_step_but_a_cut_over_is_asked_again() {
        let timing = Timing::default();
        let now = Timestamp::UNIX_EPOCH;
        let deadline = Some(later(now, timing.copy));
        assert_eq!(Some(timing.expiry(Some(Step::Copy), now, deadline)), deadline);
        assert_eq!(
            timing.expiry(Some(Step::CutOver), now, deadline),
            later(now, timing.cut_over_attempt)
        );
        assert_eq!(timing.expiry(None, now, None), later(now, timing.patient_attempt));
    }

    #[test]
    fn the_ticket_outlives_every_budget() {
        let timing = Timing::default();
        let all: Duration = Step::ALL.iter().filter_map(|step| timing.budget(*step)).sum();
        assert!(timing.ticket > all);
    }
}
