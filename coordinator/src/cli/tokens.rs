//! `token`: the bearers of the HTTP API.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{CliError, TokenCommand, output};
use crate::api::auth;
use crate::store::audit::{self, Entry};
use crate::store::{Store, StoreError, api_tokens};

pub(super) async fn run(store: &Store, command: TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::Create { name, role, expires_days } => {
            let token = create(store, &name, role, expires_days).await?;
            output::line(&token)
        }
        TokenCommand::List(format) => {
            let tokens = api_tokens::list(&**store.client().await?).await?;
            if format.json {
                return output::json(&tokens);
            }
            let when = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
            let rows = tokens.into_iter().map(|token| {
                vec![
                    token.name,
                    token.role.to_string(),
                    token.created_at.to_string(),
                    when(token.expires_at),
                    when(token.last_used_at),
                    when(token.revoked_at),
                ]
            });
            let headings = ["NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED", "REVOKED"];
            output::table(&headings, rows.collect())
        }
        TokenCommand::Revoke { name } => {
            let mut client = store.client().await?;
            let tx = (**client).transaction().await.map_err(StoreError::from)?;
            if !api_tokens::revoke(&tx, &name).await? {
                return Err(CliError::Other(format!("there is no working token named {name:?}")));
            }
            record(&tx, "token.revoked", &name, json!({})).await?;
            tx.commit().await.map_err(StoreError::from)?;
            output::line(&format!("token {name} works no longer"))
        }
    }
}

async fn create(
    store: &Store,
    name: &str,
    role: api_tokens::Role,
    expires_days: Option<u32>,
) -> Result<String, CliError> {
    let printable = name.chars().all(|c| c.is_ascii_graphic());
    if name.is_empty() || name.len() > 100 || !printable {
        return Err(CliError::Other(format!(
            "{name:?} is no token name: 1 to 100 visible characters without spaces"
        )));
    }
    let token = auth::generate()
        .map_err(|_| CliError::Other("the operating system gave no randomness".into()))?;
    let expires = expires_days
        .map(|days| SignedDuration::from_hours(i64::from(days) * 24))
        .map(|life| Timestamp::now().saturating_add(life).unwrap_or(Timestamp::MAX));
    let mut client = store.client().await?;
    let tx = (**client).transaction().await.map_err(StoreError::from)?;
    if !api_tokens::insert(&tx, name, role, &auth::hash(&token), expires).await? {
        return Err(CliError::Other(format!(
            "a token named {name:?} exists (revoked ones keep their names); choose another name"
        )));
    }
    record(&tx, "token.created", name, json!({ "role": role, "expires_at": expires })).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(token)
}

async fn record(
    tx: &tokio_postgres::Transaction<'_>,
    action: &str,
    name: &str,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    let subject_id = name.to_owned();
    audit::record(tx, &Entry { actor: "operator", action, subject: "token", subject_id, detail })
        .await
}
