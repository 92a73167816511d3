//! The agent's configuration: a TOML file, then the environment.
//!
//! Unknown keys are refused with file, line and key: a typing mistake in a
//! configuration must never be a silent default. [`Config::load`] reads the
//! file, lets the environment override it, and checks the whole at once, so
//! that an operator sees every problem of a file in one run.

mod check;
mod environment;
mod load;
mod secret;
mod sources;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use webhost_proto::ids::NodeId;

pub use load::{ConfigError, DEFAULT_PATH, Problem};
pub use secret::SecretUrl;
pub use sources::{AccessLog, Check, Health, Machine, Redis, Slices};

use crate::link::spool::DEFAULT_BYTES;
use crate::mover::catalog::{Mixed, Rules};
use crate::mover::hypertable::Hypertables;

/// Everything `webhost-agent run` reads.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Identity, journal, spool and the durable state of moves live here.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// The local socket of `webhost-agent status`.
    #[serde(default = "default_status_socket")]
    pub status_socket: PathBuf,
    /// How often sources are read, unless the coordinator says otherwise.
    #[serde(default = "default_interval_ms")]
    pub interval_ms: u32,
    /// What reports that wait for the coordinator may take on the disk, in
    /// MiB.
    #[serde(default = "default_spool_mib")]
    pub spool_mib: u32,
    /// May be missing in the file, when the environment has it.
    #[serde(default)]
    pub coordinator: Coordinator,
    #[serde(default)]
    pub host: Host,
    #[serde(default)]
    pub containers: Containers,
    pub postgres: Option<Postgres>,
    pub app: Option<App>,
    #[serde(default)]
    pub attribution: Attribution,
    pub tunnel: Option<Tunnel>,
    pub hold: Option<Hold>,
    pub nginx: Option<Nginx>,
    #[serde(default)]
    pub moves: Moves,
    pub access_log: Option<AccessLog>,
    pub slices: Option<Slices>,
    pub redis: Option<Redis>,
    pub health: Option<Health>,
    #[serde(default)]
    pub machine: Machine,
}

/// Where the coordinator is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Coordinator {
    /// "host:port" of the link.
    pub address: String,
    /// "host:port" of enrolment; the link's host with the next port when
    /// absent.
    pub enrolment_address: Option<String>,
}

/// The machine itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// A path on the file system that holds the tenants' data; its size is
    /// the node's disk.
    pub disk: PathBuf,
    /// The CPU that this node offers to the fleet, in thousandths of a core,
    /// instead of all that it has: less where something else lives here, more
    /// where CPU is promised twice on purpose.
    pub cpu_millicores: Option<NonZeroU64>,
}

impl Default for Host {
    fn default() -> Self {
        Self { disk: "/".into(), cpu_millicores: None }
    }
}

/// Containers that belong to one tenant each.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Containers {
    pub enabled: bool,
    /// The Docker (or Podman) API, used for discovery only.
    pub socket: PathBuf,
    /// The label that carries the tenant's id.
    pub label: String,
    /// Where the cgroup hierarchies are mounted.
    pub cgroup_root: PathBuf,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: "/var/run/docker.sock".into(),
            label: "webhost.customer_id".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
        }
    }
}

/// The tenants' database on this node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// A libpq connection string or URL. A password belongs in a file named
    /// by `password_file`, or the role uses peer authentication.
    pub url: SecretUrl,
    pub password_file: Option<PathBuf>,
    /// How often tables are looked through for counts and sizes.
    #[serde(default = "default_survey_s")]
    pub survey_interval_s: u32,
    /// The time series of GPS points, for nodes without the application's
    /// metrics; found by its columns when absent.
    pub points_table: Option<String>,
}

impl Config {
    /// Where the status socket is when no configuration can be read.
    pub fn default_status_socket() -> PathBuf {
        default_status_socket()
    }
}

impl Postgres {
    /// A section with defaults, as the seeds' variables make it.
    pub(crate) fn at(url: SecretUrl) -> Self {
        Self { url, password_file: None, survey_interval_s: default_survey_s(), points_table: None }
    }
}

/// The WebHost application beside the agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its Prometheus page.
    pub metrics_url: String,
    /// The label that carries the tenant's id.
    #[serde(default = "default_app_label")]
    pub label: String,
    /// Which series means which metric; keys are metric names of ours.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
}

impl App {
    /// A section with defaults.
    pub(crate) fn at(metrics_url: String) -> Self {
        Self { metrics_url, label: default_app_label(), names: BTreeMap::new() }
    }
}

/// The processes that all tenants share, whose CPU and memory are split.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attribution {
    pub shared: Vec<SharedProcess>,
}

/// One shared process, found by exactly one of the fields.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SharedProcess {
    /// How the status and the logs call it: "webhost", "postgres".
    pub name: String,
    /// By what its use is split: "app" (request time), "database" (rows and
    /// connections).
    pub split_by: SplitBy,
    /// A cgroup below the root, "/system.slice/postgresql.service".
    pub cgroup: Option<String>,
    /// A pid file; the process and its children are counted.
    pub pid_file: Option<PathBuf>,
    /// A container's name.
    pub container: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Request time, as the application's metrics give it.
    App,
    /// Rows written and connections, as PostgreSQL gives them.
    Database,
}

