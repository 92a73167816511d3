//! Join tokens: each lets one machine enrol as one named node, once.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use webhost_proto::ids::NodeId;

use super::StoreError;
use super::nodes::NodeKind;

/// What a token promises to the node that redeems it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The node's name, unique in the fleet.
    pub node_name: String,
    /// How many tenants it is for.
    pub kind: NodeKind,
    /// A shape of the configuration.
    pub shape: String,
    /// Where it stands.
    pub region: String,
}

/// Adds a token; only its hash is ever stored.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(
    client: &impl GenericClient,
    sha256: &[u8],
    promise: &Promise,
    created_by: &str,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    client
        .execute(
            "insert into join_tokens
               (sha256, node_name, kind, shape, region, created_by, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7)",
            &[
                &sha256,
                &promise.node_name,
                &promise.kind,
                &promise.shape,
                &promise.region,
                &created_by,
                &expires_at,
            ],
        )
        .await?;
    Ok(())
}

/// Uses a token up, in one statement: of two that race for it exactly one
/// gets an answer. None where it is unknown, used or expired.
///
/// # Errors
/// [`StoreError`].
pub async fn redeem(
    client: &impl GenericClient,
    sha256: &[u8],
) -> Result<Option<Promise>, StoreError> {
    let row = client
        .query_opt(
            "update join_tokens set used_at = now()
             where sha256 = $1 and used_at is null and expires_at > now()
             returning node_name, kind, shape, region",
            &[&sha256],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Promise {
        node_name: row.try_get(0)?,
        kind: row.try_get(1)?,
        shape: row.try_get(2)?,
        region: row.try_get(3)?,
    }))
}

/// Remembers which node redeemed the token.
///
/// # Errors
/// [`StoreError`].
pub async fn redeemed_by(
    client: &impl GenericClient,
    sha256: &[u8],
    node: NodeId,
) -> Result<(), StoreError> {
    client
        .execute("update join_tokens set node_id = $2 where sha256 = $1", &[&sha256, &node.0])
        .await?;
    Ok(())
}

/// Why [`redeem`] gave nothing: for the log, never for the one who asked.
///
/// # Errors
/// [`StoreError`].
pub async fn why_not(
    client: &impl GenericClient,
    sha256: &[u8],
) -> Result<&'static str, StoreError> {
    let row = client
        .query_opt("select used_at is not null from join_tokens where sha256 = $1", &[&sha256])
        .await?;
    Ok(match row.map(|row| row.try_get::<_, bool>(0)).transpose()? {
        None => "unknown",
        Some(true) => "used",
        Some(false) => "expired",
    })
}
