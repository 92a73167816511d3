//! Fail points, for tests: places where a mover dies on purpose.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::MoveError;

/// What happens at a fail point.
#[derive(Debug, Default)]
pub enum Fail {
    /// Nothing; all there is in a release build.
    #[default]
    Off,
    /// The process kills itself at `point`, once: `marker` is written first,
    /// and where it exists the point is passed.
    Kill { point: String, marker: PathBuf },
    /// The step stops with an error at the point, once, leaving everything as
    /// it is: for tests within one process.
    Stop { point: String, done: AtomicBool },
}

impl Fail {
    /// `WEBHOST_FAIL_AT`, in debug builds; `marker_dir` outlives the process.
    pub fn from_environment(marker_dir: &std::path::Path) -> Self {
        if !cfg!(debug_assertions) {
            return Self::Off;
        }
        match std::env::var("WEBHOST_FAIL_AT") {
            Ok(point) if !point.is_empty() => {
                let marker = marker_dir.join(format!("failed-at-{point}"));
                Self::Kill { point, marker }
            }
            _ => Self::Off,
        }
    }

    /// Stops once at `point`.
    pub fn stop_at(point: &str) -> Self {
        Self::Stop { point: point.into(), done: AtomicBool::new(false) }
    }

    /// The place called `here` was reached.
    ///
    /// # Errors
    /// [`MoveError::FailPoint`] where a test asked for it.
    pub fn point(&self, here: &'static str) -> Result<(), MoveError> {
        match self {
            Self::Stop { point, done } if point == here && !done.swap(true, Ordering::Relaxed) => {
                Err(MoveError::FailPoint(here))
            }
            Self::Kill { point, marker } if point == here && !marker.exists() => {
                // A marker that can't be written would kill every restart.
                if std::fs::write(marker, here).is_ok() {
                    let _dead = rustix::process::kill_process(
                        rustix::process::getpid(),
                        rustix::process::Signal::KILL,
                    );
                }
                Err(MoveError::FailPoint(here))
            }
            Self::Off | Self::Stop { .. } | Self::Kill { .. } => Ok(()),
        }
    }
}
