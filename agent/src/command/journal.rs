//! The outcomes of finished commands, kept over restarts: a command that
//! comes again after it ended is answered from here and never runs twice.
//!
//! A file of records, appended and synced one by one: length, checksum, the
//! protobuf of a `CommandReply`. A crash can only leave a torn record at the
//! end; it is cut off at the next start, as if its command had not ended. What
//! the file holds beyond the newest outcomes is dropped when it has grown to
//! twice their number.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use ring::digest::{SHA256, digest};
use webhost_proto::ids::CommandId;
use webhost_proto::wire::CommandReply;

use crate::durable;

/// How many outcomes are remembered.
const KEPT: usize = 1_000;
/// Larger than any reply that the link would carry.
const MAX_RECORD: usize = webhost_proto::MAX_MESSAGE_BYTES;
const HEADER: usize = 8;

/// The journal can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("command journal {path}: {source}")]
pub struct JournalError {
    path: PathBuf,
    source: std::io::Error,
}

/// The outcomes, newest last. Blocking: it writes to disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    outcomes: HashMap<CommandId, CommandReply>,
    order: VecDeque<CommandId>,
    records: usize,
    kept: usize,
}

impl Journal {
    /// Opens or makes the journal below `state_dir`.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        Self::open_with(state_dir, KEPT)
    }

    fn open_with(state_dir: &Path, kept: usize) -> Result<Self, JournalError> {
        let path = state_dir.join("commands.journal");
        let failed = |source| JournalError { path: path.clone(), source };
        durable::private_dir(state_dir).map_err(failed)?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let (replies, sound) = read(&bytes);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if sound < bytes.len() {
            tracing::warn!(path = %path.display(), lost = bytes.len() - sound,
                "the journal's end was torn by a crash and is cut off");
            file.set_len(sound as u64).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let records = replies.len();
        let mut journal =
            Self { path, file, outcomes: HashMap::new(), order: VecDeque::new(), records, kept };
        for (id, reply) in replies {
            journal.remember(id, reply);
        }
        Ok(journal)
    }

    /// The outcome of a finished command.
    pub fn outcome(&self, id: CommandId) -> Option<&CommandReply> {
        self.outcomes.get(&id)
    }

    /// Adds the outcome of `id`; durable when it returns.
    ///
    /// # Errors
    /// [`JournalError`]; then it is remembered until the next restart.
    pub fn append(&mut self, id: CommandId, reply: CommandReply) -> Result<(), JournalError> {
        let record = record(&reply);
        self.remember(id, reply);
        let written = if self.records >= 2 * self.kept {
            self.rewrite()
        } else {
            self.records += 1;
            self.file.write_all(&record).and_then(|()| self.file.sync_data())
        };
        written.map_err(|source| JournalError { path: self.path.clone(), source })
    }

    fn remember(&mut self, id: CommandId, reply: CommandReply) {
        if self.outcomes.insert(id, reply).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.kept {
            if let Some(oldest) = self.order.pop_front() {
                self.outcomes.remove(&oldest);
            }
        }
    }

    fn rewrite(&mut self) -> std::io::Result<()> {
        let bytes: Vec<u8> =
            self.order.iter().filter_map(|id| self.outcomes.get(id)).flat_map(record).collect();
        durable::replace(&self.path, &bytes)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.records = self.order.len();
        Ok(())
    }
}

fn record(reply: &CommandReply) -> Vec<u8> {
    let body = reply.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], &checksum(&body), &body].concat()
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let mut sum = [0; 4];
    sum.copy_from_slice(&digest(&SHA256, body).as_ref()[..4]);
    sum
}

/// The sound records at the start of `bytes`, and where they end.
fn read(bytes: &[u8]) -> (Vec<(CommandId, CommandReply)>, usize) {
    let mut replies = Vec::new();
    let mut at = 0;
    while let Some((next, reply)) = read_one(&bytes[at..]) {
        at += next;
        replies.push(reply);
    }
    (replies, at)
}

fn read_one(bytes: &[u8]) -> Option<(usize, (CommandId, CommandReply))> {
    let header = bytes.get(..HEADER)?;
    let (length, sum) = header.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    if length > MAX_RECORD {
        return None;
    }
    let body = bytes.get(HEADER..HEADER + length)?;
    if checksum(body) != sum {
        return None;
    }
    let reply = CommandReply::decode(body).ok()?;
    let id = CommandId::from_wire(&reply.command_id).ok()?;
    Some((HEADER + length, (id, reply)))
}

#[cfg(test)]
mod tests {
    use webhost_proto::wire::{Failed, command_reply::Outcome};

    use super::*;

    fn reply(id: CommandId, message: &str) -> CommandReply {
        let failed = Failed { kind: 1, message: message.into(), preflight: None };
        CommandReply { command_id: id.to_wire(), outcome: Some(Outcome::Failed(failed)) }
    }

    #[test]
    fn outcomes_survive_a_restart_and_a_torn_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let ids: Vec<_> = (0..3).map(|_| CommandId::generate()).collect();
        let mut journal = Journal::open(dir.path()).expect("opens");
        for id in &ids {
            journal.append(*id, reply(*id, "done")).expect("appends");
        }
        drop(journal);
        let path = dir.path().join("commands.journal");
        let whole = std::fs::read(&path).expect("reads");
        let record = whole.len() / 3;
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("writes");
            let mut journal = Journal::open(dir.path()).expect("opens");
            let known = ids.iter().filter(|id| journal.outcome(**id).is_some()).count();
            assert_eq!(known, cut / record, "cut at {cut}");
            // What comes after a torn end must be readable again.
            let late = CommandId::generate();
            journal.append(late, reply(late, "late")).expect("appends");
            drop(journal);
            let journal = Journal::open(dir.path()).expect("opens");
            assert_eq!(journal.outcome(late), Some(&reply(late, "late")), "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let id = CommandId::generate();
        Journal::open(dir.path()).expect("opens").append(id, reply(id, "done")).expect("appends");
        let path = dir.path().join("commands.journal");
        let whole = std::fs::read(&path).expect("reads");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).expect("writes");
            assert!(Journal::open(dir.path()).expect("opens").outcome(id).is_none(), "at {at}");
        }
    }

    #[test]
    fn stays_small() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::open_with(dir.path(), 5).expect("opens");
        let ids: Vec<_> = (0..40).map(|_| CommandId::generate()).collect();
        for id in &ids {
            journal.append(*id, reply(*id, "done")).expect("appends");
            assert!(journal.records <= 10);
        }
        for journal in [journal, Journal::open_with(dir.path(), 5).expect("opens")] {
            let known: Vec<_> = ids.iter().filter(|id| journal.outcome(**id).is_some()).collect();
            assert_eq!(known, ids[35..].iter().collect::<Vec<_>>());
        }
    }
}
