//! Bearer tokens of the HTTP API; the secret is stored as its SHA-256 only.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::StoreError;
use super::text::text_enum;

text_enum!(
    /// What the bearer may do.
    Role, "role" {
        /// Everything.
        Admin = "admin",
        /// The WebHost application: signup, and where a tenant lives.
        App = "app",
        /// Looks, changes nothing.
        Viewer = "viewer",
    }
);

/// One row of `api_tokens`, without its hash.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiToken {
    pub id: Uuid,
    pub name: String,
    pub role: Role,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub revoked_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub last_used_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, name, role, created_at, expires_at, revoked_at, last_used_at";

fn token(row: &Row) -> Result<ApiToken, StoreError> {
    Ok(ApiToken {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}

/// Writes a token; answers false when the name is taken.
pub async fn insert(
    client: &impl GenericClient,
    name: &str,
    role: Role,
    sha256: &[u8],
    expires_at: Option<Timestamp>,
) -> Result<bool, StoreError> {
    let written = client
        .execute(
            "insert into api_tokens (id, name, role, sha256, expires_at)
             values ($1, $2, $3, $4, $5) on conflict (name) do nothing",
            &[&Uuid::now_v7(), &name, &role, &sha256, &expires_at],
        )
        .await?;
    Ok(written == 1)
}

/// The token with this hash, if it is neither revoked nor expired; notes its
/// use at most once a minute.
pub async fn authenticate(
    client: &impl GenericClient,
    sha256: &[u8],
) -> Result<Option<ApiToken>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from api_tokens
         where sha256 = $1 and revoked_at is null and (expires_at is null or expires_at > now())"
    );
    let Some(row) = client.query_opt(&sql, &[&sha256]).await? else {
        return Ok(None);
    };
    let found = token(&row)?;
    client
        .execute(
            "update api_tokens set last_used_at = now()
             where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute')",
            &[&found.id],
        )
        .await?;
    Ok(Some(found))
}

/// All tokens, by name.
pub async fn list(client: &impl GenericClient) -> Result<Vec<ApiToken>, StoreError> {
    let sql = format!("select {COLUMNS} from api_tokens order by name");
    client.query(&sql, &[]).await?.iter().map(token).collect()
}

/// Revokes a token; answers whether there was one that still worked.
pub async fn revoke(client: &impl GenericClient, name: &str) -> Result<bool, StoreError> {
    let changed = client
        .execute(
            "update api_tokens set revoked_at = now() where name = $1 and revoked_at is null",
            &[&name],
        )
        .await?;
    Ok(changed == 1)
}
