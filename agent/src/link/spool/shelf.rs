//! Where reports lie until they are acknowledged: on the disk, and in memory
//! while the disk takes nothing.
//!
//! **Invariant:** what lies in memory has no copy on the disk, so whoever goes
//! on after a crash counts nothing twice.

use std::io;
use std::sync::Arc;

use super::kept::{Dictionary, Kept};
use super::record::{Number, Numbered, Record};
use super::segments::{Location, Segments, SyncJob};
use super::trouble::{Troubles, Unread};

/// After the disk refused: how long until it is tried again.
const RETRY_MS: u64 = 30_000;
/// How long something may be written and not yet synced. A power cut loses at
/// most this; the end of the process loses nothing.
const SYNC_MS: u64 = 30_000;
/// An empty spool whose files are smaller stays as it is.
const WORTH_CLEARING: u64 = 64 * 1024;

/// A report and where it lies.
#[derive(Debug)]
pub struct Entry {
    /// The order of time, whatever the clock says.
    pub serial: u64,
    /// None until it is first sent.
    pub number: Option<Number>,
    /// Its number is as durable as its body: it may be sent.
    pub sealed: bool,
    pub collected_at_us: i64,
    pub interval_ms: u32,
    pub place: Place,
}

/// Where.
#[derive(Debug)]
pub enum Place {
    Memory(Box<Kept>),
    Disk(Location),
}

impl Entry {
    /// Whether it lies in this file.
    pub fn is_in(&self, segment: u32) -> bool {
        matches!(self.place, Place::Disk(location) if location.segment == segment)
    }

    /// Whether it lies in memory.
    pub fn in_memory(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }
}

/// See the module.
pub struct Shelf {
    disk: Option<Segments>,
    problem: Option<String>,
    retry_at_ms: u64,
    dirty_since_ms: Option<u64>,
    syncing: bool,
    /// The dictionary that was read last.
    read: Option<Arc<Dictionary>>,
    troubles: Troubles,
}

impl Shelf {
    /// Memory only where there is no `disk`; `problem` says why.
    pub fn new(disk: Option<Segments>, problem: Option<String>) -> Self {
        Self {
            disk,
            problem,
            retry_at_ms: 0,
            dirty_since_ms: None,
            syncing: false,
            read: None,
            troubles: Troubles::default(),
        }
    }

