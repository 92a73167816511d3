//! The tenant directory, for applications: where each tenant lives, with
//! versions, and a way to wait for the next change.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::error::ApiError;
use super::extract::{Page, Path, Query, tenant};
use crate::routing::Full;
use crate::signup::{self, Place};
use crate::store::places::{self, DnsRecord, Entry};
use crate::store::tenants::TenantState;
use webhost_proto::ids::TenantId;

/// Where a tenant lives, for the application.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PlaceView {
    #[schema(value_type = String)]
    pub customer_id: TenantId,
    pub slug: String,
    /// The tenant's state: an application serves active and provisioning ones.
    pub tenant_state: TenantState,
    /// Grows with every change, a switch and a roll back among them.
    pub version: i64,
    #[serde(flatten)]
    pub place: Place,
}

/// Whether to wait for a change.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Poll {
    /// A version that the caller has seen.
    pub after: Option<i64>,
    /// How long to wait for a later one, in seconds, at most a little less
    /// than a request may take (30 by default). Then the answer is as it is.
    pub wait_s: Option<u64>,
    /// 1 to 1000; 100 when absent. Only for all tenants.
    pub limit: Option<u32>,
}

impl Poll {
    fn patience(&self) -> Option<(i64, Duration)> {
        let wait = Duration::from_secs(self.wait_s.unwrap_or(0));
        self.after.filter(|_| !wait.is_zero()).map(|after| (after, wait))
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        Self::unavailable(full.to_string())
    }
}

/// Where a tenant lives. 409 while it waits for a node. With `after` and
/// `wait_s` it answers once the place has a later version.
#[utoipa::path(get, path = "/api/tenants/{tenant}/place", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug"), Poll),
    responses((status = 200, body = PlaceView), (status = 404, body = super::error::ErrorBody),
              (status = 409, body = super::error::ErrorBody),
              (status = 503, body = super::error::ErrorBody)))]
pub async fn place(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(poll): Query<Poll>,
) -> Result<Json<PlaceView>, ApiError> {
    let patience = poll.patience();
    let mut waiter = patience.map(|(_, wait)| state.directory.wait(wait)).transpose()?;
    loop {
        let tenant = tenant(&state, &name).await?;
        let client = state.store.client().await?;
        // The version first: a place that is newer than it says is asked for
        // once more, the reverse would hide a change.
        let version = places::version(&**client, tenant.id).await?;
        let home = signup::home(&**client, tenant.id).await?;
        // Nobody keeps a connection while it waits.
        drop(client);
        if let (Some(waiter), Some((after, _))) = (&mut waiter, patience)
            && version <= after
            && waiter.changed(Some(tenant.id), after).await
        {
            continue;
        }
        return match home {
            Some(place) => Ok(Json(PlaceView {
                customer_id: tenant.id,
                slug: tenant.slug,
                tenant_state: tenant.state,
                version,
                place,
            })),
            None => Err(ApiError::conflict(format!(
                "tenant {} is {}: {}",
                tenant.slug, tenant.state, tenant.state_reason
            ))),
        };
    }
}

/// What changed in the directory.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Changes {
    /// To be sent as `after` next time.
    pub version: i64,
    /// Oldest change first; a tenant is named once.
    pub places: Vec<Entry>,
}

/// All places that changed after a version, oldest change first; all of them
/// without one. With `wait_s` it answers once there is a change.
#[utoipa::path(get, path = "/api/places", tag = "tenants", params(Poll),
    responses((status = 200, body = Changes), (status = 503, body = super::error::ErrorBody)))]
pub async fn changes(
    State(state): State<ApiState>,
    Query(poll): Query<Poll>,
) -> Result<Json<Changes>, ApiError> {
    let limit = Page { limit: poll.limit, after: None }.limit()?;
    let after = poll.after.unwrap_or(0);
    let patience = poll.patience();
    let mut waiter = patience.map(|(_, wait)| state.directory.wait(wait)).transpose()?;
    loop {
        let client = state.store.client().await?;
        let places = places::since(&**client, after, limit).await?;
        drop(client);
        if places.is_empty()
            && let Some(waiter) = &mut waiter
            && waiter.changed(None, after).await
        {
            continue;
        }
        let version = places.last().map_or(after, |entry| entry.version);
        return Ok(Json(Changes { version, places }));
    }
}

/// Which records to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct After {
    /// 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// The last host name of the page before.
    pub after: Option<String>,
}

/// What name servers should answer, by host name, and when they were told.
#[utoipa::path(get, path = "/api/dns", tag = "fleet", params(After),
    responses((status = 200, body = Vec<DnsRecord>)))]
pub async fn dns(
    State(state): State<ApiState>,
    Query(page): Query<After>,
) -> Result<Json<Vec<DnsRecord>>, ApiError> {
    let limit = Page { limit: page.limit, after: None }.limit()?;
    let client = state.store.client().await?;
    let after = page.after.unwrap_or_default();
    Ok(Json(places::dns_records(&**client, &after, limit).await?))
}
