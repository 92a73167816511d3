//! Where a move goes: a node is found and its row locked in the transaction
//! that promises it, so that two never take the same one.

use tokio_postgres::Transaction;
use uuid::Uuid;
use webhost_proto::ids::NodeId;

use crate::store::StoreError;
use crate::store::moves::Move;

/// The node that a move goes to.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Which.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where its agent said that the tunnel listens.
    pub tunnel_address: String,
}

/// Finds the target of `row`, or says why there is none.
///
/// # Errors
/// When the nodes can't be read.
pub async fn choose(
    tx: &Transaction<'_>,
    row: &Move,
) -> Result<Result<Chosen, String>, StoreError> {
    let wanted = &row.durable.wanted;
    let kind = if wanted.mode == "single_tenant" { "dedicated" } else { "shared" };
    let rows = tx
        .query(
            "select id, name, tunnel_address, region from nodes
             where kind = $1 and state = 'active' and connected_at is not null
             order by id for update",
            &[&kind],
        )
        .await?;
    for node in &rows {
        let id: Uuid = node.try_get(0)?;
        let taken = tx
            .query_opt(
                "select 1 from placements where node_id = $1 and state <> 'ended' limit 1",
                &[&id],
            )
            .await?;
        if taken.is_none() && wanted.node.is_none_or(|node| node.0 == id) {
            return Ok(Ok(Chosen {
                id: NodeId(id),
                name: node.try_get(1)?,
                tunnel_address: node.try_get(2)?,
            }));
        }
    }
    Ok(Err(format!("no {kind} node is free")))
}
