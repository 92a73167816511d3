//! The audit trail: who did what to which thing. A row is written in the
//! transaction of the change that it tells of.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::GenericClient;

use super::StoreError;

/// What an audit row says. `actor` is "token NAME", "node NAME", "operator"
/// (the CLI on the coordinator's machine) or "system".
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub actor: &'a str,
    /// As "tenant.signed_up": noun and what happened to it.
    pub action: &'a str,
    pub subject: &'a str,
    pub subject_id: String,
    pub detail: serde_json::Value,
}

/// Writes one row.
pub async fn record(client: &impl GenericClient, entry: &Entry<'_>) -> Result<(), StoreError> {
    client
        .execute(
            "insert into audit (actor, action, subject, subject_id, detail)
             values ($1, $2, $3, $4, $5)",
            &[&entry.actor, &entry.action, &entry.subject, &entry.subject_id, &entry.detail],
        )
        .await?;
    Ok(())
}

/// Whether such a row is there already.
pub async fn exists(
    client: &impl GenericClient,
    actor: &str,
    action: &str,
    subject_id: &str,
) -> Result<bool, StoreError> {
    let found = client
        .query_opt(
            "select 1 from audit where subject = 'tenant' and subject_id = $3
               and actor = $1 and action = $2 limit 1",
            &[&actor, &action, &subject_id],
        )
        .await?;
    Ok(found.is_some())
}

/// Whether such a row was written of a node since `since`.
pub async fn is_told_since(
    client: &impl GenericClient,
    action: &str,
    node: &str,
    since: Timestamp,
) -> Result<bool, StoreError> {
    let found = client
        .query_opt(
            "select 1 from audit where subject = 'node' and subject_id = $2
               and action = $1 and at >= $3 limit 1",
            &[&action, &node, &since],
        )
        .await?;
    Ok(found.is_some())
}

/// One row of `audit`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AuditRecord)]
pub struct Recorded {
    pub id: i64,
    #[schema(value_type = String)]
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub subject_id: String,
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

/// Up to `limit` rows before `before` (newest first), of one subject when it
/// is given.
pub async fn list(
    client: &impl GenericClient,
    subject: Option<&str>,
    subject_id: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Recorded>, StoreError> {
    let rows = client
        .query(
            "select id, at, actor, action, subject, subject_id, detail from audit
             where ($1::text is null or subject = $1) and ($2::text is null or subject_id = $2)
               and ($3::bigint is null or id < $3)
             order by id desc limit $4",
            &[&subject, &subject_id, &before, &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Recorded {
                id: row.try_get(0)?,
                at: row.try_get(1)?,
                actor: row.try_get(2)?,
                action: row.try_get(3)?,
                subject: row.try_get(4)?,
                subject_id: row.try_get(5)?,
                detail: row.try_get(6)?,
            })
        })
        .collect()
}
