//! Placement and plans, held by tables of cases, by random fleets, and by a
//! checker that shares no code with them.

mod place;
mod plans;
mod random;
mod search;
