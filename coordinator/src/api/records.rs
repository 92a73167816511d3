//! What was decided, placed and done: lists to look through.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::ApiState;
use super::error::ApiError;
use super::extract::{self, Page, Query};
use crate::decide::accuracy::Accuracy;
use crate::evaluate::accuracy as outcomes;
use crate::store::{audit as trail, decisions as decided, limits as near, placements as places};

/// Which placements to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PlacementFilter {
    /// Only those on this node, by id or name.
    pub node: Option<String>,
    /// Ended ones, too.
    #[serde(default)]
    pub history: bool,
    /// 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// The last id of the page before.
    pub after: Option<String>,
}

/// Lists placements by id.
#[utoipa::path(get, path = "/api/placements", tag = "records", params(PlacementFilter),
    responses((status = 200, body = Vec<places::Placement>)))]
pub async fn placements(
    State(state): State<ApiState>,
    Query(filter): Query<PlacementFilter>,
) -> Result<Json<Vec<places::Placement>>, ApiError> {
    let page = Page { limit: filter.limit, after: filter.after };
    let node = match &filter.node {
        Some(name) => Some(extract::node(&state, name).await?.id),
        None => None,
    };
    let client = state.store.client().await?;
    let rows = places::list(&**client, node, filter.history, page.after()?, page.limit()?).await?;
    Ok(Json(rows))
}

/// Which decisions to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DecisionFilter {
    /// Only those about this tenant, by id or slug.
    pub tenant: Option<String>,
    /// 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// The last id of the page before.
    pub after: Option<String>,
}

/// Lists decisions, newest first.
#[utoipa::path(get, path = "/api/decisions", tag = "records", params(DecisionFilter),
    responses((status = 200, body = Vec<decided::Recorded>)))]
pub async fn decisions(
    State(state): State<ApiState>,
    Query(filter): Query<DecisionFilter>,
) -> Result<Json<Vec<decided::Recorded>>, ApiError> {
    let page = Page { limit: filter.limit, after: filter.after };
    let tenant = match &filter.tenant {
        Some(name) => Some(extract::tenant(&state, name).await?.id),
        None => None,
    };
    let client = state.store.client().await?;
    let before: Option<Uuid> = page.after()?;
    Ok(Json(decided::list(&**client, tenant, before, page.limit()?).await?))
}

/// Which part of the audit trail to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditFilter {
    /// "tenant", "node", "move", "token".
    pub subject: Option<String>,
    /// Its id.
    pub subject_id: Option<String>,
    /// 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// The last id of the page before.
    pub after: Option<String>,
}

/// The audit trail, newest first.
#[utoipa::path(get, path = "/api/audit", tag = "records", params(AuditFilter),
    responses((status = 200, body = Vec<trail::Recorded>)))]
pub async fn audit(
    State(state): State<ApiState>,
    Query(filter): Query<AuditFilter>,
) -> Result<Json<Vec<trail::Recorded>>, ApiError> {
    let page = Page { limit: filter.limit, after: filter.after };
    let client = state.store.client().await?;
    let rows = trail::list(
        &**client,
        filter.subject.as_deref(),
        filter.subject_id.as_deref(),
        page.after()?,
        page.limit()?,
    )
    .await?;
    Ok(Json(rows))
}

/// The limits of plans that tenants are near or have crossed, the worst first;
/// at most 1000.
#[utoipa::path(get, path = "/api/limits", tag = "records",
    responses((status = 200, body = Vec<near::Recorded>)))]
pub async fn limits(State(state): State<ApiState>) -> Result<Json<Vec<near::Recorded>>, ApiError> {
    let client = state.store.client().await?;
    Ok(Json(near::list(&**client, None).await?))
}

/// Of which time.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Span {
    /// 1 to 730 days before now; 90 when absent.
    pub days: Option<u32>,
}

/// How decisions turned out: did tenants stay, did their performance issues end,
/// how often did we change our mind.
#[utoipa::path(get, path = "/api/decisions/accuracy", tag = "records", params(Span),
    responses((status = 200, body = Accuracy), (status = 422, body = super::error::ErrorBody)))]
pub async fn accuracy(
    State(state): State<ApiState>,
    Query(span): Query<Span>,
) -> Result<Json<Accuracy>, ApiError> {
    let days = span.days.unwrap_or(90);
    if !(1..=730).contains(&days) {
        return Err(ApiError::invalid("days", format!("{days} is not 1 to 730")));
    }
    let client = state.store.client().await?;
    let thresholds = &state.catalog.thresholds;
    Ok(Json(outcomes::of_days(&**client, thresholds, days, Timestamp::now()).await?))
}
