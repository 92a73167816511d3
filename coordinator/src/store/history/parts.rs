//! Minutes, as they are written: a row is a part of a tenant's hour. See
//! `schema/V12__parts.sql`.

use futures_util::pin_mut;
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row, Transaction};
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::partitions::first_day;
use super::{Grain, StoreError};
use crate::usage::part::{PART, Part};

/// The longest that a part begins before a minute that it has.
pub const PART_LENGTH: SignedDuration = SignedDuration::from_mins(PART as i64);

/// When a part begins.
pub fn start(part: &Part) -> Timestamp {
    Timestamp::from_second(part.start.saturating_mul(60)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Writes parts. Their partitions are there (see [`super::prepare`]).
pub async fn copy_parts(
    tx: &Transaction<'_>,
    parts: &[(TenantId, Part)],
) -> Result<u64, StoreError> {
    let sql = "copy usage_minutes (tenant_id, at, minutes) from stdin (format binary)";
    let types = [Type::UUID, Type::TIMESTAMPTZ, Type::BYTEA];
    let writer = BinaryCopyInWriter::new(tx.copy_in(sql).await?, &types);
    pin_mut!(writer);
    for (tenant, part) in parts {
        writer.as_mut().write(&[&tenant.0, &start(part), &part.bytes]).await?;
    }
    Ok(writer.finish().await?)
}

pub(super) const OF_TENANT: &str = "select tenant_id, at, minutes from usage_minutes
    where tenant_id = $1 and at >= $2 and at < $3 order by at";

/// The parts of one tenant that have minutes in `from..to`, oldest first. Only
/// partitions of that time are read.
pub async fn parts_of_tenant(
    client: &impl GenericClient,
    tenant: TenantId,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Part>, StoreError> {
    let from = from.saturating_sub(PART_LENGTH).unwrap_or(Timestamp::MIN);
    let rows = client.query(OF_TENANT, &[&tenant.0, &from, &to]).await?;
    rows.iter().map(|row| Ok(part(row)?.1)).collect()
}

fn part(row: &Row) -> Result<(TenantId, Part), StoreError> {
    let at: Timestamp = row.try_get(1)?;
    let start = at.as_second().div_euclid(60);
    Ok((TenantId(row.try_get(0)?), Part { start, bytes: row.try_get(2)? }))
}

/// The first UTC hour that may have minutes and was not made yet; none where no
/// minutes were ever written. The caller holds the lock of days.
pub async fn next_hour(client: &impl GenericClient) -> Result<Option<Timestamp>, StoreError> {
    let made = made_before(client).await?;
    let after = made.unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(first_day(client, Grain::Minutes, after).await?.map(|day| day.max(after)))
}

/// Every hour before this one is made; none where no hour is.
pub async fn made_before(client: &impl GenericClient) -> Result<Option<Timestamp>, StoreError> {
    let row = client.query_opt("select before from usage_made", &[]).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// The same, once whoever makes an hour at this moment is done; no hour is made
/// before this transaction ends.
pub async fn made_before_for_share(tx: &Transaction<'_>) -> Result<Option<Timestamp>, StoreError> {
    let row = tx.query_opt("select before from usage_made for share", &[]).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Notes that every hour before this one is made.
pub async fn hours_are_made(tx: &Transaction<'_>, before: Timestamp) -> Result<(), StoreError> {
    let sql = "insert into usage_made (before) values ($1)
               on conflict (one) do update set before = excluded.before";
    tx.execute(sql, &[&before]).await?;
    Ok(())
}

/// The tenants that may have minutes in a UTC hour.
pub async fn tenants_of_hour(
    client: &impl GenericClient,
    hour: Timestamp,
) -> Result<Vec<Uuid>, StoreError> {
    let sql = "select distinct tenant_id from usage_minutes
               where at >= $1 and at < $2::timestamptz + interval '1 hour' order by 1";
    let rows = client.query(sql, &[&(hour - PART_LENGTH), &hour]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The parts of some tenants that have minutes in a UTC hour, tenant by tenant.
pub async fn parts_of_hour(
    client: &impl GenericClient,
    hour: Timestamp,
    tenants: &[Uuid],
) -> Result<Vec<(TenantId, Part)>, StoreError> {
    let sql = "select tenant_id, at, minutes from usage_minutes
               where at >= $1 and at < $2::timestamptz + interval '1 hour' and tenant_id = any($3)
               order by 1, 2";
    let rows = client.query(sql, &[&(hour - PART_LENGTH), &hour, &tenants]).await?;
    rows.iter().map(part).collect()
}
