//! What a tenant takes through a day, and the sum of it that a node carries:
//! the two things that placement adds up and compares.
//!
//! CPU, connections and GPS points come and go with the hours, so they are 24
//! figures each (the P95 of that UTC hour, where it is known); memory, disk
//! and the slot itself do not. A node is as full as its fullest hour: two
//! tenants whose days don't coincide cost less than the sum of their peaks.
//!
//! The units are chosen so that a tenant is 152 bytes, and one addition on a
//! node is a handful of vector instructions: thousandths of a core, hundredths
//! of a connection and of a GPS point a second, MiB. What a tenant takes is
//! rounded up to them and what a node holds is rounded down, so rounding never
//! fills a node above its limit.

use serde::{Deserialize, Serialize};

use super::load::{Amounts, Dimension};

/// The hours of a day.
pub const HOURS: usize = 24;
/// How many dimensions are one figure an hour.
pub const HOURLY: usize = 3;
/// All dimensions.
pub const DIMENSIONS: usize = 6;

/// The row of [`Need::hourly`] that is CPU.
pub const CPU: usize = 0;
/// The row that is database connections.
pub const CONNECTIONS: usize = 1;
/// The row that is GPS points.
pub const GPS: usize = 2;

/// One for each hour of each row, then memory, disk, tenants: all that a node
/// can be full in.
pub const CELLS: usize = HOURLY * HOURS + 3;

/// The dimension of each row of [`Need::hourly`].
pub const HOURLY_DIMENSIONS: [Dimension; HOURLY] =
    [Dimension::Cpu, Dimension::DbConnections, Dimension::Gps];

const MIB: u64 = 1 << 20;

/// What one tenant takes. Every figure is 0 to the largest of its type; the
/// largest means "that much or more", and fits nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// By [`HOURLY_DIMENSIONS`] and UTC hour: thousandths of a core,
    /// hundredths of a database connection, hundredths of a GPS point a second.
    pub hourly: [[u16; HOURS]; HOURLY],
    /// MiB.
    pub memory: u32,
    /// MiB.
    pub disk: u32,
}

/// What a node carries, in the units of [`Need`]. Every figure is at most
/// [`Load::MOST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// As [`Need::hourly`].
    pub hourly: [[u32; HOURS]; HOURLY],
    /// MiB.
    pub memory: u32,
    /// MiB.
    pub disk: u32,
    /// Tenants that live there, are promised a place there, are moving in, or
    /// whose kept copy is still there.
    pub tenants: u32,
}

/// The position in [`Figures`] of each row of [`Need::hourly`].
pub const ROWS: [usize; HOURLY] = [0, 3, 4];

/// One figure a dimension, in the order of [`Dimension::ALL`] and the units of
/// [`Need`]: the peaks of a load, or what a node may be filled to.
pub type Figures = [u32; DIMENSIONS];

impl Need {
    /// The same all day. What is too large for the units is "that much or
    /// more".
    pub fn flat(amounts: &Amounts) -> Self {
        let [cpu, memory, disk, connections, gps] = in_units(amounts, u64::div_ceil);
        let hour = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        Self {
            hourly: [[hour(cpu); HOURS], [hour(connections); HOURS], [hour(gps); HOURS]],
            memory: u32::try_from(memory).unwrap_or(u32::MAX),
            disk: u32::try_from(disk).unwrap_or(u32::MAX),
        }
    }

    /// Sets one hour (0 to 23) of one hourly row from an amount in the units
    /// of [`Amounts`].
    pub fn set_hour(&mut self, row: usize, hour: usize, amount: u64) {
        let per_unit = if row == CPU { 1 } else { 10 };
        if let Some(value) = self.hourly.get_mut(row).and_then(|day| day.get_mut(hour)) {
            *value = u16::try_from(amount.div_ceil(per_unit)).unwrap_or(u16::MAX);
        }
    }

    /// A kept copy: nobody uses it, but its data and its slot are there.
    #[must_use]
    pub fn at_rest(&self) -> Self {
        Self { disk: self.disk, ..Self::default() }
    }

    /// The largest figure of each dimension; 1 tenant.
    pub fn peaks(&self) -> Figures {
        let [cpu, connections, gps] = self.hourly.each_ref().map(|day| u32::from(largest(day)));
        [cpu, self.memory, self.disk, connections, gps, 1]
    }

    /// The figure in a cell (0 to [`CELLS`]), and the position of its dimension.
    pub fn cell(&self, cell: usize) -> (u32, usize) {
        match cell.checked_sub(HOURLY * HOURS) {
            None => (u32::from(self.hourly[cell / HOURS][cell % HOURS]), ROWS[cell / HOURS]),
            Some(0) => (self.memory, 1),
            Some(1) => (self.disk, 2),
            Some(_) => (1, 5),
        }
    }

    /// The first dimension that the units can't express: such a tenant fits no
    /// node.
    pub fn beyond(&self) -> Option<Dimension> {
        let hourly = self.hourly.iter().position(|day| largest(day) == u16::MAX);
        let hourly = hourly.and_then(|row| HOURLY_DIMENSIONS.get(row));
        match hourly {
            Some(dimension) => Some(*dimension),
            None if self.memory == u32::MAX => Some(Dimension::Memory),
            None if self.disk == u32::MAX => Some(Dimension::Disk),
            None => None,
        }
    }
}

impl Load {
    /// No figure is larger, so that sums of two fit signed 32 bits, which is
    /// what the processor compares fastest.
    pub const MOST: u32 = 1 << 29;

