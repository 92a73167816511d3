//! The names of a move's states: the same words in the store, the API, the
//! logs and the demo.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One step forward. The order of declaration is the order of a move; only
/// `RollBack` and `RouteBack` are walked when somebody asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// The tenant lives on the target, and the old copy follows its writes,
    /// so that a roll back loses nothing.
    WayBack,
    /// The cut-over in the other direction. As in `CutOver`, only the fence
    /// rows know who is active.
    RollBack,
    /// The books follow the roll back.
    RouteBack,
    /// Log and triggers that the move no longer needs are removed.
    Finish,
    /// The old copy stays as it is for a while; the coordinator waits.
    Kept,
    /// The old copy is deleted.
    CleanUp,
    /// The tunnel's ticket is forgotten.
    CloseTunnel,
}

/// One step back, before the point of no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Guards dropped on both sides, the target's rows deleted; done by the
    /// source's agent, which refuses unless its fence row says active.
    Source,
    /// The target can't be reached: the source lets go of the move alone.
    Abandon,
    /// What an abandoned move left on the target is deleted, once its agent
    /// is back.
    CleanTarget,
    /// The tunnel's ticket is forgotten.
    Tunnel,
}

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// The tenant lives on the target.
    Completed,
    /// The tenant lived on the target, and lives on the source again.
    RolledBack,
    /// It was a dry run, and its preflight passed.
    Checked,
    /// A person said no before it began; nothing was done.
    Refused,
    /// A person stopped it; the tenant stayed where it was.
    Cancelled,
    /// It could not be done; the tenant stayed where it was.
    Failed,
}

/// Where a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum State {
    /// A person has to say yes.
    AwaitingApproval,
    /// Rows would stay behind; a person has to confirm how many.
    AwaitingConfirmation,
    /// No node is free for it, or it is not its turn; tried again and again.
    WaitingForNode,
    /// A person stopped it for a while; nothing is undone.
    Paused,
    /// On its way.
    Step(Step),
    /// On its way back.
    Undoing(Undo),
    /// Over.
    Ended(Ending),
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::OpenTunnel,
        Self::Preflight,
        Self::Guard,
        Self::Copy,
        Self::Drain,
        Self::Verify,
        Self::CutOver,
        Self::Route,
        Self::WayBack,
        Self::RollBack,
        Self::RouteBack,
        Self::Finish,
        Self::Kept,
        Self::CleanUp,
        Self::CloseTunnel,
    ];

    /// True from the step after the point of no return on.
    pub fn is_past_return(self) -> bool {
        self > Self::CutOver
    }

    /// True for what the coordinator does alone: no command is sent.
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Route | Self::RouteBack | Self::Kept)
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
            Self::WayBack => "way_back",
            Self::RollBack => "roll_back",
            Self::RouteBack => "route_back",
            Self::Finish => "finish",
            Self::Kept => "kept",
            Self::CleanUp => "clean_up",
            Self::CloseTunnel => "close_tunnel",
        }
    }
}

impl Undo {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Source, Self::Abandon, Self::CleanTarget, Self::Tunnel];

    /// The word in the store, the API and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "undo_source",
            Self::Abandon => "abandon",
            Self::CleanTarget => "clean_target",
            Self::Tunnel => "undo_tunnel",
        }
    }
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Completed,
        Self::RolledBack,
        Self::Checked,
        Self::Refused,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The word in the store, the API and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Checked => "checked",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl State {
    /// Every state there is, in the order of a move.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::AwaitingApproval, Self::WaitingForNode]
            .into_iter()
            .chain(Step::ALL[..2].iter().copied().map(Self::Step))
            .chain([Self::AwaitingConfirmation])
            .chain(Step::ALL[2..6].iter().copied().map(Self::Step))
            .chain([Self::Paused])
            .chain(Step::ALL[6..].iter().copied().map(Self::Step))
            .chain(Undo::ALL.into_iter().map(Self::Undoing))
            .chain(Ending::ALL.into_iter().map(Self::Ended))
    }

    /// True where only the leftovers of a move are dealt with: the tenant may
    /// have a new move, except to the node that holds them.
    pub const fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Step(Step::Kept | Step::CleanUp | Step::CloseTunnel)
                | Self::Undoing(Undo::CleanTarget)
        )
    }

    /// True where the move loads both nodes: what the limits count.
    pub const fn is_busy(self) -> bool {
        match self {
            Self::Step(step) => matches!(
                step,
                Step::OpenTunnel
                    | Step::Preflight
                    | Step::Guard
                    | Step::Copy
                    | Step::Drain
                    | Step::Verify
                    | Step::CutOver
                    | Step::Route
                    | Step::RollBack
                    | Step::RouteBack
            ),
            Self::Undoing(undo) => matches!(undo, Undo::Source),
            Self::AwaitingApproval
            | Self::AwaitingConfirmation
            | Self::WaitingForNode
            | Self::Paused
            | Self::Ended(_) => false,
        }
    }

    /// The word in the store, the API and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::AwaitingConfirmation => "awaiting_confirmation",
            Self::WaitingForNode => "waiting_for_node",
            Self::Paused => "paused",
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

impl TryFrom<String> for State {
    type Error = UnknownState;
    fn try_from(word: String) -> Result<Self, Self::Error> {
        word.parse()
    }
}

impl From<State> for String {
    fn from(state: State) -> Self {
        state.as_str().to_owned()
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
            let json = serde_json::to_value(state).expect("writes");
            assert_eq!(json, state.as_str());
            assert_eq!(serde_json::from_value::<State>(json).expect("loads"), state);
        }
        assert_eq!("copying".parse::<State>(), Err(UnknownState("copying".into())));
    }

    #[test]
    fn the_steps_are_declared_in_their_order_and_named_alike() {
        assert!(Step::ALL.is_sorted());
        for step in Step::ALL {
            assert_eq!(serde_json::to_value(step).expect("writes"), step.as_str());
        }
    }

    /// The index that lets a tenant have one move at a time names the settled
    /// states, and so do the store's statements.
    #[test]
    fn the_schema_knows_the_settled_states() {
        let settled: Vec<&str> =
            State::all().filter(|state| state.is_settled()).map(State::as_str).collect();
        let list = format!("('{}')", settled.join("', '"));
        let schema = include_str!("../store/schema/V2__moves.sql");
        assert!(schema.contains(&list), "the schema does not name {list}");
        assert_eq!(crate::store::moves::SETTLED, list);
    }
}
