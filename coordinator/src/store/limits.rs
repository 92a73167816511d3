//! How tenants' usage stands to the limits of their plans.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use webhost_proto::ids::TenantId;

use super::StoreError;
use super::text::text_column;
use crate::decide::limits::{Known, Level, Limit};

text_column!(Level, "level", [Clear, Warning, Breach]);
text_column!(
    Limit,
    "limit",
    [Vehicles, GpsPointsPerDay, GpsPointsPerSecond, Storage, Users, Retention, QueriesPerSecond]
);

/// One limit of one tenant that is near or crossed, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = LimitRecord)]
pub struct Recorded {
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
    pub limit: Limit,
    pub level: Level,
    /// When the level began, as the two figures are of then.
    pub used: u64,
    pub allowed: u64,
    #[schema(value_type = String)]
    pub since: Timestamp,
    #[serde(skip)]
    #[schema(ignore)]
    pub known: Known,
}

fn recorded(row: &Row) -> Result<Recorded, StoreError> {
    let level = row.try_get("level")?;
    let warned_on: Option<Date> = row.try_get("warned_on")?;
    let breached_on: Option<Date> = row.try_get("breached_on")?;
    Ok(Recorded {
        tenant_id: TenantId(row.try_get("tenant_id")?),
        limit: row.try_get("name")?,
        level,
        used: row.try_get::<_, i64>("used")?.unsigned_abs(),
        allowed: row.try_get::<_, i64>("allowed")?.unsigned_abs(),
        since: row.try_get("since")?,
        known: Known { level, warned_on, breached_on },
    })
}

const COLUMNS: &str = "tenant_id, name, level, used, allowed, since, warned_on, breached_on";

/// All that is remembered.
pub async fn known(
    client: &impl GenericClient,
) -> Result<HashMap<(TenantId, Limit), Known>, StoreError> {
    let rows = client.query(&format!("select {COLUMNS} from limits"), &[]).await?;
    rows.iter()
        .map(|row| recorded(row).map(|one| ((one.tenant_id, one.limit), one.known)))
        .collect()
}

/// Remembers a level that changed at `since`, with the figures that changed it.
pub async fn set(
    client: &impl GenericClient,
    tenant: TenantId,
    limit: Limit,
    known: &Known,
    (used, allowed): (u64, u64),
    since: Timestamp,
) -> Result<(), StoreError> {
    let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    client
        .execute(
            "insert into limits (tenant_id, name, level, used, allowed, since, warned_on, breached_on)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (tenant_id, name) do update set
               level = excluded.level, used = excluded.used, allowed = excluded.allowed,
               since = excluded.since, warned_on = excluded.warned_on,
               breached_on = excluded.breached_on",
            &[
                &tenant.0,
                &limit,
                &known.level,
                &whole(used),
                &whole(allowed),
                &since,
                &known.warned_on,
                &known.breached_on,
            ],
        )
        .await?;
    Ok(())
}

/// What is near or crossed, the worst first, of one tenant when it is given.
pub async fn list(
    client: &impl GenericClient,
    tenant: Option<TenantId>,
) -> Result<Vec<Recorded>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from limits
         where level <> 'clear' and ($1::uuid is null or tenant_id = $1)
         order by level, since, tenant_id, name limit 1000"
    );
    client.query(&sql, &[&tenant.map(|id| id.0)]).await?.iter().map(recorded).collect()
}
