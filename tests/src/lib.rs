//! What the tests, the demo and the benchmarks share: the application's
//! schema, a stand-in for the application, devices that load it, and a fleet
//! of real processes.

pub mod app;
pub mod chaos;
pub mod containers;
pub mod demo;
pub mod harness;
pub mod held;
pub mod load;
pub mod measure;
pub mod mutants;
pub mod packing;
pub mod schema;
pub mod usage;
pub mod writers;
