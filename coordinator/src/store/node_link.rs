//! What the link writes and reads of a node's row: its enrolment, its
//! certificate, and whether it still may speak.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::NodeId;

use super::StoreError;
use super::join_tokens::Promise;
use super::nodes::NodeState;

/// Whom a redeemed token made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// A new node, with the id that was offered.
    New(NodeId),
    /// A node that enrols again under its name: its id stays.
    Again(NodeId),
    /// The name belongs to a revoked node, or to one of another kind, shape
    /// or region; nothing was written.
    NameTaken,
}

/// Makes the node that `promise` names, or finds the one that has the name.
///
/// # Errors
/// [`StoreError`].
pub async fn enrol(
    client: &impl GenericClient,
    offered: NodeId,
    promise: &Promise,
) -> Result<Enrolled, StoreError> {
    let made = client
        .execute(
            "insert into nodes (id, name, kind, shape, region) values ($1, $2, $3, $4, $5)
             on conflict (name) do nothing",
            &[&offered.0, &promise.node_name, &promise.kind, &promise.shape, &promise.region],
        )
        .await?;
    if made == 1 {
        return Ok(Enrolled::New(offered));
    }
    let known = client
        .query_opt(
            "select id from nodes
             where name = $1 and kind = $2 and shape = $3 and region = $4 and state <> 'revoked'
             for update",
            &[&promise.node_name, &promise.kind, &promise.shape, &promise.region],
        )
        .await?;
    Ok(match known {
        Some(row) => Enrolled::Again(NodeId(row.try_get(0)?)),
        None => Enrolled::NameTaken,
    })
}

/// Makes the certificate with this serial the node's only one: an older one
/// is refused from now on.
///
/// # Errors
/// [`StoreError`].
pub async fn set_certificate(
    client: &impl GenericClient,
    node: NodeId,
    serial: &str,
    not_after: Timestamp,
) -> Result<(), StoreError> {
    client
        .execute(
            "update nodes set certificate_serial = $2, certificate_not_after = $3 where id = $1",
            &[&node.0, &serial, &not_after],
        )
        .await?;
    Ok(())
}

/// Whether a node may speak, and with which certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Of whom.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// "revoked" ends everything.
    pub state: NodeState,
    /// The serial of its one certificate.
    pub serial: Option<String>,
}

/// The standing of those of `nodes` that there are.
///
/// # Errors
/// [`StoreError`].
pub async fn standing(
    client: &impl GenericClient,
    nodes: &[NodeId],
) -> Result<Vec<Standing>, StoreError> {
    let ids: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    client
        .query("select id, name, state, certificate_serial from nodes where id = any($1)", &[&ids])
        .await?
        .iter()
        .map(|row| {
            Ok(Standing {
                node: NodeId(row.try_get(0)?),
                name: row.try_get(1)?,
                state: row.try_get(2)?,
                serial: row.try_get(3)?,
            })
        })
        .collect()
}

/// Revokes a node for good: its certificate is refused from now on, and its
/// session ends within the recheck period. Answers whether it was there and
/// not revoked already.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke(client: &impl GenericClient, node: NodeId) -> Result<bool, StoreError> {
    let changed = client
        .execute(
            "update nodes set state = 'revoked', revoked_at = now()
             where id = $1 and state <> 'revoked'",
            &[&node.0],
        )
        .await?;
    Ok(changed == 1)
}
