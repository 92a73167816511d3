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

/// What a node is charged with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Dimension by dimension.
    pub amounts: Amounts,
    /// Tenants that live there, are promised a place there, are moving in, or
    /// whose kept copy is still there.
    pub tenants: u32,
}

impl Load {
    /// The load of a node: what its tenants are known to take, or what the
    /// host as a whole was measured to take where that is more (strangers and
    /// the system itself count too), plus what is promised but not yet used.
    ///
    /// `living` and `promised` are one entry a tenant.
    pub fn of(
        host: Amounts,
        living: impl IntoIterator<Item = Amounts>,
        promised: impl IntoIterator<Item = Amounts>,
    ) -> Self {
        let mut tenants = 0_u32;
        let mut sum = |items: &mut dyn Iterator<Item = Amounts>| {
            items.inspect(|_| tenants = tenants.saturating_add(1)).sum::<Amounts>()
        };
        let living = sum(&mut living.into_iter());
        let promised = sum(&mut promised.into_iter());
        Self { amounts: host.max(living).plus(promised), tenants }
    }
}
