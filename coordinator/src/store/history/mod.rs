//! Usage over time: three tables of rows that are written by COPY, partitioned
//! by time, and never changed. See `schema/V4__history.sql`, and of minutes
//! [`parts`].

mod partitions;
pub mod parts;

use futures_util::{TryStreamExt, pin_mut};
use jiff::Timestamp;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row, Transaction};
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::StoreError;
use super::locks::Lock;
use crate::usage::part::PART;
use crate::usage::profile::ROWS;
use crate::usage::series::{ALL, COLUMNS, CONNECTIONS, CPU, GPS, Values};

pub use partitions::{drop_before, prepare};

/// How fine a history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grain {
    /// A row is twelve minutes.
    Minutes,
    /// A row is an hour of five minutes.
    Fives,
    /// A row is a day of hours.
    Hours,
}

impl Grain {
    /// From fine to coarse.
    pub const ALL: [Self; 3] = [Self::Minutes, Self::Fives, Self::Hours];

    /// The table.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Minutes => "usage_minutes",
            Self::Fives => "usage_fives",
            Self::Hours => "usage_hours",
        }
    }

    /// Seconds from one value to the next.
    pub const fn step_s(self) -> i64 {
        match self {
            Self::Minutes => 60,
            Self::Fives => 300,
            Self::Hours => 3600,
        }
    }

    /// Values in a row.
    pub const fn values(self) -> usize {
        match self {
            Self::Minutes => PART,
            Self::Fives => 12,
            Self::Hours => 24,
        }
    }
}

/// One row: an hour's or a day's values of each column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub tenant: TenantId,
    /// Its start.
    pub at: Timestamp,
    /// In the order of [`ALL`].
    pub values: [Values; COLUMNS],
    /// Of a day only: the hours' percentiles, in the units of the profile.
    pub percentiles: Option<[Values; ROWS]>,
}

fn names() -> String {
    ALL.map(|column| column.name).join(", ")
}

const PERCENTILES: &str = "cpu_p95, connections_p95, gps_p95";

/// Writes rows of [`Grain::Fives`] or [`Grain::Hours`]. Their partitions are there
/// (see [`prepare`]); hours, and only they, have percentiles.
pub async fn copy(tx: &Transaction<'_>, grain: Grain, rows: &[Stretch]) -> Result<u64, StoreError> {
    let mut columns = names();
    let mut types = vec![Type::UUID, Type::TIMESTAMPTZ];
    types.extend([Type::INT4_ARRAY; COLUMNS]);
    if grain == Grain::Hours {
        columns = format!("{columns}, {PERCENTILES}");
        types.extend([Type::INT4_ARRAY; ROWS]);
    }
    let table = grain.table();
    let sql = format!("copy {table} (tenant_id, at, {columns}) from stdin (format binary)");
    let writer = BinaryCopyInWriter::new(tx.copy_in(&sql).await?, &types);
    pin_mut!(writer);
    for row in rows {
        let mut fields: Vec<&(dyn ToSql + Sync)> = vec![&row.tenant.0, &row.at];
        fields.extend(row.values.iter().map(|values| values as &(dyn ToSql + Sync)));
        for values in row.percentiles.iter().flatten() {
            fields.push(values);
        }
        writer.as_mut().write(&fields).await?;
    }
    Ok(writer.finish().await?)
}

