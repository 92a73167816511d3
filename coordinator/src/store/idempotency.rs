//! Answers that were given under an `Idempotency-Key`, in the transaction of
//! the work that they answer.

use tokio_postgres::GenericClient;

use super::StoreError;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// The key is this transaction's: it does the work, then calls
    /// [`answer`]. Another request with the key waits until it ends.
    Fresh,
    /// The same request was answered with this.
    Answered { status: u16, response: serde_json::Value },
    /// The key was used for another request.
    Other,
}

/// Claims `key` for `request` (a SHA-256 of it).
pub async fn claim(
    client: &impl GenericClient,
    key: &str,
    request: &[u8],
) -> Result<Claim, StoreError> {
    let fresh = client
        .execute(
            "insert into idempotency_keys (key, request) values ($1, $2)
             on conflict (key) do nothing",
            &[&key, &request],
        )
        .await?;
    if fresh == 1 {
        return Ok(Claim::Fresh);
    }
    let row = client
        .query_one("select request, status, response from idempotency_keys where key = $1", &[&key])
        .await?;
    if row.try_get::<_, &[u8]>(0)? != request {
        return Ok(Claim::Other);
    }
    let status: Option<i32> = row.try_get(1)?;
    let response: Option<serde_json::Value> = row.try_get(2)?;
    match (status.and_then(|status| u16::try_from(status).ok()), response) {
        (Some(status), Some(response)) => Ok(Claim::Answered { status, response }),
        _ => Err(StoreError::Corrupt {
            what: "idempotency_keys.response",
            detail: "a claimed key without its answer was committed".into(),
        }),
    }
}

/// Keeps the answer under the key.
pub async fn answer(
    client: &impl GenericClient,
    key: &str,
    status: u16,
    response: &serde_json::Value,
) -> Result<(), StoreError> {
    client
        .execute(
            "update idempotency_keys set status = $2, response = $3 where key = $1",
            &[&key, &i32::from(status), &response],
        )
        .await?;
    Ok(())
}

/// Forgets keys older than `days`.
pub async fn forget(client: &impl GenericClient, days: i32) -> Result<u64, StoreError> {
    Ok(client
        .execute(
            "delete from idempotency_keys where created_at < now() - make_interval(days => $1)",
            &[&days],
        )
        .await?)
}
