//! What the person at the terminal sees.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// How often progress is written where a line can't be rewritten.
const CALM: Duration = Duration::from_secs(3);

/// Lines of time, speaker and text.
pub struct Timeline {
    started: Instant,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A progress line stands on the terminal, unfinished.
    open: bool,
    last_progress: Option<Instant>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            state: Mutex::default(),
        }
    }
}

impl Timeline {
    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn stamp(&self, who: &str, text: &str) -> String {
        format!("{:7.1} s  {who:<12} {text}", self.elapsed().as_secs_f64())
    }

    /// A line that stays.
    pub fn say(&self, who: &str, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        let clear = if std::mem::take(&mut state.open) { "\r\x1b[K" } else { "" };
        // A closed terminal must not end the demo before it has cleaned up.
        let _closed = writeln!(out, "{clear}{}", self.stamp(who, text));
        let _closed = out.flush();
    }

    /// A line that the next one replaces; seldom, where it can't be.
    pub fn progress(&self, who: &str, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut out = std::io::stdout().lock();
        if self.terminal {
            state.open = true;
            // As above.
            let _closed = write!(out, "\r\x1b[K{}", self.stamp(who, text));
        } else if state.last_progress.is_none_or(|last| now - last >= CALM) {
            state.last_progress = Some(now);
            let _closed = writeln!(out, "{}", self.stamp(who, text));
        }
        let _closed = out.flush();
    }

    /// Text as it is.
    pub fn text(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // As above.
        let _closed = writeln!(out, "{text}");
    }
}
