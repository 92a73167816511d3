//! What an earlier run left on the disk, taken up again.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use webhost_proto::ids::NodeId;

use super::Spool;
use super::owner;
use super::record::{Number, Record};
use super::segments::{Access, Loaded, Location, Segments, plainly};
use super::shelf::{Entry, Place, Shelf};

impl Spool {
    /// The spool in `dir`, of at most `bytes`, that numbers from 1 under
    /// `epoch`, which must be greater than any that this node used before.
    /// Reports in it keep their numbers. Where the directory can't be read the
    /// reports are kept in memory, and [`problem`](Self::problem) says so.
    pub fn open(dir: &Path, bytes: u64, epoch: u64) -> Self {
        Self::open_with(dir, bytes, epoch, plainly())
    }

    /// The spool of `node` below `state_dir`, as [`open`](Self::open); of what
    /// another node left there nothing is taken.
    pub fn of(state_dir: &Path, node: NodeId, bytes: u64, epoch: u64) -> Self {
        match owner::claim(state_dir, node) {
            Ok(dir) => Self::open(&dir, bytes, epoch),
            Err(error) => Self::on(Shelf::new(None, Some(unreadable(state_dir, &error))), epoch),
        }
    }

    /// [`open`](Self::open), writing and reading by `access`.
    pub(super) fn open_with(dir: &Path, bytes: u64, epoch: u64, access: Access) -> Self {
        match Segments::open(dir, bytes, access) {
            Ok((segments, loaded)) => {
                let mut spool = Self::on(Shelf::new(Some(segments), None), epoch);
                spool.take_up(loaded);
                spool
            }
            Err(error) => Self::on(Shelf::new(None, Some(unreadable(dir, &error))), epoch),
        }
    }

    fn take_up(&mut self, loaded: Loaded) {
        if loaded.damaged > 0 {
            tracing::error!(stretches = loaded.damaged, "the spool is damaged");
        }
        self.lost += loaded.damaged;
        let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
        for (location, record) in loaded.records {
            self.next_serial = self.next_serial.max(record.serial + 1);
            apply(&mut entries, location, record);
        }
        let (mut numbered, waiting): (Vec<Entry>, Vec<Entry>) =
            entries.into_values().partition(|entry| entry.number.is_some());
        numbered.sort_by_key(|entry| entry.number);
        if !(numbered.is_empty() && waiting.is_empty()) {
            tracing::info!(
                reports = numbered.len() + waiting.len(),
                sent = numbered.len(),
                "reports of an earlier run wait for the coordinator"
            );
        }
        // A clock that was set back can't give this run a number that a run
        // before used: the epoch's file sees to that, unless it was lost.
        let highest = numbered.last().and_then(|entry| entry.number);
        let highest = highest.map_or(0, |Number { epoch, .. }| epoch);
        self.epoch = self.epoch.max(highest + 1);
        self.numbered = numbered.into();
        self.waiting = waiting.into();
    }
}

/// What a record says, said of those before it.
fn apply(entries: &mut BTreeMap<u64, Entry>, location: Location, record: Record) {
    for gone in record.gone.iter().chain(&record.replaces) {
        entries.remove(gone);
    }
    for numbered in record.numbered {
        if let Some(entry) = entries.get_mut(&numbered.serial) {
            entry.number = numbered.number;
        }
    }
    if record.serial > 0 {
        let Record { serial, number, collected_at_us, interval_ms, .. } = record;
        let place = Place::Disk(location);
        let entry = Entry { serial, number, sealed: true, collected_at_us, interval_ms, place };
        entries.insert(serial, entry);
    }
}

fn unreadable(dir: &Path, error: &io::Error) -> String {
    tracing::error!(%error, dir = %dir.display(), "the spool can't be read");
    format!("{} can't be used, and reports wait in memory only: {error}", dir.display())
}
