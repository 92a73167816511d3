//! What steps answer, and how far they are.

use serde::{Deserialize, Serialize};
use webhost_proto::ids::Epoch;
use webhost_proto::wire;

use super::{Finding, Preflight, Step};
use crate::mover::report;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub rows: u64,
    pub bytes: u64,
    /// The whole step, statistics included.
    pub duration_us: u64,
    /// Of it, while rows went over.
    #[serde(default)]
    pub piped_us: u64,
    /// Of it, while indexes were built that had been put aside.
    #[serde(default)]
    pub indexes_us: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub keys: u64,
    pub remaining: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub rows_compared: u64,
    pub keys_excluded: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOver {
    pub epoch: Epoch,
    pub fence_us: u64,
    pub keys_in_fence: u64,
    pub activated_at_us: i64,
    pub recovered: bool,
}

impl CutOver {
    fn to_wire(self) -> wire::CutOverResult {
        wire::CutOverResult {
            epoch: self.epoch.0,
            fence_us: self.fence_us,
            keys_in_fence: self.keys_in_fence,
            activated_at_us: self.activated_at_us,
            recovered: self.recovered,
        }
    }
}

/// What a way back has done by its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayBack {
    /// Keys carried back to the old copy.
    pub keys: u64,
    /// Exact comparisons that came out equal, and the last one's time.
    pub verifications: u64,
    pub verified_at_us: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanedUp {
    pub rows: u64,
}

/// What a look at the fence rows said, after what was begun was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Who serves the tenant; none where the rows that could be read don't
    /// say it.
    pub serving: Option<Serving>,
    /// Of the side that serves.
    pub epoch: Epoch,
    /// 0 is not known.
    pub activated_at_us: i64,
    /// Both rows were read, under the movers' locks.
    pub both_read: bool,
}

impl Recovered {
    fn to_wire(self) -> wire::RecoverResult {
        let serving = match self.serving {
            None => wire::Serving::Unspecified,
            Some(Serving::Source) => wire::Serving::Source,
            Some(Serving::Target) => wire::Serving::Target,
        };
        wire::RecoverResult {
            serving: serving.into(),
            epoch: self.epoch.0,
            activated_at_us: self.activated_at_us,
            both_read: self.both_read,
        }
    }
}

/// How a step ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    Preflight(Preflight),
    /// With what was seen while the guards went in.
    Guard(Vec<Finding>),
    Copy(Copied),
    Drain(Drained),
    Verify(Verified),
    CutOver(CutOver),
    WayBack(WayBack),
    RollBack(CutOver),
    Finish,
    CleanUp(CleanedUp),
    Undo,
    Abandon,
    /// Which side serves the tenant.
    Recover(Recovered),
}

/// Where the tenant is served, as the fence rows say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    Source,
    Target,
}

impl Done {
    /// The answer as a message carries it.
    pub fn to_wire(&self, step: Step) -> wire::MoveStepDone {
        use wire::move_step_done::Result as R;
        let result = match self {
            Self::Preflight(p) => Some(R::Preflight(p.to_wire())),
            Self::Copy(c) => Some(R::Copy(wire::CopyResult {
                rows: c.rows,
                bytes: c.bytes,
                duration_us: c.duration_us,
            })),
            Self::Drain(d) => {
                Some(R::Drain(wire::DrainResult { keys: d.keys, remaining: d.remaining }))
            }
            Self::Verify(v) => Some(R::Verify(wire::VerifyResult {
                rows_compared: v.rows_compared,
                keys_excluded: v.keys_excluded,
            })),
            Self::CutOver(c) => Some(R::CutOver(c.to_wire())),
            Self::RollBack(c) => Some(R::RollBack(c.to_wire())),
            Self::WayBack(w) => Some(R::WayBack(wire::WayBackResult {
                keys: w.keys,
                verifications: w.verifications,
                verified_at_us: w.verified_at_us,
            })),
            Self::CleanUp(c) => Some(R::CleanUp(wire::CleanUpResult { rows: c.rows })),
            Self::Guard(findings) => {
                Some(R::Guard(wire::GuardResult { findings: report::to_wire(findings) }))
            }
            Self::Recover(recovered) => Some(R::Recover(recovered.to_wire())),
            Self::Finish | Self::Undo | Self::Abandon => None,
        };
        wire::MoveStepDone { step: step.to_wire().into(), result }
    }
}

/// How far a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub table: String,
    pub rows_done: u64,
    pub rows_total: u64,
    pub bytes_done: u64,
    pub rows_per_second: u64,
    /// Of a way back: keys that wait in the log.
    #[serde(default)]
    pub backlog: u64,
    /// Of a way back: when the old copy was last compared exactly, and when
    /// it was last up to date; 0 for not yet.
    #[serde(default)]
    pub verified_at_us: i64,
    #[serde(default)]
    pub mirrored_at_us: i64,
}

impl Progress {
    /// The progress as a message carries it.
    pub fn to_wire(&self, step: Step) -> wire::MoveProgress {
        wire::MoveProgress {
            step: step.to_wire().into(),
            table: self.table.clone(),
            rows_done: self.rows_done,
            rows_total: self.rows_total,
            bytes_done: self.bytes_done,
            rows_per_second: self.rows_per_second,
            backlog: self.backlog,
            verified_at_us: self.verified_at_us,
            mirrored_at_us: self.mirrored_at_us,
        }
    }
}
