//! One record of the spool's files, and how it is found again after a crash.
//! Pure.
//!
//! A record is framed by a mark, its length and the start of its SHA-256, so
//! that a torn or damaged one is never taken for whole. Whoever reads goes on
//! behind a bad one at the next mark: one flipped bit costs one record.

use prost::Message;
use webhost_proto::wire;

/// What every frame begins with.
const MARK: [u8; 4] = *b"WHS1";
/// Mark, length, checksum.
const HEAD: usize = 4 + 4 + 8;
/// What a record may weigh: a report and a dictionary, each below the link's
/// limit.
const MAX_BYTES: usize = 2 * webhost_proto::MAX_MESSAGE_BYTES;

/// The number under which the coordinator hears of a report: once for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Number {
    /// Of the run of the agent that sent it first.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Within that run, from 1.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
}

/// A report that got its number after it was written.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Numbered {
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    #[prost(message, optional, tag = "2")]
    pub number: Option<Number>,
}

/// A report, a dictionary, or what became of reports in earlier records. A
/// later record of the same serial stands in place of an earlier one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// Which report, in the order of time; 0 where there is none.
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    /// Absent until it is sent.
    #[prost(message, optional, tag = "2")]
    pub number: Option<Number>,
    /// Reports that were merged into this one.
    #[prost(uint64, repeated, tag = "3")]
    pub replaces: Vec<u64>,
    /// Numbers that other reports got.
    #[prost(message, repeated, tag = "4")]
    pub numbered: Vec<Numbered>,
    /// Reports that nobody needs any more.
    #[prost(uint64, repeated, tag = "5")]
    pub gone: Vec<u64>,
    /// Of a report, the dictionary that its columns refer to; with `names`,
    /// the dictionary that this record is.
    #[prost(fixed64, tag = "6")]
    pub dictionary: u64,
    #[prost(message, optional, tag = "7")]
    pub names: Option<wire::TenantDictionary>,
    /// When the report's interval ended, microseconds since the Unix epoch by
    /// the clock of then; shown, never compared.
    #[prost(int64, tag = "8")]
    pub collected_at_us: i64,
    #[prost(uint32, tag = "9")]
    pub interval_ms: u32,
    /// A `wire::Report` without epoch, sequence and dictionary.
    #[prost(bytes = "vec", tag = "10")]
    pub body: Vec<u8>,
}

/// Appends the frame of `record` to `bytes`; answers its length.
pub fn frame(record: &Record, bytes: &mut Vec<u8>) -> usize {
    let payload = record.encode_to_vec();
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&checksum(&payload));
    bytes.extend_from_slice(&payload);
    HEAD + payload.len()
}

/// The start of the payload's SHA-256; also names dictionaries.
pub fn checksum(payload: &[u8]) -> [u8; 8] {
    let mut start = [0; 8];
    let digest = ring::digest::digest(&ring::digest::SHA256, payload);
    start.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    start
}

/// The record at the beginning of `bytes`, and where it ends; none where there
/// is no whole one.
pub fn parse(bytes: &[u8]) -> Option<(Record, usize)> {
    let rest = bytes.strip_prefix(&MARK)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let payload = rest.get(..length).filter(|_| length <= MAX_BYTES)?;
    if checksum(payload) != *sum {
        return None;
    }
    Some((Record::decode(payload).ok()?, HEAD + length))
}

/// One whole record of a file.
#[derive(Debug)]
pub struct Found {
    pub at: usize,
    pub length: usize,
    pub record: Record,
}

/// Every whole record of a file.
#[derive(Debug, Default)]
pub struct Scan {
    pub found: Vec<Found>,
    /// Stretches between records that are no records.
    pub damaged: u64,
    /// Whether the last bytes are no whole record, as after a crash.
    pub torn: bool,
}

/// Reads a file's bytes.
pub fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if let Some((record, length)) = parse(rest) {
            scan.damaged += u64::from(std::mem::take(&mut scan.torn));
            scan.found.push(Found { at, length, record });
            at += length;
        } else {
            scan.torn = true;
            let next = rest.windows(MARK.len()).skip(1).position(|window| window == MARK);
            at = next.map_or(bytes.len(), |next| at + 1 + next);
        }
    }
    scan
}
