//! Whose turn it is: the moves that load the nodes.

use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::NodeId;

use crate::moves::limits::Busy;
use crate::moves::state::State;
use crate::store::StoreError;
use crate::store::locks::Lock;

/// When this returns, nobody else takes a turn until the transaction ends.
pub async fn take_turn(client: &impl GenericClient) -> Result<(), StoreError> {
    client.execute("select pg_advisory_xact_lock($1)", &[&Lock::Turns.key()]).await?;
    Ok(())
}

/// The moves that are under way; see [`State::is_busy`]. Dry runs load nobody.
pub async fn busy(client: &impl GenericClient) -> Result<Vec<Busy>, StoreError> {
    let states: Vec<&str> =
        State::all().filter(|state| state.is_busy()).map(State::as_str).collect();
    let rows = client
        .query(
            "select source_node_id, target_node_id from moves
             where ended_at is null and state = any($1)
               and coalesce(durable->'wanted'->>'dry_run', 'false') = 'false'",
            &[&states],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let target: Option<Uuid> = row.try_get(1)?;
            Ok(Busy { source: NodeId(row.try_get(0)?), target: target.map(NodeId) })
        })
        .collect()
}
