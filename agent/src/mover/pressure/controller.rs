//! Probes in, rate out. Pure.
//!
//! Additive increase, multiplicative decrease, as in congestion control:
//! however many moves share a database, they come to share what is left.

/// What the controller goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How much longer than in calm a probe may take, in microseconds.
    pub excess_us: u64,
    /// A move goes on with this, however busy the databases are: bytes/s.
    pub floor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { excess_us: 3_000, floor: 1 << 20 }
    }
}

/// One probe of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub latency_us: u64,
    /// Sessions of others that run a statement.
    pub active: u32,
    /// Sessions of others that wait for a lock.
    pub waiting: u32,
}

/// How fast a move may go, and what that was decided from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per second; none is unlimited.
    pub rate: Option<u64>,
    /// What a probe of each side takes in calm, in microseconds: falls at
    /// once, rises slowly; none before the first.
    pub calm_us: [Option<u64>; 2],
    /// Of the last eight probes, those that saw somebody else at work.
    pub company: u8,
}

/// Of a rate, what is left when somebody suffers, and what calm adds, in
/// eighths.
const LEFT: u64 = 5;
const ADDED: u64 = 1;

/// The pace after the probes of source and target; `sent` is what was sent
/// since the last ones, in bytes per second.
///
/// Under pressure the rate falls to five eighths of what was really sent, but
/// not below the floor; in calm it rises by an eighth, and is unlimited once
/// it is twice what the databases take.
pub fn next(pace: &Pace, limits: &Limits, samples: &[Sample; 2], sent: u64) -> Pace {
    let mut after = *pace;
    let mut slow = false;
    for (calm, sample) in after.calm_us.iter_mut().zip(samples) {
        let usual = calm.unwrap_or(sample.latency_us);
        slow |= sample.latency_us > usual.saturating_add(limits.excess_us);
        *calm = Some(sample.latency_us.min(usual + usual / 512 + 1));
    }
    let others = samples.iter().any(|sample| sample.active > 0);
    after.company = pace.company << 1 | u8::from(others);
    let waiting = samples.iter().any(|sample| sample.waiting > 0);
    let pressed = after.company != 0 && (slow || waiting);
    after.rate = if pressed {
        let from = pace.rate.map_or(sent, |rate| rate.min(sent.max(limits.floor)));
        Some((from / 8 * LEFT).max(limits.floor))
    } else if after.company == 0 {
        None
    } else {
        pace.rate
            .map(|rate| rate.saturating_add((rate / 8 * ADDED).max(1)))
            .filter(|rate| *rate < sent.saturating_mul(2).max(limits.floor * 2))
    };
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { excess_us: 3_000, floor: 1_000 };
    const QUIET: Sample = Sample { latency_us: 1_000, active: 0, waiting: 0 };
    const BUSY: Sample = Sample { latency_us: 1_000, active: 2, waiting: 0 };
    const SLOW: Sample = Sample { latency_us: 9_000, active: 2, waiting: 0 };
    const STUCK: Sample = Sample { latency_us: 1_000, active: 2, waiting: 1 };

    fn settled(rate: Option<u64>) -> Pace {
        Pace { rate, calm_us: [Some(1_000); 2], company: 0b1 }
    }

    #[test]
    fn one_probe_after_another() {
        for (name, rate, samples, sent, want) in [
            ("nobody to hurt", None, [QUIET, QUIET], 80_000, None),
            ("company, and nobody suffers", None, [BUSY, QUIET], 80_000, None),
            ("somebody on the source is slow", None, [SLOW, QUIET], 80_000, Some(50_000)),
            ("somebody on the target is slow", None, [QUIET, SLOW], 80_000, Some(50_000)),
            ("somebody waits for a lock", None, [STUCK, BUSY], 80_000, Some(50_000)),
            ("slower still", Some(50_000), [SLOW, BUSY], 48_000, Some(30_000)),
            ("never below the floor", Some(1_100), [SLOW, BUSY], 1_100, Some(1_000)),
            ("nothing sent: the floor", None, [SLOW, BUSY], 0, Some(1_000)),
            ("calm again", Some(8_000), [BUSY, BUSY], 8_000, Some(9_000)),
            ("as fast as they take it", Some(16_000), [BUSY, BUSY], 8_000, None),
            ("the floor is left by an eighth", Some(1_000), [BUSY, BUSY], 0, Some(1_125)),
        ] {
            assert_eq!(next(&settled(rate), &LIMITS, &samples, sent).rate, want, "{name}");
        }
    }

    #[test]
    fn alone_for_eight_probes_there_is_no_limit() {
        let mut pace = Pace { company: 0b1, ..settled(Some(2_000)) };
        for _ in 0..7 {
            pace = next(&pace, &LIMITS, &[QUIET; 2], 100_000);
            assert!(pace.rate.is_some(), "company was there a moment ago");
        }
        assert_eq!(next(&pace, &LIMITS, &[QUIET; 2], 100_000).rate, None);
    }

    #[test]
    fn calm_is_learnt_and_forgotten_slowly() {
        let first = next(&Pace::default(), &LIMITS, &[SLOW, QUIET], 0);
        assert_eq!(first.calm_us, [Some(9_000), Some(1_000)]);
        assert_eq!(first.rate, None, "the first probe is all there is to go by");
        let second = next(&first, &LIMITS, &[QUIET, SLOW], 0);
        assert_eq!(second.calm_us, [Some(1_000), Some(1_002)]);
        // A database that stays slow is slow for other reasons in the end.
        let mut pace = second;
        for _ in 0..3_000 {
            pace = next(&pace, &LIMITS, &[QUIET, SLOW], 0);
        }
        assert_eq!(pace.calm_us, [Some(1_000), Some(9_000)]);
    }
}
