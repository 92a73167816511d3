//! What a move is, what a step answers: the types that travel between agent
//! and child process, and their conversion to and from the wire.

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{Epoch, IdError, MoveId, NodeId, TenantId};
use webhost_proto::wire;

pub use super::report::{Finding, Level, Preflight, Verdict, VerdictKind};

/// Bytes that no log may show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// One move of one tenant, as the coordinator ordered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub move_id: MoveId,
    pub tenant: TenantId,
    /// The tenant's epoch on the source; the target gets the next one.
    pub epoch: Epoch,
    pub source_node: NodeId,
    pub target_node: NodeId,
    /// "host:port" of the target agent's tunnel.
    pub target_tunnel: String,
    pub ticket: Secret,
    /// What a writer that comes to the old database is told.
    pub target_place: String,
    /// 0 is unlimited.
    pub max_rows_per_second: u64,
    /// The target's agent takes the tenant's HTTP requests.
    #[serde(default)]
    pub target_http: bool,
    /// The tenant's host name; empty where it has none.
    #[serde(default)]
    pub tenant_host: String,
    /// The target node serves this tenant alone and will serve no other:
    /// nobody there misses an index while the copy runs.
    #[serde(default)]
    pub target_dedicated: bool,
    /// The scope of a downgrade, in microseconds since 1970: rows of time
    /// series older than this stay behind. 0 moves everything.
    #[serde(default)]
    pub retain_from_us: i64,
}

/// A move order that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error(transparent)]
    Id(#[from] IdError),
    #[error("move step without {0}")]
    Missing(&'static str),
    #[error("epoch {0} does not fit a bigint")]
    Epoch(u64),
    #[error("retain_from_us {0} is before 1970; 0 moves everything")]
    Retain(i64),
}

impl Spec {
    /// Reads the order from a message.
    ///
    /// # Errors
    /// [`SpecError`], naming the field.
    pub fn from_wire(spec: &wire::MoveSpec) -> Result<Self, SpecError> {
        if i64::try_from(spec.epoch).map_or(true, |epoch| epoch == i64::MAX) {
            return Err(SpecError::Epoch(spec.epoch));
        }
        if spec.retain_from_us < 0 {
            return Err(SpecError::Retain(spec.retain_from_us));
        }
        if spec.target_place.is_empty() {
            return Err(SpecError::Missing("target_place"));
        }
        Ok(Self {
            move_id: MoveId::from_wire(&spec.move_id)?,
            tenant: TenantId::from_wire(&spec.tenant_id)?,
            epoch: Epoch(spec.epoch),
            source_node: NodeId::from_wire(&spec.source_node_id)?,
            target_node: NodeId::from_wire(&spec.target_node_id)?,
            target_tunnel: spec.target_tunnel.clone(),
            ticket: Secret(spec.ticket.clone()),
            target_place: spec.target_place.clone(),
            max_rows_per_second: spec.max_rows_per_second,
            target_http: spec.target_http,
            tenant_host: spec.tenant_host.clone(),
            target_dedicated: spec.target_dedicated,
            retain_from_us: spec.retain_from_us,
        })
    }

    /// The epoch as SQL holds it; [`Spec::from_wire`] checked that it fits.
    pub fn epoch_sql(&self) -> i64 {
        self.epoch.0.cast_signed()
    }
}

/// The steps in their order; `Recover` is what a supervisor asks for after a
/// restart, when it does not know how far the move came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Preflight,
    Guard,
    Copy,
    Drain,
    Verify,
    CutOver,
    Finish,
    Undo,
    Recover,
}

impl Step {
    /// All of them; a test holds it against what a message can name.
    pub const ALL: [Self; 9] = [
        Self::Preflight,
        Self::Guard,
        Self::Copy,
        Self::Drain,
        Self::Verify,
        Self::CutOver,
        Self::Finish,
        Self::Undo,
        Self::Recover,
    ];

    /// Whether the source is active, whatever becomes of this step. Of the
    /// others the fence rows say it: an undo and a finish may be asked for
    /// while nobody knows how the cut-over ended.
    pub fn leaves_the_source_active(self) -> bool {
        match self {
            Self::Preflight | Self::Guard | Self::Copy | Self::Drain | Self::Verify => true,
            Self::CutOver | Self::Finish | Self::Undo | Self::Recover => false,
        }
    }

    /// The step that a message names; none for an unknown number.
    pub fn from_wire(kind: wire::MoveStepKind) -> Option<Self> {
        Some(match kind {
            wire::MoveStepKind::Preflight => Self::Preflight,
            wire::MoveStepKind::Guard => Self::Guard,
            wire::MoveStepKind::Copy => Self::Copy,
            wire::MoveStepKind::Drain => Self::Drain,
            wire::MoveStepKind::Verify => Self::Verify,
            wire::MoveStepKind::CutOver => Self::CutOver,
            wire::MoveStepKind::Finish => Self::Finish,
            wire::MoveStepKind::Undo => Self::Undo,
            wire::MoveStepKind::Unspecified
            | wire::MoveStepKind::WayBack
            | wire::MoveStepKind::RollBack
            | wire::MoveStepKind::CleanUp
            | wire::MoveStepKind::Abandon => return None,
        })
    }

    /// The number a message carries.
    pub fn to_wire(self) -> wire::MoveStepKind {
        match self {
            Self::Preflight => wire::MoveStepKind::Preflight,
            Self::Guard => wire::MoveStepKind::Guard,
            Self::Copy => wire::MoveStepKind::Copy,
            Self::Drain => wire::MoveStepKind::Drain,
            Self::Verify => wire::MoveStepKind::Verify,
            Self::CutOver => wire::MoveStepKind::CutOver,
            Self::Finish => wire::MoveStepKind::Finish,
            Self::Undo => wire::MoveStepKind::Undo,
            Self::Recover => wire::MoveStepKind::Unspecified,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Preflight => "preflight",
            Self::Guard => "guard",
            Self::Copy => "copy",
            Self::Drain => "drain",
            Self::Verify => "verify",
            Self::CutOver => "cut over",
            Self::Finish => "finish",
            Self::Undo => "undo",
            Self::Recover => "recover",
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub rows: u64,
    pub bytes: u64,
    pub duration_us: u64,
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

/// How a step ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    Preflight(Preflight),
    Guard,
    Copy(Copied),
    Drain(Drained),
    Verify(Verified),
    CutOver(CutOver),
    Finish,
    Undo,
    /// Which side serves the tenant.
    Recover(Serving),
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
            Self::CutOver(c) => Some(R::CutOver(wire::CutOverResult {
                epoch: c.epoch.0,
                fence_us: c.fence_us,
                keys_in_fence: c.keys_in_fence,
                activated_at_us: c.activated_at_us,
                recovered: c.recovered,
            })),
            Self::Guard | Self::Finish | Self::Undo | Self::Recover(_) => None,
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_are_all_that_a_message_can_name() {
        let named: Vec<Step> = (0..100)
            .filter_map(|number| wire::MoveStepKind::try_from(number).ok())
            .filter_map(Step::from_wire)
            .collect();
        for step in &named {
            assert!(Step::ALL.contains(step), "{step} is not in Step::ALL");
        }
        // Recovery is the supervisor's own.
        assert_eq!(named.len() + 1, Step::ALL.len());
    }
}