/// Where other nodes' movers reach this node's database.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    pub listen: SocketAddr,
    /// What other agents dial; `listen` when absent.
    pub advertise: Option<String>,
}

/// The proxy that holds a tenant's requests during the moment of its switch,
/// and forwards them afterwards.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hold {
    /// On loopback: nginx and this node's tunnel lead there.
    pub listen: SocketAddr,
    /// The application of this node.
    pub application: SocketAddr,
    /// nginx sends every request here, so that nothing has to be told to it.
    pub always: bool,
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7404)),
            application: SocketAddr::from(([127, 0, 0, 1], 4000)),
            always: false,
            max_connections: 2_048,
        }
    }
}

/// How nginx is told which host names go through the hold point.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nginx {
    /// Where the map's entries and their number are written.
    pub dir: PathBuf,
    /// Where the reloading unit writes its verdict.
    pub verdict: PathBuf,
    /// nginx's `worker_shutdown_timeout`: nothing is switched before the
    /// connections of its old workers have ended.
    pub worker_shutdown_s: u64,
}

impl Default for Nginx {
    fn default() -> Self {
        Self {
            dir: "/var/lib/webhost-agent/routes".into(),
            verdict: "/run/webhost-nginx-reload/verdict.json".into(),
            worker_shutdown_s: 30,
        }
    }
}

/// What this node allows a move to do; the coordinator can't widen it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Moves {
    pub enabled: bool,
    /// Rows per second that a copy may reach; 0 is unlimited.
    pub max_rows_per_second: u64,
    /// Streams of a copy, at most 4; 0 is as many as help: half of the cores.
    pub copy_streams: u32,
    /// Seconds between two exact comparisons of both sides while a way back is
    /// open, 60 to 86,400. Each reads all of the tenant's rows on both.
    pub way_back_verify_s: u32,
    /// Tables that are never moved (job queues, caches).
    pub ignore_tables: Vec<String>,
    /// Tables without tenant rows that the tenant's rows point to.
    pub reference_tables: Vec<String>,
    /// By which foreign key rows of a table belong to a tenant, where the
    /// catalog leaves a choice: table to column, or to the constraint.
    pub through: BTreeMap<String, String>,
    /// The time of a row, by which a downgrade cuts: table to column.
    pub time_columns: BTreeMap<String, String>,
    /// The application's lists of its migrations, equal on both sides.
    pub migrations_tables: Vec<String>,
    /// What is done about statements that write several tenants' rows at once.
    pub mixed_statements: Mixed,
    /// For how long they are looked for when the guards go in; 0 never.
    pub watch_statements_ms: u64,
    /// Whether tables that TimescaleDB cuts into chunks move: "verified", "any"
    /// or "refuse".
    pub hypertables: Hypertables,
    /// Databases of other nodes, by node id, that this one reaches without
    /// their agents: so that it can settle a switch whose source's agent is
    /// gone. Without TLS: a forwarded socket or a private network.
    pub sources: BTreeMap<NodeId, SourceDatabase>,
}

/// The tenants' database of another node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceDatabase {
    /// As `postgres.url`: the same role, the other node's database.
    pub url: SecretUrl,
    pub password_file: Option<PathBuf>,
}

impl Moves {
    /// What the mover is told about tables.
    pub fn rules(&self) -> Rules {
        Rules {
            ignore: self.ignore_tables.clone(),
            reference: self.reference_tables.clone(),
            through: self.through.clone(),
            time_columns: self.time_columns.clone(),
            migrations: self.migrations_tables.clone(),
            mixed_statements: self.mixed_statements,
            watch_statements_ms: self.watch_statements_ms,
            hypertables: self.hypertables,
        }
    }
}

impl Default for Moves {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            enabled: true,
            max_rows_per_second: 0,
            copy_streams: 0,
            way_back_verify_s: 3600,
            sources: BTreeMap::new(),
            ignore_tables: rules.ignore,
            reference_tables: rules.reference,
            through: rules.through,
            time_columns: rules.time_columns,
            migrations_tables: rules.migrations,
            mixed_statements: rules.mixed_statements,
            watch_statements_ms: 3_000,
            hypertables: rules.hypertables,
        }
    }
}

fn default_state_dir() -> PathBuf {
    "/var/lib/webhost-agent".into()
}
fn default_status_socket() -> PathBuf {
    "/run/webhost-agent/status.sock".into()
}
fn default_interval_ms() -> u32 {
    5_000
}
fn default_spool_mib() -> u32 {
    u32::try_from(DEFAULT_BYTES / (1024 * 1024)).unwrap_or(u32::MAX)
}
fn default_survey_s() -> u32 {
    300
}
fn default_app_label() -> String {
    "customer_id".into()
}
