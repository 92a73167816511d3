//! Roll-ups of usage per tenant, node and UTC hour, and the cursor of the
//! last report per node. Both are written in one transaction, so a report
//! that comes twice counts once, whichever side crashed in between.

use futures_util::{TryStreamExt, pin_mut};
use jiff::Timestamp;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};

use super::StoreError;

/// The last report of a node that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub epoch: u64,
    pub sequence: u64,
}

/// Advances the cursors of nodes; answers those that advanced. A node whose
/// cursor stands at or after the given one is not among them, and its report
/// must not be applied again. `reports` names each node at most once.
pub async fn advance(
    client: &impl GenericClient,
    reports: &[(NodeId, Cursor)],
) -> Result<Vec<NodeId>, StoreError> {
    let nodes: Vec<Uuid> = reports.iter().map(|(node, _)| node.0).collect();
    let epochs: Vec<i64> = reports.iter().map(|(_, cursor)| cursor.epoch.cast_signed()).collect();
    let sequences: Vec<i64> =
        reports.iter().map(|(_, cursor)| cursor.sequence.cast_signed()).collect();
    let rows = client
        .query(
            "insert into report_cursors (node_id, epoch, sequence)
             select * from unnest($1::uuid[], $2::bigint[], $3::bigint[]) order by 1
             on conflict (node_id) do update
               set epoch = excluded.epoch, sequence = excluded.sequence, at = now()
               where (report_cursors.epoch, report_cursors.sequence)
                     < (excluded.epoch, excluded.sequence)
             returning node_id",
            &[&nodes, &epochs, &sequences],
        )
        .await?;
    rows.iter().map(|row| Ok(NodeId(row.try_get(0)?))).collect()
}

/// The cursor of a node, if it ever reported.
pub async fn cursor(
    client: &impl GenericClient,
    node: NodeId,
) -> Result<Option<Cursor>, StoreError> {
    let row = client
        .query_opt("select epoch, sequence from report_cursors where node_id = $1", &[&node.0])
        .await?;
    row.map(|row| {
        Ok(Cursor {
            epoch: row.try_get::<_, i64>(0)?.cast_unsigned(),
            sequence: row.try_get::<_, i64>(1)?.cast_unsigned(),
        })
    })
    .transpose()
}

/// What one tenant did on one node within one UTC hour: sums of counters,
/// maxima or last values of gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hourly {
    pub cpu_us: u64,
    pub gps_points: u64,
    pub api_calls: u64,
    pub api_errors: u64,
    pub request_duration_us: u64,
    pub batch_operations: u64,
    pub realtime_operations: u64,
    pub memory_bytes_max: u64,
    /// The last value; 0 where it was not seen.
    pub storage_bytes: u64,
    pub db_connections_max: u64,
    pub client_connections_max: u64,
    pub vehicles: u64,
    /// Some of it was split from a shared process.
    pub attributed: bool,
}

/// Where an [`Hourly`] belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HourKey {
    pub tenant: TenantId,
    pub node: NodeId,
    /// The start of the hour.
    pub hour: Timestamp,
}

/// Adds to the roll-ups. `rows` names each key at most once, in order of the
/// keys, so that two writers lock in the same order.
pub async fn add(
    client: &impl GenericClient,
    rows: &[(HourKey, Hourly)],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let column = |value: fn(&Hourly) -> u64| -> Vec<i64> {
        rows.iter().map(|(_, row)| i64::try_from(value(row)).unwrap_or(i64::MAX)).collect()
    };
    let tenants: Vec<Uuid> = rows.iter().map(|(key, _)| key.tenant.0).collect();
    let nodes: Vec<Uuid> = rows.iter().map(|(key, _)| key.node.0).collect();
    let hours: Vec<Timestamp> = rows.iter().map(|(key, _)| key.hour).collect();
    let attributed: Vec<bool> = rows.iter().map(|(_, row)| row.attributed).collect();
    client
        .execute(
            "insert into usage_hourly as u
               (tenant_id, node_id, hour, cpu_us, gps_points, api_calls, api_errors,
                request_duration_us, batch_operations, realtime_operations, memory_bytes_max,
                storage_bytes, db_connections_max, client_connections_max, vehicles, attributed)
             select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bigint[],
                $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
                $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
                $15::bigint[], $16::boolean[])
             on conflict (tenant_id, node_id, hour) do update set
                cpu_us = u.cpu_us + excluded.cpu_us,
                gps_points = u.gps_points + excluded.gps_points,
                api_calls = u.api_calls + excluded.api_calls,
                api_errors = u.api_errors + excluded.api_errors,
                request_duration_us = u.request_duration_us + excluded.request_duration_us,
                batch_operations = u.batch_operations + excluded.batch_operations,
                realtime_operations = u.realtime_operations + excluded.realtime_operations,
                memory_bytes_max = greatest(u.memory_bytes_max, excluded.memory_bytes_max),
                storage_bytes = case when excluded.storage_bytes > 0 then excluded.storage_bytes
                                     else u.storage_bytes end,
                db_connections_max = greatest(u.db_connections_max, excluded.db_connections_max),
                client_connections_max =
                  greatest(u.client_connections_max, excluded.client_connections_max),
                vehicles = case when excluded.vehicles > 0 then excluded.vehicles
                                else u.vehicles end,
                attributed = u.attributed or excluded.attributed",
            &[
                &tenants,
                &nodes,
                &hours,
                &column(|row| row.cpu_us),
                &column(|row| row.gps_points),
                &column(|row| row.api_calls),
                &column(|row| row.api_errors),
                &column(|row| row.request_duration_us),
                &column(|row| row.batch_operations),
                &column(|row| row.realtime_operations),
                &column(|row| row.memory_bytes_max),
                &column(|row| row.storage_bytes),
                &column(|row| row.db_connections_max),
                &column(|row| row.client_connections_max),
                &column(|row| row.vehicles),
                &attributed,
            ],
        )
        .await?;
    Ok(())
}

