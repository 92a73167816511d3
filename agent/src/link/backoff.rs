//! When to dial again. Pure: chance is an argument.

use std::time::Duration;

/// The most that a failed attempt waits.
const CAP: Duration = Duration::from_secs(30);
const BASE: Duration = Duration::from_millis(500);
/// The most that a coordinator may send an agent away for.
const MAX_AWAY: Duration = Duration::from_secs(600);

/// How long to wait after `failures` failed attempts in a row (from 1): full
/// jitter, anywhere up to a bound that doubles from half a second to 30 s, so
/// that agents that lost the coordinator together don't come back together.
/// `chance` is uniform over 0..=1000.
pub fn after_failure(failures: u32, chance: u32) -> Duration {
    let bound = BASE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(CAP);
    part(bound, chance)
}

/// How long to stay away after a goodbye that asked for `retry_after`: that
/// long at least, and up to twice as long.
pub fn after_goodbye(retry_after: Duration, chance: u32) -> Duration {
    let least = retry_after.min(MAX_AWAY);
    least + part(least, chance)
}

fn part(whole: Duration, chance: u32) -> Duration {
    whole.saturating_mul(chance.min(1000)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_is_jittered_in_full() {
        let milliseconds = |failures| after_failure(failures, 1000).as_millis();
        let bounds: Vec<_> = (1..=9).map(milliseconds).collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(milliseconds(u32::MAX), 30_000);
        for failures in [0, 1, 5, u32::MAX] {
            assert_eq!(after_failure(failures, 0), Duration::ZERO);
            assert!(after_failure(failures, 500) <= CAP / 2);
        }
    }

    #[test]
    fn a_goodbye_is_honoured_within_reason() {
        let asked = Duration::from_secs(10);
        assert_eq!(after_goodbye(asked, 0), asked);
        assert_eq!(after_goodbye(asked, 1000), asked * 2);
        assert_eq!(after_goodbye(Duration::from_secs(1 << 30), 0), MAX_AWAY);
        assert_eq!(after_goodbye(Duration::ZERO, 1000), Duration::ZERO);
    }
}
