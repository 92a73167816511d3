//! Tenants: who they are, what they bought, and which state they are in.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::{Epoch, TenantId};

use super::StoreError;
use super::text::text_enum;

text_enum!(
    /// Where a tenant is in its life. Only active ones are evaluated.
    TenantState, "tenant state" {
        /// No node is free for it; retried, never lost.
        Waiting = "waiting",
        /// A slot is reserved; the application has yet to use it.
        Provisioning = "provisioning",
        Active = "active",
        Suspended = "suspended",
        Leaving = "leaving",
        Gone = "gone",
    }
);

/// One row of `tenants`.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Tenant {
    #[schema(value_type = String)]
    pub id: TenantId,
    pub slug: String,
    pub name: String,
    pub email: String,
    pub company_name: String,
    pub billing_email: String,
    pub plan: String,
    /// The overrides as the signup or an administrator stated them.
    #[schema(value_type = Object)]
    pub profile: serde_json::Value,
    pub state: TenantState,
    pub state_reason: String,
    /// Who let it have a plan that leaves needs unmet, and which; null where
    /// nobody did.
    #[schema(value_type = Option<Object>)]
    pub approved: Option<serde_json::Value>,
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    #[schema(value_type = Option<String>)]
    pub evaluated_at: Option<Timestamp>,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    #[schema(value_type = String)]
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, slug, name, email, company_name, billing_email, plan, profile, state, \
                       state_reason, approved, epoch, evaluated_at, created_at, updated_at";

fn tenant(row: &Row) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: TenantId(row.try_get("id")?),
        slug: row.try_get("slug")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        company_name: row.try_get("company_name")?,
        billing_email: row.try_get("billing_email")?,
        plan: row.try_get("plan")?,
        profile: row.try_get("profile")?,
        state: row.try_get("state")?,
        state_reason: row.try_get("state_reason")?,
        approved: row.try_get("approved")?,
        epoch: Epoch(row.try_get::<_, i64>("epoch")?.unsigned_abs()),
        evaluated_at: row.try_get("evaluated_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// What a signup or an import writes.
#[derive(Clone, Debug)]
pub struct NewTenant {
    pub id: TenantId,
    pub slug: String,
    pub name: String,
    pub email: String,
    pub company_name: String,
    pub billing_email: String,
    pub plan: String,
    pub profile: serde_json::Value,
    pub state: TenantState,
    pub state_reason: String,
}

/// Which unique value was taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Id,
    Slug,
}

/// Writes the tenant, or says which of its unique values another one holds;
/// then nothing is written and the transaction is still good.
pub async fn insert(
    client: &impl GenericClient,
    new: &NewTenant,
) -> Result<Result<(), Taken>, StoreError> {
    let written = client
        .execute(
            "insert into tenants (id, slug, name, email, company_name, billing_email, plan, \
                                  profile, state, state_reason)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict do nothing",
            &[
                &new.id.0,
                &new.slug,
                &new.name,
                &new.email,
                &new.company_name,
                &new.billing_email,
                &new.plan,
                &new.profile,
                &new.state,
                &new.state_reason,
            ],
        )
        .await?;
    if written == 1 {
        return Ok(Ok(()));
    }
    let same_id =
        client.query_opt("select 1 from tenants where id = $1", &[&new.id.0]).await?.is_some();
    Ok(Err(if same_id { Taken::Id } else { Taken::Slug }))
}

/// One tenant.
pub async fn get(client: &impl GenericClient, id: TenantId) -> Result<Option<Tenant>, StoreError> {
    let sql = format!("select {COLUMNS} from tenants where id = $1");
    client.query_opt(&sql, &[&id.0]).await?.as_ref().map(tenant).transpose()
}

/// One tenant, its row locked until the transaction ends.
pub async fn lock(client: &impl GenericClient, id: TenantId) -> Result<Option<Tenant>, StoreError> {
    let sql = format!("select {COLUMNS} from tenants where id = $1 for update");
    client.query_opt(&sql, &[&id.0]).await?.as_ref().map(tenant).transpose()
}

/// Gives the tenant a host name; false where another one has it, and then
/// nothing is written.
pub async fn set_host(
    client: &impl GenericClient,
    id: TenantId,
    host: &str,
) -> Result<bool, StoreError> {
    let set = client
        .execute(
            "update tenants set host = $2 where id = $1
               and not exists (select from tenants where host = $2 and id <> $1)",
            &[&id.0, &host],
        )
        .await?;
    Ok(set == 1)
}

/// The tenant's host name; empty where it has none.
pub async fn host(client: &impl GenericClient, id: TenantId) -> Result<String, StoreError> {
    let row = client.query_opt("select host from tenants where id = $1", &[&id.0]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}

/// The slugs of those tenants.
pub async fn slugs(
    client: &impl GenericClient,
    ids: &[TenantId],
) -> Result<HashMap<TenantId, String>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = client.query("select id, slug from tenants where id = any($1)", &[&ids]).await?;
    rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// One tenant by its slug.
pub async fn by_slug(
    client: &impl GenericClient,
    slug: &str,
) -> Result<Option<Tenant>, StoreError> {
    let sql = format!("select {COLUMNS} from tenants where slug = $1");
    client.query_opt(&sql, &[&slug]).await?.as_ref().map(tenant).transpose()
}

/// Up to `limit` tenants after `after`, by id; only those in `state` when it
/// is given.
pub async fn list(
    client: &impl GenericClient,
    state: Option<TenantState>,
    after: Option<TenantId>,
    limit: i64,
) -> Result<Vec<Tenant>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from tenants
         where ($1::text is null or state = $1) and ($2::uuid is null or id > $2)
         order by id limit $3"
    );
    let state = state.map(TenantState::as_str);
    let rows = client.query(&sql, &[&state, &after.map(|id| id.0), &limit]).await?;
    rows.iter().map(tenant).collect()
}

