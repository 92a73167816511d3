//! A log file, followed line by line from its end on: through rotation (a
//! rename, and a new file of the same name) and truncation.
//!
//! What is written to the old file after the rename (nginx goes on until it is
//! told to reopen) is read as long as the old file has more; then the new one
//! is read from its beginning. A file that was truncated is read from its
//! beginning again. A file that was truncated and has grown beyond where we
//! were between two rounds looks like one that grew; `copytruncate` therefore
//! loses lines in a way that nobody can see, and a rename does not.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

/// What one round reads at most; the rest waits for the next.
const ROUND_BYTES: u64 = 4 * 1024 * 1024;
/// A longer line is passed over.
const LINE_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 32 * 1024;

/// How a reading went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Bytes that are still to be read.
    pub behind: u64,
    /// Lines that were passed over.
    pub too_long: u64,
}

struct Open {
    file: File,
    inode: u64,
    offset: u64,
}

/// See the module.
pub struct Follower {
    path: PathBuf,
    open: Option<Open>,
    /// Whether a file was ever seen: what comes later is read from its start.
    begun: bool,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    /// Inside a line that is too long.
    skipping: bool,
    chunk: Vec<u8>,
}

impl Follower {
    /// Nothing is opened yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            begun: false,
            partial: Vec::new(),
            skipping: false,
            chunk: vec![0; CHUNK_BYTES],
        }
    }

    /// Hands every whole line that was written since the last call to `take`,
    /// without its end.
    ///
    /// # Errors
    /// A sentence that names the file, when it can't be read.
    pub fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<State, String> {
        let mut state = State::default();
        let mut left = ROUND_BYTES;
        loop {
            self.open_if_needed()?;
            let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
            let Some(open) = &mut self.open else { return Ok(state) };
            let length = open.file.metadata().map_err(failed)?.len();
            if length < open.offset {
                open.offset = 0;
                self.partial.clear();
                self.skipping = false;
            }
            let end = length.min(open.offset + left);
            while open.offset < end {
                let want = usize::try_from(end - open.offset).unwrap_or(CHUNK_BYTES);
                let want = want.min(CHUNK_BYTES);
                let got = open.file.read_at(&mut self.chunk[..want], open.offset);
                let got = got.map_err(failed)?;
                if got == 0 {
                    break;
                }
                open.offset += got as u64;
                left -= got as u64;
                let lines = Lines { partial: &mut self.partial, skipping: &mut self.skipping };
                state.too_long += lines.feed(&self.chunk[..got], &mut take);
            }
            state.behind = length.saturating_sub(open.offset);
            if state.behind > 0 || !self.replaced() {
                return Ok(state);
            }
            // The old file is read to its end, and another has its name.
            self.open = None;
            self.partial.clear();
            self.skipping = false;
        }
    }

    fn open_if_needed(&mut self) -> Result<(), String> {
        if self.open.is_some() {
            return Ok(());
        }
        let opened = File::open(&self.path).and_then(|file| {
            let about = file.metadata()?;
            Ok((file, about))
        });
        match opened {
            Ok((file, about)) if about.is_file() => {
                // What was written before we came is somebody else's history.
                let offset = if self.begun { 0 } else { about.len() };
                self.begun = true;
                self.open = Some(Open { file, inode: about.ino(), offset });
                Ok(())
            }
            Ok(_) => Err(format!("{} is not a file", self.path.display())),
            Err(error) => {
                // A file that appears later began under our eyes.
                self.begun |= error.kind() == ErrorKind::NotFound;
                Err(format!("{}: {error}", self.path.display()))
            }
        }
    }

    /// Whether the name belongs to another file now.
    fn replaced(&self) -> bool {
        let Some(open) = &self.open else { return false };
        // Between the rename and the new file there is none: ours goes on.
        std::fs::metadata(&self.path).is_ok_and(|now| now.ino() != open.inode)
    }
}

struct Lines<'a> {
    partial: &'a mut Vec<u8>,
    skipping: &'a mut bool,
}

impl Lines<'_> {
    /// Returns how many lines were too long.
    fn feed(self, bytes: &[u8], take: &mut impl FnMut(&[u8])) -> u64 {
        let mut too_long = 0;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            if !*self.skipping && self.partial.len() + text.len() > LINE_BYTES {
                *self.skipping = true;
                self.partial.clear();
                too_long += 1;
            }
            if ends {
                if !*self.skipping {
                    if self.partial.is_empty() {
                        take(text);
                    } else {
                        self.partial.extend_from_slice(text);
                        take(self.partial);
                    }
                }
                self.partial.clear();
                *self.skipping = false;
            } else if !*self.skipping {
                self.partial.extend_from_slice(text);
            }
        }
        too_long
    }
}
