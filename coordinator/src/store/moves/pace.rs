//! What says how long moves take, and which of them come first.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use webhost_proto::ids::NodeId;

use super::{COLUMNS, Move, SETTLED, read};
use crate::store::StoreError;

/// Up to `limit` moves that copied something, newest first.
pub async fn copied(client: &impl GenericClient, limit: i64) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m where m.result ? 'copy' order by m.id desc limit $1"
    );
    client.query(&sql, &[&limit]).await?.iter().map(read).collect()
}

/// The moves that wait for their turn, in the order in which they begin: those
/// away from nodes that are to be empty soonest, then as they were asked for.
/// Dry runs wait for nobody.
pub async fn queue(client: &impl GenericClient) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m join nodes n on n.id = m.source_node_id
         where m.ended_at is null and m.state = 'waiting_for_node'
           and coalesce(m.durable->'wanted'->>'dry_run', 'false') = 'false'
         order by coalesce(n.drain_by, 'infinity'), m.created_at, m.id"
    );
    client.query(&sql, &[]).await?.iter().map(read).collect()
}

/// Up to `limit` moves of that queue that come before `row` and wait for
/// nothing but their turn, the first first.
pub async fn before(
    client: &impl GenericClient,
    row: &Move,
    limit: i64,
) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m join nodes n on n.id = m.source_node_id
         where m.ended_at is null and m.state = 'waiting_for_node' and m.id <> $1
           and m.durable->>'queued' = 'true'
           and (coalesce(n.drain_by, 'infinity'), m.created_at, m.id)
             < ((select coalesce(drain_by, 'infinity') from nodes where id = $2), $3, $1)
         order by coalesce(n.drain_by, 'infinity'), m.created_at, m.id limit $4"
    );
    let rows = client.query(&sql, &[&row.id.0, &row.source.0, &row.created_at, &limit]).await?;
    rows.iter().map(read).collect()
}

/// Lets the first `most` of the moves that wait for nothing but their turn look
/// again at once, and the first of each node, of up to `most` nodes; answers how
/// many that are. Whoever looks at one of them meanwhile looks once more.
pub async fn wake_queue(client: &impl GenericClient, most: i64) -> Result<u64, StoreError> {
    let woken = client
        .execute(
            "with queue as (
               select m.id, row_number() over of_all as place,
                      row_number() over (partition by m.source_node_id order by
                        coalesce(n.drain_by, 'infinity'), m.created_at, m.id) as of_node
               from moves m join nodes n on n.id = m.source_node_id
               where m.ended_at is null and m.state = 'waiting_for_node'
                 and m.durable->>'queued' = 'true'
               window of_all as (order by coalesce(n.drain_by, 'infinity'), m.created_at, m.id)),
             first as (
               select id from queue where place <= $1
               union (select id from queue where of_node = 1 order by place limit $1)),
             chosen as (
               select m.id from moves m
               where m.id in (select id from first) and m.state = 'waiting_for_node'
                 and m.durable->>'not_before' is not null
               order by m.id for update)
             update moves m set durable = m.durable || jsonb_build_object('not_before', null,
                      'revision', (m.durable->>'revision')::bigint + 1)
             from chosen where m.id = chosen.id",
            &[&most],
        )
        .await?;
    Ok(woken)
}

/// The moves away from `node` that have ended and were asked for at `since` or
/// later, or came to nothing then; newest first, dry runs are none.
pub async fn ended_from(
    client: &impl GenericClient,
    node: NodeId,
    since: Timestamp,
) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m
         where m.source_node_id = $1 and m.ended_at is not null
           and (m.created_at >= $2
             or (m.state in ('cancelled', 'failed', 'refused') and m.ended_at >= $2))
           and coalesce(m.durable->'wanted'->>'dry_run', 'false') = 'false'
         order by m.id desc"
    );
    client.query(&sql, &[&node.0, &since]).await?.iter().map(read).collect()
}

/// The open moves of the tenants that live on `node`; old copies that are kept
/// elsewhere of earlier ones are none.
pub async fn of_those_on(
    client: &impl GenericClient,
    node: NodeId,
) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m
         join placements p on p.tenant_id = m.tenant_id and p.state = 'active'
         where p.node_id = $1 and m.ended_at is null and m.state not in {SETTLED}"
    );
    client.query(&sql, &[&node.0]).await?.iter().map(read).collect()
}
