//! The outbox: commands on their way to agents, and the replies that ended
//! them. A row is written in the transaction that decides the command, and is
//! delivered until it is answered or expires.

use jiff::Timestamp;
use prost::Message;
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{CommandId, MoveId, NodeId};
use webhost_proto::wire::{self, CommandReply, FailureKind, command, command_reply};

use super::StoreError;

/// Puts a command into the outbox; answers its id. It is delivered once the
/// transaction has committed and `Signals::commands` was raised.
pub async fn enqueue(
    client: &impl GenericClient,
    node: NodeId,
    move_id: Option<MoveId>,
    kind: command::Kind,
    expires_at: Timestamp,
) -> Result<CommandId, StoreError> {
    let id = CommandId::generate();
    let body = wire::Command {
        id: id.to_wire(),
        expires_at_us: expires_at.as_microsecond(),
        kind: Some(kind),
    }
    .encode_to_vec();
    client
        .execute(
            "insert into commands (id, node_id, move_id, body, expires_at)
             values ($1, $2, $3, $4, $5)",
            &[&id.0, &node.0, &move_id.map(|id| id.0), &body, &expires_at],
        )
        .await?;
    Ok(id)
}

/// The commands that the node's agent has yet to answer, oldest first.
pub async fn open_for(
    client: &impl GenericClient,
    node: NodeId,
    now: Timestamp,
) -> Result<Vec<wire::Command>, StoreError> {
    let rows = client
        .query(
            "select body from commands
             where node_id = $1 and replied_at is null and expires_at > $2
             order by created_at, id",
            &[&node.0, &now],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let body: Vec<u8> = row.try_get(0)?;
            wire::Command::decode(body.as_slice()).map_err(|error| StoreError::Corrupt {
                what: "commands.body",
                detail: error.to_string(),
            })
        })
        .collect()
}

/// Every command that an agent has yet to answer, oldest first, at most 8192:
/// what is beyond waits for the oldest to be answered or to expire.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that can't be read.
pub async fn open(
    client: &impl GenericClient,
    now: Timestamp,
) -> Result<Vec<(NodeId, CommandId, wire::Command)>, StoreError> {
    client
        .query(
            "select node_id, id, body from commands
             where replied_at is null and expires_at > $1
             order by created_at, id limit 8192",
            &[&now],
        )
        .await?
        .iter()
        .map(|row| {
            let body: Vec<u8> = row.try_get(2)?;
            let command = wire::Command::decode(body.as_slice()).map_err(|error| {
                StoreError::Corrupt { what: "commands.body", detail: error.to_string() }
            })?;
            Ok((NodeId(row.try_get(0)?), CommandId(row.try_get(1)?), command))
        })
        .collect()
}

/// Remembers that the agent has the command.
pub async fn accepted(
    client: &impl GenericClient,
    node: NodeId,
    id: CommandId,
) -> Result<(), StoreError> {
    client
        .execute(
            "update commands set accepted_at = coalesce(accepted_at, now())
             where id = $1 and node_id = $2",
            &[&id.0, &node.0],
        )
        .await?;
    Ok(())
}

/// What an ending reply came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It ended the command.
    Stored,
    /// The command has ended already; the first reply stands.
    Late,
    /// No such command was sent to that node; nothing is stored.
    Unknown,
}

/// Stores the reply that ends a command. Only the node that it was sent to may
/// answer, and the first ending reply wins.
pub async fn answer(
    client: &impl GenericClient,
    id: CommandId,
    node: NodeId,
    reply: &CommandReply,
) -> Result<Answered, StoreError> {
    let stored = client
        .execute(
            "update commands set reply = $3, replied_at = now()
             where id = $1 and node_id = $2 and replied_at is null",
            &[&id.0, &node.0, &reply.encode_to_vec()],
        )
        .await?;
    if stored == 1 {
        return Ok(Answered::Stored);
    }
    let known = client
        .query_opt("select 1 from commands where id = $1 and node_id = $2", &[&id.0, &node.0])
        .await?;
    Ok(if known.is_some() { Answered::Late } else { Answered::Unknown })
}

/// Ends every command whose time is over with the reply "expired"; answers how
/// many.
pub async fn expire(client: &impl GenericClient, now: Timestamp) -> Result<u64, StoreError> {
    let rows = client
        .query("select id from commands where replied_at is null and expires_at <= $1", &[&now])
        .await?;
    let mut expired = 0;
    for row in &rows {
        let id: Uuid = row.try_get(0)?;
        let reply = CommandReply {
            command_id: id.as_bytes().to_vec(),
            outcome: Some(command_reply::Outcome::Failed(wire::Failed {
                kind: FailureKind::Expired.into(),
                message: "the command's time ended before an answer came".to_owned(),
                preflight: None,
            })),
        };
        expired += client
            .execute(
                "update commands set reply = $2, replied_at = now()
                 where id = $1 and replied_at is null",
                &[&id, &reply.encode_to_vec()],
            )
            .await?;
    }
    Ok(expired)
}

/// One command as its sender sees it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Whom it was sent to.
    pub node: NodeId,
    /// When its time ends.
    pub expires_at: Timestamp,
    /// The agent said that it has it.
    pub accepted: bool,
    /// It has ended; without a `reply` when its sender withdrew it.
    pub ended: bool,
    /// The reply that ended it.
    pub reply: Option<CommandReply>,
}

/// One command.
pub async fn get(client: &impl GenericClient, id: CommandId) -> Result<Option<Sent>, StoreError> {
    let row = client
        .query_opt(
            "select node_id, expires_at, accepted_at is not null, replied_at is not null, reply
             from commands where id = $1",
            &[&id.0],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let reply = match row.try_get::<_, Option<Vec<u8>>>(4)? {
        None => None,
        Some(bytes) => Some(CommandReply::decode(bytes.as_slice()).map_err(|error| {
            StoreError::Corrupt { what: "commands.reply", detail: error.to_string() }
        })?),
    };
    Ok(Some(Sent {
        node: NodeId(row.try_get(0)?),
        expires_at: row.try_get(1)?,
        accepted: row.try_get(2)?,
        ended: row.try_get(3)?,
        reply,
    }))
}
