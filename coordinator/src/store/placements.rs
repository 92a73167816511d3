//! Placements: which node serves a tenant, since when, under which epoch.
//!
//! **Invariant:** a slot is taken and given back only by a transaction that
//! holds the lock of the node's row (see [`super::nodes::lock_all`]).

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::{Epoch, NodeId, TenantId};

use super::StoreError;
use super::text::{text_column, text_enum};
pub use crate::decide::Mode;

text_column!(Mode, "mode", [MultiTenant, SingleTenant]);

text_enum!(
    /// What a node is to a tenant.
    PlacementState, "placement state" {
        /// Promised, not yet used.
        Reserved = "reserved",
        /// Serves the tenant.
        Active = "active",
        /// The target of a move.
        Incoming = "incoming",
        /// The old copy of a move.
        Kept = "kept",
        /// History.
        Ended = "ended",
    }
);

/// One row of `placements`.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Placement {
    pub id: i64,
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
    #[schema(value_type = String)]
    pub node_id: NodeId,
    pub mode: Mode,
    pub state: PlacementState,
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    #[schema(value_type = String)]
    pub since: Timestamp,
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub ended_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, tenant_id, node_id, mode, state, epoch, since, expires_at, ended_at";

fn placement(row: &Row) -> Result<Placement, StoreError> {
    Ok(Placement {
        id: row.try_get("id")?,
        tenant_id: TenantId(row.try_get("tenant_id")?),
        node_id: NodeId(row.try_get("node_id")?),
        mode: row.try_get("mode")?,
        state: row.try_get("state")?,
        epoch: Epoch(row.try_get::<_, i64>("epoch")?.unsigned_abs()),
        since: row.try_get("since")?,
        expires_at: row.try_get("expires_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

/// What a reservation, an import or a move writes.
#[derive(Clone, Debug)]
pub struct NewPlacement {
    pub tenant_id: TenantId,
    pub node_id: NodeId,
    pub mode: Mode,
    pub state: PlacementState,
    pub epoch: Epoch,
    pub expires_at: Option<Timestamp>,
}

/// Writes a placement. The caller holds the node's lock and has checked its
/// capacity.
pub async fn insert(client: &impl GenericClient, new: &NewPlacement) -> Result<i64, StoreError> {
    let row = client
        .query_one(
            "insert into placements (tenant_id, node_id, mode, state, epoch, expires_at)
             values ($1, $2, $3, $4, $5, $6) returning id",
            &[
                &new.tenant_id.0,
                &new.node_id.0,
                &new.mode,
                &new.state,
                &i64::try_from(new.epoch.0).unwrap_or(i64::MAX),
                &new.expires_at,
            ],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// Writes many placements as [`insert`] does one, in one statement.
pub async fn insert_all(
    client: &impl GenericClient,
    all: &[NewPlacement],
) -> Result<(), StoreError> {
    let tenants: Vec<Uuid> = all.iter().map(|new| new.tenant_id.0).collect();
    let nodes: Vec<Uuid> = all.iter().map(|new| new.node_id.0).collect();
    let modes: Vec<&str> = all.iter().map(|new| new.mode.as_str()).collect();
    let states: Vec<&str> = all.iter().map(|new| new.state.as_str()).collect();
    let epochs: Vec<i64> =
        all.iter().map(|new| i64::try_from(new.epoch.0).unwrap_or(i64::MAX)).collect();
    let expiries: Vec<Option<Timestamp>> = all.iter().map(|new| new.expires_at).collect();
    client
        .execute(
            "insert into placements (tenant_id, node_id, mode, state, epoch, expires_at)
             select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[],
               $6::timestamptz[])",
            &[&tenants, &nodes, &modes, &states, &epochs, &expiries],
        )
        .await?;
    Ok(())
}

/// Every placement that takes a slot or keeps data on one of `nodes`.
pub async fn open_on(
    client: &impl GenericClient,
    nodes: &[Uuid],
) -> Result<Vec<Placement>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from placements
         where node_id = any($1) and state in ('reserved', 'active', 'incoming', 'kept')
         order by id"
    );
    client.query(&sql, &[&nodes]).await?.iter().map(placement).collect()
}

/// The tenants that a node is expected to know: id and slug.
pub async fn expected_on(
    client: &impl GenericClient,
    node: NodeId,
) -> Result<Vec<(TenantId, String)>, StoreError> {
    let rows = client
        .query(
            "select distinct t.id, t.slug from placements p join tenants t on t.id = p.tenant_id
             where p.node_id = $1 and p.state in ('reserved', 'active', 'incoming', 'kept')
             order by t.id",
            &[&node.0],
        )
        .await?;
    rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// Where a tenant lives: its reserved or active placement.
pub async fn home(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<Placement>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from placements
         where tenant_id = $1 and state in ('reserved', 'active')"
    );
    client.query_opt(&sql, &[&tenant.0]).await?.as_ref().map(placement).transpose()
}

/// Where each of the tenants lives.
pub async fn homes(
    client: &impl GenericClient,
    tenants: &[Uuid],
) -> Result<Vec<Placement>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from placements
         where tenant_id = any($1) and state in ('reserved', 'active')"
    );
    client.query(&sql, &[&tenants]).await?.iter().map(placement).collect()
}

/// Where each tenant on a node lived before it came there: the newest of its
/// earlier placements that was in use. After a roll back that is the node that
/// it was rolled back from.
pub async fn homes_before(
    client: &impl GenericClient,
) -> Result<HashMap<TenantId, NodeId>, StoreError> {
    let rows = client
        .query(
            "select distinct on (p.tenant_id) p.tenant_id, p.node_id
             from placements p
             join placements home on home.tenant_id = p.tenant_id and home.state = 'active'
             where (p.since, p.id) < (home.since, home.id) and p.node_id <> home.node_id
               and p.expires_at is null and p.state in ('kept', 'ended')
             order by p.tenant_id, p.since desc, p.id desc",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), NodeId(row.try_get(1)?)))).collect()
}

/// Tenants that have a move, or an old copy that is kept: another move must
/// wait for the end of that.
pub async fn moving(client: &impl GenericClient) -> Result<Vec<TenantId>, StoreError> {
    let rows = client
        .query("select distinct tenant_id from placements where state in ('incoming', 'kept')", &[])
        .await?;
    rows.iter().map(|row| Ok(TenantId(row.try_get(0)?))).collect()
}

/// All placements of a tenant, history included, newest first.
pub async fn of_tenant(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Vec<Placement>, StoreError> {
    let sql = format!("select {COLUMNS} from placements where tenant_id = $1 order by id desc");
    client.query(&sql, &[&tenant.0]).await?.iter().map(placement).collect()
}

/// Up to `limit` placements after `after`, by id; ended ones only on demand.
pub async fn list(
    client: &impl GenericClient,
    node: Option<NodeId>,
    history: bool,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Placement>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from placements
         where ($1::uuid is null or node_id = $1) and ($2 or state <> 'ended')
           and ($3::bigint is null or id > $3)
         order by id limit $4"
    );
    let rows = client.query(&sql, &[&node.map(|id| id.0), &history, &after, &limit]).await?;
    rows.iter().map(placement).collect()
}

/// A reservation that is used becomes active and no longer expires; answers
/// the tenants whose reservation changed.
pub async fn activate(
    client: &impl GenericClient,
    node: NodeId,
    tenants: &[Uuid],
) -> Result<Vec<Uuid>, StoreError> {
    let rows = client
        .query(
            "update placements set state = 'active', since = now(), expires_at = null
             where node_id = $1 and tenant_id = any($2) and state = 'reserved'
             returning tenant_id",
            &[&node.0, &tenants],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Ends reservations whose time is over; answers them. Their tenants' rows
/// are the caller's to set back, in the same transaction.
pub async fn expire_reserved(
    client: &impl GenericClient,
    now: Timestamp,
) -> Result<Vec<Placement>, StoreError> {
    let sql = format!(
        "update placements set state = 'ended', ended_at = now()
         where state = 'reserved' and expires_at <= $1 returning {COLUMNS}"
    );
    client.query(&sql, &[&now]).await?.iter().map(placement).collect()
}

/// Since when the tenant has been in `mode` without a break, from the history
/// of its placements; none when it is not in that mode. A promise that was not
/// used is no part of that history, and a roll back begins a stay anew: its row
/// is older than that of the stay before it.
pub async fn in_mode_since(
    client: &impl GenericClient,
    tenant: TenantId,
    mode: Mode,
) -> Result<Option<Timestamp>, StoreError> {
    let rows = client
        .query(
            "select mode, since from placements
             where tenant_id = $1 and state in ('active', 'kept', 'ended')
               and expires_at is null
             order by since desc, id desc",
            &[&tenant.0],
        )
        .await?;
    let mut since = None;
    for row in &rows {
        if row.try_get::<_, Mode>(0)? != mode {
            break;
        }
        since = Some(row.try_get(1)?);
    }
    Ok(since)
}
