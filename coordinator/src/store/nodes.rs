//! Nodes: what was promised of them, what their agents measure, and whether
//! they may carry tenants.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::NodeId;
use webhost_proto::wire;

use super::StoreError;
use super::text::{text_column, text_enum};
pub use crate::decide::plans::NodeKind;

text_column!(NodeKind, "node kind", [Shared, Dedicated]);

text_enum!(
    /// Whether a node may carry tenants.
    NodeState, "node state" {
        /// Enrolled; its agent has yet to say Hello.
        Joining = "joining",
        Active = "active",
        /// Keeps its tenants, gets no new ones.
        Draining = "draining",
        /// Its certificate is worth nothing any more.
        Revoked = "revoked",
    }
);

/// One row of `nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Node {
    #[schema(value_type = String)]
    pub id: NodeId,
    pub name: String,
    pub kind: NodeKind,
    pub shape: String,
    pub region: String,
    pub state: NodeState,
    /// Until when it is to be empty, where it is drained by a time.
    #[schema(value_type = Option<String>)]
    pub drain_by: Option<Timestamp>,
    /// Since when the moves of its tenants are asked for as soon as they can be,
    /// where it is drained so.
    #[schema(value_type = Option<String>)]
    pub drain_moves_from: Option<Timestamp>,
    /// What the agent measured; none until its first Hello.
    pub measured: Option<Measured>,
    pub tunnel_address: String,
    pub agent_version: String,
    #[schema(value_type = Option<String>)]
    pub connected_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub last_seen_at: Option<Timestamp>,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

/// The capacity that an agent measured of its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Measured {
    pub cpu_millicores: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub db_connections: u64,
}

const COLUMNS: &str = "id, name, kind, shape, region, state, drain_by, drain_moves_from, \
                       measured_cpu_millicores, measured_memory_bytes, measured_disk_bytes, \
                       measured_db_connections, tunnel_address, agent_version, connected_at, \
                       last_seen_at, created_at";

fn node(row: &Row) -> Result<Node, StoreError> {
    let measured = |column: &str| -> Result<Option<u64>, StoreError> {
        Ok(row.try_get::<_, Option<i64>>(column)?.map(i64::unsigned_abs))
    };
    let cpu = measured("measured_cpu_millicores")?;
    let measured = match cpu {
        None => None,
        Some(cpu_millicores) => Some(Measured {
            cpu_millicores,
            memory_bytes: measured("measured_memory_bytes")?.unwrap_or(0),
            disk_bytes: measured("measured_disk_bytes")?.unwrap_or(0),
            db_connections: measured("measured_db_connections")?.unwrap_or(0),
        }),
    };
    Ok(Node {
        id: NodeId(row.try_get("id")?),
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        shape: row.try_get("shape")?,
        region: row.try_get("region")?,
        state: row.try_get("state")?,
        drain_by: row.try_get("drain_by")?,
        drain_moves_from: row.try_get("drain_moves_from")?,
        measured,
        tunnel_address: row.try_get("tunnel_address")?,
        agent_version: row.try_get("agent_version")?,
        connected_at: row.try_get("connected_at")?,
        last_seen_at: row.try_get("last_seen_at")?,
        created_at: row.try_get("created_at")?,
    })
}

/// Every node that is not revoked, by id.
pub async fn all(client: &impl GenericClient) -> Result<Vec<Node>, StoreError> {
    let sql = format!("select {COLUMNS} from nodes where state <> 'revoked' order by id");
    client.query(&sql, &[]).await?.iter().map(node).collect()
}

/// Up to `limit` nodes after `after`, by id, revoked ones included.
pub async fn list(
    client: &impl GenericClient,
    after: Option<NodeId>,
    limit: i64,
) -> Result<Vec<Node>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from nodes where $1::uuid is null or id > $1 order by id limit $2"
    );
    client.query(&sql, &[&after.map(|id| id.0), &limit]).await?.iter().map(node).collect()
}

/// Every node of `kind` that is not revoked, its rows locked in the order of
/// their ids until the transaction ends: whoever takes a slot holds this
/// lock, so two never take the same one. (Not `for update`: rows that refer
/// to a node may be written meanwhile.)
pub async fn lock_all(
    client: &impl GenericClient,
    kind: NodeKind,
) -> Result<Vec<Node>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from nodes where kind = $1 and state <> 'revoked'
         order by id for no key update"
    );
    client.query(&sql, &[&kind]).await?.iter().map(node).collect()
}

/// One node.
pub async fn get(client: &impl GenericClient, id: NodeId) -> Result<Option<Node>, StoreError> {
    let sql = format!("select {COLUMNS} from nodes where id = $1");
    client.query_opt(&sql, &[&id.0]).await?.as_ref().map(node).transpose()
}

/// Whether nobody has heard of a node since `since`; false where its agent is
/// connected, or there is no such node.
pub async fn silent_since(
    client: &impl GenericClient,
    id: NodeId,
    since: Timestamp,
) -> Result<bool, StoreError> {
    let row = client
        .query_opt(
            "select 1 from nodes where id = $1 and connected_at is null and last_seen_at < $2",
            &[&id.0, &since],
        )
        .await?;
    Ok(row.is_some())
}

/// One node, its row locked until the transaction ends.
pub async fn lock(client: &impl GenericClient, id: NodeId) -> Result<Option<Node>, StoreError> {
    let sql = format!("select {COLUMNS} from nodes where id = $1 for no key update");
    client.query_opt(&sql, &[&id.0]).await?.as_ref().map(node).transpose()
}

/// One node by its name.
pub async fn by_name(client: &impl GenericClient, name: &str) -> Result<Option<Node>, StoreError> {
    let sql = format!("select {COLUMNS} from nodes where name = $1");
    client.query_opt(&sql, &[&name]).await?.as_ref().map(node).transpose()
}

