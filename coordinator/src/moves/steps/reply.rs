//! What every step's reply has in common: how a failure reads.

use webhost_proto::wire::{FailureKind, command_reply};

use super::{Learned, Outcome};

/// What an answer means for the step.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// For the state machine.
    pub outcome: Outcome,
    /// In a sentence: what was done, or why not.
    pub why: String,
    /// Where it was done.
    pub learned: Option<Learned>,
}

impl Answer {
    /// An answer that teaches nothing but itself.
    pub fn of(outcome: Outcome, why: impl Into<String>) -> Self {
        Self { outcome, why: why.into(), learned: None }
    }
}

/// Reads a reply; `done` recognises the step's own good answer.
pub(super) fn read(
    reply: &command_reply::Outcome,
    done: impl FnOnce(&command_reply::Outcome) -> Option<Learned>,
) -> Answer {
    if let command_reply::Outcome::Failed(failed) = reply {
        let outcome = match failed.kind() {
            FailureKind::Retry => Outcome::Retry,
            FailureKind::Refused => Outcome::Refused,
            FailureKind::Interrupted => Outcome::Interrupted,
            FailureKind::Expired => Outcome::MayHaveHappened,
            // An agent of another version: nothing may be concluded.
            FailureKind::Unspecified => Outcome::MayHaveHappened,
        };
        return Answer::of(outcome, failed.message.clone());
    }
    match done(reply) {
        Some(learned) => {
            Answer { outcome: Outcome::Done, why: learned.message.clone(), learned: Some(learned) }
        }
        None => Answer::of(
            Outcome::MayHaveHappened,
            format!("the agent's answer does not fit the step: {}", name(reply)),
        ),
    }
}

/// The kind of a reply, without its contents.
const fn name(reply: &command_reply::Outcome) -> &'static str {
    match reply {
        command_reply::Outcome::Accepted(_) => "accepted",
        command_reply::Outcome::Progress(_) => "progress",
        command_reply::Outcome::Failed(_) => "failed",
        command_reply::Outcome::TenantList(_) => "tenant_list",
        command_reply::Outcome::TunnelOpened(_) => "tunnel_opened",
        command_reply::Outcome::TunnelClosed(_) => "tunnel_closed",
        command_reply::Outcome::MoveStepDone(_) => {
            "move_step_done, of another step or without figures"
        }
    }
}
