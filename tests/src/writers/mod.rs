//! Chaos writers with an exact model: what the database acknowledged, key by
//! key, to be held against what both databases hold when a move is over.
//!
//! Each writer owns its keys, so its model needs no lock and no tolerance. It
//! writes where it believes the tenant lives, in its isolation level; refused
//! with `MG001` it turns to the other side where the refusal names a place,
//! on a serialisation failure it tries again, until the write is acknowledged.
//! When a server dies under a commit, the writer finds out what became of it.
//!
//! Read in this order: [`ledger`] what is remembered, [`draft`] what a
//! transaction may do, [`writer`] how it is brought to its end, [`check`] what
//! must be found.

mod check;
mod doubt;
mod draft;
mod group;
mod ledger;
mod world;
mod writer;

pub use check::{Findings, check, table_hashes};
pub use draft::kinds;
pub use group::{Mix, Writers};
pub use ledger::{Expect, Isolation, Ledger, Write};
pub use world::{Clusters, Crash, World, fill, session};
