//! Tenants: signup, lookup, change.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use webhost_proto::ids::TenantId;

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Page, Path, Query};
use crate::decide::{self, Advice};
use crate::evaluate::judge::{self, Facts, FactsError};
use crate::signup::{self, Place, SignupAnswer, SignupRequest, request};
use crate::store::audit::{self, Entry};
use crate::store::placements::{self, Placement, PlacementState};
use crate::store::tenants::{self, Tenant, TenantState};
use crate::usage::UsageMetrics;
use crate::usage::{hourly, metrics, season};

/// A tenant and where it lives.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TenantView {
    #[serde(flatten)]
    pub tenant: Tenant,
    /// None while it waits.
    pub placement: Option<Place>,
}

async fn view(state: &ApiState, tenant: Tenant) -> Result<TenantView, ApiError> {
    let client = state.store.client().await?;
    let placement = signup::home(&**client, tenant.id).await?;
    Ok(TenantView { tenant, placement })
}

/// Signs a tenant up. Send an Idempotency-Key: a repetition gets the same
/// answer.
#[utoipa::path(post, path = "/api/tenants", tag = "tenants", request_body = SignupRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 visible characters")),
    responses((status = 201, body = SignupAnswer), (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn sign_up(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    headers: HeaderMap,
    Body(request): Body<SignupRequest>,
) -> Result<Response, ApiError> {
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(value) => {
            Some(value.to_str().ok().filter(|key| (1..=200).contains(&key.len())).ok_or_else(
                || ApiError::invalid("Idempotency-Key", "must be 1 to 200 visible characters"),
            )?)
        }
    };
    let (status, body) = state.desk.sign_up(&request, &bearer.actor, key).await?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::CREATED);
    Ok((status, Json(body)).into_response())
}

/// Which tenants to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only tenants in this state.
    pub state: Option<TenantState>,
    /// 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// The last id of the page before.
    pub after: Option<String>,
}

/// Lists tenants by id.
#[utoipa::path(get, path = "/api/tenants", tag = "tenants", params(Filter),
    responses((status = 200, body = Vec<Tenant>)))]
pub async fn list(
    State(state): State<ApiState>,
    Query(filter): Query<Filter>,
) -> Result<Json<Vec<Tenant>>, ApiError> {
    let page = Page { limit: filter.limit, after: filter.after };
    let client = state.store.client().await?;
    let after: Option<TenantId> = page.after()?;
    Ok(Json(tenants::list(&**client, filter.state, after, page.limit()?).await?))
}

/// One tenant, by id or slug.
#[utoipa::path(get, path = "/api/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = TenantView), (status = 404, body = super::error::ErrorBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<TenantView>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    Ok(Json(view(&state, tenant).await?))
}

/// What a tenant uses.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct UsageView {
    #[schema(value_type = String)]
    pub customer_id: TenantId,
    /// None until a node reports the tenant.
    pub usage_metrics: Option<UsageMetrics>,
    /// What plans would suit better, from the last 7 days.
    pub recommendations: Vec<Advice>,
}

/// The usage of a tenant, as the seeds name it.
///
/// # Errors
/// When the state database refuses.
pub async fn usage_of(state: &ApiState, tenant: &Tenant) -> Result<Option<UsageMetrics>, ApiError> {
    let now = Timestamp::now();
    let now_us = now.as_microsecond();
    let stated = signup::stated(tenant)?;
    let Some(usage) = state.book.tenant(tenant.id, now_us) else { return Ok(None) };
    let client = state.store.client().await?;
    let season = season::read(&**client, tenant.id, now).await?;
    let hours = hourly::read(&**client, tenant.id, now).await?;
    let node = state.book.node(usage.node, now_us);
    let stated = stated.geographic_distribution;
    let mut shown = metrics::usage_metrics(&usage, node.as_ref(), stated, season, &hours);
    state.book.show_minute(tenant.id, &mut shown, now_us);
    Ok(Some(shown))
}

/// Usage of one tenant, and the plan that would suit it.
#[utoipa::path(get, path = "/api/tenants/{tenant}/usage", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = UsageView), (status = 404, body = super::error::ErrorBody)))]
pub async fn usage(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<UsageView>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    let usage_metrics = usage_of(&state, &tenant).await?;
    let recommendations = advice(&state, &tenant).await?;
    Ok(Json(UsageView { customer_id: tenant.id, usage_metrics, recommendations }))
}

