//! What a move reads and changes in the books: placements and the tenant's
//! epoch.

use std::collections::HashSet;

use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{Epoch, MoveId, NodeId, TenantId};

use super::{Move, epoch_sql};
use crate::store::StoreError;
use crate::store::placements::Mode;

/// Where a tenant lives, before a move of it begins.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The tenant's state.
    pub state: String,
    /// The tenant's epoch.
    pub epoch: Epoch,
    /// Its node and the mode there; none where it lives nowhere.
    pub home: Option<(NodeId, Mode)>,
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
/// does who gives a slot back. `expires_at` is set then, as it is for a
/// reservation that expired: the tenant never lived there, and the row is no
/// stay of its history.
pub async fn release_incoming(client: &impl GenericClient, row: &Move) -> Result<(), StoreError> {
    let Some(target) = row.target else { return Ok(()) };
    client.execute("select 1 from nodes where id = $1 for no key update", &[&target.0]).await?;
    client
        .execute(
            "update placements set state = 'ended', expires_at = now(), ended_at = now()
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

/// The books follow a switch back: the target's placement is kept, the
/// source's is active again, and the tenant's epoch is `epoch`, which follows
/// `from`. False, when the tenant is not where the move left it; then nothing
/// may be committed.
pub async fn switch_back(
    client: &impl GenericClient,
    row: &Move,
    from: Epoch,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let Some(target) = row.target else { return Ok(false) };
    let tenant = client
        .execute(
            "update tenants set epoch = $3, updated_at = now() where id = $1 and epoch = $2",
            &[&row.tenant.0, &epoch_sql(from), &epoch_sql(epoch)],
        )
        .await?;
    // First the old home: a tenant has one at a time, says a unique index.
    let kept = client
        .execute(
            "update placements set state = 'kept'
             where tenant_id = $1 and node_id = $2 and state = 'active'",
            &[&row.tenant.0, &target.0],
        )
        .await?;
    let active = client
        .execute(
            "update placements set state = 'active', epoch = $3, since = now()
             where tenant_id = $1 and node_id = $2 and state = 'kept'",
            &[&row.tenant.0, &row.source.0, &epoch_sql(epoch)],
        )
        .await?;
    Ok(tenant == 1 && kept == 1 && active == 1)
}

/// The promise of a target that was given up becomes a copy that is kept: it
/// takes room there until it is cleaned, and was no stay
/// (see [`release_incoming`]).
pub async fn keep_incoming(client: &impl GenericClient, row: &Move) -> Result<(), StoreError> {
    let Some(target) = row.target else { return Ok(()) };
    client
        .execute(
            "update placements set state = 'kept', expires_at = now()
             where tenant_id = $1 and node_id = $2 and state = 'incoming'",
            &[&row.tenant.0, &target.0],
        )
        .await?;
    Ok(())
}

/// The copy that was thought to be gone from `node` is there after all, and
/// takes room until it is deleted. False where the tenant lives there, or is
/// about to; then nothing is written.
pub async fn keep_again(
    client: &impl GenericClient,
    row: &Move,
    node: NodeId,
) -> Result<bool, StoreError> {
    let other = client
        .query_opt(
            "select 1 from placements
             where tenant_id = $1 and node_id = $2 and state <> 'ended' for update",
            &[&row.tenant.0, &node.0],
        )
        .await?;
    if other.is_some() {
        return Ok(false);
    }
    client
        .execute(
            "update placements set state = 'kept', ended_at = null
             where id = (select id from placements where tenant_id = $1 and node_id = $2
                         order by id desc limit 1)",
            &[&row.tenant.0, &node.0],
        )
        .await?;
    Ok(true)
}

/// Tenants whose way back is open: a roll back may bring them to where a copy
/// of them is kept.
pub async fn may_return(client: &impl GenericClient) -> Result<HashSet<TenantId>, StoreError> {
    let rows = client
        .query(
            "select tenant_id from moves
             where ended_at is null and state in ('way_back', 'roll_back', 'route_back')",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(TenantId(row.try_get(0)?))).collect()
}

/// The copy that was kept on `node` is gone, and its room is free. Takes the
/// node's lock first, as everybody does who gives a slot back.
pub async fn end_kept(
    client: &impl GenericClient,
    row: &Move,
    node: NodeId,
) -> Result<(), StoreError> {
    client.execute("select 1 from nodes where id = $1 for no key update", &[&node.0]).await?;
    client
        .execute(
            "update placements set state = 'ended', ended_at = now()
             where tenant_id = $1 and node_id = $2 and state = 'kept'",
            &[&row.tenant.0, &node.0],
        )
        .await?;
    Ok(())
}

/// An old copy of a tenant, on a node that therefore can't be a target.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Where.
    pub node: NodeId,
    /// The node's name.
    pub name: String,
    /// The move that keeps it; none where that has ended.
    pub kept_by: Option<MoveId>,
    /// That move's state.
    pub state: Option<String>,
    /// Until when it is kept; none where it is being deleted.
    pub until: Option<String>,
}

/// The old copies of a tenant.
pub async fn copies(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Vec<Copy>, StoreError> {
    let rows = client
        .query(
            "select p.node_id, n.name, m.id, m.state, m.durable->>'keep_until'
             from placements p join nodes n on n.id = p.node_id
             left join lateral (
               select m.id, m.state, m.durable from moves m
               where m.tenant_id = p.tenant_id and m.ended_at is null
                 and p.node_id in (m.source_node_id, m.target_node_id)
               order by m.created_at desc limit 1) m on true
             where p.tenant_id = $1 and p.state = 'kept' order by p.id",
            &[&tenant.0],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let kept_by: Option<Uuid> = row.try_get(2)?;
            Ok(Copy {
                node: NodeId(row.try_get(0)?),
                name: row.try_get(1)?,
                kept_by: kept_by.map(MoveId),
                state: row.try_get(3)?,
                until: row.try_get(4)?,
            })
        })
        .collect()
}
