//! What changes slowly and costs more to find: storage and vehicles.
//!
//! A table's size (with its indexes and out-of-line values) is split by the
//! tenants' shares of its rows. The shares of a small table are counted; those
//! of a large one come from the statistics that ANALYZE keeps of
//! `customer_id`, because counting would read the whole time series. Shares
//! of rows stand for shares of bytes: the storage is `attributed`, except on a
//! node with a single tenant, where everything is that tenant's.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::catalog::{Catalog, Table, quote, unsigned};
use super::session::describe;
use crate::collect::split::split;

/// Up to here a table is counted.
const COUNTED_BYTES: u64 = 16 * 1024 * 1024;

/// Vehicles are counted in larger tables too: they decide about a plan.
const COUNTED_VEHICLES_BYTES: u64 = 128 * 1024 * 1024;

/// Frequencies are floats below 1; as weights they are whole billionths.
const FREQUENCY_UNIT: f64 = 1e9;

/// The result of one look through the tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    pub(super) storage: BTreeMap<TenantId, u64>,
    /// `None` when the database has no table of vehicles.
    pub(super) vehicles: Option<BTreeMap<TenantId, u64>>,
    /// What could not be attributed, in words.
    pub(super) notes: Vec<String>,
}

/// How many rows each tenant has in one table.
enum Shares {
    Counted(BTreeMap<TenantId, u64>),
    /// Weights, and the rows that the table is estimated to have.
    Estimated(BTreeMap<TenantId, u64>, u64),
}

impl Survey {
    /// Looks through the tables. A table that refuses is noted and left out.
    ///
    /// # Errors
    /// A sentence, when the connection itself fails.
    pub(super) async fn take(
        client: &Client,
        catalog: &Catalog,
        tenants: &[TenantId],
    ) -> Result<Self, String> {
        let mut survey = Self::default();
        for table in &catalog.tables {
            let vehicles = table.name == "vehicles";
            let shares = match Self::shares(client, table, tenants, vehicles).await {
                Ok(Some(shares)) => shares,
                Ok(None) => {
                    survey.notes.push(format!(
                        "{}.{} has no statistics yet, its {} bytes are not attributed (run ANALYZE)",
                        table.schema, table.name, table.bytes
                    ));
                    continue;
                }
                Err(error) if client.is_closed() => return Err(error),
                Err(error) => {
                    survey.notes.push(format!("{}.{}: {error}", table.schema, table.name));
                    continue;
                }
            };
            let (weights, rows) = match &shares {
                Shares::Counted(counts) => (counts, None),
                Shares::Estimated(weights, rows) => (weights, Some(*rows)),
            };
            let list: Vec<u64> = weights.values().copied().collect();
            for (tenant, bytes) in weights.keys().zip(split(table.bytes, &list)) {
                *survey.storage.entry(*tenant).or_default() += bytes;
            }
            if vehicles {
                let counts = match rows {
                    None => weights.clone(),
                    Some(rows) => weights.keys().copied().zip(split(rows, &list)).collect(),
                };
                survey.vehicles = Some(counts);
            }
        }
        Ok(survey)
    }

    async fn shares(
        client: &Client,
        table: &Table,
        tenants: &[TenantId],
        vehicles: bool,
    ) -> Result<Option<Shares>, String> {
        let refused = |error: tokio_postgres::Error| describe(&error);
        let limit = if vehicles { COUNTED_VEHICLES_BYTES } else { COUNTED_BYTES };
        if table.bytes <= limit {
            let column = quote(&table.column);
            let rows = client
                .query(&format!("select {column}, count(*) from {} group by 1", table.sql), &[])
                .await
                .map_err(refused)?;
            let counts = rows.iter().filter_map(|row| {
                // Rows of nobody exist where customer_id may be null.
                let tenant: Option<Uuid> = row.get(0);
                Some((TenantId(tenant?), unsigned(row.get(1))))
            });
            return Ok(Some(Shares::Counted(counts.collect())));
        }
        let statistics = client
            .query_opt(
                "select most_common_vals::text::uuid[], most_common_freqs, null_frac
                 from pg_catalog.pg_stats
                 where schemaname = $1 and tablename = $2 and attname = $3
                 order by (inherited = $4) desc limit 1",
                &[&table.schema, &table.name, &table.column, &table.inherited],
            )
            .await
            .map_err(refused)?;
        let (Some(row), Some(rows)) = (statistics, table.rows) else { return Ok(None) };
        let common: Vec<Uuid> = row.get::<_, Option<_>>(0).unwrap_or_default();
        let frequencies: Vec<f32> = row.get::<_, Option<_>>(1).unwrap_or_default();
        let nulls: f32 = row.get(2);
        Ok(Some(Shares::Estimated(weigh(&common, &frequencies, nulls, tenants), rows)))
    }
}

/// Weights from the most common values; what they leave is spread evenly over
/// the tenants that are not among them, as PostgreSQL's own planner does.
fn weigh(
    common: &[Uuid],
    frequencies: &[f32],
    nulls: f32,
    tenants: &[TenantId],
) -> BTreeMap<TenantId, u64> {
    let mut weights: BTreeMap<TenantId, u64> = BTreeMap::new();
    let mut left = 1.0 - f64::from(nulls);
    for (value, frequency) in common.iter().zip(frequencies) {
        let frequency = f64::from(*frequency).clamp(0.0, 1.0);
        left -= frequency;
        // Between 0 and a billion.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        weights.insert(TenantId(*value), (frequency * FREQUENCY_UNIT).round() as u64);
    }
    let others: Vec<TenantId> =
        tenants.iter().filter(|tenant| !weights.contains_key(tenant)).copied().collect();
    // Rounding of the frequencies can leave a trifle below zero.
    if left > 0.0 && !others.is_empty() {
        // At most a billion, and positive.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rest = (left * FREQUENCY_UNIT).round() as u64;
        let parts = split(rest, &vec![1; others.len()]);
        weights.extend(others.into_iter().zip(parts));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_statistics() {
        let [a, b, c] = [1, 2, 3].map(|n| TenantId(Uuid::from_u128(n)));
        let weights = weigh(&[a.0], &[0.5], 0.0, &[a, b, c]);
        assert_eq!(weights[&a], 500_000_000);
        assert_eq!(weights[&b], 250_000_000);
        assert_eq!(weights[&c], 250_000_000);
        // One tenant's table has no most common value besides it.
        assert_eq!(weigh(&[a.0], &[1.0], 0.0, &[a]).len(), 1);
        assert!(weigh(&[], &[], 1.0, &[a]).is_empty());
    }
}
