//! Chaos writers with an exact model: what the database acknowledged, key by
//! key, to be held against what both databases hold when a move is over.
//!
//! Each writer owns its keys, so its model needs no lock and no tolerance. It
//! writes where it believes the tenant lives, in its isolation level; refused
//! with `MG001` it turns to the place that the refusal names, if any, on a serialisation failure it tries
//! again, until the write is acknowledged.

mod check;
mod world;
mod writer;

pub use check::{Findings, check, table_hashes};
pub use world::{Clusters, World, fill, session};
pub use writer::{Isolation, Ledger, Write, Writers};
