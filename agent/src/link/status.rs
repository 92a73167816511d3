//! What the status command shows of the link.

use serde::Serialize;
use webhost_proto::ids::{NodeId, TenantId};

/// Whether the coordinator hears this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Waiting before the next attempt.
    Waiting,
    /// Dialling, or waiting for the Welcome.
    Connecting,
    /// The coordinator has answered the Hello.
    Connected,
}

/// The link as it is now. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkStatus {
    /// Whether there is a session.
    pub state: LinkState,
    /// Since when.
    pub since_us: i64,
    /// The coordinator, "host:port".
    pub address: String,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// When its certificate expires: seconds since the Unix epoch.
    pub certificate_not_after_s: i64,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
    /// Sessions since the agent started.
    pub sessions: u64,
    /// Reports that wait for their acknowledgement.
    pub spooled: usize,
    /// What the spool takes on the disk.
    pub spool_bytes: u64,
    /// When the oldest of them was made.
    pub spool_oldest_us: Option<i64>,
    /// Why reports can't be written to the disk, or how many were lost.
    pub spool_problem: Option<String>,
    /// When the last one was acknowledged.
    pub last_ack_us: Option<i64>,
    /// This clock against the coordinator's, at the beginning of the last
    /// session.
    #[serde(skip)]
    pub clock: Option<webhost_proto::wire::Clock>,
}

/// What the coordinator asks of this agent. Kept while the link is down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Orders {
    /// How often to report; none until the first Welcome.
    pub report_interval_ms: Option<u32>,
    /// The tenants that the coordinator expects on this node.
    pub expected: Vec<(TenantId, String)>,
}
