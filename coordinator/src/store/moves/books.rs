//! What a move reads and changes in the books: placements and the tenant's
//! epoch.

use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{Epoch, NodeId, TenantId};

use super::{Move, epoch_sql};
use crate::store::StoreError;

/// Where a tenant lives, before a move of it begins.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The tenant's state.
    pub state: String,
    /// The tenant's epoch.
    pub epoch: Epoch,
    /// Its node and the mode there; none where it lives nowhere.
    pub home: Option<(NodeId, String)>,
}

/// Where the tenant lives; none when there is no such tenant. Its row is
/// locked until the transaction ends.
pub async fn standing(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<Standing>, StoreError> {
    let row = client
        .query_opt(
            "select t.state, t.epoch, p.node_id, p.mode from tenants t
             left join placements p on p.tenant_id = t.id and p.state = 'active'
             where t.id = $1 for update of t",
            &[&tenant.0],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let node: Option<Uuid> = row.try_get(2)?;
    let home = match node {
        Some(node) => Some((NodeId(node), row.try_get(3)?)),
        None => None,
    };
    let epoch = Epoch(row.try_get::<_, i64>(1)?.unsigned_abs());
    Ok(Some(Standing { state: row.try_get(0)?, epoch, home }))
}

/// Promises the target to the tenant. The caller holds the target's node lock
/// and has checked its capacity.
pub async fn reserve_incoming(
    client: &impl GenericClient,
    row: &Move,
    target: NodeId,
    mode: &str,
) -> Result<(), StoreError> {
    client
        .execute(
            "insert into placements (tenant_id, node_id, mode, state, epoch)
             values ($1, $2, $3, 'incoming', $4)",
            &[&row.tenant.0, &target.0, &mode, &epoch_sql(row.epoch.next())],
        )
        .await?;
    Ok(())
}

/// Ends the promise of the target. Takes the node's lock first, as everybody
/// does who gives a slot back.
pub async fn release_incoming(client: &impl GenericClient, row: &Move) -> Result<(), StoreError> {
    let Some(target) = row.target else { return Ok(()) };
    client.execute("select 1 from nodes where id = $1 for no key update", &[&target.0]).await?;
    client
        .execute(
            "update placements set state = 'ended', ended_at = now()
             where tenant_id = $1 and node_id = $2 and state = 'incoming'",
            &[&row.tenant.0, &target.0],
        )
        .await?;
    Ok(())
}

/// The books follow the switch: the source's placement is kept, the target's
/// is active, and the tenant's epoch is the target's. False, when the tenant
/// is not where the move found it any more; then nothing may be committed.
pub async fn switch_placements(
    client: &impl GenericClient,
    row: &Move,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let Some(target) = row.target else { return Ok(false) };
    let tenant = client
        .execute(
            "update tenants set epoch = $3, updated_at = now() where id = $1 and epoch = $2",
            &[&row.tenant.0, &epoch_sql(row.epoch), &epoch_sql(epoch)],
        )
        .await?;
    // First the old home: a tenant has one at a time, says a unique index.
    let kept = client
        .execute(
            "update placements set state = 'kept'
             where tenant_id = $1 and node_id = $2 and state = 'active'",
            &[&row.tenant.0, &row.source.0],
        )
        .await?;
    let active = client
        .execute(
            "update placements set state = 'active', epoch = $3, since = now()
             where tenant_id = $1 and node_id = $2 and state = 'incoming'",
            &[&row.tenant.0, &target.0, &epoch_sql(epoch)],
        )
        .await?;
    Ok(tenant == 1 && kept == 1 && active == 1)
}

/// True when the tenant still lives, under the move's epoch, where the move
/// found it, and is active. Its row is locked until the transaction ends.
pub async fn still_at_source(client: &impl GenericClient, row: &Move) -> Result<bool, StoreError> {
    let found = client
        .query_opt(
            "select 1 from tenants t join placements p on p.tenant_id = t.id
             where t.id = $1 and t.epoch = $2 and t.state = 'active'
               and p.node_id = $3 and p.state = 'active'
             for update of t",
            &[&row.tenant.0, &epoch_sql(row.epoch), &row.source.0],
        )
        .await?;
    Ok(found.is_some())
}
