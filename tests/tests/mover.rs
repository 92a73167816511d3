//! The data path of a move, between two real clusters.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "mover/backlog.rs"]
mod backlog;
#[path = "mover/downgrade.rs"]
mod downgrade;
#[path = "mover/gone.rs"]
mod gone;
#[path = "mover/hypertables.rs"]
mod hypertables;
#[path = "mover/indexes.rs"]
mod indexes;
#[path = "mover/invariants.rs"]
mod invariants;
#[path = "mover/isolation.rs"]
mod isolation;
#[path = "mover/kills.rs"]
mod kills;
#[path = "mover/legs.rs"]
mod legs;
#[path = "mover/patience.rs"]
mod patience;
#[path = "mover/refusals.rs"]
mod refusals;
#[path = "mover/report.rs"]
mod report;
#[path = "mover/requests.rs"]
mod requests;
#[path = "mover/scene.rs"]
mod scene;
#[path = "mover/through_a_tunnel.rs"]
mod through_a_tunnel;
#[path = "mover/through_parents.rs"]
mod through_parents;
#[path = "mover/under_writers.rs"]
mod under_writers;
#[path = "mover/way_back.rs"]
mod way_back;
#[path = "mover/way_back_kills.rs"]
mod way_back_kills;
#[path = "mover/writers_model.rs"]
mod writers_model;
