//! Reports that could not be read just now. What passes (no descriptor left,
//! no memory, a disk that hiccups) is waited for; what was read and is not
//! what was written is damaged, and so is what the disk never gave in a long
//! time. Pure.

use std::io;

use super::segments::Location;

/// How long after the first failure the next attempt comes; then half of the
/// time that it fails already, at most [`PAUSE_MAX_MS`].
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;
/// A disk that gives a report for so long not won't give it any more. Until
/// then what comes after it in the order of numbers waits, too.
pub(super) const GIVEN_UP_MS: u64 = 10 * 60_000;

/// A report that can't be had.
#[derive(Debug)]
pub enum Unread {
    /// Not now: it stays where it is, and is asked for again.
    Later,
    /// Not at all.
    Lost(io::Error),
}

/// Where reading failed, and since when.
#[derive(Debug, Default)]
pub struct Troubles(Vec<Trouble>);

#[derive(Debug)]
struct Trouble {
    location: Location,
    since_ms: u64,
    retry_at_ms: u64,
    text: String,
}

impl Troubles {
    /// Whether it is too early to read here again.
    pub fn rest(&self, location: Location, now_ms: u64) -> bool {
        self.0.iter().any(|trouble| trouble.location == location && now_ms < trouble.retry_at_ms)
    }

    /// It could be read, or nobody asks for it any more.
    pub fn over(&mut self, location: Location) {
        self.0.retain(|trouble| trouble.location != location);
    }

    /// It could not.
    pub fn failed(&mut self, location: Location, error: io::Error, now_ms: u64) -> Unread {
        let known = self.0.iter_mut().find(|trouble| trouble.location == location);
        let failing_ms = known.as_ref().map_or(0, |known| now_ms.saturating_sub(known.since_ms));
        if damaged(&error) || (failing_ms >= GIVEN_UP_MS && !of_the_machine(&error)) {
            return Unread::Lost(error);
        }
        let retry_at_ms = now_ms + (failing_ms / 2).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS);
        match known {
            Some(known) => known.retry_at_ms = retry_at_ms,
            None => {
                tracing::warn!(%error, "a spooled report can't be read now and waits");
                let text = error.to_string();
                self.0.push(Trouble { location, since_ms: now_ms, retry_at_ms, text });
            }
        }
        Unread::Later
    }

    /// Whether something waits to be read again.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// What an operator should know.
    pub fn problem(&self) -> Option<String> {
        let text = &self.0.first()?.text;
        Some(format!("spooled reports can't be read now and wait: {text}"))
    }
}

/// The file is there and says something else than what was written, or it is
/// not there.
fn damaged(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof | NotFound)
}

/// Says nothing about the file: descriptors or memory are short.
fn of_the_machine(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::AGAIN]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