const COLUMNS: &str = "tenant_id, node_id, hour, cpu_us, gps_points, api_calls, api_errors,
    request_duration_us, batch_operations, realtime_operations, memory_bytes_max, storage_bytes,
    db_connections_max, client_connections_max, vehicles, attributed";

/// The roll-ups of one tenant that begin after `since`, in no order.
pub async fn of_tenant(
    client: &impl GenericClient,
    tenant: TenantId,
    since: Timestamp,
) -> Result<Vec<(HourKey, Hourly)>, StoreError> {
    let sql = format!("select {COLUMNS} from usage_hourly where tenant_id = $1 and hour > $2");
    client.query(&sql, &[&tenant.0, &since]).await?.iter().map(hourly).collect()
}

/// So many roll-ups are read at a time.
const AT_ONCE: usize = 10_000;

/// Hands the roll-ups since `since` to `take`, oldest first, some at a time: a
/// week of a large fleet must never be in memory at once. What is before `whole`
/// comes as one row for each tenant and UTC day, at its first hour. Answers how many
/// there were.
pub async fn each_since(
    client: &impl GenericClient,
    since: Timestamp,
    whole: Timestamp,
    mut take: impl FnMut(&[(HourKey, Hourly)]),
) -> Result<usize, StoreError> {
    let sums = [
        "cpu_us",
        "gps_points",
        "api_calls",
        "api_errors",
        "request_duration_us",
        "batch_operations",
        "realtime_operations",
    ]
    .map(|name| format!("sum({name})::bigint"));
    let most = [
        "memory_bytes_max",
        "storage_bytes",
        "db_connections_max",
        "client_connections_max",
        "vehicles",
    ]
    .map(|name| format!("max({name})"));
    let sql = format!(
        "select tenant_id, max(node_id::text)::uuid, min(hour) as hour, {}, {},
                bool_or(attributed)
         from usage_hourly where hour >= $1 and hour < $2
         group by tenant_id, date_trunc('day', hour, 'UTC')
         union all
         select {COLUMNS} from usage_hourly where hour >= $2
         order by hour, tenant_id",
        sums.join(", "),
        most.join(", "),
    );
    let rows = client.query_raw(&sql, [since, whole]).await?;
    pin_mut!(rows);
    let (mut some, mut count) = (Vec::with_capacity(AT_ONCE), 0);
    while let Some(row) = rows.try_next().await? {
        some.push(hourly(&row)?);
        count += 1;
        if some.len() == AT_ONCE {
            take(&some);
            some.clear();
        }
    }
    take(&some);
    Ok(count)
}

fn hourly(row: &Row) -> Result<(HourKey, Hourly), StoreError> {
    let number = |column: usize| -> Result<u64, StoreError> {
        Ok(row.try_get::<_, i64>(column)?.unsigned_abs())
    };
    let key = HourKey {
        tenant: TenantId(row.try_get(0)?),
        node: NodeId(row.try_get(1)?),
        hour: row.try_get(2)?,
    };
    let hourly = Hourly {
        cpu_us: number(3)?,
        gps_points: number(4)?,
        api_calls: number(5)?,
        api_errors: number(6)?,
        request_duration_us: number(7)?,
        batch_operations: number(8)?,
        realtime_operations: number(9)?,
        memory_bytes_max: number(10)?,
        storage_bytes: number(11)?,
        db_connections_max: number(12)?,
        client_connections_max: number(13)?,
        vehicles: number(14)?,
        attributed: row.try_get(15)?,
    };
    Ok((key, hourly))
}

/// GPS points of each tenant in the 30 days before `now` and in the 30 days
/// before those; tenants without any are absent.
pub async fn months(
    client: &impl GenericClient,
    now: Timestamp,
) -> Result<Vec<(TenantId, u64, u64)>, StoreError> {
    let rows = client
        .query(
            "select tenant_id,
                    coalesce(sum(gps_points) filter (where hour >= $1::timestamptz - interval '30 days'), 0)::bigint,
                    coalesce(sum(gps_points) filter (where hour < $1::timestamptz - interval '30 days'), 0)::bigint
             from usage_hourly
             where hour >= $1::timestamptz - interval '60 days' and hour < $1
             group by tenant_id",
            &[&now],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                TenantId(row.try_get(0)?),
                row.try_get::<_, i64>(1)?.unsigned_abs(),
                row.try_get::<_, i64>(2)?.unsigned_abs(),
            ))
        })
        .collect()
}
