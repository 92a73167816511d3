//! What is to be done about a move now: a function of its row, its command's
//! answer and the time.

use jiff::Timestamp;
use prost::Message;
use webhost_proto::wire::{CommandReply, command_reply};

use super::next::{Facts, Outcome, Patience, Transition, next, next_undo};
use super::state::{Ending, State, Step};
use super::steps::{self, Answer, Context};
use crate::store::moves::{Move, Sent};

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing until something happens or that time comes.
    Wait(Option<Timestamp>),
    /// A node must be found and promised.
    Reserve,
    /// The step's command must be sent.
    Send,
    /// The agent must be told to end the running step, for a pause.
    EndStep(Step),
    /// The books must follow the switch, or the switch back.
    Books,
    /// The step came to something.
    Settle(Answer),
}

/// What is to be done about `row`, whose current command is `sent`.
pub fn consider(
    row: &Move,
    sent: Option<&Sent>,
    context: Option<&Context<'_>>,
    now: Timestamp,
) -> Action {
    let durable = &row.durable;
    let due = durable.not_before.is_none_or(|at| at <= now);
    let replied = sent.is_some_and(|sent| sent.reply.is_some());
    match row.state {
        State::Ended(_) | State::AwaitingApproval | State::AwaitingConfirmation | State::Paused => {
            return Action::Wait(None);
        }
        State::WaitingForNode if due => return Action::Reserve,
        State::Step(Step::Route | Step::RouteBack) if due => return Action::Books,
        State::WaitingForNode | State::Step(Step::Route | Step::RouteBack) => {
            return Action::Wait(durable.not_before);
        }
        State::Step(Step::Kept) => {
            return match durable.keep_until {
                Some(until) if until > now => Action::Wait(Some(until)),
                _ => Action::Settle(Answer::of(Outcome::Done, "the old copy was kept long enough")),
            };
        }
        // A wish to stop need not wait for the end of a long step; the
        // agents' undo ends what still runs. In a cut-over it does wait.
        State::Step(step) if durable.is_cancelled() && step < Step::CutOver => {
            return Action::Settle(Answer::of(Outcome::Interrupted, "stopped by a person"));
        }
        // A step that runs is ended by its agent; between two tries there is
        // nothing to wait for.
        State::Step(step) if durable.pause.is_some() && sent.is_none() && step < Step::CutOver => {
            return Action::Settle(Answer::of(Outcome::Interrupted, "paused by a person"));
        }
        // The agents end a way back themselves when it is asked for the roll
        // back or told to finish.
        State::Step(Step::WayBack) if !replied => {
            if let Some(wish) = &durable.roll_back {
                let why = format!("{} wants the roll back: {}", wish.by, wish.why);
                return Action::Settle(Answer::of(Outcome::Interrupted, why));
            }
            if let Some(wish) = &durable.close_way_back {
                let why = format!("the way back is closed by {}: {}", wish.by, wish.why);
                return Action::Settle(Answer::of(Outcome::Done, why));
            }
            if sent.is_none() && durable.way_back_until.is_none_or(|until| until <= now) {
                return Action::Settle(Answer::of(Outcome::Done, "the way back's time is over"));
            }
        }
        State::Step(_) | State::Undoing(_) => {}
    }
    let (Some(sent), Some(context)) = (sent, context) else {
        return if due { Action::Send } else { Action::Wait(durable.not_before) };
    };
    if let Some(reply) = &sent.reply {
        return Action::Settle(read(row.state, reply, context));
    }
    if sent.expires_at > now {
        return match row.state {
            State::Step(step)
                if durable.pause.is_some()
                    && !durable.pause_sent
                    && steps::pause_command(step, context).is_some() =>
            {
                Action::EndStep(step)
            }
            _ => Action::Wait(Some(sent.expires_at)),
        };
    }
    Action::Settle(if sent.accepted {
        Answer::of(Outcome::MayHaveHappened, "the command's time ended while the agent had it")
    } else {
        Answer::of(Outcome::Expired, "the agent did not take the command up in time")
    })
}

/// The ending reply of a step's command, from its bytes.
fn read(state: State, reply: &[u8], context: &Context<'_>) -> Answer {
    let outcome: Option<command_reply::Outcome> =
        CommandReply::decode(reply).ok().and_then(|reply| reply.outcome);
    let Some(outcome) = outcome else {
        return Answer::of(Outcome::MayHaveHappened, "the agent's answer can't be read");
    };
    match state {
        State::Step(step) => steps::read(step, &outcome, context),
        State::Undoing(undo) => steps::read_undo(undo, &outcome),
        State::AwaitingApproval
        | State::AwaitingConfirmation
        | State::WaitingForNode
        | State::Paused
        | State::Ended(_) => Answer::of(Outcome::MayHaveHappened, "no answer was expected"),
    }
}

/// Where `answer` leads `row`: the state machine with the move's patience.
pub fn transition(row: &Move, answer: &Answer, now: Timestamp) -> Transition {
    let facts = facts(row, answer, now);
    match row.state {
        State::Step(step) => next(step, answer.outcome, &facts),
        State::Undoing(undo) => next_undo(undo, answer.outcome, &facts),
        State::AwaitingApproval
        | State::AwaitingConfirmation
        | State::WaitingForNode
        | State::Paused => Transition::Repeat,
        State::Ended(ending) => Transition::To(State::Ended(ending)),
    }
}

/// What the state machine looks at beside the outcome.
fn facts(row: &Move, answer: &Answer, now: Timestamp) -> Facts {
    let durable = &row.durable;
    // What was done in the end is not thrown away for being late.
    let late = answer.outcome != Outcome::Done && durable.deadline.is_some_and(|end| end <= now);
    // Past the point of no return, and on the way back, a wish to stop is void.
    let stopped =
        durable.is_cancelled() && matches!(row.state, State::Step(step) if !step.is_past_return());
    let left_behind = answer.learned.as_ref().and_then(|learned| learned.rows_left_behind);
    Facts {
        patience: if late || stopped { Patience::Gone } else { Patience::Left },
        cut_over_sent: durable.cut_over_sent,
        dry_run: durable.wanted.dry_run,
        unconfirmed: left_behind.unwrap_or_default() > durable.confirmed_rows,
        pause: durable.pause.is_some(),
        way_back: durable.way_back_s > 0,
        roll_back: durable.roll_back.is_some(),
        rolled_back: durable.rolled_back,
        abandoned: durable.abandoned,
        forgotten: durable.forgotten.is_some(),
        ending: durable.ending(),
    }
}

/// How a person reads where a move went.
pub fn describe(to: State, why: &str) -> String {
    match to {
        State::Ended(Ending::Completed) => "the tenant lives on the target".to_owned(),
        State::Ended(Ending::RolledBack) => "the tenant lives on the source again".to_owned(),
        State::Ended(Ending::Checked) => "a dry run: nothing was changed".to_owned(),
        State::Ended(Ending::Failed | Ending::Cancelled) => {
            format!("the tenant stays where it was: {why}")
        }
        State::Ended(Ending::Refused) => format!("refused: {why}"),
        State::Undoing(_) => format!("going back: {why}"),
        State::Step(_)
        | State::WaitingForNode
        | State::AwaitingApproval
        | State::AwaitingConfirmation
        | State::Paused => why.to_owned(),
    }
}
