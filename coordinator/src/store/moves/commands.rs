//! Moves and their commands: what a step waits for, and what it has come to.

use jiff::Timestamp;
use tokio_postgres::{GenericClient, Row};
use webhost_proto::ids::{CommandId, MoveId, NodeId};

use super::{COLUMNS, Move, read};
use crate::store::StoreError;

/// What the command that a step waits for has come to.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When its time ends.
    pub expires_at: Timestamp,
    /// The agent said that it has it.
    pub accepted: bool,
    /// The protobuf of the reply that ended it.
    pub reply: Option<Vec<u8>>,
}

/// A move that has not ended, with the command that it waits for.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its row.
    pub row: Move,
    /// The command; none where none is on its way.
    pub sent: Option<Sent>,
}

fn read_open(row: &Row) -> Result<Open, StoreError> {
    let expires_at: Option<Timestamp> = row.try_get("command_expires_at")?;
    let sent = match expires_at {
        None => None,
        Some(expires_at) => Some(Sent {
            expires_at,
            accepted: row.try_get("command_accepted")?,
            reply: row.try_get("command_reply")?,
        }),
    };
    Ok(Open { row: read(row)?, sent })
}

const OPEN: &str = "c.expires_at as command_expires_at, \
     (c.accepted_at is not null) as command_accepted, c.reply as command_reply \
     from moves m left join commands c on c.id = (m.durable->>'command')::uuid \
     where m.ended_at is null";

/// One move that has not ended, with its command's answer, as of now.
pub async fn open(client: &impl GenericClient, id: MoveId) -> Result<Option<Open>, StoreError> {
    let sql = format!("select {COLUMNS}, {OPEN} and m.id = $1");
    client.query_opt(&sql, &[&id.0]).await?.as_ref().map(read_open).transpose()
}

/// The move that a command to `node` belongs to.
pub async fn of_command(
    client: &impl GenericClient,
    node: NodeId,
    command: CommandId,
) -> Result<Option<MoveId>, StoreError> {
    let row = client
        .query_opt(
            "select move_id from commands where id = $1 and node_id = $2 and move_id is not null",
            &[&command.0, &node.0],
        )
        .await?;
    row.map(|row| Ok(MoveId(row.try_get(0)?))).transpose()
}

/// Afterwards no command of the move is on its way any more, and none holds
/// the ticket: a step's command carries it, so the bodies are wiped.
pub async fn settle_commands(client: &impl GenericClient, id: MoveId) -> Result<(), StoreError> {
    client
        .execute(
            "update commands set body = '', replied_at = coalesce(replied_at, now())
             where move_id = $1 and (replied_at is null or body <> '')",
            &[&id.0],
        )
        .await?;
    Ok(())
}
