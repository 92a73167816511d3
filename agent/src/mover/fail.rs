//! Fail points, for tests: places where a mover fails, dies or stands still on
//! purpose, so that anything can be done to anybody at exactly that moment.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::MoveError;
use super::leg::Leg;
use super::spec::Step;

/// What happens at a fail point.
#[derive(Debug, Default)]
pub enum Fail {
    /// Nothing; all there is in a release build.
    #[default]
    Off,
    /// Once at each of the points, whatever the `deed` is: the point's
    /// [`marker`] in `dir` is written first, with the pid, and where it exists
    /// the point is passed.
    Marked { deed: Deed, points: Vec<String>, dir: PathBuf },
    /// The step stops with an error at the point, once, leaving everything as
    /// it is: for tests within one process.
    Stop { point: String, done: AtomicBool },
}

/// What a child process does at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It kills itself.
    Kill,
    /// The step fails.
    Error,
    /// It stands still until a file called after the marker, with
    /// [`RELEASED`] behind, exists, or the marker is gone.
    Hold,
}

/// What a marker is called before the point's name.
pub const MARKER: &str = "failed-at-";

/// The file in `dir` that says that `point` was met.
pub fn marker(dir: &Path, point: &str) -> PathBuf {
    dir.join(format!("{MARKER}{point}"))
}

/// The end of the name of the file that lets a held mover go on.
pub const RELEASED: &str = ".released";

/// The points of a step in the order in which it comes by; the first lies
/// before everything it does, the last behind. A new step names its own here,
/// and is part of the fault matrix by that.
pub fn points(step: Step) -> &'static [&'static str] {
    match step {
        Step::Preflight => &["before_preflight", "after_preflight"],
        Step::Guard => &["before_guard", "mid_guard", "after_guard"],
        Step::Copy => &[
            "before_copy",
            "after_set_aside",
            "mid_copy",
            "between_parts",
            "mid_indexes",
            "after_copy",
        ],
        Step::Drain => &["before_drain", "mid_drain", "between_commits", "after_drain"],
        Step::Verify => &["before_verify", "mid_verify", "after_verify"],
        Step::CutOver => &[
            "before_cut_over",
            "after_take",
            "after_prepare",
            "after_moved",
            "before_place",
            "after_activate",
            "after_cut_over",
        ],
        Step::WayBack => &[
            "before_way_back",
            "back_after_arm",
            "back_mid_drain",
            "back_between_commits",
            "back_mid_verify",
            "back_mid_mirror",
            "after_way_back",
        ],
        Step::RollBack => &[
            "before_roll_back",
            "back_after_take",
            "back_after_prepare",
            "back_after_moved",
            "back_before_place",
            "back_after_activate",
            "after_roll_back",
        ],
        Step::CleanUp => &["before_clean_up", "mid_clean_up", "after_clean_up"],
        Step::Abandon => &["before_abandon", "mid_abandon", "after_abandon"],
        Step::Finish => &["before_finish", "mid_finish", "after_finish"],
        Step::Undo => &["before_undo", "mid_undo", "after_undo"],
        Step::Recover => &["before_recover", "after_recover"],
    }
}

impl Fail {
    /// `WEBHOST_FAIL_AT`, in debug builds: a point's name or several with
    /// commas between, behind `error:` or `hold:` or nothing; `marker_dir`
    /// outlives the process.
    pub fn from_environment(marker_dir: &Path) -> Self {
        if !cfg!(debug_assertions) {
            return Self::Off;
        }
        let Ok(wish) = std::env::var("WEBHOST_FAIL_AT") else { return Self::Off };
        let (deed, points) = match wish.split_once(':') {
            Some(("error", points)) => (Deed::Error, points),
            Some(("hold", points)) => (Deed::Hold, points),
            Some(_) | None => (Deed::Kill, wish.as_str()),
        };
        if points.is_empty() {
            return Self::Off;
        }
        let points = points.split(',').map(str::to_owned).collect();
        Self::Marked { deed, points, dir: marker_dir.into() }
    }

    /// Stops once at `point`.
    pub fn stop_at(point: &str) -> Self {
        Self::Stop { point: point.into(), done: AtomicBool::new(false) }
    }

    /// `step` begins: its first point was reached.
    ///
    /// # Errors
    /// [`MoveError::FailPoint`] where a test asked for it.
    pub fn before(&self, step: Step) -> Result<(), MoveError> {
        points(step).first().map_or(Ok(()), |point| self.point(point))
    }

    /// `step` has done all it does: its last point was reached.
    ///
    /// # Errors
    /// [`MoveError::FailPoint`] where a test asked for it.
    pub fn after(&self, step: Step) -> Result<(), MoveError> {
        points(step).last().map_or(Ok(()), |point| self.point(point))
    }

    /// The place called `here` was reached on a leg: on one that goes back its
    /// name begins with `back_`.
    ///
    /// # Errors
    /// [`MoveError::FailPoint`] where a test asked for it.
    pub fn on(&self, here: &'static str, leg: Leg) -> Result<(), MoveError> {
        if !leg.is_back() {
            return self.point(here);
        }
        let mut back = [Step::WayBack, Step::RollBack].into_iter().flat_map(points);
        back.find(|point| point.strip_prefix("back_") == Some(here))
            .map_or(Ok(()), |point| self.point(point))
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
            Self::Marked { deed, points, dir }
                if points.iter().any(|point| point == here) && !marker(dir, here).exists() =>
            {
                let marker = marker(dir, here);
                // A marker that can't be written would stop every restart.
                // It appears whole: whoever waits for it reads the pid at once.
                let pid = std::process::id().to_string();
                if crate::durable::replace(&marker, pid.as_bytes()).is_ok() {
                    match deed {
                        Deed::Error => {}
                        Deed::Kill => {
                            let _dead = rustix::process::kill_process(
                                rustix::process::getpid(),
                                rustix::process::Signal::KILL,
                            );
                        }
                        Deed::Hold => {
                            hold(&marker);
                            return Ok(());
                        }
                    }
                }
                Err(MoveError::FailPoint(here))
            }
            Self::Off | Self::Stop { .. } | Self::Marked { .. } => Ok(()),
        }
    }
}

/// Whether a test has movers stand still: whoever watches over them must not
/// take that for a fault. Never in a release build.
pub fn holds() -> bool {
    cfg!(debug_assertions)
        && std::env::var("WEBHOST_FAIL_AT").is_ok_and(|wish| wish.starts_with("hold:"))
}

/// The process's other threads keep its connections alive meanwhile. A test
/// that failed took the marker's directory along: nobody will release it.
fn hold(marker: &Path) {
    let mut released = marker.as_os_str().to_owned();
    released.push(RELEASED);
    // A channel that nobody sends on: its timeout is the pause between looks.
    let (_nobody, wait) = std::sync::mpsc::channel::<()>();
    while !Path::new(&released).exists() && marker.exists() {
        let _timed_out = wait.recv_timeout(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_points_and_every_name_one_step() {
        let mut seen = std::collections::BTreeSet::new();
        for step in Step::ALL {
            assert!(points(step).len() >= 2, "{step}");
            for point in points(step) {
                assert!(seen.insert(*point), "{point} is named twice");
            }
        }
    }

    #[test]
    fn each_point_fails_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let points = ["mid_copy", "mid_drain"].map(str::to_owned).into();
        let fail = Fail::Marked { deed: Deed::Error, points, dir: dir.path().into() };
        assert!(fail.point("mid_verify").is_ok());
        for point in ["mid_copy", "mid_drain"] {
            assert!(fail.point(point).is_err());
            assert!(fail.point(point).is_ok());
        }
    }
}
