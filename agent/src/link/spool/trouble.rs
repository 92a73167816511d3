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
/// And was asked for so often: nobody asks while there is no session.
const TRIES: u32 = 10;

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
pub struct Troubles {
    open: Vec<Trouble>,
    /// The segment of which a report was given up last: the next ones in it are
    /// not waited for as long again.
    given_up: Option<u32>,
}

#[derive(Debug)]
struct Trouble {
    location: Location,
    since_ms: u64,
    retry_at_ms: u64,
    tries: u32,
    text: String,
}

impl Troubles {
    /// Whether it is too early to read here again.
    pub fn rest(&self, location: Location, now_ms: u64) -> bool {
        self.open.iter().any(|trouble| trouble.location == location && now_ms < trouble.retry_at_ms)
    }

    /// It could be read: its file can.
    pub fn read(&mut self, location: Location) {
        self.given_up = self.given_up.filter(|segment| *segment != location.segment);
        self.over(location);
    }

    /// Nobody asks for it any more.
    pub fn over(&mut self, location: Location) {
        self.open.retain(|trouble| trouble.location != location);
    }

    /// It could not.
    pub fn failed(&mut self, location: Location, error: io::Error, now_ms: u64) -> Unread {
        let known = self.open.iter_mut().find(|trouble| trouble.location == location);
        let (failing_ms, tries) = known
            .as_ref()
            .map_or((0, 1), |known| (now_ms.saturating_sub(known.since_ms), known.tries + 1));
        let long = failing_ms >= GIVEN_UP_MS && tries >= TRIES;
        let again = self.given_up == Some(location.segment);
        if damaged(&error) {
            return Unread::Lost(error);
        }
        if (long || again) && !of_the_machine(&error) {
            self.given_up = Some(location.segment);
            return Unread::Lost(error);
        }
        let retry_at_ms = now_ms + (failing_ms / 2).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS);
        match known {
            Some(known) => (known.retry_at_ms, known.tries) = (retry_at_ms, tries),
            None => {
                tracing::warn!(%error, "a spooled report can't be read now and waits");
                let text = error.to_string();
                self.open.push(Trouble { location, since_ms: now_ms, retry_at_ms, tries, text });
            }
        }
        Unread::Later
    }

    /// Whether something waits to be read again.
    pub fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// What an operator should know.
    pub fn problem(&self) -> Option<String> {
        let text = &self.open.first()?.text;
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
