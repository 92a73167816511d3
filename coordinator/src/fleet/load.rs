//! Amounts of what a machine has and a tenant takes, in whole numbers.

use std::fmt;

use serde::{Deserialize, Serialize};
use webhost_proto::units::{Bytes, MilliCpu};

macro_rules! thousandths {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);
    };
}

thousandths!(
    /// Thousandths of a database connection.
    MilliConnections
);
thousandths!(
    /// GPS points per thousand seconds.
    MilliPoints
);

/// One figure for each dimension that can run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// CPU, in thousandths of a core.
    pub cpu: MilliCpu,
    /// Memory, in bytes.
    pub memory: Bytes,
    /// Disk, in bytes.
    pub disk: Bytes,
    /// Database connections, in thousandths.
    pub db_connections: MilliConnections,
    /// GPS points per thousand seconds.
    pub gps: MilliPoints,
}

/// What can run out on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Cores.
    Cpu,
    /// Memory.
    Memory,
    /// Disk.
    Disk,
    /// Database connections.
    DbConnections,
    /// GPS points a second.
    Gps,
    /// The number of tenants.
    Tenants,
}

impl Dimension {
    /// All of them, in the order of [`super::need::Figures`].
    pub const ALL: [Self; 6] =
        [Self::Cpu, Self::Memory, Self::Disk, Self::DbConnections, Self::Gps, Self::Tenants];

    /// A figure in the units of [`super::need::Need`], for a person: "1.25
    /// cores", "811 MiB".
    pub fn show(self, figure: u32) -> String {
        let hundredths = |unit: &str| format!("{}.{:02} {unit}", figure / 100, figure % 100);
        match self {
            Self::Cpu => format!("{}.{:03} cores", figure / 1000, figure % 1000),
            Self::Memory | Self::Disk => format!("{figure} MiB"),
            Self::DbConnections => hundredths("connections"),
            Self::Gps => hundredths("points/s"),
            Self::Tenants => format!("{figure} slots"),
        }
    }

    /// The name in JSON and the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::DbConnections => "db_connections",
            Self::Gps => "gps",
            Self::Tenants => "tenants",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Amounts {
    /// The dimensions in the order of [`Amounts::to_array`].
    pub const DIMENSIONS: [Dimension; 5] = [
        Dimension::Cpu,
        Dimension::Memory,
        Dimension::Disk,
        Dimension::DbConnections,
        Dimension::Gps,
    ];

    /// The figures in the order of [`Amounts::DIMENSIONS`].
    pub const fn to_array(self) -> [u64; 5] {
        [self.cpu.0, self.memory.0, self.disk.0, self.db_connections.0, self.gps.0]
    }

    const fn from_array([cpu, memory, disk, connections, gps]: [u64; 5]) -> Self {
        Self {
            cpu: MilliCpu(cpu),
            memory: Bytes(memory),
            disk: Bytes(disk),
            db_connections: MilliConnections(connections),
            gps: MilliPoints(gps),
        }
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let (a, b) = (self.to_array(), other.to_array());
        Self::from_array(std::array::from_fn(|d| f(a[d], b[d])))
    }

    /// The sum, dimension by dimension; saturates.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// The larger figure of each dimension.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    /// The smaller figure of each dimension.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        self.zip(other, u64::min)
    }
}

impl std::iter::Sum for Amounts {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Self::plus)
    }
}
