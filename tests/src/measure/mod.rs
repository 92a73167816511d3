//! What the benchmarks share: figures as they are printed and written down,
//! and a town of tenants on two durable clusters whose one tenant moves.
//!
//! A move runs as in the product: on one thread of its own, through the
//! product's own steps. Every series ends with the exact model of what was
//! acknowledged; a row that is missing, stale or doubled fails the run.

pub mod agent;
pub mod bare;
pub mod figures;
pub mod hogs;
pub mod load;
pub mod mover;
pub mod relay;
pub mod series;
pub mod town;
pub mod tunnel;