/// The rows of five minutes or hours of one column of one tenant that begin in
/// `from..to`, oldest first: their starts and values. Only partitions of that time
/// are read.
pub async fn of_tenant(
    client: &impl GenericClient,
    grain: Grain,
    tenant: TenantId,
    column: usize,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<(Timestamp, Values)>, StoreError> {
    let Some(sql) = one_column(grain, column) else { return Ok(Vec::new()) };
    let rows = client.query(&sql, &[&tenant.0, &from, &to]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn one_column(grain: Grain, column: usize) -> Option<String> {
    let (name, table) = (ALL.get(column)?.name, grain.table());
    Some(format!(
        "select at, {name} from {table} where tenant_id = $1 and at >= $2 and at < $3 order by at"
    ))
}

/// PostgreSQL's own plan of what [`of_tenant`] and [`parts::parts_of_tenant`] read,
/// one line each.
pub async fn plan_of(
    client: &impl GenericClient,
    grain: Grain,
    tenant: TenantId,
    column: usize,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let sql = match grain {
        Grain::Minutes => Some(parts::OF_TENANT.to_owned()),
        Grain::Fives | Grain::Hours => one_column(grain, column),
    };
    let Some(sql) = sql else { return Ok(Vec::new()) };
    let sql = format!("explain (costs off) {sql}");
    let rows = client.query(&sql, &[&tenant.0, &from, &to]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Whether this transaction may make hours and days; another one is at it otherwise.
pub async fn lock_days(tx: &Transaction<'_>) -> Result<bool, StoreError> {
    Ok(tx
        .query_one("select pg_try_advisory_xact_lock($1)", &[&Lock::Days.key()])
        .await?
        .try_get(0)?)
}

/// The first UTC day that has five minutes and was not made yet; none where
/// there is no such day. The caller holds the lock of days.
pub async fn next_day(client: &impl GenericClient) -> Result<Option<Timestamp>, StoreError> {
    let row = client
        .query_opt(
            "select p.day::timestamp at time zone 'UTC' from (
               select to_date(right(c.relname, 8), 'YYYYMMDD') as day
               from pg_inherits i join pg_class c on c.oid = i.inhrelid
               where i.inhparent = 'usage_fives'::regclass and c.relname ~ '_p[0-9]{8}$') p
             where not exists (select from usage_days d where d.day = p.day)
             order by 1 limit 1",
            &[],
        )
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Notes that a UTC day is made.
pub async fn day_is_made(tx: &Transaction<'_>, day: Timestamp) -> Result<(), StoreError> {
    let sql = "insert into usage_days (day) values (($1::timestamptz at time zone 'UTC')::date)";
    tx.execute(sql, &[&day]).await?;
    Ok(())
}

/// The tenants that have five minutes on a UTC day.
pub async fn tenants_of_day(
    client: &impl GenericClient,
    day: Timestamp,
) -> Result<Vec<Uuid>, StoreError> {
    let rows = client
        .query(
            "select distinct tenant_id from usage_fives
             where at >= $1 and at < $1 + interval '24 hours' order by 1",
            &[&day],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The five-minute rows of a UTC day of some tenants.
pub async fn fives_of_day(
    client: &impl GenericClient,
    day: Timestamp,
    tenants: &[Uuid],
) -> Result<Vec<Stretch>, StoreError> {
    let sql = format!(
        "select tenant_id, at, {} from usage_fives
         where at >= $1 and at < $1 + interval '24 hours' and tenant_id = any($2)",
        names()
    );
    client.query(&sql, &[&day, &tenants]).await?.iter().map(stretch).collect()
}

fn stretch(row: &Row) -> Result<Stretch, StoreError> {
    let mut values: [Values; COLUMNS] = std::array::from_fn(|_| Vec::new());
    for (at, values) in values.iter_mut().enumerate() {
        *values = row.try_get(at + 2)?;
    }
    let tenant = TenantId(row.try_get(0)?);
    Ok(Stretch { tenant, at: row.try_get(1)?, values, percentiles: None })
}

/// A tenant's percentiles of a stretch of hours, in the profile's rows.
pub type Percentiles = (TenantId, Timestamp, [Values; ROWS]);

/// The hours' percentiles of every day since `since`, oldest first.
pub async fn percentiles_since(
    client: &impl GenericClient,
    since: Timestamp,
    take: impl FnMut(Percentiles),
) -> Result<(), StoreError> {
    let sql = format!(
        "select tenant_id, at, {PERCENTILES} from usage_hours where at >= $1 order by at, tenant_id"
    );
    each_of_three(client, &sql, &[since], take).await
}

/// The five minutes of CPU, connections and GPS points of every hour in
/// `since..before`, oldest first.
pub async fn fives_between(
    client: &impl GenericClient,
    since: Timestamp,
    before: Timestamp,
    take: impl FnMut(Percentiles),
) -> Result<(), StoreError> {
    let [cpu, connections, gps] = [CPU, CONNECTIONS, GPS].map(|column| ALL[column].name);
    let sql = format!(
        "select tenant_id, at, {cpu}, {connections}, {gps} from usage_fives
         where at >= $1 and at < $2 order by at, tenant_id"
    );
    each_of_three(client, &sql, &[since, before], take).await
}

/// The last UTC day whose hours are made; none while there is none.
pub async fn last_day(client: &impl GenericClient) -> Result<Option<Timestamp>, StoreError> {
    let sql = "select max(day)::timestamp at time zone 'UTC' from usage_days";
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}

/// What each tenant took at the peaks of each of some UTC days, whose hours are
/// made: CPU, memory, storage, connections and GPS points, in the units of the
/// profile and MiB.
pub async fn peaks_of_days(
    client: &impl GenericClient,
    days: &[Timestamp],
) -> Result<Vec<(TenantId, Timestamp, [i32; 5])>, StoreError> {
    let most = |column: &str| format!("coalesce((select max(v) from unnest({column}) v), 0)");
    let columns = ["cpu_p95", "memory", "storage", "connections_p95", "gps_p95"].map(most);
    let sql =
        format!("select tenant_id, at, {} from usage_hours where at = any($1)", columns.join(", "));
    let rows = client.query(&sql, &[&days]).await?;
    rows.iter()
        .map(|row| {
            let mut peaks = [0; 5];
            for (at, peak) in peaks.iter_mut().enumerate() {
                *peak = row.try_get(at + 2)?;
            }
            Ok((TenantId(row.try_get(0)?), row.try_get(1)?, peaks))
        })
        .collect()
}

/// Hands each row to `take` as it comes: they are never in memory at once.
async fn each_of_three(
    client: &impl GenericClient,
    sql: &str,
    times: &[Timestamp],
    mut take: impl FnMut(Percentiles),
) -> Result<(), StoreError> {
    let rows = client.query_raw(sql, times).await?;
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await? {
        let values = [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?];
        take((TenantId(row.try_get(0)?), row.try_get(1)?, values));
    }
    Ok(())
}
