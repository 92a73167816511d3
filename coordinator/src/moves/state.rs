//! The names of a move's states: the same words in the store, the API, the
//! logs and the demo.

use std::fmt;
use std::str::FromStr;

/// One step forward. The order of declaration is the order of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The target's agent lets the source's mover in.
    OpenTunnel,
    /// Both sides are looked at; nothing is changed.
    Preflight,
    /// Guards and key log on both sides.
    Guard,
    /// The tenant's rows, from one snapshot.
    Copy,
    /// The key log, until little is left.
    Drain,
    /// Both sides hashed.
    Verify,
    /// The fence closes and the target becomes active. **The point of no
    /// return lies inside this step**; only the fence rows know on which
    /// side of it a move is.
    CutOver,
    /// The coordinator's own books follow: placements and the tenant's epoch.
    Route,
    /// Log and triggers that the move no longer needs are removed.
    Finish,
    /// The tunnel's ticket is forgotten.
    CloseTunnel,
}

/// One step back, before the point of no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undo {
    /// Guards dropped on both sides, the target's rows deleted; done by the
    /// source's agent, which refuses unless its fence row says active.
    Source,
    /// The tunnel's ticket is forgotten.
    Tunnel,
}

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// The tenant lives on the target.
    Completed,
    /// A person said no before it began; nothing was done.
    Refused,
    /// A person stopped it; the tenant stayed where it was.
    Cancelled,
    /// It could not be done; the tenant stayed where it was.
    Failed,
}

/// Where a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A person has to say yes.
    AwaitingApproval,
    /// No node is free for it; tried again and again.
    WaitingForNode,
    /// On its way.
    Step(Step),
    /// On its way back.
    Undoing(Undo),
    /// Over.
    Ended(Ending),
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::OpenTunnel,
        Self::Preflight,
        Self::Guard,
        Self::Copy,
        Self::Drain,
        Self::Verify,
        Self::CutOver,
        Self::Route,
        Self::Finish,
        Self::CloseTunnel,
    ];

    /// True from the step after the point of no return on.
    pub fn is_past_return(self) -> bool {
        self > Self::CutOver
    }

    /// The word in the store, the API and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenTunnel => "open_tunnel",
            Self::Preflight => "preflight",
            Self::Guard => "guard",
            Self::Copy => "copy",
            Self::Drain => "drain",
            Self::Verify => "verify",
            Self::CutOver => "cut_over",
            Self::Route => "route",
            Self::Finish => "finish",
            Self::CloseTunnel => "close_tunnel",
        }
    }
}

impl Undo {
    /// The word in the store, the API and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "undo_source",
            Self::Tunnel => "undo_tunnel",
        }
    }
}

impl Ending {
    /// The word in the store, the API and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl State {
    /// Every state there is.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::AwaitingApproval, Self::WaitingForNode]
            .into_iter()
            .chain(Step::ALL.into_iter().map(Self::Step))
            .chain([Undo::Source, Undo::Tunnel].into_iter().map(Self::Undoing))
            .chain(
                [Ending::Completed, Ending::Refused, Ending::Cancelled, Ending::Failed]
                    .into_iter()
                    .map(Self::Ended),
            )
    }

    /// The word in the store, the API and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::WaitingForNode => "waiting_for_node",
            Self::Step(step) => step.as_str(),
            Self::Undoing(undo) => undo.as_str(),
            Self::Ended(ending) => ending.as_str(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no state of a move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a move")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| UnknownState(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_one_state() {
        let words: std::collections::BTreeSet<_> = State::all().map(State::as_str).collect();
        assert_eq!(words.len(), State::all().count());
        for state in State::all() {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!("copying".parse::<State>(), Err(UnknownState("copying".into())));
    }
}
