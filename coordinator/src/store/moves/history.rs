//! What happened to a move, line by line, and its audit rows.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::GenericClient;
use webhost_proto::ids::MoveId;

use super::Move;
use crate::store::StoreError;

/// One line of a move's history.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// The move's state from here on.
    pub state: String,
    /// What happened.
    pub message: String,
    /// Figures.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// A move's history, oldest first.
pub async fn events(client: &impl GenericClient, id: MoveId) -> Result<Vec<Event>, StoreError> {
    let rows = client
        .query(
            "select at, state, message, detail from move_events where move_id = $1 order by id",
            &[&id.0],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Event {
                at: row.try_get(0)?,
                state: row.try_get(1)?,
                message: row.try_get(2)?,
                detail: row.try_get(3)?,
            })
        })
        .collect()
}

/// Writes one line of a move's history.
pub async fn event(
    client: &impl GenericClient,
    id: MoveId,
    event: &Event,
) -> Result<(), StoreError> {
    client
        .execute(
            "insert into move_events (move_id, at, state, message, detail)
             values ($1, $2, $3, $4, $5)",
            &[&id.0, &event.at, &event.state, &event.message, &event.detail],
        )
        .await?;
    Ok(())
}

/// Writes one audit row about a move.
pub async fn audit(
    client: &impl GenericClient,
    actor: &str,
    action: &str,
    row: &Move,
    message: &str,
) -> Result<(), StoreError> {
    let detail = serde_json::json!({ "tenant_id": row.tenant, "message": message });
    client
        .execute(
            "insert into audit (actor, action, subject, subject_id, detail)
             values ($1, $2, 'move', $3, $4)",
            &[&actor, &action, &row.id.to_string(), &detail],
        )
        .await?;
    Ok(())
}
