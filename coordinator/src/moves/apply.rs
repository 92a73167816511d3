//! A transition as a change of the move's row: pure, so that what a restart
//! finds can be tested without a database.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::consider::describe;
use super::durable::Stopped;
use super::next::{Outcome, Transition};
use super::state::{Ending, State, Step, Undo};
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
    learn(&mut to, from.state, answer);
    let state = match transition {
        Transition::Repeat => {
            to.updated_at = from.updated_at;
            to.durable.command = None;
            to.durable.not_before = Some(later(now, timing.pause(from.durable.attempts)));
            to.error = Some(answer.why.clone());
            return (to, format!("try {} of this step: {}", from.durable.attempts, answer.why));
        }
        Transition::Pause(step) => {
            to.durable.resume_at = Some(step);
            State::Paused
        }
        Transition::To(state) => state,
    };
    enter(&mut to, from, state, answer, timing, now);
    let why = to.durable.stopped.as_ref().map_or(answer.why.as_str(), |stopped| &stopped.why);
    to.error = match state {
        State::Undoing(_) | State::Ended(Ending::Failed | Ending::Cancelled) => {
            Some(why.to_owned())
        }
        // The agent refused the roll back: the way back goes on.
        State::Step(Step::WayBack) if from.state == State::Step(Step::RollBack) => {
            let paused = from.durable.pause.as_ref();
            let by = paused.map(|wish| format!("; paused by {}: {}", wish.by, wish.why));
            Some(format!("not rolled back: {}{}", answer.why, by.unwrap_or_default()))
        }
        State::Step(Step::CloseTunnel) if to.durable.abandoned => Some(why.to_owned()),
        State::AwaitingConfirmation => Some(format!(
            "{} rows are older than the plan retains and stay behind: confirm that number, or \
             cancel the move",
            to.durable.rows_left_behind
        )),
        State::Paused => {
            to.durable.pause.as_ref().map(|wish| format!("paused by {}: {}", wish.by, wish.why))
        }
        _ => None,
    };
    let message = match (&to.error, state) {
        (Some(error), State::AwaitingConfirmation | State::Paused | State::Step(_)) => {
            error.clone()
        }
        (Some(_), _) => describe(state, why),
        (None, _) => describe(state, &answer.why),
    };
    (to, message)
}

/// What the answer teaches.
fn learn(to: &mut Move, state: State, answer: &Answer) {
    let Some(learned) = &answer.learned else { return };
    let durable = &mut to.durable;
    if let Some(tunnel) = &learned.tunnel {
        durable.target_tunnel.clone_from(tunnel);
        durable.target_http = learned.takes_http;
    }
    if learned.epoch.is_some() {
        durable.new_epoch = learned.epoch;
    }
    if learned.back_epoch.is_some() {
        durable.back_epoch = learned.back_epoch;
    }
    if let Some(rows) = learned.rows_left_behind {
        durable.rows_left_behind = rows;
    }
    if let (Some(figures), Value::Object(result)) = (&learned.result, &mut to.result) {
        result.insert(state.as_str().to_owned(), figures.clone());
    }
}

/// Leaves one state and enters another.
fn enter(
    to: &mut Move,
    from: &Move,
    state: State,
    answer: &Answer,
    timing: &Timing,
    now: Timestamp,
) {
    to.state = state;
    to.durable.pass(from.state, from.updated_at, now);
    match state {
        // Past the point of no return a wish to stop or pause is void.
        State::Step(Step::Route) => {
            to.durable.stopped = None;
            to.durable.pause = None;
        }
        State::Step(Step::RouteBack) => to.durable.pause = None,
        State::Step(Step::WayBack) => {
            to.durable.pause = None;
            let open = Duration::from_secs(to.durable.way_back_s);
            to.durable.way_back_until.get_or_insert(later(now, open));
            to.durable.roll_back = None;
            to.durable.unhealthy_since = None;
        }
        State::Step(Step::Finish) => to.durable.roll_back = None,
        State::Step(Step::Kept) => to.durable.keep_until = Some(later(now, timing.keep_old_copy)),
        State::Undoing(Undo::CleanTarget) => to.durable.abandoned = true,
        // A dry run that went well has nothing to be sorry for.
        State::Undoing(_) if to.durable.wanted.dry_run && answer.outcome == Outcome::Done => {}
        State::Undoing(_) if to.durable.stopped.is_none() => {
            to.durable.stopped = Some(Stopped { by_person: false, why: answer.why.clone() });
        }
        _ => {}
    }
    if from.state == State::Step(Step::RouteBack) {
        to.durable.rolled_back = true;
    }
    // Its node came back after all, and nothing is left there.
    if from.state == State::Step(Step::CleanUp) {
        to.durable.forgotten = None;
    }
    let (deadline, alarm) = (timing.deadline(state, &to.durable, now), timing.alarm(state, now));
    to.durable.begin_step(deadline, alarm);
    match state {
        // The source turned out not to be active: the move goes on. Two
        // refusals may follow each other, so this turn is not hurried.
        State::Step(Step::CutOver) if matches!(from.state, State::Undoing(_)) => {
            to.durable.stopped = None;
            to.durable.not_before = Some(later(now, timing.longest_pause));
        }
        State::Undoing(Undo::Source) if from.state == State::Undoing(Undo::Abandon) => {
            to.durable.not_before = Some(later(now, timing.longest_pause));
        }
        State::Ended(_) => to.durable.ticket = None,
        _ => {}
    }
}
