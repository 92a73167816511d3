//! The coordinator: one service that knows what every tenant uses, decides
//! where each belongs, keeps the slots of the shared nodes, and drives moves.
//!
//! The core is pure ([`decide`], [`fleet`], the move's state machine); the
//! rest is a thin shell around it. Read in this order.

pub mod api;
pub mod cli;
pub mod config;
pub mod decide;
pub mod embedded;
pub mod evaluate;
pub mod fleet;
pub mod link;
pub mod moves;
pub mod records;
pub mod routing;
pub mod run;
pub mod signup;
pub mod slots;
pub mod store;
pub mod usage;

#[cfg(test)]
mod world;
