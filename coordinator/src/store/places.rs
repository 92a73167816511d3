//! The tenant directory: where each tenant lives, with a version that grows
//! with every change. Triggers of the schema count the versions, in the order
//! in which transactions commit, so that no change hides behind a later one.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::StoreError;

/// The channel that is notified with every change.
pub const CHANNEL: &str = "webhost_places";

/// One tenant's entry.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Entry {
    #[schema(value_type = String)]
    pub customer_id: TenantId,
    pub slug: String,
    /// Its host name; empty where it has none.
    pub host: String,
    /// An application serves active and provisioning tenants.
    pub tenant_state: String,
    pub epoch: u64,
    /// None while it has no place.
    pub node_id: Option<Uuid>,
    pub node: Option<String>,
    pub region: Option<String>,
    pub mode: Option<String>,
    /// Grows with every change, over all tenants.
    pub version: i64,
}

const ENTRIES: &str = "
    select p.version, t.id, t.slug, t.host, t.state, t.epoch, n.id, n.name, n.region, h.mode
    from places p join tenants t on t.id = p.tenant_id
    left join placements h on h.tenant_id = t.id and h.state in ('reserved', 'active')
    left join nodes n on n.id = h.node_id";

fn entry(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry {
        version: row.try_get(0)?,
        customer_id: TenantId(row.try_get(1)?),
        slug: row.try_get(2)?,
        host: row.try_get(3)?,
        tenant_state: row.try_get(4)?,
        epoch: row.try_get::<_, i64>(5)?.unsigned_abs(),
        node_id: row.try_get(6)?,
        node: row.try_get(7)?,
        region: row.try_get(8)?,
        mode: row.try_get(9)?,
    })
}

/// The version of a tenant's place; 0 where it never had one.
pub async fn version(client: &impl GenericClient, tenant: TenantId) -> Result<i64, StoreError> {
    let row =
        client.query_opt("select version from places where tenant_id = $1", &[&tenant.0]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}

/// The newest version of all; 0 when there is none.
pub async fn latest(client: &impl GenericClient) -> Result<i64, StoreError> {
    let row = client.query_one("select coalesce(max(version), 0) from places", &[]).await?;
    Ok(row.try_get(0)?)
}

/// Up to `limit` entries that changed after `after`, oldest change first. A
/// tenant that changed twice is there once, with its newest version.
pub async fn since(
    client: &impl GenericClient,
    after: i64,
    limit: i64,
) -> Result<Vec<Entry>, StoreError> {
    let sql = format!("{ENTRIES} where p.version > $1 order by p.version limit $2");
    client.query(&sql, &[&after, &limit]).await?.iter().map(entry).collect()
}

/// Gives every tenant without a host name the one that follows from its slug;
/// answers how many. A name that somebody has is left out.
pub async fn name_hosts(client: &impl GenericClient, domain: &str) -> Result<u64, StoreError> {
    Ok(client
        .execute(
            "update tenants t set host = t.slug || '.' || $1::text
             where t.host = '' and t.state <> 'gone'
               and not exists (select from tenants o
                               where o.host <> '' and o.host = t.slug || '.' || $1::text)",
            &[&domain],
        )
        .await?)
}

/// A host name and where it should lead.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub host: String,
    pub tenant: TenantId,
    pub node: Option<Uuid>,
    /// The node's name; empty for none.
    pub place: String,
    pub version: i64,
}

const DUE: &str = "
    select p.version, t.host, t.id, n.id, coalesce(n.name, ''), d.version as told
    from places p join tenants t on t.id = p.tenant_id
    left join placements h on h.tenant_id = t.id and h.state in ('reserved', 'active')
    left join nodes n on n.id = h.node_id
    left join dns_records d on d.host = t.host and t.host <> ''";

fn due(row: &Row) -> Result<Due, StoreError> {
    Ok(Due {
        version: row.try_get(0)?,
        host: row.try_get(1)?,
        tenant: TenantId(row.try_get(2)?),
        node: row.try_get(3)?,
        place: row.try_get(4)?,
    })
}

/// Up to `limit` places that changed after `after`, oldest change first: the
/// version of each, and the host name that is to be published for it. None
/// where the tenant has no host name, or where this change, or a later one, was
/// published or tried already (then see [`dns_failed`]).
pub async fn dns_changes(
    client: &impl GenericClient,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, Option<Due>)>, StoreError> {
    let sql = format!("{DUE} where p.version > $1 order by p.version limit $2");
    let rows = client.query(&sql, &[&after, &limit]).await?;
    rows.iter()
        .map(|row| {
            let (due, told) = (due(row)?, row.try_get::<_, Option<i64>>(5)?);
            let is_due = !due.host.is_empty() && told.is_none_or(|told| told < due.version);
            Ok((due.version, is_due.then_some(due)))
        })
        .collect()
}

/// Up to `limit` host names that could not be published half a minute ago or
/// before, longest ago first. The name of a tenant that has another one by now
/// is left out.
pub async fn dns_failed(client: &impl GenericClient, limit: i64) -> Result<Vec<Due>, StoreError> {
    let sql = format!(
        "{DUE} where d.published_at is null and d.updated_at < now() - interval '30 seconds'
         order by d.updated_at limit $1"
    );
    client.query(&sql, &[&limit]).await?.iter().map(due).collect()
}

/// Remembers what became of publishing; an older version changes nothing.
pub async fn dns_told(
    client: &impl GenericClient,
    due: &Due,
    published_at: Option<Timestamp>,
    error: &str,
) -> Result<(), StoreError> {
    client
        .execute(
            "insert into dns_records (host, tenant_id, node_id, version, published_at, error)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (host) do update
                 set tenant_id = excluded.tenant_id, node_id = excluded.node_id,
                     version = excluded.version, published_at = excluded.published_at,
                     error = excluded.error, updated_at = now()
                 where dns_records.version <= excluded.version",
            &[&due.host, &due.tenant.0, &due.node, &due.version, &published_at, &error],
        )
        .await?;
    Ok(())
}

/// What a name server should answer, and whether it was told.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct DnsRecord {
    pub host: String,
    pub tenant_id: Uuid,
    /// None: the record should be withdrawn.
    pub node_id: Option<Uuid>,
    pub node: Option<String>,
    pub version: i64,
    #[schema(value_type = Option<String>)]
    pub published_at: Option<Timestamp>,
    /// Why it was not published.
    pub error: String,
}

/// Up to `limit` records after `after`, by host name.
pub async fn dns_records(
    client: &impl GenericClient,
    after: &str,
    limit: i64,
) -> Result<Vec<DnsRecord>, StoreError> {
    let rows = client
        .query(
            "select d.host, d.tenant_id, d.node_id, n.name, d.version, d.published_at, d.error
             from dns_records d left join nodes n on n.id = d.node_id
             where d.host > $1 order by d.host limit $2",
            &[&after, &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(DnsRecord {
                host: row.try_get(0)?,
                tenant_id: row.try_get(1)?,
                node_id: row.try_get(2)?,
                node: row.try_get(3)?,
                version: row.try_get(4)?,
                published_at: row.try_get(5)?,
                error: row.try_get(6)?,
            })
        })
        .collect()
}
