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

/// What else decides about what follows: a person's wishes, and what the move
/// has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Whether the step may still be repeated.
    pub patience: Patience,
    /// The cut-over was asked for at least once, so a source that refuses to
    /// undo says that it is not active: the move goes forward.
    pub cut_over_sent: bool,
    /// Only the preflight is wanted.
    pub dry_run: bool,
    /// Rows would stay behind that nobody has confirmed.
    pub unconfirmed: bool,
    /// Somebody wants a pause.
    pub pause: bool,
    /// A way back is opened after the switch.
    pub way_back: bool,
    /// Somebody wants the roll back.
    pub roll_back: bool,
    /// The books have followed a roll back.
    pub rolled_back: bool,
    /// The target was given up before the switch.
    pub abandoned: bool,
    /// The node with the old copy was given up after it.
    pub forgotten: bool,
    /// What a move ends as that was undone.
    pub ending: Ending,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The same step again, after a pause.
    Repeat,
    /// Nothing, until a person resumes the move: with this step.
    Pause(Step),
    /// Another state.
    To(State),
}

const fn to(step: Step) -> Transition {
    Transition::To(State::Step(step))
}

const fn back(undo: Undo) -> Transition {
    Transition::To(State::Undoing(undo))
}

const fn end(ending: Ending) -> Transition {
    Transition::To(State::Ended(ending))
}

/// What follows a step forward.
///
/// Until the guards are asked for nothing was changed but a ticket, so only
/// that is taken back. From the guards to the verification every failure is
/// undone at the source. Of a cut-over only an agent's word that the source
/// is active leads back; whatever leaves that open is asked again. After it
/// only a roll back leads back, and of that only an agent's word that the
/// target is still active leads to the way back again.
pub fn next(step: Step, outcome: Outcome, facts: &Facts) -> Transition {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    use Patience::{Gone, Left};
    use Step::{
        CleanUp, CloseTunnel, Copy, CutOver, Drain, Finish, Guard, Kept, OpenTunnel, Preflight,
        RollBack, Route, RouteBack, Verify, WayBack,
    };
    match (step, outcome, facts.patience) {
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
        ) => {
            if facts.pause {
                Transition::Pause(step)
            } else {
                Transition::Repeat
            }
        }
        (OpenTunnel, Done, Left) => onwards(Preflight, facts),
        (Preflight, Done, Left) if facts.dry_run => back(Undo::Tunnel),
        (Preflight, Done, Left) if facts.unconfirmed => Transition::To(State::AwaitingConfirmation),
        (Preflight, Done, Left) => onwards(Guard, facts),
        (Guard, Done, Left) => onwards(Copy, facts),
        (Copy, Done, Left) => onwards(Drain, facts),
        (Drain, Done, Left) => onwards(Verify, facts),
        // What is written during a pause is drained and verified before the
        // fence closes, so a move that pauses here takes up there.
        (Verify, Done, Left) if facts.pause => Transition::Pause(Drain),
        (Verify, Done, Left) => to(CutOver),

        (CutOver, Done, _) => to(Route),
        // Both are the agent's word that the source is active.
        (CutOver, Refused, _) | (CutOver, Retry, Gone) => back(Undo::Source),
        // The source is active: what is written meanwhile is drained again.
        (CutOver, Retry, Left) if facts.pause => Transition::Pause(Drain),
        (CutOver, Retry, Left) | (CutOver, Interrupted | Expired | MayHaveHappened, _) => {
            Transition::Repeat
        }
        (Route, Done, _) if facts.way_back => to(WayBack),
        (Route, Done, _) => to(Finish),

        // It is over, or can't be kept open.
        (WayBack, Done | Refused, _) => to(Finish),
        (WayBack, _, _) if facts.roll_back => to(RollBack),
        (WayBack, Retry | Interrupted | Expired | MayHaveHappened, Left) => Transition::Repeat,
        (WayBack, Retry | Interrupted | Expired | MayHaveHappened, Gone) => to(Finish),

        (RollBack, Done, _) => to(RouteBack),
        // Both are the agent's word that the target is active.
        (RollBack, Refused, _) | (RollBack, Retry, Gone) => to(WayBack),
        (RollBack, Retry, Left) if facts.pause => to(WayBack),
        (RollBack, Retry, Left) | (RollBack, Interrupted | Expired | MayHaveHappened, _) => {
            Transition::Repeat
        }
        (RouteBack, Done, _) => to(Finish),

        // There is no old copy that anybody could reach.
        (Finish, Done, _) if facts.forgotten => to(CloseTunnel),
        (Finish, Done, _) => to(Kept),
        (Kept, Done, _) => to(CleanUp),
        (CleanUp, Done, _) => to(CloseTunnel),
        (
            Route | RouteBack | Finish | Kept | CleanUp,
            Refused | Retry | Interrupted | Expired | MayHaveHappened,
            _,
        ) => Transition::Repeat,

        // The ticket dies of age too, so nothing waits for ever on a target
        // whose work is done.
        (CloseTunnel, Done | Refused, _) | (CloseTunnel, _, Gone) => end(if facts.abandoned {
            facts.ending
        } else if facts.rolled_back {
            Ending::RolledBack
        } else {
            Ending::Completed
        }),
        (CloseTunnel, Retry | Interrupted | Expired | MayHaveHappened, Left) => Transition::Repeat,
    }
}

/// The next step, or the pause before it.
const fn onwards(step: Step, facts: &Facts) -> Transition {
    if facts.pause { Transition::Pause(step) } else { to(step) }
}

/// What follows a step back.
///
/// A source that refuses to undo is not active. Where the cut-over was asked
/// for, the move goes forward then.
pub fn next_undo(undo: Undo, outcome: Outcome, facts: &Facts) -> Transition {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    use Patience::{Gone, Left};
    match (undo, outcome, facts.patience) {
        (Undo::Source, Done, _) => back(Undo::Tunnel),
        (Undo::Source | Undo::Abandon, Refused, _) if facts.cut_over_sent => to(Step::CutOver),
        (Undo::Source, Refused, _) => Transition::Repeat,
        (Undo::Source, Retry | Interrupted | Expired | MayHaveHappened, Left) => Transition::Repeat,
        // The target is silent for too long: the source lets go alone.
        (Undo::Source, Retry | Interrupted | Expired | MayHaveHappened, Gone) => {
            back(Undo::Abandon)
        }
        (Undo::Abandon, Done, _) => back(Undo::CleanTarget),
        (Undo::Abandon, Refused, _) => back(Undo::Source),
        (Undo::CleanTarget, Done, _) => to(Step::CloseTunnel),
        (Undo::Abandon | Undo::CleanTarget, _, _) => Transition::Repeat,
        (Undo::Tunnel, Done | Refused, _) | (Undo::Tunnel, _, Gone) => end(facts.ending),
        (Undo::Tunnel, Retry | Interrupted | Expired | MayHaveHappened, Left) => Transition::Repeat,
    }
}

#[cfg(test)]
mod tests;