    /// Why the disk takes nothing; none when it does.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, Segments::bytes)
    }

    /// Whether the files may not grow.
    pub fn full(&self) -> bool {
        self.disk.as_ref().is_some_and(Segments::full)
    }

    /// The files, when they take something at `now_ms`.
    pub fn disk(&mut self, now_ms: u64) -> Option<&mut Segments> {
        let rests = self.problem.is_some() && now_ms < self.retry_at_ms;
        self.disk.as_mut().filter(|_| !rests)
    }

    /// Puts a report away: on the disk, or in memory when that takes nothing.
    pub fn put(&mut self, serial: u64, number: Option<Number>, kept: Kept, now_ms: u64) -> Entry {
        if self.full() && self.disk(now_ms).is_some() {
            // Only while a sync hangs or the oldest file can't be read:
            // coarsening keeps far below the bound.
            self.failed(&io::Error::other("it is full, and its disk does not answer"), now_ms);
        }
        let place = match self.write(serial, number, &[], &kept, now_ms) {
            Some(location) => Place::Disk(location),
            None => Place::Memory(Box::new(kept.clone())),
        };
        let Kept { collected_at_us, interval_ms, .. } = kept;
        Entry { serial, number, sealed: true, collected_at_us, interval_ms, place }
    }

    /// Writes a report to the disk; none when that takes nothing.
    pub fn write(
        &mut self,
        serial: u64,
        number: Option<Number>,
        replaces: &[u64],
        kept: &Kept,
        now_ms: u64,
    ) -> Option<Location> {
        let record = Record {
            serial,
            number,
            replaces: replaces.to_vec(),
            dictionary: kept.dictionary.key,
            collected_at_us: kept.collected_at_us,
            interval_ms: kept.interval_ms,
            body: kept.body.clone(),
            ..Record::default()
        };
        let appended = self.disk(now_ms)?.append(&record, Some(&|| kept.dictionary.to_wire(0)));
        self.note(appended, now_ms)
    }

    /// Writes what became of reports; false when the disk takes nothing.
    pub fn mark(&mut self, numbered: Vec<Numbered>, gone: Vec<u64>, now_ms: u64) -> bool {
        let record = Record { numbered, gone, ..Record::default() };
        let Some(disk) = self.disk(now_ms) else { return false };
        let appended = disk.append(&record, None);
        self.note(appended, now_ms).is_some()
    }

    fn note(&mut self, appended: io::Result<Location>, now_ms: u64) -> Option<Location> {
        match appended {
            Ok(location) => {
                if self.problem.take().is_some() {
                    tracing::info!("the spool's disk takes reports again");
                }
                self.dirty_since_ms.get_or_insert(now_ms);
                Some(location)
            }
            Err(error) => {
                self.failed(&error, now_ms);
                None
            }
        }
    }

    fn failed(&mut self, error: &io::Error, now_ms: u64) {
        let problem = format!("reports can't be written to disk and wait in memory: {error}");
        if self.problem.is_none() {
            tracing::warn!(%error, "reports can't be written to disk and wait in memory");
        }
        self.problem = Some(problem);
        self.retry_at_ms = now_ms + RETRY_MS;
    }

    /// Reads a report.
    ///
    /// # Errors
    /// [`Unread`]: only what is lost may be forgotten.
    pub fn get(&mut self, entry: &Entry, now_ms: u64) -> Result<Kept, Unread> {
        let location = match &entry.place {
            Place::Memory(kept) => return Ok(kept.as_ref().clone()),
            Place::Disk(location) => *location,
        };
        if self.troubles.rest(location, now_ms) {
            return Err(Unread::Later);
        }
        match self.read(location) {
            Ok(kept) => {
                self.troubles.read(location);
                Ok(kept)
            }
            Err(error) => Err(self.troubles.failed(location, error, now_ms)),
        }
    }

    /// Whether it is too early to read this one again.
    pub fn rests(&self, entry: &Entry, now_ms: u64) -> bool {
        matches!(entry.place, Place::Disk(location) if self.troubles.rest(location, now_ms))
    }

    /// Nobody asks for this one any more.
    pub fn forget(&mut self, entry: &Entry) {
        if let Place::Disk(location) = entry.place {
            self.troubles.over(location);
        }
    }

    /// What could not be read and is asked for again.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    fn read(&mut self, location: Location) -> io::Result<Kept> {
        let missing = || io::Error::other("the spool has no disk");
        let disk = self.disk.as_ref().ok_or_else(missing)?;
        let record = disk.read(location)?;
        let key = record.dictionary;
        let known = self.read.clone().filter(|dictionary| dictionary.key == key);
        let dictionary = match known {
            Some(known) => known,
            None => {
                let names = disk.names(location.segment, key)?;
                let damaged =
                    || io::Error::new(io::ErrorKind::InvalidData, "a dictionary is damaged");
                Arc::new(Dictionary::from_wire(key, &names).ok_or_else(damaged)?)
            }
        };
        self.read = Some(dictionary.clone());
        Ok(Kept {
            collected_at_us: record.collected_at_us,
            interval_ms: record.interval_ms,
            dictionary,
            body: record.body,
        })
    }

    /// Everything is acknowledged.
    pub fn clear(&mut self, last: Vec<u64>, now_ms: u64) {
        if self.bytes() < WORTH_CLEARING {
            self.mark(Vec::new(), last, now_ms);
        } else if let Some(disk) = &mut self.disk {
            disk.clear();
        }
        // Nothing is waiting that a power cut could take.
        self.dirty_since_ms = None;
        self.troubles = Troubles::default();
    }

    /// A sync, when it is time for one: `urgent` when somebody waits for it.
    /// One at a time; tell [`synced`](Self::synced).
    pub fn sync(&mut self, urgent: bool, now_ms: u64) -> Option<SyncJob> {
        let disk = self.disk.as_mut().filter(|_| !self.syncing)?;
        let late = self.dirty_since_ms.is_some_and(|since| now_ms >= since + SYNC_MS);
        if !(late || disk.doomed() || urgent) {
            return None;
        }
        self.dirty_since_ms = None;
        self.syncing = true;
        Some(disk.sync())
    }

    /// The sync ended so.
    pub fn synced(&mut self, outcome: &io::Result<()>, now_ms: u64) {
        self.syncing = false;
        if let Err(error) = outcome {
            self.failed(error, now_ms);
        }
        if let Some(disk) = &mut self.disk {
            disk.synced(outcome.is_ok());
        }
    }
}
