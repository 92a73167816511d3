//! What a move is, what a step answers: the types that travel between agent
//! and child process, and their conversion to and from the wire.

mod outcome;

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{Epoch, IdError, MoveId, NodeId, TenantId};
use webhost_proto::wire;

pub use super::report::{Finding, Level, Preflight, Verdict, VerdictKind};
pub use outcome::{
    CleanedUp, Copied, CutOver, Done, Drained, Progress, Recovered, Serving, Verified, WayBack,
};

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
    /// What a writer that comes to the new database after a roll back is told.
    #[serde(default)]
    pub source_place: String,
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
    /// When the way back ends, in microseconds since 1970; 0 opens none.
    #[serde(default)]
    pub way_back_until_us: i64,
    /// The node with the copy that serves nobody was given up by a person: the
    /// end of the move doesn't wait for it.
    #[serde(default)]
    pub old_copy_gone: bool,
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
        // Each leg of the move adds one.
        if i64::try_from(spec.epoch).map_or(true, |epoch| epoch > i64::MAX / 2) {
            return Err(SpecError::Epoch(spec.epoch));
        }
        if spec.retain_from_us < 0 {
            return Err(SpecError::Retain(spec.retain_from_us));
        }
        if spec.target_place.is_empty() {
            return Err(SpecError::Missing("target_place"));
        }
        let source_node = NodeId::from_wire(&spec.source_node_id)?;
        Ok(Self {
            move_id: MoveId::from_wire(&spec.move_id)?,
            tenant: TenantId::from_wire(&spec.tenant_id)?,
            epoch: Epoch(spec.epoch),
            source_node,
            target_node: NodeId::from_wire(&spec.target_node_id)?,
            target_tunnel: spec.target_tunnel.clone(),
            ticket: Secret(spec.ticket.clone()),
            target_place: spec.target_place.clone(),
            // A place without a name would read as "try again here".
            source_place: if spec.source_place.is_empty() {
                source_node.to_string()
            } else {
                spec.source_place.clone()
            },
            max_rows_per_second: spec.max_rows_per_second,
            target_http: spec.target_http,
            tenant_host: spec.tenant_host.clone(),
            target_dedicated: spec.target_dedicated,
            retain_from_us: spec.retain_from_us,
            way_back_until_us: spec.way_back_until_us,
            old_copy_gone: spec.old_copy_gone,
        })
    }

    /// The epoch as SQL holds it; [`Spec::from_wire`] checked that it fits.
    pub fn epoch_sql(&self) -> i64 {
        self.epoch.0.cast_signed()
    }
}

/// The steps in their order; `Recover` is what a supervisor asks for after a
/// restart, when it does not know how far the move came, and the coordinator of
/// the target's agent, when the source's is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Preflight,
    Guard,
    Copy,
    Drain,
    Verify,
    CutOver,
    /// Keeps the old copy up to date; runs as long as the way back is open.
    WayBack,
    /// The cut-over in the other direction.
    RollBack,
    Finish,
    /// Deletes the copy that serves nobody. Works beside one database alone.
    CleanUp,
    Undo,
    /// The source lets go of the move, without the target.
    Abandon,
    Recover,
}

impl Step {
    /// All of them; a test holds it against what a message can name.
    pub const ALL: [Self; 13] = [
        Self::Preflight,
        Self::Guard,
        Self::Copy,
        Self::Drain,
        Self::Verify,
        Self::CutOver,
        Self::WayBack,
        Self::RollBack,
        Self::Finish,
        Self::CleanUp,
        Self::Undo,
        Self::Abandon,
        Self::Recover,
    ];

    /// Whether the source is active, whatever becomes of this step. Of the
    /// others the fence rows say it: an undo and a finish may be asked for
    /// while nobody knows how the cut-over ended.
    pub fn leaves_the_source_active(self) -> bool {
        match self {
            Self::Preflight | Self::Guard | Self::Copy | Self::Drain | Self::Verify => true,
            Self::CutOver
            | Self::WayBack
            | Self::RollBack
            | Self::Finish
            | Self::CleanUp
            | Self::Undo
            | Self::Abandon
            | Self::Recover => false,
        }
    }

    /// Whether this step, while it runs, is ended by the command for `next`: a
    /// long one by an undo, a way back by whatever comes after it and by the
    /// coordinator's own order for one that resumed without it, a clean-up by
    /// its own repetition.
    pub fn ends_for(self, next: Self) -> bool {
        match self {
            Self::WayBack => !matches!(next, Self::Preflight | Self::Recover),
            Self::CleanUp => next == Self::CleanUp,
            _ => matches!(next, Self::Undo | Self::Abandon) && self.leaves_the_source_active(),
        }
    }

    /// Whether a pause ends this step: a repetition resumes it, and nobody
    /// waits for it meanwhile.
    pub fn ends_for_a_pause(self) -> bool {
        matches!(self, Self::Copy | Self::Drain | Self::Verify)
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
            wire::MoveStepKind::WayBack => Self::WayBack,
            wire::MoveStepKind::RollBack => Self::RollBack,
            wire::MoveStepKind::CleanUp => Self::CleanUp,
            wire::MoveStepKind::Abandon => Self::Abandon,
            wire::MoveStepKind::Recover => Self::Recover,
            // Not a step: it ends one.
            wire::MoveStepKind::Pause | wire::MoveStepKind::Unspecified => return None,
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
            Self::WayBack => wire::MoveStepKind::WayBack,
            Self::RollBack => wire::MoveStepKind::RollBack,
            Self::Finish => wire::MoveStepKind::Finish,
            Self::CleanUp => wire::MoveStepKind::CleanUp,
            Self::Abandon => wire::MoveStepKind::Abandon,
            Self::Undo => wire::MoveStepKind::Undo,
            Self::Recover => wire::MoveStepKind::Recover,
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
            Self::WayBack => "way back",
            Self::RollBack => "roll back",
            Self::Finish => "finish",
            Self::CleanUp => "clean up",
            Self::Abandon => "abandon",
            Self::Undo => "undo",
            Self::Recover => "recover",
        })
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
        assert_eq!(named.len(), Step::ALL.len());
    }
}
