//! The reckoning: every acknowledged row against the rows that the databases
//! hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::ledger::Ledger;
use crate::harness::cluster::{Cluster, Session};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reckoning {
    /// Rows that an application acknowledged.
    pub rows_acknowledged: u64,
    /// Of these, found where their tenant lives.
    pub rows_found: u64,
    /// Acknowledged and not found there.
    pub rows_lost: u64,
    /// Rows more than one for one id, or for one vehicle's one instant.
    pub rows_doubled: u64,
    /// Rows in a database that is not their tenant's (the closed old copy of
    /// a move aside), of a tenant that did not write them, or of another
    /// tenant's vehicle.
    pub foreign_rows: u64,
    /// Rows where the tenant lives that nobody sent.
    pub rows_unknown: u64,
    /// Uploads without an answer when the load ended, and found all the same.
    pub in_doubt_found: u64,
    /// Tenants that not exactly one database serves.
    pub tenants_without_one_active_side: u64,
    /// The first few troubles in words.
    pub troubles: Vec<String>,
}

impl Reckoning {
    /// Whether nothing is wrong.
    pub fn clean(&self) -> bool {
        self.rows_lost == 0
            && self.rows_doubled == 0
            && self.foreign_rows == 0
            && self.rows_unknown == 0
            && self.tenants_without_one_active_side == 0
    }

    fn trouble(&mut self, text: String) {
        if self.troubles.len() < 20 {
            self.troubles.push(text);
        }
    }
}

struct Row {
    id: Uuid,
    tenant: Uuid,
    vehicle: Uuid,
    at: Timestamp,
}

/// Compares `ledger` with the databases of `nodes`; `homes` says on which
/// node each tenant lives.
///
/// # Errors
/// When a database can't be read.
pub async fn reckon(
    ledger: &Ledger,
    homes: &BTreeMap<Uuid, String>,
    nodes: &BTreeMap<String, &Cluster>,
) -> anyhow::Result<Reckoning> {
    let mut found = Reckoning::default();
    let mut writers: HashMap<Uuid, Uuid> = HashMap::new();
    for (tenant, ids) in &ledger.acknowledged {
        found.rows_acknowledged += ids.len() as u64;
        writers.extend(ids.iter().map(|id| (*id, *tenant)));
    }
    let in_doubt: HashSet<Uuid> = ledger.in_doubt.values().flatten().copied().collect();
    let mut at_home: HashSet<Uuid> = HashSet::with_capacity(writers.len());
    let mut active_sides: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    let mut old_copies: Vec<(String, Uuid)> = Vec::new();
    for (node, cluster) in nodes {
        let session = cluster.inspect().await?;
        let fences = fences(&session).await?;
        let closed = |tenant: &Uuid| {
            fences.get(tenant).is_some_and(|state| state == "moved" || state == "standby")
        };
        for tenant in customers(&session).await? {
            if !closed(&tenant) {
                active_sides.entry(tenant).or_default().insert(node.clone());
            }
        }
        let mut seen: HashSet<Uuid> = HashSet::new();
        let mut instants: HashSet<(Uuid, Timestamp)> = HashSet::new();
        for row in rows(&session).await? {
            if !seen.insert(row.id) || !instants.insert((row.vehicle, row.at)) {
                found.rows_doubled += 1;
                found.trouble(format!("{node}: row {} twice", row.id));
            }
            if writers.get(&row.id).is_some_and(|writer| *writer != row.tenant) {
                found.foreign_rows += 1;
                found.trouble(format!("{node}: row {} carries tenant {}", row.id, row.tenant));
            }
            if homes.get(&row.tenant) == Some(node) {
                if !writers.contains_key(&row.id) {
                    if in_doubt.contains(&row.id) {
                        found.in_doubt_found += 1;
                    } else {
                        found.rows_unknown += 1;
                        found.trouble(format!("{node}: row {} was never sent", row.id));
                    }
                }
                at_home.insert(row.id);
            } else if closed(&row.tenant) {
                old_copies.push((node.clone(), row.id));
            } else {
                found.foreign_rows += 1;
                found.trouble(format!("{node}: row {} of tenant {}", row.id, row.tenant));
            }
        }
        found.foreign_rows += crossed(&session).await?;
    }
    // A row that only an old copy holds was written after it was copied.
    for (node, id) in old_copies {
        if !at_home.contains(&id) && !writers.contains_key(&id) && !in_doubt.contains(&id) {
            found.rows_unknown += 1;
            found.trouble(format!("{node}: only the old copy holds row {id}"));
        }
    }
    for id in writers.keys() {
        if at_home.contains(id) {
            found.rows_found += 1;
        } else {
            found.rows_lost += 1;
            found.trouble(format!("row {id} was acknowledged and is not found"));
        }
    }
    for (tenant, home) in homes {
        let sides = active_sides.remove(tenant).unwrap_or_default();
        if sides.len() != 1 || !sides.contains(home) {
            found.tenants_without_one_active_side += 1;
            found.trouble(format!("tenant {tenant} lives at {home}, active sides: {sides:?}"));
        }
    }
    Ok(found)
}

/// The fence states that a move left in a database.
///
/// # Errors
/// When the database can't be read.
pub async fn fences(session: &Session) -> anyhow::Result<BTreeMap<Uuid, String>> {
    let present: bool = session
        .query_one("select to_regclass('webhost_fleet.fence') is not null", &[])
        .await?
        .get(0);
    if !present {
        return Ok(BTreeMap::new());
    }
    let rows = session.query("select customer_id, state from webhost_fleet.fence", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn customers(session: &Session) -> anyhow::Result<Vec<Uuid>> {
    let rows = session.query("select id from customers", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn rows(session: &Session) -> anyhow::Result<Vec<Row>> {
    // No index may hide a second row of the same key.
    session.batch_execute("set enable_indexscan = off; set enable_indexonlyscan = off").await?;
    let none: [&str; 0] = [];
    let stream = session
        .query_raw("select id, customer_id, vehicle_id, recorded_at from gps_positions", none)
        .await?;
    let mut stream = pin!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(Row { id: row.get(0), tenant: row.get(1), vehicle: row.get(2), at: row.get(3) });
    }
    Ok(rows)
}

/// Rows whose vehicle belongs to another tenant.
async fn crossed(session: &Session) -> anyhow::Result<u64> {
    let count: i64 = session
        .query_one(
            "select count(*) from gps_positions g join vehicles v on v.id = g.vehicle_id
             where v.customer_id <> g.customer_id",
            &[],
        )
        .await?
        .get(0);
    Ok(u64::try_from(count)?)
}
