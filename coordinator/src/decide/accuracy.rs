//! How good decisions turned out to be: did tenants stay where they were put,
//! did their performance issues end, and how often did we change our mind. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::migrate::performance_issues;
use super::plans::Thresholds;
use super::profile::Usage;

/// Who leaves sooner did not stay.
const STAYED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A tenant's stay on a node, with the usage that its decision saw and the
/// usage that the first decision after saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stay {
    pub began: Timestamp,
    /// When it moved on; none while it lives there.
    pub left: Option<Timestamp>,
    /// None where nothing was measured, as at a signup.
    pub before: Option<Usage>,
    pub after: Option<Usage>,
}

/// How decisions turned out. Shares are of what can be judged by now; none where
/// that is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Accuracy {
    /// Stays that are at least 7 days old, or over.
    pub stays: u64,
    /// Those that lasted 7 days.
    pub stayed: u64,
    /// Stays that were decided on with a performance issue and looked at since.
    pub with_issues: u64,
    /// Those whose tenant had none the next time that it was looked at.
    pub issues_ended: u64,
    /// Decisions about a tenant that was decided about before.
    pub reconsidered: u64,
    /// Those that wanted another mode than the one before.
    pub changed_mind: u64,
    /// In percent, rounded down.
    pub stayed_percent: Option<u64>,
    pub issues_ended_percent: Option<u64>,
    pub changed_mind_percent: Option<u64>,
}

/// Judges stays as of `now`; of `reconsidered` decisions `changed_mind` wanted
/// another mode.
pub fn accuracy(
    stays: &[Stay],
    (reconsidered, changed_mind): (u64, u64),
    thresholds: &Thresholds,
    now: Timestamp,
) -> Accuracy {
    let mut found = Accuracy { reconsidered, changed_mind, ..Accuracy::default() };
    for stay in stays {
        let lasted = stay.left.unwrap_or(now).duration_since(stay.began) >= STAYED;
        if lasted || stay.left.is_some() {
            found.stays += 1;
            found.stayed += u64::from(lasted);
        }
        let issue = |usage: &Usage| !performance_issues(usage, thresholds).is_empty();
        if let (Some(before), Some(after)) = (&stay.before, &stay.after)
            && issue(before)
        {
            found.with_issues += 1;
            found.issues_ended += u64::from(!issue(after));
        }
    }
    let percent = |part: u64, whole: u64| (part * 100).checked_div(whole);
    found.stayed_percent = percent(found.stayed, found.stays);
    found.issues_ended_percent = percent(found.issues_ended, found.with_issues);
    found.changed_mind_percent = percent(changed_mind, reconsidered);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Catalog;

    #[test]
    fn only_what_can_be_judged_counts() {
        let now = Timestamp::from_second(1_000_000_000).expect("a time");
        let ago = |days: i64| now - SignedDuration::from_hours(days * 24);
        let slow = || Some(Usage { average_response_time_ms: Some(201), ..Usage::default() });
        let fine = || Some(Usage { average_response_time_ms: Some(200), ..Usage::default() });
        let stays = [
            Stay { began: ago(30), before: slow(), after: fine(), ..Stay::default() },
            Stay { began: ago(30), left: Some(ago(23)), before: slow(), after: slow() },
            Stay { began: ago(30), left: Some(ago(24)), before: fine(), after: slow() },
            Stay { began: ago(6), before: slow(), after: None, left: None },
            Stay { began: ago(6), before: slow(), after: fine(), left: None },
        ];
        let thresholds = Catalog::default().thresholds;
        let found = accuracy(&stays, (8, 2), &thresholds, now);
        assert_eq!((found.stays, found.stayed, found.stayed_percent), (3, 2, Some(66)));
        assert_eq!((found.with_issues, found.issues_ended), (3, 2));
        assert_eq!(found.changed_mind_percent, Some(25));
        let none = accuracy(&[], (0, 0), &thresholds, now);
        assert_eq!((none.stayed_percent, none.changed_mind_percent), (None, None));
    }
}
