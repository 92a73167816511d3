//! A node as placement sees it.

use serde::{Deserialize, Serialize};
use webhost_proto::ids::NodeId;
use webhost_proto::units::{Bytes, MilliCpu};

use super::load::{Amounts, MilliConnections};
use super::need::{Figures, Load, allowed};
use crate::decide::plans::{NodeKind, NodeShape, Region};

/// Whether a node may be given tenants: the states of the `nodes` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Enrolled, not yet seen.
    Joining,
    /// In use.
    Active,
    /// Being emptied.
    Draining,
    /// No longer trusted.
    Revoked,
}

/// What the agent measured; a dimension that was not is limited by the shape
/// alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Thousandths of a core.
    pub cpu: Option<MilliCpu>,
    /// Memory in bytes.
    pub memory: Option<Bytes>,
    /// Disk in bytes.
    pub disk: Option<Bytes>,
    /// Whole database connections.
    pub db_connections: Option<u64>,
}

/// One node of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Which one.
    pub id: NodeId,
    /// Shared or dedicated.
    pub kind: NodeKind,
    /// Only active nodes are chosen.
    pub standing: Standing,
    /// False when its agent has been silent too long.
    pub seen: bool,
    /// Where it stands.
    pub region: Region,
    /// What it holds by configuration.
    pub shape: Amounts,
    /// Most tenants by configuration.
    pub max_tenants: u32,
    /// What its agent measured.
    pub measured: Measured,
    /// What it is charged with.
    pub load: Load,
}

impl NodeState {
    /// An empty, active node of that shape, to fill in from there.
    pub fn new(id: NodeId, shape: &NodeShape, region: Region) -> Self {
        Self {
            id,
            kind: shape.kind,
            standing: Standing::Active,
            seen: true,
            region,
            shape: shape.capacity(),
            max_tenants: shape.max_tenants,
            measured: Measured::default(),
            load: Load::default(),
        }
    }

    /// What it may be filled to: `percent` of what it holds, and all of its
    /// slots.
    pub fn allowed(&self, percent: u32) -> Figures {
        allowed(&self.capacity(), self.max_tenants, percent)
    }

    /// Whether it may be given tenants at all.
    pub fn is_open(&self) -> bool {
        self.standing == Standing::Active && self.seen
    }

    /// What it holds: per dimension the smaller of shape and measurement.
    pub fn capacity(&self) -> Amounts {
        let Measured { cpu, memory, disk, db_connections } = self.measured;
        let connections = db_connections.map(|n| MilliConnections(n.saturating_mul(1000)));
        let measured = Amounts {
            cpu: cpu.unwrap_or(self.shape.cpu),
            memory: memory.unwrap_or(self.shape.memory),
            disk: disk.unwrap_or(self.shape.disk),
            db_connections: connections.unwrap_or(self.shape.db_connections),
            gps: self.shape.gps,
        };
        self.shape.min(measured)
    }
}
