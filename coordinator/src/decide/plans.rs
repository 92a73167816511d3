//! The catalogue: plans, machines, costs, thresholds and regions, all of them
//! configuration with the seeds' figures as defaults.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhost_proto::units::{Bytes, MilliCpu};

use super::amount::{BasisPoints, Cents, Hundredths};
use crate::fleet::load::{Amounts, MilliConnections, MilliPoints};

pub use super::plans_validate::CatalogError;

/// How a tenant is housed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// On a shared server, with others.
    MultiTenant,
    /// On machines of its own.
    SingleTenant,
}

impl Mode {
    /// The name in JSON, SQL and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MultiTenant => "multi_tenant",
            Self::SingleTenant => "single_tenant",
        }
    }

    /// Who provides the machines of this mode.
    pub const fn infrastructure(self) -> Infrastructure {
        match self {
            Self::MultiTenant => Infrastructure::Hetzner,
            Self::SingleTenant => Infrastructure::Flyio,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mode; write multi_tenant or single_tenant")]
pub struct ModeError(pub String);

impl std::str::FromStr for Mode {
    type Err = ModeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "multi_tenant" => Ok(Self::MultiTenant),
            "single_tenant" => Ok(Self::SingleTenant),
            other => Err(ModeError(other.to_owned())),
        }
    }
}

/// Who provides the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Infrastructure {
    /// Shared dedicated servers.
    Hetzner,
    /// Machines per tenant.
    Flyio,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        #[schema(value_type = String)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

name!(
    /// A plan's name, "hobby".
    PlanName
);
name!(
    /// A place, by its Fly.io code: "iad".
    Region
);

/// How a plan's PostgreSQL is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PostgresKind {
    /// One database server for all tenants of a node.
    Shared,
    /// One instance of the tenant's own.
    Single,
    /// A primary and one replica.
    PrimaryAndReplica,
    /// A cluster over several regions.
    MultiRegionCluster,
}

/// What a customer buys. Limits are per tenant, except that a shared plan's
/// `users`, `gps_points_per_second` and `queries_per_second` are what the whole
/// server has; a tenant that wants more than the whole server never fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Unique in the catalogue.
    pub name: PlanName,
    /// Dollars a month.
    pub price: Cents,
    /// Where its tenants live.
    pub mode: Mode,
    /// Most vehicles.
    pub vehicles: u32,
    /// Most GPS points a UTC day.
    pub gps_points_per_day: u64,
    /// Days that GPS points are kept.
    pub retention_days: u32,
    /// Where its machines stand by default; their number is the most regions.
    pub regions: Vec<Region>,
    /// The machine: a shape of the catalogue.
    pub shape: String,
    /// Disk for the tenant's data, in GB (10^9 bytes).
    pub volume_gb: u32,
    /// Its database.
    pub postgres: PostgresKind,
    /// The response time that 95 % of requests stay below, in milliseconds.
    pub p95_ms: u32,
    /// Most GPS points a second.
    pub gps_points_per_second: u32,
    /// Most concurrent users.
    pub users: u32,
    /// Most database queries a second.
    pub queries_per_second: u32,
    /// What one tenant costs us a month, in dollars. None for shared plans:
    /// there the server's month is divided by the tenants on it.
    #[serde(default)]
    pub cost: Option<Cents>,
}

impl Plan {
    /// What the plan's volume holds, in MB.
    pub fn storage_mb(&self) -> u64 {
        u64::from(self.volume_gb) * 1000
    }
}

/// Whether a machine carries many tenants or one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Many tenants.
    Shared,
    /// One tenant.
    Dedicated,
}

impl NodeKind {
    /// The name in JSON, SQL and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Dedicated => "dedicated",
        }
    }
}

/// A kind of machine and what it holds when all is well. MB and GB are 10^6
/// and 10^9 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeShape {
    /// Unique in the catalogue; nodes name it when they join.
    pub name: String,
    /// Shared or dedicated.
    pub kind: NodeKind,
    /// Thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory.
    pub memory_mb: u64,
    /// Disk.
    pub disk_gb: u64,
    /// Database connections.
    pub db_connections: u64,
    /// GPS points a second.
    pub gps_points_per_second: u64,
    /// Most tenants (`max_customers_per_server`); 1 for dedicated machines.
    pub max_tenants: u32,
}

