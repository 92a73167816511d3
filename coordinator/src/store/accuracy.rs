//! What became of decisions: stays with the decisions before and after them.

use jiff::Timestamp;
use tokio_postgres::GenericClient;

use super::StoreError;
use crate::decide::Usage;
use crate::decide::accuracy::Stay;

/// Every stay that began since `since` and follows a decision, oldest first. A
/// reservation that nobody used is none.
pub async fn stays(client: &impl GenericClient, since: Timestamp) -> Result<Vec<Stay>, StoreError> {
    let rows = client
        .query(
            "select p.since,
                    (select min(n.since) from placements n
                     where n.tenant_id = p.tenant_id and n.expires_at is null
                       and (n.since, n.id) > (p.since, p.id)
                       and n.state in ('active', 'kept', 'ended')) as left_at,
                    nullif(d.inputs->'usage', 'null'), nullif(next.inputs->'usage', 'null')
             from placements p
             join lateral (
               select inputs from decisions
               where tenant_id = p.tenant_id and at <= p.since
                 and outcome in ('placed', 'migrate')
               order by at desc, id desc limit 1) d on true
             left join lateral (
               select inputs from decisions
               where tenant_id = p.tenant_id and at > p.since
               order by at, id limit 1) next on true
             where p.since >= $1 and p.expires_at is null
               and p.state in ('active', 'kept', 'ended')
             order by p.since, p.id",
            &[&since],
        )
        .await?;
    let usage = |value: Option<serde_json::Value>| -> Result<Option<Usage>, StoreError> {
        value.map(serde_json::from_value).transpose().map_err(|error| StoreError::Corrupt {
            what: "decisions.inputs",
            detail: error.to_string(),
        })
    };
    rows.iter()
        .map(|row| {
            Ok(Stay {
                began: row.try_get(0)?,
                left: row.try_get(1)?,
                before: usage(row.try_get(2)?)?,
                after: usage(row.try_get(3)?)?,
            })
        })
        .collect()
}

/// How many decisions since `since` follow another one about the same tenant,
/// and how many of them want another mode than that one.
pub async fn changes(
    client: &impl GenericClient,
    since: Timestamp,
) -> Result<(u64, u64), StoreError> {
    let row = client
        .query_one(
            "select count(*), count(*) filter (where mode is distinct from before) from (
               select decision->>'mode' as mode,
                      lag(decision->>'mode') over (partition by tenant_id order by at, id) as before
               from decisions where at >= $1) d
             where before is not null",
            &[&since],
        )
        .await?;
    Ok((row.try_get::<_, i64>(0)?.unsigned_abs(), row.try_get::<_, i64>(1)?.unsigned_abs()))
}