    /// The same all day, and no tenants: what a host takes by itself.
    pub fn flat(amounts: &Amounts) -> Self {
        let [cpu, memory, disk, connections, gps] = in_units(amounts, u64::div_ceil).map(clamp);
        Self {
            hourly: [[cpu; HOURS], [connections; HOURS], [gps; HOURS]],
            memory,
            disk,
            tenants: 0,
        }
    }

    /// The load of a node: what its tenants are known to take, or what the
    /// host as a whole was measured to take where that is more (strangers and
    /// the system itself count too), plus what is promised but not yet used.
    ///
    /// `living` and `promised` are one entry a tenant.
    pub fn of(
        host: &Amounts,
        living: impl IntoIterator<Item = Need>,
        promised: impl IntoIterator<Item = Need>,
    ) -> Self {
        let mut load = Self::default();
        for need in living {
            load.add(&need);
        }
        let host = Self::flat(host);
        for (day, host) in load.hourly.iter_mut().zip(&host.hourly) {
            for (hour, host) in day.iter_mut().zip(host) {
                *hour = (*hour).max(*host);
            }
        }
        load.memory = load.memory.max(host.memory);
        load.disk = load.disk.max(host.disk);
        for need in promised {
            load.add(&need);
        }
        load
    }

    /// One tenant more.
    pub fn add(&mut self, need: &Need) {
        for (day, more) in self.hourly.iter_mut().zip(&need.hourly) {
            for (hour, more) in day.iter_mut().zip(more) {
                *hour = (*hour + u32::from(*more)).min(Self::MOST);
            }
        }
        self.memory = clamp(u64::from(self.memory) + u64::from(need.memory));
        self.disk = clamp(u64::from(self.disk) + u64::from(need.disk));
        self.tenants += 1;
    }

    /// One tenant less. What was never added leaves nothing below zero.
    pub fn remove(&mut self, need: &Need) {
        for (day, less) in self.hourly.iter_mut().zip(&need.hourly) {
            for (hour, less) in day.iter_mut().zip(less) {
                *hour = hour.saturating_sub(u32::from(*less));
            }
        }
        self.memory = self.memory.saturating_sub(need.memory);
        self.disk = self.disk.saturating_sub(need.disk);
        self.tenants = self.tenants.saturating_sub(1);
    }

    /// The figure in a cell (0 to [`CELLS`]), and the position of its dimension.
    pub fn cell(&self, cell: usize) -> (u32, usize) {
        match cell.checked_sub(HOURLY * HOURS) {
            None => (self.hourly[cell / HOURS][cell % HOURS], ROWS[cell / HOURS]),
            Some(0) => (self.memory, 1),
            Some(1) => (self.disk, 2),
            Some(_) => (self.tenants, 5),
        }
    }

    /// The fullest hour of each dimension.
    pub fn peaks(&self) -> Figures {
        let mut hourly = [0_u32; HOURLY];
        for (peak, day) in hourly.iter_mut().zip(&self.hourly) {
            for hour in day {
                *peak = larger(*peak, *hour);
            }
        }
        let [cpu, connections, gps] = hourly;
        [cpu, self.memory, self.disk, connections, gps, self.tenants]
    }

    /// The fullest hour of each dimension with one tenant more.
    pub fn peaks_with(&self, need: &Need) -> Figures {
        let mut hourly = [0_u32; HOURLY];
        for ((peak, day), more) in hourly.iter_mut().zip(&self.hourly).zip(&need.hourly) {
            for (hour, more) in day.iter().zip(more) {
                *peak = larger(*peak, hour + u32::from(*more));
            }
        }
        let [cpu, connections, gps] = hourly;
        let memory = self.memory.saturating_add(need.memory);
        let disk = self.disk.saturating_add(need.disk);
        [cpu, memory, disk, connections, gps, self.tenants + 1]
    }
}

/// A day in eights of hours: a loop over all 24 is unrolled by the compiler
/// before it thinks of vectors.
pub fn eights<T>(day: &[T]) -> &[[T; 8]] {
    day.as_chunks().0
}

/// The largest of a day.
pub fn largest(day: &[u16; HOURS]) -> u16 {
    let mut most = [0; 8];
    for hours in eights(day) {
        for (most, hour) in most.iter_mut().zip(hours) {
            *most = (*hour).max(*most);
        }
    }
    most.into_iter().max().unwrap_or(0)
}

/// The larger of two figures, compared as the processor does it best.
fn larger(a: u32, b: u32) -> u32 {
    a.cast_signed().max(b.cast_signed()).cast_unsigned()
}

/// The smaller of two figures, in the same way.
pub fn smaller(a: u32, b: u32) -> u32 {
    a.cast_signed().min(b.cast_signed()).cast_unsigned()
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(Load::MOST).min(Load::MOST)
}

/// CPU, memory, disk, connections and GPS points in the units of [`Need`].
fn in_units(amounts: &Amounts, divide: fn(u64, u64) -> u64) -> [u64; 5] {
    let [cpu, memory, disk, connections, gps] = amounts.to_array();
    [cpu, divide(memory, MIB), divide(disk, MIB), divide(connections, 10), divide(gps, 10)]
}

/// What a node of that capacity may be filled to: `percent` (0 to 100) of each
/// dimension, rounded down, and all of its slots.
pub fn allowed(capacity: &Amounts, max_tenants: u32, percent: u32) -> Figures {
    let part = |value: u64| {
        clamp((value / 100) * u64::from(percent) + value % 100 * u64::from(percent) / 100)
    };
    let [cpu, memory, disk, connections, gps] =
        in_units(capacity, |value, unit| value / unit).map(part);
    [cpu, memory, disk, connections, gps, max_tenants.min(Load::MOST)]
}
