//! Moves that the engine proposed: a person is reminded of those that wait, they
//! expire, and what time has overtaken is not carried out.
//!
//! **Invariant:** a move that the engine asked for begins only if the engine
//! would still ask for the same. Where it would not, the move ends, nothing was
//! done, and the tenant is evaluated again at once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::GenericClient;

use super::request::note;
use super::state::{Ending, State};
use super::timing::later;
use crate::decide::Migration;
use crate::evaluate::judge::{FactsError, facts, judge};
use crate::slots::Slots;
use crate::store::moves::{self, Move};
use crate::store::{StoreError, tenants};

/// How long a proposal waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Somebody is reminded this often.
    pub remind: Duration,
    /// Then it ends.
    pub expire: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { remind: day, expire: day * 7 }
    }
}

/// What is due of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A reminder.
    Reminder,
    /// Its end.
    End,
}

/// What is due at `now` of a proposal of `made_at`; `reminded_at` is the time
/// of its last reminder.
pub fn due(
    made_at: Timestamp,
    reminded_at: Option<Timestamp>,
    patience: &Patience,
    now: Timestamp,
) -> Due {
    if later(made_at, patience.expire) <= now {
        Due::End
    } else if later(reminded_at.unwrap_or(made_at), patience.remind) <= now {
        Due::Reminder
    } else {
        Due::Nothing
    }
}

/// Reminds of proposals and ends those that nobody wanted; answers how many of
/// each.
///
/// # Errors
/// [`StoreError`]; what was done before it stays done.
pub async fn look(
    client: &impl GenericClient,
    patience: &Patience,
    now: Timestamp,
) -> Result<(usize, usize), StoreError> {
    let (mut reminded, mut ended) = (0, 0);
    for from in moves::awaiting_approval(client).await? {
        let mut to = from.revised(now);
        let days = now.duration_since(from.created_at).as_hours() / 24;
        let (action, message) = match due(from.created_at, from.durable.reminded_at, patience, now)
        {
            Due::Nothing => continue,
            Due::Reminder => {
                // It is where it was.
                to.updated_at = from.updated_at;
                to.durable.reminded_at = Some(now);
                let id = from.id;
                let how = format!("webhost-coordinator move approve {id}, or refuse");
                ("move.approval_wanted", format!("waits for a person for {days} days: {how}"))
            }
            Due::End => {
                let why = format!("nobody approved it within {days} days");
                to.durable.pass(from.state, from.updated_at, now);
                to.state = State::Ended(Ending::Refused);
                to.error = Some(why.clone());
                ("move.expired", why)
            }
        };
        if !moves::save(client, &from, &to).await? {
            continue;
        }
        note(client, &to, "system", action, &message, now).await?;
        tracing::warn!(move_id = %to.id, tenant = %to.tenant, action, message);
        match to.state {
            State::Ended(_) => ended += 1,
            _ => reminded += 1,
        }
    }
    Ok((reminded, ended))
}

/// Reports that are older say nothing of now.
const FRESH: SignedDuration = SignedDuration::from_mins(15);

/// Why a move that has not begun is no longer what the engine wants; none where
/// it still is, where a person asked for it, or where this coordinator knows too
/// little of the tenant to say so.
pub(super) async fn outdated(
    client: &impl GenericClient,
    slots: &Slots,
    row: &Move,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    if row.requested_by != "system" || row.decision_id.is_none() || row.target.is_some() {
        return Ok(None);
    }
    let known = slots.book.tenant(row.tenant, now.as_microsecond());
    let since = now.saturating_sub(FRESH).unwrap_or(Timestamp::MIN).as_microsecond();
    if !known.is_some_and(|usage| usage.node == row.source && usage.at_us >= since) {
        return Ok(None);
    }
    let Some(tenant) = tenants::get(client, row.tenant).await? else { return Ok(None) };
    let facts = match facts(client, slots, &tenant, now).await {
        Ok(facts) => facts,
        Err(FactsError::Store(error)) => return Err(error),
        // The tenant's data can't be judged: what was decided holds.
        Err(FactsError::Homeless(_) | FactsError::Profile(_)) => return Ok(None),
    };
    let verdict = judge(&facts, &slots.catalog);
    let decision = &verdict.decision;
    let wanted = &row.durable.wanted;
    let plan = decision.granted.as_ref().map_or(&decision.plan, |granted| &granted.plan);
    Ok(match verdict.migration {
        Migration::Stay { .. } => Some(format!("it should stay by now: {}", decision.reason)),
        Migration::Migrate { .. } if decision.mode.as_str() != wanted.mode => {
            Some(format!("{} would be right by now: {}", decision.mode, decision.reason))
        }
        Migration::Migrate { .. } if plan.as_str() != wanted.plan => {
            let was = &wanted.plan;
            Some(format!("plan {plan} would be right by now, not {was}: {}", decision.reason))
        }
        Migration::Migrate { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_is_reminded_of_daily_and_ends_after_a_week() {
        let made = Timestamp::from_second(1_000_000_000).expect("a time");
        let after = |hours: i64| made + SignedDuration::from_hours(hours);
        let check = |hours, reminded: Option<i64>, expected| {
            let found = due(made, reminded.map(after), &Patience::default(), after(hours));
            assert_eq!(found, expected, "after {hours} h, reminded {reminded:?}");
        };
        check(23, None, Due::Nothing);
        check(24, None, Due::Reminder);
        check(47, Some(24), Due::Nothing);
        check(48, Some(24), Due::Reminder);
        check(167, Some(166), Due::Nothing);
        check(168, Some(167), Due::End);
    }
}
