//! What the usage benchmark measures, on made-up tenants whose days have a
//! shape: the reports of each minute go through the coordinator's own book and
//! recorder.

pub mod charts;
pub mod history;
pub mod memory;
pub mod restart;
pub mod tenants;
