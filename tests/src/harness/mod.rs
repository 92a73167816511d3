//! A fleet of real processes on this machine, for the tests and the demo.
//!
//! Every node is a PostgreSQL cluster of its own with the WebHost schema, an
//! agent process and an instance of the stand-in application; one coordinator
//! process keeps its state in a private PostgreSQL. All of it lives under one
//! temporary directory and listens on loopback.
//!
//! **Invariant:** nothing outlives its owner. Processes are ended by their
//! own pid when their handle is dropped, also in a panic; when we are killed
//! ourselves, the kernel ends them (parent-death signal).
//!
//! Reading order: [`process`], [`cluster`], [`api`], [`settings`], [`fleet`].

pub mod api;
pub mod cluster;
pub mod fleet;
pub mod nginx;
pub mod ports;
pub mod process;
pub mod settings;
