//! What both databases hold, against what was acknowledged.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;

use super::ledger::{Expect, FACT_TABLES, Ledger};
use super::world::{World, session};

/// How many rows are not as they must be; all zero when nothing is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub lost: u64,
    pub stale: u64,
    pub resurrected: u64,
    /// Rows that nobody was told were written.
    pub invented: u64,
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
    let mut untouched = 0;
    for row in here.query(sql, &[&world.tenant]).await? {
        let (key, value): (Uuid, i32) = (row.get(0), row.get(1));
        findings.doubled += u64::from(row.get::<_, i64>(2) > 1);
        untouched += u32::from(value == 0);
        // Only rows of the beginning have the value 0.
        findings.invented += u64::from(value != 0 && !ledger.positions.contains_key(&key));
        found.insert(key, value);
    }
    findings.lost += u64::from(world.points.saturating_sub(untouched));
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
    findings.doubled += ledger.given_twice;
    facts(here, world, ledger, &mut findings).await?;
    findings.foreign += strangers(&source, [world.tenant, world.neighbour]).await?;
    let theirs = if home == 0 { world.foreigner } else { world.tenant };
    findings.foreign += strangers(&target, [world.foreigner, theirs]).await?;
    if findings != Findings::default() {
        tracing::error!(?findings, kinds = ?ledger.kinds, "the model and the databases differ");
    }
    Ok(findings)
}

/// The writers' facts, table by table.
async fn facts(
    here: &Client,
    world: &World,
    ledger: &Ledger,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    for table in FACT_TABLES {
        let rows = here
            .query(
                &format!(
                    "select {}, {} from {} where customer_id = $1",
                    table.key, table.value, table.name
                ),
                &[&world.tenant],
            )
            .await?;
        let stored: BTreeMap<String, String> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for ((_, key), wanted) in ledger.facts.iter().filter(|((of, _), _)| *of == table) {
            match (wanted, stored.get(key)) {
                (Some(_), None) => findings.lost += 1,
                (Some(wanted), Some(value)) => findings.stale += u64::from(wanted != value),
                (None, value) => findings.resurrected += u64::from(value.is_some()),
            }
        }
        if table.writers_alone {
            let known = |key: &String| ledger.facts.contains_key(&(table, key.clone()));
            findings.invented += stored.keys().filter(|key| !known(key)).count() as u64;
        }
    }
    Ok(())
}

/// Rows in any tenant table that are of none of these.
async fn strangers(client: &Client, at_home: [Uuid; 2]) -> anyhow::Result<u64> {
    let mut all = 0;
    for (table, column) in tenant_tables(client).await? {
        let strangers: i64 = client
            .query_one(
                &format!("select count(*) from {table} where {column} <> $1 and {column} <> $2"),
                &[&at_home[0], &at_home[1]],
            )
            .await?
            .get(0);
        all += strangers.unsigned_abs();
    }
    Ok(all)
}

/// The tables with rows of tenants, and the column that says whose.
pub(super) async fn tenant_tables(client: &Client) -> anyhow::Result<Vec<(String, String)>> {
    let rows = client
        .query(
            "select quote_ident(c.relname), case when c.relname = 'customers' then 'id' else 'customer_id' end \
             from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') \
             and not c.relispartition and (c.relname = 'customers' or exists ( \
               select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'customer_id')) order by 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
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
    let mut hashes = BTreeMap::new();
    for (table, column) in tenant_tables(&client).await? {
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
