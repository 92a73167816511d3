//! What both databases hold, against what was acknowledged.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::world::{World, session};
use super::writer::{Expect, Ledger};

/// How many rows are not as they must be; all zero when nothing is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub lost: u64,
    pub stale: u64,
    pub resurrected: u64,
    pub doubled: u64,
    /// Rows of others in the tenant's database, or of the tenant elsewhere.
    pub foreign: u64,
    /// Odometers that don't add up.
    pub miscounted: u64,
}

/// Compares. `home` is 0 when the tenant must live on the source, 1 for the
/// target.
///
/// # Errors
/// What the databases say.
pub async fn check(world: &World, ledger: &Ledger, home: usize) -> anyhow::Result<Findings> {
    let (source, _a) = session(&world.source).await?;
    let (target, _b) = session(&world.target).await?;
    let mut findings = Findings::default();
    let sql = "select id, altitude::int4, count(*) over (partition by id) \
               from gps_positions where customer_id = $1";
    let here = if home == 0 { &source } else { &target };
    let mut found: BTreeMap<Uuid, i32> = BTreeMap::new();
    for row in here.query(sql, &[&world.tenant]).await? {
        found.insert(row.get(0), row.get(1));
        if row.get::<_, i64>(2) > 1 {
            findings.doubled += 1;
        }
    }
    let mut given: BTreeMap<Uuid, i32> = BTreeMap::new();
    for row in source.query(sql, &[&world.neighbour]).await? {
        given.insert(row.get(0), row.get(1));
    }
    for (key, expect) in &ledger.positions {
        match expect {
            Expect::Present(value) => match found.get(key) {
                None => findings.lost += 1,
                Some(stored) if stored != value => findings.stale += 1,
                Some(_) => {}
            },
            Expect::Deleted => findings.resurrected += u64::from(found.contains_key(key)),
            Expect::GivenAway(value) => {
                findings.lost += u64::from(given.get(key) != Some(value));
                findings.resurrected += u64::from(found.contains_key(key));
            }
        }
    }
    for (vehicle, added) in &ledger.odometers {
        let row =
            here.query_opt("select odometer_m from vehicles where id = $1", &[vehicle]).await?;
        let stored: Option<i64> = row.map(|row| row.get(0));
        findings.miscounted += u64::from(stored != Some(*added));
    }
    let strangers: i64 = target
        .query_one(
            "select count(*) from gps_positions where customer_id not in ($1, $2)",
            &[&world.tenant, &world.foreigner],
        )
        .await?
        .get(0);
    findings.foreign += strangers.unsigned_abs();
    if home == 0 {
        let strays: i64 = target
            .query_one(
                "select count(*) from gps_positions where customer_id = $1",
                &[&world.tenant],
            )
            .await?
            .get(0);
        findings.foreign += strays.unsigned_abs();
    }
    Ok(findings)
}

/// A hash of each table's rows of one tenant, by table.
///
/// # Errors
/// What the database says.
pub async fn table_hashes(
    config: &tokio_postgres::Config,
    tenant: Uuid,
) -> anyhow::Result<BTreeMap<String, String>> {
    let (client, _driver) = session(config).await?;
    let tables = client
        .query(
            "select c.relname::text, case when c.relname = 'customers' then 'id' else 'customer_id' end \
             from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') \
             and not c.relispartition and (c.relname = 'customers' or exists ( \
               select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'customer_id')) order by 1",
            &[],
        )
        .await?;
    let mut hashes = BTreeMap::new();
    for row in &tables {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let hash: String = client
            .query_one(
                &format!(
                    "select count(*) || ':' || coalesce(sum(hashtextextended(x::text, 0)::numeric), 0) \
                     from {table} x where {column} = $1"
                ),
                &[&tenant],
            )
            .await?
            .get(0);
        hashes.insert(table, hash);
    }
    Ok(hashes)
}
