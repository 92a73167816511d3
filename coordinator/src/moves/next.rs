//! What follows what: the move's state machine, as two exhaustive functions of
//! values.

use super::state::{Ending, State, Step, Undo};

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is done.
    Done,
    /// Nothing was done; the same may succeed later.
    Retry,
    /// It can't be met. Of a cut-over: and the source is active, says its
    /// fence row. Of an undo: and the source is not active.
    Refused,
    /// It stopped part way; a repetition resumes it.
    Interrupted,
    /// Its time ended before the agent took it up.
    Expired,
    /// Its time ended after the agent took it up, or the answer could not be
    /// understood: it may have run to its end.
    MayHaveHappened,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Retry,
        Self::Refused,
        Self::Interrupted,
        Self::Expired,
        Self::MayHaveHappened,
    ];
}

/// Whether a step may still be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patience {
    /// Its deadline lies ahead.
    Left,
    /// Its deadline has passed, or a person wants the move stopped.
    Gone,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The same step again, after a pause.
    Repeat,
    /// Another state.
    To(State),
}

const fn to(step: Step) -> Transition {
    Transition::To(State::Step(step))
}

const fn back(undo: Undo) -> Transition {
    Transition::To(State::Undoing(undo))
}

/// What follows a step forward.
///
/// Until the guards are asked for nothing was changed but a ticket, so only
/// that is taken back. From the guards to the verification every failure is
/// undone at the source. Of a cut-over only an agent's word that the source
/// is active leads back; whatever leaves that open is asked again. After it
/// nothing leads back.
pub fn next(step: Step, outcome: Outcome, patience: Patience) -> Transition {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    use Patience::{Gone, Left};
    use Step::{
        CloseTunnel, Copy, CutOver, Drain, Finish, Guard, OpenTunnel, Preflight, Route, Verify,
    };
    match (step, outcome, patience) {
        // A person's wish to stop, and a deadline, count as soon as a step
        // before the cut-over ends, however it ends.
        (OpenTunnel | Preflight, Refused, _) | (OpenTunnel | Preflight, _, Gone) => {
            back(Undo::Tunnel)
        }
        (Guard | Copy | Drain | Verify, Refused, _) | (Guard | Copy | Drain | Verify, _, Gone) => {
            back(Undo::Source)
        }
        (
            OpenTunnel | Preflight | Guard | Copy | Drain | Verify,
            Retry | Interrupted | Expired | MayHaveHappened,
            Left,
        ) => Transition::Repeat,
        (OpenTunnel, Done, Left) => to(Preflight),
        (Preflight, Done, Left) => to(Guard),
        (Guard, Done, Left) => to(Copy),
        (Copy, Done, Left) => to(Drain),
        (Drain, Done, Left) => to(Verify),
        (Verify, Done, Left) => to(CutOver),

        (CutOver, Done, _) => to(Route),
        // Both are the agent's word that the source is active.
        (CutOver, Refused, _) | (CutOver, Retry, Gone) => back(Undo::Source),
        (CutOver, Retry, Left) | (CutOver, Interrupted | Expired | MayHaveHappened, _) => {
            Transition::Repeat
        }

        (Route, Done, _) => to(Finish),
        (Finish, Done, _) => to(CloseTunnel),
        (Route | Finish, _, _) => Transition::Repeat,

        // The ticket dies of age too, so nothing waits for ever on a target
        // whose work is done.
        (CloseTunnel, Done | Refused, _) | (CloseTunnel, _, Gone) => {
            Transition::To(State::Ended(Ending::Completed))
        }
        (CloseTunnel, Retry | Interrupted | Expired | MayHaveHappened, Left) => Transition::Repeat,
    }
}

/// What follows a step back.
///
/// `cut_over_sent`: the cut-over was asked for at least once, so a source that
/// refuses to undo says that it is not active: the move goes forward. `ending`
/// is what the move ends as.
pub fn next_undo(
    undo: Undo,
    outcome: Outcome,
    patience: Patience,
    cut_over_sent: bool,
    ending: Ending,
) -> Transition {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    match (undo, outcome) {
        (Undo::Source, Done) => back(Undo::Tunnel),
        (Undo::Source, Refused) if cut_over_sent => to(Step::CutOver),
        (Undo::Source, Refused | Retry | Interrupted | Expired | MayHaveHappened) => {
            Transition::Repeat
        }
        (Undo::Tunnel, Done | Refused) => Transition::To(State::Ended(ending)),
        (Undo::Tunnel, Retry | Interrupted | Expired | MayHaveHappened) => match patience {
            Patience::Left => Transition::Repeat,
            Patience::Gone => Transition::To(State::Ended(ending)),
        },
    }
}

#[cfg(test)]
mod tests;
