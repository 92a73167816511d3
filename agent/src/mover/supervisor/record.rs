//! The durable memory of open moves: one file each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use webhost_proto::ids::MoveId;

use super::{MoveStatus, lock};
use crate::durable::{self, DurableError};
use crate::mover::spec::{Progress, Spec, Step};

/// One open move: its order, and the step that was last asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) spec: Spec,
    pub(super) step: Step,
}

impl Record {
    pub(super) fn new(spec: Spec, step: Step) -> Self {
        Self { version: 1, spec, step }
    }

    pub(super) fn status(&self, state: &str) -> MoveStatus {
        MoveStatus {
            move_id: self.spec.move_id,
            tenant: self.spec.tenant,
            step: self.step,
            state: state.to_owned(),
            progress: Progress::default(),
        }
    }
}

/// All open moves, in memory and on disk.
pub(super) struct Records {
    dir: PathBuf,
    all: Mutex<HashMap<MoveId, Record>>,
}

impl Records {
    pub(super) fn load(state_dir: &Path) -> Result<Self, DurableError> {
        let dir = state_dir.join("moves");
        durable::private_dir(&dir).map_err(durable::at(&dir))?;
        let all = durable::load_all::<Record>(&dir)?
            .into_iter()
            .map(|record| (record.spec.move_id, record))
            .collect();
        Ok(Self { dir, all: Mutex::new(all) })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, move_id: MoveId) -> PathBuf {
        self.dir.join(format!("{move_id}.json"))
    }

    pub(super) fn all(&self) -> Vec<Record> {
        lock(&self.all).values().cloned().collect()
    }

    pub(super) fn get(&self, move_id: MoveId) -> Option<Record> {
        lock(&self.all).get(&move_id).cloned()
    }

    /// Durable when this returns.
    pub(super) fn put(&self, record: Record) -> Result<(), DurableError> {
        durable::save(&self.path(record.spec.move_id), &record)?;
        lock(&self.all).insert(record.spec.move_id, record);
        Ok(())
    }

    pub(super) fn remove(&self, move_id: MoveId) -> Result<(), DurableError> {
        let path = self.path(move_id);
        durable::remove(&path).map_err(durable::at(&path))?;
        lock(&self.all).remove(&move_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote must load for ever.
    const FROZEN: &str = r#"{
      "version": 1,
      "spec": {
        "move_id": "0192f0c1-2b3c-7d4e-8f50-617283940a1b",
        "tenant": "0192f0c1-2b3c-7d4e-8f50-617283940a1c",
        "epoch": 7,
        "source_node": "0192f0c1-2b3c-7d4e-8f50-617283940a1d",
        "target_node": "0192f0c1-2b3c-7d4e-8f50-617283940a1e",
        "target_tunnel": "b.example:7403",
        "ticket": [1, 2, 3],
        "target_place": "b",
        "max_rows_per_second": 0
      },
      "step": "cut_over"
    }"#;

    #[test]
    fn records_survive_and_old_ones_load() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = Records::load(dir.path()).expect("loads");
        let frozen: Record = serde_json::from_str(FROZEN).expect("version 1 loads");
        assert_eq!((frozen.step, frozen.spec.epoch.0), (Step::CutOver, 7));
        records.put(frozen.clone()).expect("saved");
        let again = Records::load(dir.path()).expect("loads");
        assert_eq!(again.get(frozen.spec.move_id), Some(frozen.clone()));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(records.path(frozen.spec.move_id)).expect("a file").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        again.remove(frozen.spec.move_id).expect("removed");
        again.remove(frozen.spec.move_id).expect("removed twice");
        assert!(Records::load(dir.path()).expect("loads").all().is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_stops_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        Records::load(dir.path()).expect("creates the directory");
        std::fs::write(dir.path().join("moves/x.json"), "{").expect("writes");
        let error = Records::load(dir.path()).err().expect("must fail").to_string();
        assert!(error.contains("x.json"), "{error}");
    }
}
