//! The spool's files: records are appended to the newest, and only the oldest
//! is ever removed.
//!
//! **Invariant:** what a record says of others, it says of earlier ones. As
//! files go from the oldest on, nothing that was replaced or acknowledged can
//! come back because the word of it went first.
//!
//! **Invariant:** a file is removed only after a sync of all that was written
//! before, so that what was carried out of it is on the disk.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use webhost_proto::wire;

use super::record::{self, Found, Record, Scan, frame};
use crate::durable;

/// How bytes get into a file at an offset. A seam: tests fill disks with it.
pub type Write = Arc<dyn Fn(&File, &[u8], u64) -> io::Result<()> + Send + Sync>;

/// How bytes come out of the file at a path, at an offset. A seam: tests have
/// disks fail with it.
pub type Read = Arc<dyn Fn(&Path, &mut [u8], u64) -> io::Result<()> + Send + Sync>;

/// Both.
#[derive(Clone)]
pub struct Access {
    pub write: Write,
    pub read: Read,
}

/// The usual way.
pub fn plainly() -> Access {
    Access {
        write: Arc::new(|file, bytes, at| file.write_all_at(bytes, at)),
        read: Arc::new(|path, bytes, at| File::open(path)?.read_exact_at(bytes, at)),
    }
}

/// Where a report stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub segment: u32,
    at: u32,
    length: u32,
}

#[derive(Debug)]
struct Segment {
    number: u32,
    bytes: u64,
}

/// See the module.
pub struct Segments {
    dir: PathBuf,
    bound: u64,
    segment_bytes: u64,
    access: Access,
    /// Oldest first; the last one is written to.
    list: VecDeque<Segment>,
    head: Option<Arc<File>>,
    next: u32,
    /// Written to since the last sync began.
    dirty: Vec<Arc<File>>,
    /// How many of the oldest go when all that was written is on the disk.
    doomed: usize,
    /// Of them, how many the running sync covers.
    covered: usize,
    /// Where in a segment a dictionary stands.
    dictionaries: HashMap<(u32, u64), Location>,
}

/// A sync that is to be run where blocking hurts nobody.
pub struct SyncJob(Vec<Arc<File>>);

impl SyncJob {
    /// Waits for the disk.
    ///
    /// # Errors
    /// Of the file system.
    pub fn run(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|file| file.sync_data())
    }
}

/// What the files of an earlier run hold.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In the order in which it was written. Bodies and names are left out.
    pub records: Vec<(Location, Record)>,
    /// Stretches that could not be read.
    pub damaged: u64,
}

