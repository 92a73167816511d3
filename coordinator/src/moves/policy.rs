//! When a move is rolled back by itself: a tenant that fares worse on its new
//! node than before the switch, for long enough, goes back while the way back
//! is open. Off by default. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::durable::Health;
use super::timing::later;
use crate::usage::TenantUsage;

/// Fewer requests in the window say nothing.
const LEAST_REQUESTS: u64 = 20;

/// The policy of `[moves.auto_rollback]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Off unless somebody wants it.
    pub enabled: bool,
    /// So many of a thousand requests fail, and more than before.
    pub error_permille: u32,
    /// The mean response is so many times what it was.
    pub latency_factor: u32,
    /// For so long without a break.
    pub lasting: Duration,
}

impl From<&crate::config::AutoRollback> for Policy {
    fn from(config: &crate::config::AutoRollback) -> Self {
        Self {
            enabled: config.enabled,
            error_permille: config.error_permille,
            latency_factor: config.latency_factor,
            lasting: Duration::from_secs(config.for_s),
        }
    }
}

/// What is to be done about what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fares well, or too little is known: since is none.
    Well,
    /// It fares badly, since then, which is not long enough yet.
    Watch(Timestamp),
    /// It goes back: why, for a person.
    RollBack(String),
}

/// The requests of a window; none where too few came to say anything.
pub fn health(usage: &TenantUsage) -> Option<Health> {
    (usage.requests_in_window >= LEAST_REQUESTS).then_some(Health {
        mean_response_us: usage.mean_response_us,
        error_rate_bp: usage.error_rate_bp,
    })
}

/// What `policy` makes of the requests `after` the switch, measured where the
/// tenant lives now. `since`: since when they have been bad.
pub fn judge(
    policy: &Policy,
    before: Option<Health>,
    after: Option<Health>,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Verdict {
    let Some(after) = after.filter(|_| policy.enabled) else { return Verdict::Well };
    let Some(why) = worse(policy, before, after) else { return Verdict::Well };
    let since = since.unwrap_or(now);
    if later(since, policy.lasting) > now {
        return Verdict::Watch(since);
    }
    Verdict::RollBack(format!("{why}, since {since}"))
}

/// What is worse than the policy allows.
fn worse(policy: &Policy, before: Option<Health>, after: Health) -> Option<String> {
    let errors = after.error_rate_bp.unwrap_or_default();
    let errors_before = before.and_then(|health| health.error_rate_bp).unwrap_or_default();
    if errors >= policy.error_permille.saturating_mul(10) && errors > errors_before {
        return Some(format!(
            "{}.{} of a thousand requests fail, {}.{} did before the switch",
            errors / 10,
            errors % 10,
            errors_before / 10,
            errors_before % 10
        ));
    }
    let (mean, mean_before) = (after.mean_response_us?, before?.mean_response_us?);
    (mean > mean_before.saturating_mul(policy.latency_factor.into())).then(|| {
        format!("a response takes {mean} us on average, {mean_before} us before the switch")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        enabled: true,
        error_permille: 50,
        latency_factor: 3,
        lasting: Duration::from_secs(60),
    };

    fn seen(mean: u64, errors: u32) -> Option<Health> {
        Some(Health { mean_response_us: Some(mean), error_rate_bp: Some(errors) })
    }

    #[test]
    fn only_what_is_bad_for_long_enough_goes_back() {
        let t0 = Timestamp::UNIX_EPOCH;
        let t1 = later(t0, Duration::from_secs(60));
        let check = |before, after, since, expected: &str| {
            let found = match judge(&POLICY, before, after, since, t1) {
                Verdict::Well => "well".to_owned(),
                Verdict::Watch(at) => format!("watch {at}"),
                Verdict::RollBack(why) => why,
            };
            assert!(found.contains(expected), "{found} instead of {expected}");
        };
        check(seen(1000, 0), seen(3000, 499), None, "well");
        check(seen(1000, 0), seen(3001, 0), None, &format!("watch {t1}"));
        check(seen(1000, 0), seen(3001, 0), Some(t0), "3001 us on average, 1000 us before");
        check(seen(1000, 0), seen(1000, 500), Some(t0), "50.0 of a thousand requests fail, 0.0");
        // As bad as before is nobody's fault; nothing known says nothing.
        check(seen(1000, 600), seen(1000, 600), Some(t0), "well");
        check(None, seen(9_000_000, 0), Some(t0), "well");
        check(None, seen(1000, 500), Some(t0), "50.0 of a thousand");
        check(seen(1000, 0), None, Some(t0), "well");
        let off = Policy { enabled: false, ..POLICY };
        assert_eq!(judge(&off, None, seen(1, 10_000), Some(t0), t1), Verdict::Well);
    }
}
