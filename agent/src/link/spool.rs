//! Reports on their way: kept until the coordinator has acknowledged them,
//! over any number of sessions and runs of the agent, in bounded space.
//!
//! A report is appended to a file as soon as it is made, and forgotten when it
//! is acknowledged. It gets its number when it is first sent. From then on it
//! is never changed, because the coordinator may have applied it although
//! nobody heard so: the next run sends it again under the number of the run
//! that is gone, before anything of its own. Those that were never sent may be
//! merged: when the files are full, the oldest of them is written again, two
//! reports made one, so that what lies long ago grows coarse before what is
//! recent, and no total is ever lost.
//!
//! After an outage what must be sent again comes first, then what is measured
//! now, then the backlog, oldest first, a few at a time.
//!
//! **Invariant:** a report's number is on the disk before the report is sent,
//! or with it in one record; so a report that the disk still has after a crash
//! is never sent under a second number.
//!
//! What a crash takes: the end of the process, nothing; a power cut, what was
//! written in the last 30 s.
//!
//! Time is an argument everywhere: milliseconds on a clock that never jumps.
//! The wall clock is only shown.

mod coarsen;
pub mod kept;
mod load;
pub mod owner;
pub mod record;
pub mod segments;
pub mod shelf;
mod trouble;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use webhost_proto::short::Memory;
use webhost_proto::wire;

use self::kept::{Dictionary, Kept};
use self::record::{Number, Numbered};
use self::segments::SyncJob;
use self::shelf::{Entry, Shelf};
use self::trouble::Unread;
use super::report::CollectedReport;

/// How much may lie on the disk unless configured.
pub const DEFAULT_BYTES: u64 = 64 * 1024 * 1024;
/// How many reports are known of at a time: what an index of them takes is
/// less than a megabyte.
const MAX_REPORTS: usize = 16_384;
/// How many wait in memory while the disk takes nothing: an hour at 5 s;
/// longer outages coarsen.
const MAX_IN_MEMORY: usize = 720;
/// The backlog goes out in bursts of at most so many reports,
const BURST: usize = 4;
/// at most so often: 8 reports a second keep 10,000 agents that come back at
/// once from drowning the coordinator.
const BURST_EVERY_MS: u64 = 500;

/// See the module.
pub struct Spool {
    epoch: u64,
    next_sequence: u64,
    next_serial: u64,
    max_tenants: usize,
    shelf: Shelf,
    /// Sent, or about to be, in the order of their numbers.
    numbered: VecDeque<Entry>,
    /// Never sent, in the order of time.
    waiting: VecDeque<Entry>,
    /// Some reports may lie in memory.
    spilled: bool,
    /// Of the newest report.
    dictionary: Arc<Dictionary>,
    /// Reports that could neither be kept nor merged, or were damaged.
    lost: u64,
    /// Up to which number a running sync seals.
    sealing: Option<Number>,
    next_burst_ms: u64,
    session: Session,
}

/// What holds for one session.
#[derive(Default)]
struct Session {
    /// How many of the numbered were sent, from the front.
    sent: usize,
    /// Reports from this one on are of now; 0: there is no session.
    live_from: u64,
    /// The most reports that may be unacknowledged.
    window: usize,
    /// The dictionary that the coordinator holds, and its version.
    told: Option<u64>,
    version: u32,
    /// Acknowledgements that are still to come.
    outstanding: usize,
    /// Of those, how many speak of reports that are being sent again.
    stale: usize,
    /// What its reports said, where the coordinator takes short ones.
    short: Option<Memory>,
}

impl Spool {
    /// An empty spool in memory, that numbers from 1 under `epoch`, which must
    /// be greater than any that this node used before. [`open`](Self::open)
    /// makes one on disk.
    pub fn new(epoch: u64) -> Self {
        Self::on(Shelf::new(None, None), epoch)
    }

    fn on(shelf: Shelf, epoch: u64) -> Self {
        Self {
            epoch,
            next_sequence: 1,
            next_serial: 1,
            max_tenants: 1_000,
            shelf,
            numbered: VecDeque::new(),
            waiting: VecDeque::new(),
            spilled: false,
            dictionary: Arc::new(Dictionary::new(Vec::new())),
            lost: 0,
            sealing: None,
            next_burst_ms: 0,
            session: Session::default(),
        }
    }

    /// How many reports wait for their acknowledgement.
    pub fn len(&self) -> usize {
        self.numbered.len() + self.waiting.len()
    }

