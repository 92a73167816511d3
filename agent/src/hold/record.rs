//! What the hold point remembers of a move, over a restart: one file each.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use webhost_proto::ids::MoveId;

use crate::durable::{self, DurableError};
use crate::mover::spec::{Serving, Spec};

/// One move whose requests come through here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) spec: Spec,
    /// Which side served the tenant when this was written. A crash may make
    /// it old: a move in doubt is read off the fence rows before it counts.
    pub(super) serving: Serving,
    /// When nginx was told, microseconds since the epoch; 0 where it wasn't.
    pub(super) told_at_us: i64,
}

impl Record {
    pub(super) fn new(spec: Spec) -> Self {
        Self { version: 1, spec, serving: Serving::Source, told_at_us: 0 }
    }
}

/// The directory of records.
#[derive(Clone)]
pub(super) struct Records {
    dir: PathBuf,
}

impl Records {
    pub(super) fn open(state_dir: &Path) -> Result<(Self, Vec<Record>), DurableError> {
        let dir = state_dir.join("hold");
        durable::private_dir(&dir).map_err(durable::at(&dir))?;
        let all = durable::load_all(&dir)?;
        Ok((Self { dir }, all))
    }

    fn path(&self, move_id: MoveId) -> PathBuf {
        self.dir.join(format!("{move_id}.json"))
    }

    /// Durable when this returns.
    pub(super) fn put(&self, record: &Record) -> Result<(), DurableError> {
        durable::save(&self.path(record.spec.move_id), record)
    }

    pub(super) fn remove(&self, move_id: MoveId) -> Result<(), DurableError> {
        let path = self.path(move_id);
        durable::remove(&path).map_err(durable::at(&path))
    }
}
