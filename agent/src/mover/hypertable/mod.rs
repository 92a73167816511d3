//! TimescaleDB's hypertables: tables that the extension cuts into chunks by
//! time, some of them compressed.
//!
//! For the application a hypertable is a table, and so it is for the mover,
//! with four differences. A chunk is never a table of its own here: rows are
//! read and written through the hypertable, whose executor alone finds those
//! of compressed chunks ([`chunks`] says where chunks begin, so that copies
//! and deletes go range by range). Row triggers are cloned to chunks by the
//! extension, to new ones too. A statement that changes rows of compressed
//! chunks must name them by literals
//! (`statements::cold`): one that joins a set of keys
//! decompresses everything that it can't rule out. And whole chunks can go
//! without a trigger: [`lost`] finds that out after a comparison.
//!
//! What is known of the extension comes from its documented views, whose names
//! and columns are those of its own SQL from 2.3 on.
//!
//! **Invariant:** no statement names a chunk; dropping old chunks on the
//! target goes through `drop_chunks` of the hypertable, under the fence row.

pub(super) mod chunks;
mod judge;
pub(super) mod lost;
pub(super) mod read;

pub(super) use self::judge::VERIFIED;

use serde::{Deserialize, Serialize};

/// What makes a table a hypertable, as far as its rows are concerned. Chunks
/// come and go while a move lasts; this stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hypertable {
    /// The column that chunks are cut by; quoted.
    pub time: String,
    /// Its type, for casts.
    pub cast: String,
    /// Whether chunks may be compressed.
    pub compression: bool,
    /// What compressed rows are kept together by, in order; quoted.
    pub segment_by: Vec<String>,
}

impl std::fmt::Display for Hypertable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a hypertable by {} ({})", self.time, self.cast)?;
        match (self.compression, &self.segment_by[..]) {
            (false, _) => write!(f, " without compression"),
            (true, []) => write!(f, " with compression by nothing"),
            (true, by) => write!(f, " with compression by {}", by.join(", ")),
        }
    }
}

/// What the node's operator lets happen to hypertables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hypertables {
    /// They move where the extension is the one that was verified.
    #[default]
    Verified,
    /// They move; what was not verified is a warning.
    Any,
    /// A tenant with a hypertable does not move.
    Refuse,
}
