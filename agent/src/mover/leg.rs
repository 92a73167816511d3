//! The directions of a move.
//!
//! Leg 0 goes from the source to the target at the move's epoch e. Leg 1 goes
//! back, at e + 1, and is the way back; leg 2 would go forth again, at e + 2.
//! One code drains, verifies and cuts over all of them.
//!
//! During leg n the side it comes *from* is `active` at e + n by this move;
//! the side it goes *to* waits at the same epoch: `standby` before it ever
//! served the tenant here, `moved` afterwards.
//!
//! **Invariant:** the epoch is part of every comparison, so a leg that is over
//! matches nothing, neither to take from nor to write to.

use webhost_proto::ids::{Epoch, MoveId};

use super::connect::Conn;
use super::error::Side;
use super::fence::{Fence, State};
use super::run::Pair;
use super::spec::Spec;

/// One direction of a move, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leg(u64);

impl Leg {
    /// From the source to the target.
    pub const FORTH: Self = Self(0);
    /// The way back.
    pub const BACK: Self = Self(1);

    /// The leg that begins at `epoch`; none for an epoch before the move's.
    pub(super) fn beginning_at(first: Epoch, epoch: Epoch) -> Option<Self> {
        epoch.0.checked_sub(first.0).map(Self)
    }

    /// Its number; even ones go from source to target.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Whether it goes from the target to the source.
    pub fn is_back(self) -> bool {
        !self.0.is_multiple_of(2)
    }

    /// The leg after it.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The leg before it.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// Whose rows it carries.
    pub fn from_side(self) -> Side {
        if self.is_back() { Side::Target } else { Side::Source }
    }

    /// Where it carries them.
    pub fn to_side(self) -> Side {
        if self.is_back() { Side::Source } else { Side::Target }
    }

    /// The session with the side whose rows it carries.
    pub fn from(self, pair: &Pair) -> &Conn {
        pair.side(self.from_side())
    }

    /// The session with the side that it carries them to.
    pub fn to(self, pair: &Pair) -> &Conn {
        pair.side(self.to_side())
    }

    /// The epoch that both sides' fence rows have while it lasts.
    pub fn epoch(self, spec: &Spec) -> Epoch {
        Epoch(spec.epoch.0.saturating_add(self.0))
    }

    /// [`Leg::epoch`] as SQL holds it.
    pub fn epoch_sql(self, spec: &Spec) -> i64 {
        i64::try_from(self.epoch(spec).0).unwrap_or(i64::MAX)
    }

    /// What the fence row says where it goes to, until it is cut over.
    pub fn waits_as(self) -> State {
        if self.0 == 0 { State::Standby } else { State::Moved }
    }

    /// What a writer is told that comes to the side it left.
    pub fn new_place(self, spec: &Spec) -> &str {
        if self.is_back() { &spec.source_place } else { &spec.target_place }
    }

    /// Whether `fence` is the row of the side that it comes from.
    pub(super) fn serves(self, move_id: MoveId, first: Epoch, fence: Option<Fence>) -> bool {
        self.is(move_id, first, fence, State::Active)
    }

    /// Whether `fence` is the row of the side that it goes to.
    pub(super) fn waits(self, move_id: MoveId, first: Epoch, fence: Option<Fence>) -> bool {
        self.is(move_id, first, fence, self.waits_as())
    }

    fn is(self, move_id: MoveId, first: Epoch, fence: Option<Fence>, state: State) -> bool {
        fence.is_some_and(|fence| {
            fence.state == state
                && Self::beginning_at(first, fence.epoch) == Some(self)
                && fence.move_id == Some(move_id)
        })
    }
}

impl std::fmt::Display for Leg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "leg {} ({} to {})", self.0, self.from_side(), self.to_side())
    }
}