/// A waiting tenant and what its turn follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub tenant: TenantId,
    /// When its last reservation ended; the Unix epoch where it had none.
    ended: Timestamp,
    since: Timestamp,
}

/// Up to `limit` waiting tenants that come after `after`: first those who never
/// had a place, longest waiting first; then those who let a reservation expire,
/// so that it stays from nobody who would use it.
pub async fn waiting(
    client: &impl GenericClient,
    after: Option<Turn>,
    limit: i64,
) -> Result<Vec<Turn>, StoreError> {
    let (ended, since, id) = match after {
        Some(turn) => (Some(turn.ended), Some(turn.since), Some(turn.tenant.0)),
        None => (None, None, None),
    };
    let rows = client
        .query(
            "select id, ended, created_at from (
               select t.id, t.created_at,
                      coalesce((select max(p.ended_at) from placements p
                                where p.tenant_id = t.id), to_timestamp(0)) as ended
               from tenants t where t.state = 'waiting') w
             where $3::uuid is null or (ended, created_at, id)
                   > ($1::timestamptz, $2::timestamptz, $3::uuid)
             order by ended, created_at, id limit $4",
            &[&ended, &since, &id, &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Turn {
                tenant: TenantId(row.try_get(0)?),
                ended: row.try_get(1)?,
                since: row.try_get(2)?,
            })
        })
        .collect()
}

/// What each active tenant bought.
pub async fn plans(client: &impl GenericClient) -> Result<HashMap<TenantId, String>, StoreError> {
    let rows = client.query("select id, plan from tenants where state = 'active'", &[]).await?;
    rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// Sets the state, with its reason.
pub async fn set_state(
    client: &impl GenericClient,
    id: TenantId,
    state: TenantState,
    reason: &str,
) -> Result<(), StoreError> {
    client
        .execute(
            "update tenants set state = $2, state_reason = $3, updated_at = now() where id = $1",
            &[&id.0, &state, &reason],
        )
        .await?;
    Ok(())
}

/// A tenant whose place was promised waits again. Another state stays as it is:
/// one that was suspended meanwhile stays suspended.
pub async fn wait_again(
    client: &impl GenericClient,
    id: TenantId,
    reason: &str,
) -> Result<(), StoreError> {
    client
        .execute(
            "update tenants set state = 'waiting', state_reason = $2, updated_at = now()
             where id = $1 and state = 'provisioning'",
            &[&id.0, &reason],
        )
        .await?;
    Ok(())
}

/// Provisioning becomes active for every given tenant; answers those that
/// changed.
pub async fn activate(
    client: &impl GenericClient,
    ids: &[Uuid],
) -> Result<Vec<TenantId>, StoreError> {
    let rows = client
        .query(
            "update tenants set state = 'active', state_reason = '', updated_at = now()
             where id = any($1) and state = 'provisioning' returning id",
            &[&ids],
        )
        .await?;
    rows.iter().map(|row| Ok(TenantId(row.try_get(0)?))).collect()
}

/// Sets the bought plan and forgets the last evaluation, so that the change
/// is evaluated at once.
pub async fn set_plan(
    client: &impl GenericClient,
    id: TenantId,
    plan: &str,
) -> Result<(), StoreError> {
    client
        .execute(
            "update tenants set plan = $2, evaluated_at = null, updated_at = now() where id = $1",
            &[&id.0, &plan],
        )
        .await?;
    Ok(())
}

/// Forgets the last evaluation, so that the tenant is evaluated at once.
pub async fn evaluate_again(client: &impl GenericClient, id: TenantId) -> Result<(), StoreError> {
    client.execute("update tenants set evaluated_at = null where id = $1", &[&id.0]).await?;
    Ok(())
}

/// Keeps who let the tenant have a plan that leaves needs unmet.
pub async fn set_approved(
    client: &impl GenericClient,
    id: TenantId,
    approved: &serde_json::Value,
) -> Result<(), StoreError> {
    let sql = "update tenants set approved = $2, updated_at = now() where id = $1";
    client.execute(sql, &[&id.0, &approved]).await?;
    Ok(())
}

/// Replaces the stated profile, to be evaluated at once.
pub async fn set_profile(
    client: &impl GenericClient,
    id: TenantId,
    profile: &serde_json::Value,
) -> Result<(), StoreError> {
    client
        .execute(
            "update tenants set profile = $2, evaluated_at = null, updated_at = now() \
             where id = $1",
            &[&id.0, &profile],
        )
        .await?;
    Ok(())
}
