//! A transition as a change of the move's row: pure, so that what a restart
//! finds can be tested without a database.

use jiff::Timestamp;
use serde_json::Value;

use super::consider::describe;
use super::durable::Stopped;
use super::next::Transition;
use super::state::{Ending, State, Step};
use super::steps::Answer;
use super::timing::{Timing, later};
use crate::store::moves::Move;

/// The row as it is after `answer` led to `transition`, and what its history
/// says about it.
pub fn applied(
    from: &Move,
    answer: &Answer,
    transition: Transition,
    timing: &Timing,
    now: Timestamp,
) -> (Move, String) {
    let mut to = from.revised(now);
    if let Some(learned) = &answer.learned {
        if let Some(tunnel) = &learned.tunnel {
            to.durable.target_tunnel.clone_from(tunnel);
            to.durable.target_http = learned.takes_http;
        }
        if learned.epoch.is_some() {
            to.durable.new_epoch = learned.epoch;
        }
        if let (Some(figures), Value::Object(result)) = (&learned.result, &mut to.result) {
            result.insert(from.state.as_str().to_owned(), figures.clone());
        }
    }
    match transition {
        Transition::Repeat => {
            to.updated_at = from.updated_at;
            to.durable.command = None;
            to.durable.not_before = Some(later(now, timing.pause(from.durable.attempts)));
            to.error = Some(answer.why.clone());
            (to, format!("try {} of this step: {}", from.durable.attempts, answer.why))
        }
        Transition::To(state) => {
            to.state = state;
            let alarm = Some(later(now, timing.stuck_after));
            let budget = match state {
                State::Step(step) => timing.budget(step),
                State::Undoing(undo) => timing.undo_budget(undo),
                State::AwaitingApproval | State::WaitingForNode | State::Ended(_) => None,
            };
            to.durable.begin_step(budget.map(|budget| later(now, budget)), alarm);
            match state {
                State::Undoing(_) if to.durable.stopped.is_none() => {
                    to.durable.stopped =
                        Some(Stopped { by_person: false, why: answer.why.clone() });
                }
                // The source turned out not to be active: the move goes on. Two
                // refusals may follow each other, so this turn is not hurried.
                State::Step(Step::CutOver) if matches!(from.state, State::Undoing(_)) => {
                    to.durable.stopped = None;
                    to.durable.not_before = Some(later(now, timing.longest_pause));
                }
                State::Ended(_) => {
                    to.durable.deadline = None;
                    to.durable.alarm_at = None;
                    to.durable.ticket = None;
                }
                _ => {}
            }
            let why =
                to.durable.stopped.as_ref().map_or(answer.why.as_str(), |stopped| &stopped.why);
            to.error = match state {
                State::Undoing(_) | State::Ended(Ending::Failed | Ending::Cancelled) => {
                    Some(why.to_owned())
                }
                _ => None,
            };
            let message = describe(state, if to.error.is_some() { why } else { &answer.why });
            (to, message)
        }
    }
}
