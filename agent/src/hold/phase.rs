//! What a tenant's requests do now: a pure state machine, time is an argument.
//!
//! | phase | a new request | an upgraded connection |
//! |---|---|---|
//! | pass (`Here`) | goes to the application of this node | carries on |
//! | forward (`There`) | goes to the new place | carries on |
//! | parked | waits, at most [`PATIENCE`] | what the client sends waits |
//!
//! **Invariant:** no request waits longer than [`PATIENCE`], whatever dies.
//! **Invariant:** a park ends by itself [`PATIENCE`] after it began; requests
//! go then where they went before.

use std::time::Duration;

use tokio::time::Instant;

/// The longest that a request is kept waiting.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Where requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// To the application beside this agent.
    Here,
    /// To the new place, through the move's tunnel.
    There,
}

/// A tenant's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    way: Way,
    /// Since when; none when nothing is parked.
    parked: Option<Instant>,
}

/// What becomes of one request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Go(Way),
    /// Not before something changes, or that time.
    Wait(Instant),
}

impl Phase {
    /// Nothing parked.
    pub fn open(way: Way) -> Self {
        Self { way, parked: None }
    }

    /// Where requests go when nothing is parked, or when patience ends.
    pub fn way(self) -> Way {
        self.way
    }

    /// New requests wait from now on. A park that holds goes on anew; each
    /// request still waits no longer than its own patience.
    #[must_use]
    pub fn park(self, now: Instant) -> Self {
        Self { parked: Some(now), ..self }
    }

    /// Requests go on, there.
    #[must_use]
    pub fn release(self, way: Way) -> Self {
        Self::open(way)
    }

    /// When the park ends by itself; none when nothing is parked at `now`.
    pub fn parked_until(self, now: Instant) -> Option<Instant> {
        self.parked.map(|since| since + PATIENCE).filter(|until| *until > now)
    }

    /// What a request that came at `arrived` does.
    pub fn admit(self, arrived: Instant, now: Instant) -> Admission {
        let due = self.parked_until(now).map(|until| until.min(arrived + PATIENCE));
        match due {
            Some(due) if due > now => Admission::Wait(due),
            _ => Admission::Go(self.way),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_phase_says_what_a_request_does() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let here = Phase::open(Way::Here);
        let parked = here.park(at(1_000));
        // Phase, arrival and now in ms, what is to be done.
        for (name, phase, arrived, now, wanted) in [
            ("pass", here, 0, 0, Admission::Go(Way::Here)),
            ("forward", Phase::open(Way::There), 0, 0, Admission::Go(Way::There)),
            ("parked", parked, 1_000, 1_000, Admission::Wait(at(2_000))),
            ("parked late", parked, 1_900, 1_900, Admission::Wait(at(2_000))),
            ("came before the park", parked, 500, 1_100, Admission::Wait(at(1_500))),
            ("its patience is over", parked, 500, 1_500, Admission::Go(Way::Here)),
            ("the park is over", parked, 1_500, 2_000, Admission::Go(Way::Here)),
            ("long after", parked, 9_000, 9_000, Admission::Go(Way::Here)),
            ("released there", parked.release(Way::There), 1_000, 1_100, Admission::Go(Way::There)),
            ("released here", parked.release(Way::Here), 1_000, 1_100, Admission::Go(Way::Here)),
            ("parked again", parked.park(at(1_800)), 1_000, 1_900, Admission::Wait(at(2_000))),
            ("parked on", parked.park(at(1_800)), 1_000, 2_000, Admission::Go(Way::Here)),
            ("newcomer", parked.park(at(1_800)), 1_900, 2_100, Admission::Wait(at(2_800))),
            (
                "parked there, given up",
                Phase::open(Way::There).park(at(0)),
                0,
                1_000,
                Admission::Go(Way::There),
            ),
        ] {
            assert_eq!(phase.admit(at(arrived), at(now)), wanted, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_patience() {
        let start = Instant::now();
        for parked_ms in [0_u64, 300, 999, 1_000, 5_000] {
            for arrived_ms in [0_u64, 1, 999, 1_000, 1_001, 5_500] {
                let arrived = start + Duration::from_millis(arrived_ms);
                let mut phase = Phase::open(Way::Here);
                let mut now = arrived;
                // Parked again and again by a mover that never gets through.
                for _ in 0..20 {
                    if now >= start + Duration::from_millis(parked_ms) {
                        phase = phase.park(now);
                    }
                    match phase.admit(arrived, now) {
                        Admission::Go(_) => break,
                        Admission::Wait(until) => {
                            assert!(until > now);
                            now = until.min(now + Duration::from_millis(700));
                        }
                    }
                }
                assert!(now <= arrived + PATIENCE, "{parked_ms} {arrived_ms}");
                assert_eq!(phase.admit(arrived, arrived + PATIENCE), Admission::Go(Way::Here));
            }
        }
    }
}
