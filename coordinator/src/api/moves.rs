//! Moves: what moves, and a person's word on it.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use webhost_proto::ids::MoveId;

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Page, Path, Query};
use crate::moves::{self, MoveRefused, MoveView};
use crate::store::moves::Which;

impl From<MoveRefused> for ApiError {
    fn from(error: MoveRefused) -> Self {
        match error {
            MoveRefused::UnknownTenant(id) => Self::not_found("tenant", id),
            MoveRefused::UnknownMove(id) => Self::not_found("move", id),
            MoveRefused::Store(error) => error.into(),
            other => Self::conflict(other.to_string()),
        }
    }
}

/// Which moves to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only those of this tenant, by id or slug.
    pub tenant: Option<String>,
    /// Only those that have not ended.
    #[serde(default)]
    pub open: bool,
    /// 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// The last id of the page before.
    pub after: Option<String>,
}

/// Lists moves, newest first.
#[utoipa::path(get, path = "/api/moves", tag = "moves", params(Filter),
    responses((status = 200, body = Vec<MoveView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Query(filter): Query<Filter>,
) -> Result<Json<Vec<MoveView>>, ApiError> {
    let page = Page { limit: filter.limit, after: filter.after };
    let tenant = match &filter.tenant {
        Some(name) => Some(extract::tenant(&state, name).await?.id),
        None => None,
    };
    let which = Which { tenant, open: filter.open, before: page.after()? };
    Ok(Json(moves::list(&state.store, which, page.limit()?).await?))
}

async fn shown(state: &ApiState, id: MoveId) -> Result<Json<MoveView>, ApiError> {
    let found = moves::get(&state.store, id).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("move", id))
}

fn id_of(text: &str) -> Result<MoveId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("move", text))
}

/// One move with its history.
#[utoipa::path(get, path = "/api/moves/{id}", tag = "moves", params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 404, body = super::error::ErrorBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<MoveView>, ApiError> {
    shown(&state, id_of(&id)?).await
}

/// Approves a move that waits for an administrator.
#[utoipa::path(post, path = "/api/moves/{id}/approve", tag = "moves", params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn approve(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::approve(&state.store, id, &bearer.actor).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// Why.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// For the audit trail.
    pub reason: String,
}

/// Refuses a move that waits for an administrator.
#[utoipa::path(post, path = "/api/moves/{id}/refuse", tag = "moves", request_body = Why,
    params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn refuse(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    Body(why): Body<Why>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::refuse(&state.store, id, &bearer.actor, &why.reason).await?;
    shown(&state, id).await
}

/// Cancels a move; possible until its point of no return.
#[utoipa::path(post, path = "/api/moves/{id}/cancel", tag = "moves", params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn cancel(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::cancel(&state.store, id, &bearer.actor).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// How many rows may stay behind.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// At least what the move says: `rows_left_behind`.
    pub rows: u64,
}

/// Confirms how many rows stay behind, older than what the target's plan
/// retains.
#[utoipa::path(post, path = "/api/moves/{id}/confirm", tag = "moves", request_body = Rows,
    params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn confirm(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    Body(rows): Body<Rows>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::confirm(&state.store, id, rows.rows, &bearer.actor).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// Lets a move begin although the windows of its tenant or nodes are closed.
#[utoipa::path(post, path = "/api/moves/{id}/begin-now", tag = "moves", request_body = Why,
    params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn begin_now(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    Body(why): Body<Why>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::begin_now(&state.store, id, &bearer.actor, &why.reason).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// Pauses a move before its switch: a copy, drain or verification stops within
/// seconds; a switch under way can't be interrupted, and the pause waits for its
/// end. The move's `pausing` says which, until it is paused. Nothing is undone.
#[utoipa::path(post, path = "/api/moves/{id}/pause", tag = "moves", request_body = Why,
    params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn pause(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    Body(why): Body<Why>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::pause(&state.store, id, &bearer.actor, &why.reason).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// Lets a paused move go on.
#[utoipa::path(post, path = "/api/moves/{id}/resume", tag = "moves", params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn resume(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::resume(&state.store, id, &bearer.actor).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// Brings the tenant back to where it came from, and loses nothing; possible
/// while the way back is open.
#[utoipa::path(post, path = "/api/moves/{id}/roll-back", tag = "moves", request_body = Why,
    params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn roll_back(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    Body(why): Body<Why>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::roll_back(&state.store, id, &bearer.actor, &why.reason).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// Closes the way back before its time: the tenant stays where it is.
#[utoipa::path(post, path = "/api/moves/{id}/close-way-back", tag = "moves", request_body = Why,
    params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn close_way_back(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    Body(why): Body<Why>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::close_way_back(&state.store, id, &bearer.actor, &why.reason).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// Deletes the old copy before its time.
#[utoipa::path(post, path = "/api/moves/{id}/clean-up", tag = "moves", params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn clean_up(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    moves::clean_up(&state.store, id, &bearer.actor).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}

/// A person's word that a node is gone.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// The node that the move waits for never comes back: must be true.
    pub node_is_gone: bool,
}

/// Ends a move that waits for a node that never comes back: the target of an
/// abandoned one, the old copy's after a switch. Refused while that node is
/// connected. Closes an open way back. Should the node return, `clean-up`
/// deletes what it holds.
#[utoipa::path(post, path = "/api/moves/{id}/forget", tag = "moves", request_body = Gone,
    params(("id" = String, Path)),
    responses((status = 200, body = MoveView), (status = 409, body = super::error::ErrorBody)))]
pub async fn forget(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(id): Path<String>,
    Body(gone): Body<Gone>,
) -> Result<Json<MoveView>, ApiError> {
    let id = id_of(&id)?;
    if !gone.node_is_gone {
        return Err(ApiError::conflict(
            "a move is forgotten only with node_is_gone: true".to_owned(),
        ));
    }
    moves::forget(&state.store, id, &bearer.actor).await?;
    state.signals.replies.notify();
    shown(&state, id).await
}