impl Segments {
    /// Opens or makes the directory, mode 0700, and reads what is there.
    /// `bound` is in bytes, over all files.
    ///
    /// # Errors
    /// Of the file system. A damaged file is none: it is read as far as it
    /// goes.
    pub fn open(dir: &Path, bound: u64, access: Access) -> io::Result<(Self, Loaded)> {
        durable::private_dir(dir)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        let mut segments = Self {
            dir: dir.to_path_buf(),
            bound,
            segment_bytes: (bound / 64).clamp(16 * 1024, 256 * 1024),
            access,
            list: VecDeque::new(),
            head: None,
            // Never the last one again: its end may be torn.
            next: numbers.last().map_or(1, |last| last + 1),
            dirty: Vec::new(),
            doomed: 0,
            covered: 0,
            dictionaries: HashMap::new(),
        };
        let mut loaded = Loaded::default();
        for number in numbers {
            let bytes = std::fs::read(segments.path(number))?;
            let Scan { found, damaged, torn } = record::scan(&bytes);
            loaded.damaged += damaged;
            if torn {
                tracing::warn!(segment = number, "the spool ends in an unfinished record");
            }
            segments.list.push_back(Segment { number, bytes: bytes.len() as u64 });
            for Found { at, length, record } in found {
                let location = segments.location(number, at as u64, length);
                if record.names.is_some() {
                    segments.dictionaries.insert((number, record.dictionary), location);
                } else {
                    loaded.records.push((location, Record { body: Vec::new(), ..record }));
                }
            }
        }
        Ok((segments, loaded))
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}.log"))
    }

    fn location(&self, segment: u32, at: u64, length: usize) -> Location {
        // Segments are far smaller than 4 GiB.
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Location { segment, at: small(at), length: small(length as u64) }
    }

    /// Of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.list.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether the oldest file should make room: what goes once it is synced
    /// is counted as gone.
    pub fn crowded(&self) -> bool {
        self.bytes() - self.doomed_bytes() + 4 * self.segment_bytes > self.bound
    }

    /// Whether the bound is reached.
    pub fn full(&self) -> bool {
        self.bytes() >= self.bound
    }

    /// Whether it is, although the oldest files go: coarsening gains nothing.
    pub fn stuck(&self) -> bool {
        self.bytes() - self.doomed_bytes() >= self.bound
    }

    fn doomed_bytes(&self) -> u64 {
        self.list.iter().take(self.doomed).map(|segment| segment.bytes).sum()
    }

    /// Appends one record, and the dictionary that it refers to where the
    /// file doesn't hold it.
    ///
    /// # Errors
    /// Of the file system; nothing was appended then.
    pub fn append(
        &mut self,
        record: &Record,
        names: Option<&dyn Fn() -> wire::TenantDictionary>,
    ) -> io::Result<Location> {
        let room = self.list.back().is_some_and(|last| last.bytes < self.segment_bytes);
        if self.head.is_none() || !room {
            self.begin()?;
        }
        let (Some(head), Some(last)) = (self.head.clone(), self.list.back()) else {
            return Err(io::Error::other("the spool has no file to write to"));
        };
        let (number, at) = (last.number, last.bytes);
        let mut bytes = Vec::new();
        let key = (number, record.dictionary);
        let named = names.filter(|_| !self.dictionaries.contains_key(&key)).map(|names| Record {
            dictionary: record.dictionary,
            names: Some(names()),
            ..Record::default()
        });
        let dictionary = named.map(|named| frame(&named, &mut bytes));
        let length = frame(record, &mut bytes);
        if let Err(error) = (self.access.write)(&head, &bytes, at) {
            // What was written of it is cut off, or else skipped when the
            // file is read: nothing follows it there.
            if let Err(error) = head.set_len(at) {
                tracing::debug!(%error, "half a record stays in the spool");
            }
            self.head = None;
            if at == 0 {
                // The next try begins the same file anew, not one more.
                self.list.pop_back();
                self.next = number;
            }
            return Err(error);
        }
        if let Some(dictionary) = dictionary {
            let location = self.location(number, at, dictionary);
            self.dictionaries.insert(key, location);
        }
        if let Some(last) = self.list.back_mut() {
            last.bytes += bytes.len() as u64;
        }
        if !self.dirty.iter().any(|file| Arc::ptr_eq(file, &head)) {
            self.dirty.push(head);
        }
        Ok(self.location(number, at + (bytes.len() - length) as u64, length))
    }

    fn begin(&mut self) -> io::Result<()> {
        let path = self.path(self.next);
        // A run whose first write failed may have left an empty one.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        self.head = Some(Arc::new(file));
        self.list.push_back(Segment { number: self.next, bytes: 0 });
        self.next += 1;
        Ok(())
    }

    /// Reads what [`append`](Self::append) wrote.
    ///
    /// # Errors
    /// Of the file system, and `InvalidData` when the record is damaged.
    pub fn read(&self, location: Location) -> io::Result<Record> {
        let mut bytes = vec![0; location.length as usize];
        let head = self.head.as_ref();
        match head.filter(|_| self.list.back().is_some_and(|s| s.number == location.segment)) {
            Some(head) => head.read_exact_at(&mut bytes, location.at.into())?,
            None => {
                let path = self.path(location.segment);
                (self.access.read)(&path, &mut bytes, location.at.into())?;
            }
        }
        let record = record::parse(&bytes).map(|(record, _)| record);
        record.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record is damaged"))
    }

    /// A dictionary: of this segment, or of another where that is damaged.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn names(&self, segment: u32, dictionary: u64) -> io::Result<wire::TenantDictionary> {
        let own = self.dictionaries.get(&(segment, dictionary));
        let any = || self.dictionaries.iter().find(|((_, key), _)| *key == dictionary);
        let location = own.or_else(|| any().map(|(_, location)| location)).copied();
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "a dictionary is damaged");
        self.read(location.ok_or_else(missing)?)?.names.ok_or_else(missing)
    }

    /// The oldest file that stays; none while it is the one that is written
    /// to.
    pub fn oldest(&self) -> Option<u32> {
        let staying = self.list.len().saturating_sub(self.doomed);
        self.list.get(self.doomed).filter(|_| staying > 1).map(|segment| segment.number)
    }

    /// Everything of use in the [`oldest`](Self::oldest) was written again: it
    /// goes after the next sync.
    pub fn doom_oldest(&mut self) {
        if self.oldest().is_some() {
            self.doomed += 1;
        }
    }

    /// Whether files wait for a sync to go.
    pub fn doomed(&self) -> bool {
        self.doomed > 0
    }

    /// Whether something was written since the last sync began.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Begins a sync of all that was written; tell [`synced`](Self::synced).
    pub fn sync(&mut self) -> SyncJob {
        self.covered = self.doomed;
        SyncJob(std::mem::take(&mut self.dirty))
    }

    /// The sync ended: with `true`, what it covered is on the disk.
    pub fn synced(&mut self, well: bool) {
        let covered = std::mem::take(&mut self.covered);
        if !well {
            return;
        }
        for _ in 0..covered.min(self.doomed) {
            self.remove_oldest();
            self.doomed -= 1;
        }
    }

    /// Nothing in the files is of use any more: they go, the oldest first.
    pub fn clear(&mut self) {
        while !self.list.is_empty() {
            self.remove_oldest();
        }
        self.head = None;
        self.dirty.clear();
        (self.doomed, self.covered) = (0, 0);
    }

    fn remove_oldest(&mut self) {
        let Some(segment) = self.list.pop_front() else { return };
        if let Err(error) = std::fs::remove_file(self.path(segment.number)) {
            // It is found at the next start, and its numbers tell the
            // coordinator that it knows them.
            tracing::warn!(%error, segment = segment.number, "a file of the spool stays");
        }
        self.dictionaries.retain(|(number, _), _| *number != segment.number);
    }
}
