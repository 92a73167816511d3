//! How long a move has patience, as configuration.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::durable::Durable;
use super::state::{State, Step, Undo};

/// The times of the driver. All of them absolute once they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often all open moves are looked at without a signal.
    pub period: Duration,
    /// The pause before the second try of a step; doubles with every try.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// The longest pause of a move that waits for its turn behind others of its
    /// node: a turn that is given back wakes it.
    pub queue_pause: Duration,
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
    /// Half of the rows must be copied by then, or somebody is told.
    pub slow_after: Duration,
    /// Progress is written to the store at most this often per move.
    pub progress_every: Duration,
    /// How long the way back is open; zero opens none.
    pub way_back: Duration,
    /// How long past its time an open way back is waited for.
    pub way_back_grace: Duration,
    /// How long the old copy is kept after that.
    pub keep_old_copy: Duration,
    /// How long an undo waits for a silent target before the source lets go
    /// of the move alone.
    pub abandon_after: Duration,
    /// How long a source's agent is silent before the target's is asked who
    /// serves the tenant.
    pub source_gone: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            period: Duration::from_secs(1),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            queue_pause: minutes(10),
            short_step: minutes(10),
            copy: minutes(24 * 60),
            long_step: minutes(6 * 60),
            cut_over_attempt: minutes(2),
            cut_over: minutes(60),
            patient_attempt: minutes(60),
            ticket: minutes(14 * 24 * 60),
            stuck_after: minutes(60),
            slow_after: minutes(180),
            progress_every: Duration::from_secs(1),
            way_back: minutes(24 * 60),
            way_back_grace: minutes(2),
            keep_old_copy: minutes(7 * 24 * 60),
            abandon_after: minutes(30),
            source_gone: minutes(2),
        }
    }
}

impl From<&crate::config::Moves> for Timing {
    fn from(config: &crate::config::Moves) -> Self {
        Self {
            stuck_after: Duration::from_secs(config.stuck_after_s),
            slow_after: Duration::from_secs(config.slow_after_s),
            way_back: Duration::from_secs(config.way_back_s),
            keep_old_copy: Duration::from_secs(config.keep_old_copy_s),
            abandon_after: Duration::from_secs(config.abandon_after_s),
            source_gone: Duration::from_secs(config.source_gone_s),
            ..Self::default()
        }
    }
}

impl Timing {
    /// Patience with a step; none where it is never given up, or has a time
    /// of its own.
    pub const fn budget(&self, step: Step) -> Option<Duration> {
        match step {
            Step::OpenTunnel | Step::Preflight | Step::Guard | Step::CloseTunnel => {
                Some(self.short_step)
            }
            Step::Copy => Some(self.copy),
            Step::Drain | Step::Verify => Some(self.long_step),
            Step::CutOver | Step::RollBack => Some(self.cut_over),
            Step::Route
            | Step::WayBack
            | Step::RouteBack
            | Step::Finish
            | Step::Kept
            | Step::CleanUp => None,
        }
    }

    /// Patience with a step back.
    pub const fn undo_budget(&self, undo: Undo) -> Option<Duration> {
        match undo {
            Undo::Source => Some(self.abandon_after),
            Undo::Abandon | Undo::CleanTarget => None,
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
            Some(Step::CutOver | Step::RollBack) => later(now, self.cut_over_attempt),
            Some(Step::WayBack) => later(deadline.unwrap_or(now), self.way_back_grace),
            _ => deadline.filter(|end| *end > now).unwrap_or(later(now, self.patient_attempt)),
        }
    }

    /// When patience ends with a state that is entered now.
    pub fn deadline(&self, state: State, durable: &Durable, now: Timestamp) -> Option<Timestamp> {
        let budget = match state {
            State::Step(Step::WayBack) => return durable.way_back_until,
            State::Step(step) => self.budget(step),
            State::Undoing(undo) => self.undo_budget(undo),
            State::AwaitingApproval
            | State::AwaitingConfirmation
            | State::WaitingForNode
            | State::Paused
            | State::Ended(_) => None,
        };
        budget.map(|budget| later(now, budget))
    }

    /// When somebody must be told that a state that is entered now goes
    /// nowhere; none where it may take its time.
    pub fn alarm(&self, state: State, now: Timestamp) -> Option<Timestamp> {
        match state {
            State::Step(Step::WayBack | Step::Kept) => None,
            State::Step(_) | State::Undoing(_) => Some(later(now, self.stuck_after)),
            State::AwaitingApproval
            | State::AwaitingConfirmation
            | State::WaitingForNode
            | State::Paused
            | State::Ended(_) => None,
        }
    }

    /// When the target forgets the ticket of a move that begins now: after
    /// all that the move may take, its way back and its old copy.
    pub fn ticket_end(&self, now: Timestamp) -> Timestamp {
        later(later(later(now, self.ticket), self.way_back), self.keep_old_copy)
    }

    /// The pause after the `attempts`-th try: doubles from `first_pause` up to
    /// `longest_pause`. No jitter: the driver begins few moves at once; those that
    /// wait for their turn have one of their own.
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
        let open = Some(later(now, timing.way_back));
        let end = later(now, timing.way_back + timing.way_back_grace);
        assert_eq!(timing.expiry(Some(Step::WayBack), now, open), end);
    }

    #[test]
    fn the_ticket_outlives_every_budget() {
        let timing = Timing::default();
        let all: Duration = Step::ALL.iter().filter_map(|step| timing.budget(*step)).sum();
        assert!(timing.ticket > all);
    }
}
