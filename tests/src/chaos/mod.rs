//! The fault matrix: each step of a move, at each of its fail points, with
//! each fault that can meet one of the parties.
//!
//! A [`case`](Case) is a step, a point of it and a fault. It is
//! [played](play) as a whole move between two real clusters, under writers
//! with an exact model: the mover is held at the point (or fails or dies
//! there), the fault is done, what was broken comes back, and the move is
//! driven on to its end as the coordinator would. Then must hold: never two
//! sides active; one of them within moments of the fault's end (measured); the
//! model exact; the other tenants' rows untouched; no object left behind.
//!
//! [`actors`] does the same to whole programs: coordinator and both agents.
//!
//! The steps and points come from `mover::fail::points`, whose match is
//! exhaustive: a step that is added to the mover is in the matrix by that.

pub mod actors;
mod case;
mod leftovers;
mod play;
mod relay;
mod report;
mod sides;
mod stage;

pub use case::{Case, Fault, all, bounded};
pub use leftovers::{Objects, leftovers, objects};
pub use play::{Played, play};
pub use relay::{Flow, Relay};
pub use report::Report;
pub use sides::{Sides, standing};
pub use stage::{Stage, login, order, setup};