/// Writes what a Hello says: measured capacity, versions, tunnel. A joining
/// node becomes active. Answers the node, or none when it is revoked or
/// unknown; then nothing is written.
pub async fn connected(
    client: &impl GenericClient,
    id: NodeId,
    hello: &wire::Hello,
) -> Result<Option<Node>, StoreError> {
    let capacity = hello.capacity.unwrap_or_default();
    // A measure beyond i64 is nonsense; the shape is the smaller one then.
    let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let sql = format!(
        "update nodes set
           measured_cpu_millicores = $2, measured_memory_bytes = $3, measured_disk_bytes = $4,
           measured_db_connections = $5, tunnel_address = $6, agent_version = $7, boot_id = $8,
           connected_at = now(), last_seen_at = now(),
           state = case state when 'joining' then 'active' else state end
         where id = $1 and state <> 'revoked'
         returning {COLUMNS}"
    );
    let row = client
        .query_opt(
            &sql,
            &[
                &id.0,
                &whole(capacity.cpu_millicores),
                &whole(capacity.memory_bytes),
                &whole(capacity.disk_bytes),
                &whole(capacity.db_connections),
                &hello.tunnel_address,
                &hello.agent_version,
                &hello.boot_id,
            ],
        )
        .await?;
    row.as_ref().map(node).transpose()
}

/// Notes that nodes reported, at most every five seconds each. Never waits: a
/// row that a signup holds is noted by the next report.
pub async fn seen(client: &impl GenericClient, nodes: &[Uuid]) -> Result<(), StoreError> {
    client
        .execute(
            "update nodes set last_seen_at = now(), connected_at = coalesce(connected_at, now())
             where id in (
               select id from nodes where id = any($1)
                 and (last_seen_at is null or last_seen_at < now() - interval '5 seconds')
               for no key update skip locked)",
            &[&nodes],
        )
        .await?;
    Ok(())
}

/// Nodes that were last heard of before `since` are no longer connected: a
/// coordinator that was killed could not say so. Answers how many.
pub async fn forget_silent(
    client: &impl GenericClient,
    since: Timestamp,
) -> Result<u64, StoreError> {
    Ok(client
        .execute(
            "update nodes set connected_at = null where id in (
               select id from nodes where connected_at is not null and last_seen_at < $1
               for no key update skip locked)",
            &[&since],
        )
        .await?)
}

/// The node's session ended.
pub async fn disconnected(client: &impl GenericClient, id: NodeId) -> Result<(), StoreError> {
    client
        .execute(
            "update nodes set connected_at = null, last_seen_at = now() where id = $1",
            &[&id.0],
        )
        .await?;
    Ok(())
}

/// How a node is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draining {
    /// It is to be empty by then.
    pub by: Option<Timestamp>,
    /// The moves of its tenants are asked for, from then on; what holds already
    /// stays without.
    pub moves_from: Option<Timestamp>,
}

/// Sets a node draining, or, without `draining`, active again; answers whether
/// there is such a node that is not revoked. Of another time than before nobody
/// was told anything.
pub async fn set_draining(
    client: &impl GenericClient,
    id: NodeId,
    draining: Option<Draining>,
) -> Result<bool, StoreError> {
    let state = if draining.is_some() { NodeState::Draining } else { NodeState::Active };
    let Draining { by, moves_from } = draining.unwrap_or_default();
    let changed = client
        .execute(
            "update nodes set state = $2, drain_by = $3,
                    drain_told_at = case when drain_by = $3 then drain_told_at end,
                    drain_moves_from =
                      case when $2 = 'draining' then coalesce($4, drain_moves_from) end
             where id = $1 and state in ('active', 'draining')",
            &[&id.0, &state, &by, &moves_from],
        )
        .await?;
    Ok(changed == 1)
}

/// The draining nodes that have to be looked at: those that are to be empty by a
/// time of which nobody was told yet that it will not be met, or, once it has
/// come, that it was not; and those with a tenant whose move is to be asked for,
/// and could be: nothing of an earlier one keeps it, and none was asked for since
/// the node is drained.
pub async fn to_be_empty(
    client: &impl GenericClient,
    now: Timestamp,
) -> Result<Vec<Node>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from nodes
         where state = 'draining'
           and ((drain_by is not null
                 and (drain_told_at is null or (drain_told_at < drain_by and drain_by <= $1)))
             or (drain_moves_from is not null and exists (
                 select 1 from placements p
                 where p.node_id = nodes.id and p.state = 'active'
                   and not exists (select 1 from placements other
                     where other.tenant_id = p.tenant_id and other.state in ('incoming', 'kept'))
                   and not exists (select 1 from moves m
                     where m.tenant_id = p.tenant_id
                       and (m.ended_at is null
                         or (m.source_node_id = nodes.id
                           and coalesce(m.durable->'wanted'->>'dry_run', 'false') = 'false'
                           and (m.created_at >= drain_moves_from
                             or (m.state in ('cancelled', 'failed', 'refused')
                               and m.ended_at >= drain_moves_from))))))))
         order by id"
    );
    client.query(&sql, &[&now]).await?.iter().map(node).collect()
}

/// Notes that somebody is told of a node that will not be, or is not, empty `by`
/// its time; false where somebody was, or the time is another now.
pub async fn told_of_drain(
    client: &impl GenericClient,
    id: NodeId,
    by: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let written = client
        .execute(
            "update nodes set drain_told_at = $3
             where id = $1 and drain_by = $2 and state = 'draining'
               and (drain_told_at is null or (drain_told_at < drain_by and drain_by <= $3))",
            &[&id.0, &by, &now],
        )
        .await?;
    Ok(written == 1)
}
