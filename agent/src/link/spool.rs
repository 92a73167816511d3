//! Reports on their way: kept until the coordinator has acknowledged them,
//! over any number of sessions, in bounded memory.
//!
//! A report gets its sequence number when it is first sent. From then on it
//! is never changed, because the coordinator may have applied it although
//! nobody heard so. Those that were never sent may be merged: when the spool
//! is full, the two adjacent ones that cover the shortest time together
//! become one, so that what lies long ago grows coarse before what is recent,
//! and no total is ever lost. Reports are held encoded, which takes a
//! fifteenth of the memory.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use webhost_proto::ids::TenantId;
use webhost_proto::short::Memory;
use webhost_proto::wire;

use super::columns::{from_wire, to_wire};
use super::merge::merge;
use super::report::CollectedReport;

/// How many reports are kept unless configured: an hour at 5 s; longer
/// outages coarsen.
pub const DEFAULT_BOUND: usize = 720;

/// What a report may weigh, dictionary included, below the link's limit.
const MAX_BYTES: usize = webhost_proto::MAX_MESSAGE_BYTES - 1024;

struct Dictionary {
    version: u32,
    tenants: Vec<(TenantId, String)>,
}

impl Dictionary {
    fn to_wire(&self) -> wire::TenantDictionary {
        let tenant = |(id, slug): &(TenantId, String)| wire::DictionaryTenant {
            tenant_id: id.to_wire(),
            slug: slug.clone(),
        };
        wire::TenantDictionary {
            version: self.version,
            tenants: self.tenants.iter().map(tenant).collect(),
        }
    }
}

struct Entry {
    /// None until it is first sent.
    sequence: Option<u64>,
    interval_ms: u32,
    dictionary: Arc<Dictionary>,
    /// A `wire::Report` without epoch, sequence and dictionary.
    body: Vec<u8>,
}

/// See the module.
pub struct Spool {
    epoch: u64,
    next_sequence: u64,
    bound: usize,
    max_tenants: usize,
    entries: VecDeque<Entry>,
    /// Of the newest report.
    dictionary: Arc<Dictionary>,
    /// How many dictionaries there were.
    versions: u32,
    /// In this session: how many entries, from the front, were sent.
    sent: usize,
    /// In this session: the dictionary that the coordinator holds.
    told: Option<u32>,
    /// In this session: acknowledgements that are still to come.
    outstanding: usize,
    /// Of those, how many speak of reports that are being sent again.
    stale: usize,
    /// In this session: what its reports said, where the coordinator takes
    /// short ones.
    short: Option<Memory>,
}

impl Spool {
    /// An empty spool that numbers from 1 under `epoch`, which must be greater
    /// than any that this node used before.
    pub fn new(epoch: u64, bound: usize) -> Self {
        Self {
            epoch,
            next_sequence: 1,
            bound: bound.max(2),
            max_tenants: 1_000,
            entries: VecDeque::new(),
            dictionary: Arc::new(Dictionary { version: 0, tenants: Vec::new() }),
            versions: 0,
            sent: 0,
            told: None,
            outstanding: 0,
            stale: 0,
            short: None,
        }
    }

    /// How many reports wait for their acknowledgement.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether all is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The most tenants that the coordinator wants to hear of in one report.
    pub fn set_max_tenants(&mut self, max: usize) {
        self.max_tenants = max;
    }

    /// Adds a report; a full spool merges two others first.
    pub fn push(&mut self, mut report: CollectedReport) {
        if report.tenants.len() > self.max_tenants {
            tracing::warn!(
                tenants = report.tenants.len(),
                max = self.max_tenants,
                "more tenants than the coordinator takes; the rest is not reported"
            );
            cut(&mut report, self.max_tenants);
        }
        while self.entries.len() >= self.bound && self.coarsen() {}
        let entry = self.entry(&report);
        self.entries.push_back(entry);
    }

    fn entry(&mut self, report: &CollectedReport) -> Entry {
        if self.dictionary.tenants != report.tenants {
            let version = self.new_version();
            self.dictionary = Arc::new(Dictionary { version, tenants: report.tenants.clone() });
        }
        encode(report, self.dictionary.clone())
    }

    fn new_version(&mut self) -> u32 {
        self.versions = self.versions.wrapping_add(1);
        self.versions
    }

