//! The columns of the history: what they are in, and how their values become
//! fewer. Pure.

use super::sample::Metric;

/// How values of one column become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Of a rate: the mean of those that are known, rounded up.
    Mean,
    /// Of a count.
    Sum,
    /// Of a level.
    Most,
}

/// One column of the history.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// As the API and the tables call it.
    pub name: &'static str,
    /// What it is in.
    pub unit: &'static str,
    /// Where it comes from.
    pub metric: Metric,
    /// How it is made coarser.
    pub fold: Fold,
    /// A minute's sum or maximum is divided by this, rounded up.
    pub(super) divisor: u64,
}

const fn column(
    name: &'static str,
    unit: &'static str,
    metric: Metric,
    fold: Fold,
    divisor: u64,
) -> Column {
    Column { name, unit, metric, fold, divisor }
}

/// How many columns there are.
pub const COLUMNS: usize = 10;
const MIB: u64 = 1 << 20;
/// The positions of the columns that have a profile.
pub const CPU: usize = 0;
/// Database connections.
pub const CONNECTIONS: usize = 7;
/// GPS points.
pub const GPS: usize = 1;
/// Requests.
pub const API_CALLS: usize = 2;

/// All columns, in the order of the tables'.
pub const ALL: [Column; COLUMNS] = [
    column("cpu", "thousandths of a core", Metric::CpuUs, Fold::Mean, 60_000),
    column("gps_points", "points", Metric::GpsPoints, Fold::Sum, 1),
    column("api_calls", "requests", Metric::ApiCalls, Fold::Sum, 1),
    column("api_errors", "requests", Metric::ApiErrors, Fold::Sum, 1),
    column(
        "request_time",
        "ms, of all requests together",
        Metric::RequestDurationUs,
        Fold::Sum,
        1000,
    ),
    column("memory", "MiB", Metric::MemoryBytes, Fold::Most, MIB),
    column("storage", "MiB", Metric::StorageBytes, Fold::Most, MIB),
    column("db_connections", "connections", Metric::DbConnections, Fold::Most, 1),
    column("client_connections", "connections", Metric::ClientConnections, Fold::Most, 1),
    column("vehicles", "vehicles", Metric::Vehicles, Fold::Most, 1),
];

/// A column by its name.
pub fn named(name: &str) -> Option<usize> {
    ALL.iter().position(|column| column.name == name)
}

/// One value a step; none where nothing was seen.
pub type Values = Vec<Option<i32>>;

/// Makes values coarser: each `step` of them become one.
pub fn coarser(values: &[Option<i32>], step: usize, fold: Fold) -> Values {
    values.chunks(step.max(1)).map(|part| one(part, fold)).collect()
}

fn one(part: &[Option<i32>], fold: Fold) -> Option<i32> {
    let known = || part.iter().flatten().map(|value| i64::from(*value));
    let count = i64::try_from(known().count()).unwrap_or(i64::MAX);
    let value = match fold {
        _ if count == 0 => return None,
        Fold::Sum => known().sum(),
        Fold::Mean => (known().sum::<i64>() + count - 1) / count,
        Fold::Most => known().max()?,
    };
    Some(i32::try_from(value).unwrap_or(i32::MAX))
}

/// The 95th percentile of what is known: the smallest value that 95 % (rounded
/// down) of the values don't exceed; of twelve the second highest.
pub fn p95(values: &[Option<i32>]) -> Option<i32> {
    let mut known: Vec<i32> = values.iter().flatten().copied().collect();
    known.sort_unstable();
    let rank = (known.len() * 95 / 100).max(1);
    known.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_made_coarser_in_its_own_way() {
        let values = [Some(1), Some(2), None, None, None, Some(i32::MAX)];
        assert_eq!(coarser(&values, 3, Fold::Sum), [Some(3), Some(i32::MAX)]);
        assert_eq!(coarser(&values, 3, Fold::Mean), [Some(2), Some(i32::MAX)]);
        assert_eq!(coarser(&values, 4, Fold::Most), [Some(2), Some(i32::MAX)]);
        assert_eq!(coarser(&values[2..4], 2, Fold::Sum), [None]);
    }

    #[test]
    fn the_95th_percentile_of_twelve_is_the_second_highest() {
        let twelve: Values = (1..=12).rev().map(Some).collect();
        assert_eq!(p95(&twelve), Some(11));
        assert_eq!(p95(&[Some(3), None, Some(4)]), Some(3));
        assert_eq!((p95(&[Some(3)]), p95(&[None])), (Some(3), None));
    }
}
