//! What is to be done about a move now: a function of its row, its command's
//! answer and the time.

use jiff::Timestamp;
use prost::Message;
use webhost_proto::wire::{CommandReply, command_reply};

use super::next::{Outcome, Patience, Transition, next, next_undo};
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
    /// The step is the coordinator's own work.
    Route,
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
    match row.state {
        State::Ended(_) | State::AwaitingApproval => return Action::Wait(None),
        State::WaitingForNode if due => return Action::Reserve,
        State::WaitingForNode => return Action::Wait(durable.not_before),
        State::Step(Step::Route) if due => return Action::Route,
        State::Step(Step::Route) => return Action::Wait(durable.not_before),
        // A wish to stop need not wait for the end of a long step; the
        // agents' undo ends what still runs. In a cut-over it does wait.
        State::Step(step) if durable.is_cancelled() && step < Step::CutOver => {
            return Action::Settle(Answer::of(Outcome::Interrupted, "stopped by a person"));
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
        return Action::Wait(Some(sent.expires_at));
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
        State::AwaitingApproval | State::WaitingForNode | State::Ended(_) => {
            Answer::of(Outcome::MayHaveHappened, "no answer was expected")
        }
    }
}

/// Where `answer` leads `row`: the state machine with the move's patience.
pub fn transition(row: &Move, outcome: Outcome, now: Timestamp) -> Transition {
    let durable = &row.durable;
    // What was done in the end is not thrown away for being late.
    let late = outcome != Outcome::Done && durable.deadline.is_some_and(|end| end <= now);
    let patience = if late || durable.is_cancelled() { Patience::Gone } else { Patience::Left };
    match row.state {
        State::Step(step) => next(step, outcome, patience),
        State::Undoing(undo) => {
            next_undo(undo, outcome, patience, durable.cut_over_sent, durable.ending())
        }
        State::AwaitingApproval | State::WaitingForNode => Transition::Repeat,
        State::Ended(ending) => Transition::To(State::Ended(ending)),
    }
}

/// How a person reads where a move went.
pub fn describe(to: State, why: &str) -> String {
    match to {
        State::Ended(Ending::Completed) => "the tenant lives on the target".to_owned(),
        State::Ended(Ending::Failed | Ending::Cancelled) => {
            format!("the tenant stays where it was: {why}")
        }
        State::Ended(Ending::Refused) => format!("refused: {why}"),
        State::Undoing(_) => format!("going back: {why}"),
        State::Step(_) | State::WaitingForNode | State::AwaitingApproval => why.to_owned(),
    }
}