/// By the facts that an evaluation now would see; none where there are none.
async fn advice(state: &ApiState, tenant: &Tenant) -> Result<Vec<Advice>, ApiError> {
    let now = Timestamp::now();
    if state.book.tenant(tenant.id, now.as_microsecond()).is_none() {
        return Ok(Vec::new());
    }
    let client = state.store.client().await?;
    match judge::facts(&**client, &state.desk.slots, tenant, now).await {
        Ok(Facts { profile, residence, week, .. }) => {
            Ok(decide::recommend_plan(&profile, &residence, &week, &state.catalog))
        }
        Err(FactsError::Homeless(_) | FactsError::Profile(_)) => Ok(Vec::new()),
        Err(FactsError::Store(error)) => Err(error.into()),
    }
}

/// Every placement of a tenant, newest first.
#[utoipa::path(get, path = "/api/tenants/{tenant}/placements", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = Vec<Placement>)))]
pub async fn placements(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Placement>>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    let client = state.store.client().await?;
    Ok(Json(placements::of_tenant(&**client, tenant.id).await?))
}

/// What to change; what is absent stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The plan that is bought from now on; evaluated at once.
    pub plan: Option<String>,
    /// Replaces what the customer stated; evaluated at once.
    #[schema(value_type = Option<decide::ProfileOverrides>)]
    pub profile_overrides: Option<serde_json::Value>,
    /// Suspends, or takes up again.
    pub suspended: Option<bool>,
}

/// Changes a tenant's plan or profile, suspends it or takes it up again.
#[utoipa::path(patch, path = "/api/tenants/{tenant}", tag = "tenants", request_body = Change,
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = TenantView), (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn change(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(name): Path<String>,
    Body(change): Body<Change>,
) -> Result<Json<TenantView>, ApiError> {
    let found = extract::tenant(&state, &name).await?;
    let mut client = state.store.client().await?;
    let tx = (**client).transaction().await?;
    let gone = || ApiError::not_found("tenant", &name);
    let tenant = tenants::lock(&tx, found.id).await?.ok_or_else(gone)?;
    let mut detail = serde_json::Map::new();
    if let Some(plan) = change.plan.filter(|plan| *plan != tenant.plan) {
        request::plan(&plan, &state.catalog)?;
        tenants::set_plan(&tx, tenant.id, &plan).await?;
        detail.insert("plan".into(), json!({ "from": tenant.plan, "to": plan }));
    }
    if let Some(overrides) = &change.profile_overrides {
        let stated = request::overrides(overrides, &state.catalog)?;
        tenants::set_profile(&tx, tenant.id, &json!(stated)).await?;
        detail.insert("profile_overrides".into(), json!({ "from": tenant.profile, "to": stated }));
    }
    if let Some(suspended) = change.suspended {
        let next = match (suspended, tenant.state) {
            (true, TenantState::Active | TenantState::Provisioning | TenantState::Waiting) => {
                Some(TenantState::Suspended)
            }
            (false, TenantState::Suspended) => {
                let home = placements::home(&tx, tenant.id).await?;
                Some(match home.map(|placement| placement.state) {
                    Some(PlacementState::Active) => TenantState::Active,
                    Some(_) => TenantState::Provisioning,
                    None => TenantState::Waiting,
                })
            }
            (true, TenantState::Suspended) => None,
            (false, TenantState::Active | TenantState::Provisioning | TenantState::Waiting) => None,
            (_, state) => {
                return Err(ApiError::conflict(format!("tenant {} is {state}", tenant.slug)));
            }
        };
        if let Some(next) = next {
            tenants::set_state(&tx, tenant.id, next, "").await?;
            detail.insert("state".into(), json!({ "from": tenant.state, "to": next }));
        }
    }
    if !detail.is_empty() {
        audit::record(
            &tx,
            &Entry {
                actor: &bearer.actor,
                action: "tenant.changed",
                subject: "tenant",
                subject_id: tenant.id.to_string(),
                detail: detail.into(),
            },
        )
        .await?;
    }
    tx.commit().await?;
    drop(client);
    state.desk.changed.notify();
    let tenant = extract::tenant(&state, &found.id.to_string()).await?;
    Ok(Json(view(&state, tenant).await?))
}
