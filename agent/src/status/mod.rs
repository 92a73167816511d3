//! How the agent is, for the operator at the machine: a local socket that
//! hands out one JSON [`document`], and the command that prints it.
//!
//! The parts of the agent write into a [`board`], which keeps a short
//! [`history`]; [`socket`] serves it; [`cli`], [`top`], [`table`] and
//! [`machine`] are the other end. The status is a picture, never a
//! way in: nothing can be changed through the socket.

pub mod board;
pub mod cli;
pub mod document;
pub mod history;
mod machine;
pub mod socket;
pub mod table;
pub mod top;

#[cfg(test)]
mod tests;
