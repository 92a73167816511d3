//! What a plan is made of: every node, every tenant on a shared one, and the
//! time. A value: nothing else is read while planning.

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{NodeId, TenantId};

use super::need::{Figures, Need};
use super::node::NodeState;
use super::policy::Policy;
use crate::decide::plans::Region;

/// The fleet at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Hours since the Unix epoch.
    pub now_h: u32,
    /// Every node, in any order; a node's load includes its tenants.
    pub nodes: Vec<NodeState>,
    /// Every tenant on a shared node, in any order.
    pub tenants: Vec<Tenant>,
}

/// A tenant and where it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Which one.
    pub id: TenantId,
    /// Where it lives.
    pub node: NodeId,
    /// What it takes there, as it is part of the node's load.
    pub need: Need,
    /// Since when it lives there, in hours since the Unix epoch.
    pub since_h: u32,
    /// Where it lived before, if it was moved.
    pub left: Option<Left>,
    /// What holds for it and not for most.
    pub rules: Option<Box<Rules>>,
}

/// A node that a tenant left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Which one.
    pub node: NodeId,
    /// When, in hours since the Unix epoch.
    pub at_h: u32,
    /// What it took then at its peaks.
    pub took: Figures,
}

impl Left {
    /// Whether the tenant must not return yet: its time is not over, and no
    /// peak of what it takes has changed enough since.
    pub fn holds(&self, need: &Need, now_h: u32, policy: &Policy) -> bool {
        let same = need.peaks().iter().zip(self.took).all(|(now, then)| {
            let (now, then) = (u64::from(*now), u64::from(then));
            now.abs_diff(then) * 100 <= then * u64::from(policy.changed)
        });
        same && now_h.saturating_sub(self.at_h) < policy.residency_h
    }
}

/// Where a tenant may and may not live. All empty: anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// On this node and no other.
    pub pinned: Option<NodeId>,
    /// Best in one of these; anywhere when empty.
    pub near: Vec<Region>,
    /// In one of these by contract or law; anywhere when empty.
    pub only: Vec<Region>,
    /// Not on one node with another tenant that has one of these labels.
    pub apart: Vec<String>,
}

/// A snapshot that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A tenant's node is missing.
    #[error("tenant {tenant} lives on node {node}, which is not among the shared nodes")]
    UnknownNode {
        /// Which tenant.
        tenant: TenantId,
        /// Which node.
        node: NodeId,
    },
    /// Two of one id.
    #[error("{0} is there twice")]
    Twice(String),
}