    /// Whether all is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.numbered.is_empty() && self.waiting.is_empty()
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.shelf.bytes()
    }

    /// When the oldest report that waits was made, microseconds since the Unix
    /// epoch by the clock of then.
    pub fn oldest_us(&self) -> Option<i64> {
        let resent = self.numbered.front();
        let oldest = [resent, self.waiting.front()].into_iter().flatten();
        oldest.min_by_key(|entry| entry.serial).map(|entry| entry.collected_at_us)
    }

    /// What an operator should know: the disk takes nothing or gives nothing,
    /// or reports were lost.
    pub fn problem(&self) -> Option<String> {
        let lost = (self.lost > 0)
            .then(|| format!("{} spooled reports were damaged or had no room", self.lost));
        let full = self.shelf.problem().map(str::to_owned);
        let unread = self.shelf.troubles().problem();
        let parts: Vec<String> = full.into_iter().chain(unread).chain(lost).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// The most tenants that the coordinator wants to hear of in one report.
    pub fn set_max_tenants(&mut self, max: usize) {
        self.max_tenants = max;
    }

    /// Adds a report; a full spool makes room first.
    pub fn push(&mut self, mut report: CollectedReport, now_ms: u64) {
        if report.tenants.len() > self.max_tenants {
            tracing::warn!(
                tenants = report.tenants.len(),
                max = self.max_tenants,
                "more tenants than the coordinator takes; the rest is not reported"
            );
            report.tenants.truncate(self.max_tenants);
            for column in &mut report.columns {
                column.values.truncate(self.max_tenants);
            }
        }
        self.make_room(now_ms);
        if self.dictionary.tenants != report.tenants {
            self.dictionary = Arc::new(Dictionary::new(report.tenants.clone()));
        }
        let kept = Kept::of(&report, self.dictionary.clone());
        // What goes out at once is written once, with its number.
        let at_once = self.session.live_from > 0
            && self.numbered.len() < self.session.window
            && self.waiting.back().is_none_or(|last| last.serial < self.session.live_from);
        let number = at_once.then(|| self.number());
        let entry = self.shelf.put(self.next_serial, number, kept, now_ms);
        self.next_serial += 1;
        self.spilled |= entry.in_memory();
        if number.is_some() {
            self.numbered.push_back(entry);
        } else {
            self.waiting.push_back(entry);
        }
        self.move_to_disk(now_ms);
    }

    fn number(&mut self) -> Number {
        let number = Number { epoch: self.epoch, sequence: self.next_sequence };
        self.next_sequence += 1;
        number
    }

    /// A session begins, in which `window` reports may be unacknowledged:
    /// whatever is not acknowledged is sent again, and the coordinator holds
    /// no dictionary. `short` says whether it takes short reports.
    pub fn rewind(&mut self, window: usize, short: bool) {
        self.session = Session {
            // The newest that waits counts as of now.
            live_from: self.waiting.back().map_or(self.next_serial, |newest| newest.serial),
            window: window.max(1),
            version: self.session.version,
            short: short.then(Memory::default),
            ..Session::default()
        };
        self.next_burst_ms = 0;
    }

    /// The session is over: nothing is sent until the next one.
    pub fn rest(&mut self) {
        self.session = Session { version: self.session.version, ..Session::default() };
    }

    /// Gives numbers to what is to be sent next: reports of now, or else a
    /// burst of the backlog. Those that lie on the disk are sent after the next
    /// sync.
    fn advance(&mut self, now_ms: u64) {
        let window = self.session.window;
        let room = window.saturating_sub(self.numbered.len());
        if self.session.live_from == 0 || room == 0 {
            return;
        }
        let live = self.live(now_ms);
        let (first, count) = if live < self.waiting.len() {
            (live, room)
        } else if now_ms >= self.next_burst_ms && !self.waiting.is_empty() {
            // Half of the window stays for what is measured meanwhile.
            let room = room.saturating_sub(window / 2).min(BURST);
            (0, room)
        } else {
            return;
        };
        let last = self.waiting.len().min(first + count);
        // What can't be read now gets no number, for what has a higher one
        // would have to wait for it.
        let asked = self.waiting.range(first..last);
        let unread = |entry: &Entry| matches!(self.shelf.get(entry, now_ms), Err(Unread::Later));
        let last = first + asked.map(unread).take_while(|unread| !unread).count();
        let mut numbered = Vec::new();
        for (sequence, entry) in (self.next_sequence..).zip(self.waiting.range(first..last)) {
            if !entry.in_memory() {
                let number = Some(Number { epoch: self.epoch, sequence });
                numbered.push(Numbered { serial: entry.serial, number });
            }
        }
        // What the disk can't be told of stays where it is.
        if !numbered.is_empty() && !self.shelf.mark(numbered, Vec::new(), now_ms) {
            return;
        }
        for mut entry in self.waiting.drain(first..last) {
            entry.number = Some(Number { epoch: self.epoch, sequence: self.next_sequence });
            entry.sealed = entry.in_memory();
            self.next_sequence += 1;
            self.numbered.push_back(entry);
        }
        if first == 0 && last > 0 {
            self.next_burst_ms = now_ms + BURST_EVERY_MS;
        }
    }

    /// Where in the waiting those of now begin. What of them can't be read now
    /// goes with the backlog, so that others don't have to wait for it.
    fn live(&mut self, now_ms: u64) -> usize {
        let mut live = self.waiting.partition_point(|e| e.serial < self.session.live_from);
        while let Some(entry) = self.waiting.get(live)
            && matches!(self.shelf.get(entry, now_ms), Err(Unread::Later))
        {
            self.session.live_from = entry.serial + 1;
            live += 1;
        }
        live
    }

    /// Whether [`next`](Self::next) has something.
    pub fn ready(&mut self, now_ms: u64) -> bool {
        self.advance(now_ms);
        let Session { sent, window, .. } = self.session;
        let next = self.numbered.get(sent).filter(|_| sent < window);
        next.is_some_and(|entry| entry.sealed && !self.shelf.rests(entry, now_ms))
    }

    /// Whether more will be ready after a while, without anything happening.
    pub fn waits(&self) -> bool {
        self.session.live_from > 0 && (!self.waiting.is_empty() || self.shelf.troubles().any())
    }

    /// The next report to send, if there is room in the session's window.
    pub fn next(&mut self, now_ms: u64) -> Option<wire::Report> {
        loop {
            if !self.ready(now_ms) {
                return None;
            }
            let entry = self.numbered.get(self.session.sent)?;
            let number = entry.number?;
            let kept = match self.shelf.get(entry, now_ms) {
                Ok(kept) => kept,
                // Those behind it wait: the coordinator takes numbers in order.
                Err(Unread::Later) => return None,
                Err(Unread::Lost(error)) => {
                    let entry = self.numbered.remove(self.session.sent);
                    self.count_lost(entry, &error);
                    continue;
                }
            };
            let mut report = kept.wire();
            (report.epoch, report.sequence) = (number.epoch, number.sequence);
            if self.session.told != Some(kept.dictionary.key) {
                self.session.version = self.session.version.wrapping_add(1);
                self.session.told = Some(kept.dictionary.key);
                report.dictionary = Some(kept.dictionary.to_wire(self.session.version));
            }
            report.dictionary_version = self.session.version;
            if let Some(memory) = &mut self.session.short {
                memory.shorten(&mut report);
            }
            self.session.sent += 1;
            self.session.outstanding += 1;
            return Some(report);
        }
    }

    /// Takes an acknowledgement: forgets what was applied, and sends the rest
    /// again with the dictionary where the coordinator lacks it.
    pub fn acknowledge(&mut self, ack: &wire::ReportAck, now_ms: u64) {
        let applied = Number { epoch: ack.epoch, sequence: ack.sequence };
        let mut gone = Vec::new();
        // Nothing that was not sent is acknowledged.
        let given = Number { epoch: self.epoch, sequence: self.next_sequence };
        while applied < given
            && self.numbered.front().is_some_and(|entry| entry.number <= Some(applied))
        {
            let Some(entry) = self.numbered.pop_front() else { break };
            if !entry.in_memory() {
                gone.push(entry.serial);
            }
            self.session.sent = self.session.sent.saturating_sub(1);
        }
        if self.is_empty() {
            self.shelf.clear(gone, now_ms);
        } else if !gone.is_empty() {
            // Were this lost, their numbers would still tell the coordinator
            // that it knows them.
            self.shelf.mark(Vec::new(), gone, now_ms);
        }
        // There is one acknowledgement for each report, in order.
        let session = &mut self.session;
        session.outstanding = session.outstanding.saturating_sub(1);
        if session.stale > 0 {
            session.stale -= 1;
        } else if ack.need_dictionary {
            session.sent = 0;
            session.told = None;
            session.stale = session.outstanding;
        }
    }

    /// A sync of the disk, when it is time for one; run it where blocking
    /// hurts nobody, and tell [`synced`](Self::synced).
    pub fn sync(&mut self, now_ms: u64) -> Option<SyncJob> {
        let urgent = self.numbered.iter().any(|entry| !entry.sealed);
        let job = self.shelf.sync(urgent, now_ms)?;
        self.sealing = self.numbered.back().and_then(|entry| entry.number);
        Some(job)
    }

    /// The sync ended. What it was to seal is sent even if it failed: a disk
    /// that can't sync may cost a power cut a report that counts twice, and
    /// never one that is not sent.
    pub fn synced(&mut self, outcome: &io::Result<()>, now_ms: u64) {
        let sealed = self.sealing.take();
        for entry in self.numbered.iter_mut().filter(|entry| entry.number <= sealed) {
            entry.sealed = true;
        }
        self.shelf.synced(outcome, now_ms);
    }
}