impl NodeShape {
    /// The shape in the units that placement counts in.
    pub fn capacity(&self) -> Amounts {
        Amounts {
            cpu: MilliCpu(self.cpu_millicores),
            memory: Bytes(self.memory_mb.saturating_mul(1_000_000)),
            disk: Bytes(self.disk_gb.saturating_mul(1_000_000_000)),
            db_connections: MilliConnections(self.db_connections.saturating_mul(1000)),
            gps: MilliPoints(self.gps_points_per_second.saturating_mul(1000)),
        }
    }
}

/// What a tenant takes of a shared server until it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Averages {
    /// Thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory.
    pub memory_mb: u64,
    /// Disk.
    pub disk_mb: u64,
    /// Thousandths of a database connection.
    pub db_connections_milli: u64,
    /// GPS points per thousand seconds.
    pub gps_points_per_kilosecond: u64,
}

impl Averages {
    /// The averages in the units that placement counts in.
    pub fn amounts(&self) -> Amounts {
        Amounts {
            cpu: MilliCpu(self.cpu_millicores),
            memory: Bytes(self.memory_mb.saturating_mul(1_000_000)),
            disk: Bytes(self.disk_mb.saturating_mul(1_000_000)),
            db_connections: MilliConnections(self.db_connections_milli),
            gps: MilliPoints(self.gps_points_per_kilosecond),
        }
    }
}

/// One line of a shared server's month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CostItem {
    /// What is paid for.
    pub name: String,
    /// Euros a month.
    pub euros: Cents,
}

/// What things cost us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Costs {
    /// Dollars for one euro.
    pub dollars_per_euro: BasisPoints,
    /// A shared server's month, line by line.
    pub shared_server: Vec<CostItem>,
}

/// The limits at which something happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// A shared node is never filled above this share of its capacity.
    pub place_limit: Hundredths,
    /// Above this share a shared node must be relieved.
    pub act_limit: Hundredths,
    /// Relieving stops at this share.
    pub relieve_to: Hundredths,
    /// A score above this chooses its mode at once.
    pub choose_score: Hundredths,
    /// A change of mode is proposed above this confidence.
    pub migrate_confidence: Hundredths,
    /// With a performance or compliance issue, approved above this confidence.
    pub approve_confidence_with_issue: Hundredths,
    /// Without one, approved above this confidence…
    pub approve_confidence_settled: Hundredths,
    /// …after more days than this in the mode.
    pub settled_days: u32,
    /// A mean response above this many milliseconds is a performance issue.
    pub slow_response_ms: u32,
    /// An error rate above this is a performance issue.
    pub error_rate: BasisPoints,
    /// A machine's CPU above this is a performance issue of those who cause it.
    pub node_cpu: BasisPoints,
    /// Above this utilisation of its plan a tenant is advised upwards.
    pub auto_upgrade_threshold: Hundredths,
    /// Below this one, downwards.
    pub downgrade_threshold: Hundredths,
    /// So many days may a tenant's oldest GPS point be older than its plan
    /// retains: old points go a chunk of the table at a time.
    pub retention_grace_days: u32,
}

/// All that the engine is configured with. `Default` is the seeds' figures;
/// a catalogue that was read must pass [`Catalog::validate`] once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalog {
    /// From the smallest to the largest.
    pub plans: Vec<Plan>,
    /// Kinds of machines.
    pub shapes: Vec<NodeShape>,
    /// What an unmeasured tenant takes.
    pub averages: Averages,
    /// What things cost.
    pub costs: Costs,
    /// When something happens.
    pub thresholds: Thresholds,
    /// Names that customers use for places: "US" is "iad".
    pub regions: BTreeMap<String, Region>,
    /// The places that exist.
    pub places: Vec<Region>,
}

impl Catalog {
    /// The plan of that name.
    pub fn plan(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.name.as_str() == name)
    }

    /// How far up the catalogue a plan stands; larger is more.
    pub fn rank(&self, name: &PlanName) -> Option<usize> {
        self.plans.iter().position(|plan| &plan.name == name)
    }

    /// The shape of that name.
    pub fn shape(&self, name: &str) -> Option<&NodeShape> {
        self.shapes.iter().find(|shape| shape.name == name)
    }

    /// The plans of one mode, smallest first.
    pub fn plans_of(&self, mode: Mode) -> impl DoubleEndedIterator<Item = &Plan> {
        self.plans.iter().filter(move |plan| plan.mode == mode)
    }

    /// The place that a customer's word for it means, in any case of letters.
    pub fn region(&self, name: &str) -> Option<Region> {
        let named = self.regions.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
        let place = || self.places.iter().find(|place| place.0.eq_ignore_ascii_case(name));
        named.map(|(_, place)| place).or_else(place).cloned()
    }
}