    /// Merges two reports that were never sent; false where there are no two.
    fn coarsen(&mut self) -> bool {
        let unsent = self.entries.iter().position(|entry| entry.sequence.is_none());
        let first = unsent.unwrap_or(self.entries.len());
        let pair = (first..self.entries.len().saturating_sub(1)).min_by_key(|at| {
            let (one, two) = (&self.entries[*at], &self.entries[at + 1]);
            // A change of tenants stands for a change of meaning: merged last.
            let differ = one.dictionary.version != two.dictionary.version;
            (differ, u64::from(one.interval_ms) + u64::from(two.interval_ms), *at)
        });
        let Some(at) = pair else { return false };
        let merged = merge(&decode(&self.entries[at]), &decode(&self.entries[at + 1]));
        let dictionary = self.entries[at + 1].dictionary.clone();
        let entry = if dictionary.tenants == merged.tenants {
            encode(&merged, dictionary)
        } else {
            // Those of both.
            let mut merged = merged;
            cut(&mut merged, self.max_tenants);
            let version = self.new_version();
            let tenants = merged.tenants.clone();
            encode(&merged, Arc::new(Dictionary { version, tenants }))
        };
        self.entries[at + 1] = entry;
        self.entries.remove(at);
        true
    }

    /// A session begins: whatever is not acknowledged is sent again, and the
    /// coordinator holds no dictionary. `short` says whether it takes short
    /// reports.
    pub fn rewind(&mut self, short: bool) {
        self.sent = 0;
        self.told = None;
        self.outstanding = 0;
        self.stale = 0;
        self.short = short.then(Memory::default);
    }

    /// Whether [`next`](Self::next) has something.
    pub fn ready(&self, window: usize) -> bool {
        self.sent < self.entries.len() && self.sent < window.max(1)
    }

    /// The next report to send, if fewer than `window` are on their way.
    pub fn next(&mut self, window: usize) -> Option<wire::Report> {
        if !self.ready(window) {
            return None;
        }
        let entry = self.entries.get_mut(self.sent)?;
        let sequence = *entry.sequence.get_or_insert_with(|| {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            sequence
        });
        // It was encoded by us; were it unreadable, an empty report would
        // still keep the numbers whole.
        let mut report = wire::Report::decode(entry.body.as_slice()).unwrap_or_default();
        report.epoch = self.epoch;
        report.sequence = sequence;
        report.dictionary_version = entry.dictionary.version;
        if self.told != Some(entry.dictionary.version) {
            report.dictionary = Some(entry.dictionary.to_wire());
            self.told = Some(entry.dictionary.version);
        }
        if let Some(memory) = &mut self.short {
            memory.shorten(&mut report);
        }
        self.sent += 1;
        self.outstanding += 1;
        Some(report)
    }

    /// Takes an acknowledgement: forgets what was applied, and sends the rest
    /// again with the dictionary where the coordinator lacks it.
    pub fn acknowledge(&mut self, ack: &wire::ReportAck) {
        if ack.epoch == self.epoch {
            while self
                .entries
                .front()
                .and_then(|entry| entry.sequence)
                .is_some_and(|sequence| sequence <= ack.sequence)
            {
                self.entries.pop_front();
                self.sent = self.sent.saturating_sub(1);
            }
        }
        // There is one acknowledgement for each report, in order.
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.stale > 0 {
            self.stale -= 1;
        } else if ack.need_dictionary {
            self.sent = 0;
            self.told = None;
            self.stale = self.outstanding;
        }
    }
}

fn cut(report: &mut CollectedReport, tenants: usize) {
    report.tenants.truncate(tenants);
    for column in &mut report.columns {
        column.values.truncate(tenants);
    }
}

fn decode(entry: &Entry) -> CollectedReport {
    let report = wire::Report::decode(entry.body.as_slice()).unwrap_or_default();
    from_wire(report, entry.dictionary.tenants.clone())
}

fn encode(report: &CollectedReport, dictionary: Arc<Dictionary>) -> Entry {
    let (mut wire, unfit) = to_wire(report);
    for metric in unfit {
        tracing::error!(?metric, "a column doesn't fit its tenants and is left out");
    }
    let names = dictionary.to_wire().encoded_len();
    // Never on real numbers: a thousand tenants fit with all columns. What
    // can't fit must not end the session again and again.
    while wire.encoded_len() + names > MAX_BYTES && wire.columns.pop().is_some() {
        tracing::error!("a report is too large for the link; a column is left out");
    }
    Entry {
        sequence: None,
        interval_ms: report.interval_ms,
        dictionary,
        body: wire.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests;
