//! Moves that wait for a person, who is reminded of them: proposals of the engine
//! and moves that leave rows behind expire, a paused one waits on. And what time
//! has overtaken is not carried out.
//!
//! **Invariant:** a move that the engine asked for begins only if the engine
//! would still ask for the same. Where it would not, the move ends, nothing was
//! done, and the tenant is evaluated again at once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::GenericClient;

use super::durable::Stopped;
use super::request::note;
use super::state::{Ending, State, Undo};
use super::timing::later;
use crate::decide::Migration;
use crate::evaluate::judge::{FactsError, facts, judge};
use crate::slots::Slots;
use crate::store::moves::{self, Move};
use crate::store::{StoreError, tenants};

/// How long a move waits for a person.
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

/// What is due of a move that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A reminder.
    Reminder,
    /// Its end.
    End,
}

/// What is due at `now` of a move that waits since `made_at`; `reminded_at` is
/// the time of the last reminder, maybe of an earlier wait.
pub fn due(
    made_at: Timestamp,
    reminded_at: Option<Timestamp>,
    patience: &Patience,
    now: Timestamp,
) -> Due {
    if later(made_at, patience.expire) <= now {
        Due::End
    } else if later(reminded_at.unwrap_or(made_at).max(made_at), patience.remind) <= now {
        Due::Reminder
    } else {
        Due::Nothing
    }
}

/// What a person is to do about a move in `state`, whether it ends where nobody
/// does, and what was not done then.
const fn wanted(state: State) -> Option<(&'static str, &'static str, Option<&'static str>)> {
    match state {
        State::AwaitingApproval => {
            Some(("move.approval_wanted", "approve ID, or refuse", Some("approved it")))
        }
        State::AwaitingConfirmation => Some((
            "move.confirmation_wanted",
            "confirm ID --rows N, or cancel",
            Some("confirmed the rows that stay behind"),
        )),
        // Its log grows; but what was copied is not thrown away unasked.
        State::Paused => Some(("move.paused_long", "resume ID, or cancel", None)),
        _ => None,
    }
}

/// Reminds of moves that wait for a person and ends those that nobody wanted;
/// answers how many of each.
///
/// # Errors
/// [`StoreError`]; what was done before it stays done.
pub async fn look(
    client: &impl GenericClient,
    patience: &Patience,
    now: Timestamp,
) -> Result<(usize, usize), StoreError> {
    let (mut reminded, mut ended) = (0, 0);
    let states = [State::AwaitingApproval, State::AwaitingConfirmation, State::Paused];
    for from in moves::open_in(client, &states).await? {
        let Some((action, how, expires)) = wanted(from.state) else { continue };
        let since = match from.state {
            State::AwaitingApproval => from.created_at,
            _ => from.updated_at,
        };
        let days = now.duration_since(since).as_hours() / 24;
        let mut to = from.revised(now);
        let due = due(since, from.durable.reminded_at, patience, now);
        let (action, message) = match (due, expires) {
            (Due::Nothing, _) => continue,
            (Due::End, Some(done)) => {
                let why = format!("nobody {done} within {days} days");
                end(&mut to, &from, &why, now);
                ("move.expired", why)
            }
            (Due::End, None)
                if later(from.durable.reminded_at.unwrap_or(since), patience.remind) > now =>
            {
                continue;
            }
            (Due::Reminder | Due::End, _) => {
                // It is where it was.
                to.updated_at = from.updated_at;
                to.durable.reminded_at = Some(now);
                let how = how.replace("ID", &from.id.to_string());
                (action, format!("waits for a person for {days} days: move {how}"))
            }
        };
        if !moves::save(client, &from, &to).await? {
            continue;
        }
        note(client, &to, "system", action, &message, now).await?;
        tracing::warn!(move_id = %to.id, tenant = %to.tenant, action, message);
        if to.state == from.state {
            reminded += 1;
        } else {
            ended += 1;
        }
    }
    Ok((reminded, ended))
}

/// Nobody wanted it: it ends, by way of its tunnel where its target is promised.
fn end(to: &mut Move, from: &Move, why: &str, now: Timestamp) {
    to.durable.pass(from.state, from.updated_at, now);
    to.error = Some(why.to_owned());
    if from.target.is_none() || from.state == State::AwaitingApproval {
        to.state = State::Ended(Ending::Refused);
        return;
    }
    to.durable.begin_step(None, None);
    to.durable.stopped = Some(Stopped { by_person: false, why: why.to_owned() });
    to.state = State::Undoing(Undo::Tunnel);
}

/// Reports that are older say nothing of now.
const FRESH: SignedDuration = SignedDuration::from_mins(15);

/// Why a move that has not begun is no longer what the engine wants; none where
/// it still is, where a person or a drain asked for it, or where this coordinator
/// knows too little of the tenant to say so.
pub(super) async fn outdated(
    client: &impl GenericClient,
    slots: &Slots,
    row: &Move,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    // A drain that goes on by itself names the node; the engine names none.
    let is_of_engine = row.requested_by == "system"
        && row.decision_id.is_some()
        && row.durable.wanted.node.is_none();
    if !is_of_engine || row.target.is_some() {
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
        check(23, Some(-100), Due::Nothing);
    }
}
