//! The status as one JSON document. Its shape is stable: a field may be added,
//! none changes its meaning, and `schema` grows when one has to.

use serde::{Deserialize, Serialize};

use crate::collect::checks::{Checked, State};
use crate::hold::tenant::Figures;

pub use super::machine::{Database, Groups, Mount, Pressure, Standby};

/// The version of the document.
pub const SCHEMA: u32 = 1;

/// Everything that `webhost-agent status` shows. Times are RFC 3339, UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The agent's version.
    pub version: String,
    pub pid: u32,
    pub started_at: String,
    /// True when nothing is listed in `problems`.
    pub healthy: bool,
    /// What is degraded, in sentences.
    pub problems: Vec<String>,
    pub connection: Connection,
    /// Absent before enrolment.
    pub certificate: Option<Certificate>,
    /// The configured length of a round, in milliseconds.
    pub interval_ms: u32,
    /// When the last round ended; absent before the first.
    pub round_at: Option<String>,
    pub sources: Vec<Source>,
    pub host: Host,
    /// Where the machine runs, as its environment says; absent elsewhere.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// What the node serves, asked as a client would; absent where nothing is
    /// checked.
    #[serde(default)]
    pub health: Option<Health>,
    #[serde(default)]
    pub redis: Option<Redis>,
    /// The tenants' database server; absent where none is read.
    #[serde(default)]
    pub database: Option<Database>,
    /// Shared processes whose use is split.
    pub shared: Vec<Shared>,
    /// In order of their ids.
    pub tenants: Vec<Tenant>,
    pub spool: Spool,
    pub commands: Commands,
    pub moves: Vec<Move>,
    /// Tenants whose requests come through the hold point, by host name.
    #[serde(default)]
    pub hold: Vec<Figures>,
}

/// The link to the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// "connected", "connecting", "waiting", or "off".
    pub state: String,
    /// "host:port".
    pub coordinator: String,
    pub since: Option<String>,
    pub last_error: Option<String>,
    /// How far this clock was before the coordinator's when the session began,
    /// and by how much that may be wrong, in microseconds. Nothing is known of
    /// it before a session.
    #[serde(default)]
    pub clock: Option<(i64, u64)>,
}

/// The node's certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub node_id: String,
    pub node_name: String,
    pub not_after: String,
}

/// One source of the collectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// "host", "containers", "postgres", "app", "attribution", "slices",
    /// "access_log", "redis", "health".
    pub name: String,
    /// "ok", "degraded" or "off".
    pub state: String,
    /// Why it is not ok; empty when it is.
    pub message: String,
    /// Since its last good reading, in milliseconds.
    pub age_ms: Option<u64>,
}

/// The machine. Sizes in bytes, rates over the last round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub cpu_count: u32,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    pub load_1m_milli: u32,
    pub memory_total_bytes: u64,
    pub memory_used_bytes: u64,
    pub disk_total_bytes: u64,
    pub disk_used_bytes: u64,
    pub db_connections: u64,
    pub uptime_s: u64,
    /// Absent where the kernel doesn't measure it.
    #[serde(default)]
    pub pressure: Option<Pressure>,
    /// Of each disk one; the configured one first.
    #[serde(default)]
    pub mounts: Vec<Mount>,
}

/// A provider's machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// "flyio"
    pub provider: String,
    pub id: String,
    pub app: String,
    pub region: String,
    /// The tenant that all of it belongs to.
    pub tenant_id: Option<String>,
}

/// The checks of a dedicated node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The worst of the vital checks.
    pub overall: State,
    pub checks: Vec<Checked>,
}

/// Redis, and what was drawn of its keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Redis {
    pub used_memory_bytes: u64,
    /// 0 is no limit.
    pub max_memory_bytes: u64,
    pub clients: u64,
    /// Since the agent watches.
    pub commands: u64,
    pub evicted_keys: u64,
    pub keys: u64,
}

/// One shared process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    pub name: String,
    /// Split between tenants in the last round, thousandths of a core.
    pub cpu_milli: u64,
    /// Without work that would say whose it is.
    pub cpu_idle_milli: u64,
    pub memory_bytes: u64,
}

/// A figure, and whether it was read or split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// Read directly.
    pub measured: Option<u64>,
    /// Split from a shared whole by work.
    pub attributed: Option<u64>,
}

impl Figure {
    /// Both together; `None` when nothing is known.
    pub fn sum(self) -> Option<u64> {
        match (self.measured, self.attributed) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        }
    }
}

/// One tenant, over the last round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: String,
    pub slug: String,
    /// Thousandths of a core.
    pub cpu_milli: Figure,
    pub memory_bytes: Figure,
    pub storage_bytes: Figure,
    pub db_connections: Figure,
    pub client_connections: Option<u64>,
    pub vehicles: Option<u64>,
    /// Thousandths of a point, and of a call, per second.
    pub gps_points_per_s_milli: Figure,
    pub api_calls_per_s_milli: Option<u64>,
    /// Absent without a call in the round.
    pub mean_response_us: Option<u64>,
    /// Of nginx's log, over the last minute or two, an eighth too high at most;
    /// absent where none is read.
    #[serde(default)]
    pub p50_response_us: Option<u64>,
    #[serde(default)]
    pub p99_response_us: Option<u64>,
    /// Requests by country since the agent watches, where the log has them.
    #[serde(default)]
    pub countries: std::collections::BTreeMap<String, u64>,
    /// Of its own containers and control groups; absent without one.
    #[serde(default)]
    pub groups: Option<Groups>,
    /// Keys in Redis, an estimate, and two standard errors of it.
    #[serde(default)]
    pub redis_keys: Option<(u64, u64)>,
    /// The last rounds, the newest last.
    #[serde(default)]
    pub trend: Trend,
}

/// The last rounds of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trend {
    pub cpu_milli: Vec<u64>,
    pub memory_kib: Vec<u64>,
    pub gps_points_per_s_milli: Vec<u64>,
    pub db_connections: Vec<u64>,
}

/// Reports that wait for the coordinator's acknowledgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spool {
    pub reports: u64,
    /// What they take on the disk.
    #[serde(default)]
    pub bytes: u64,
    /// When the oldest of them was made; absent when none waits.
    #[serde(default)]
    pub oldest_at: Option<String>,
    /// Why they can't be written to the disk, or how many were lost.
    #[serde(default)]
    pub problem: Option<String>,
    pub last_acknowledged_at: Option<String>,
}

/// Commands of the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Commands {
    pub running: Vec<Command>,
    /// Newest first.
    pub recent: Vec<Command>,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub id: String,
    pub kind: String,
    pub since: String,
    /// Absent while it runs.
    pub outcome: Option<String>,
}

/// A move that this node has a part in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Move {
    pub id: String,
    pub tenant_id: String,
    /// "source" or "target".
    pub side: String,
    pub step: String,
    pub table: String,
    pub rows_done: u64,
    pub rows_total: u64,
    pub rows_per_second: u64,
    pub last_error: Option<String>,
}
