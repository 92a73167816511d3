//! When moves of a tenant, or from and to a node, may begin.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Path};
use crate::moves::window::Window;
use crate::moves::windows::{self, WindowsError};
use crate::store::windows::{Whose, of};

/// Windows of maintenance.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Each as "mon-fri 22:00-04:00 +01:00": weekdays or "daily", two times of
    /// the day, and an offset from UTC, which is 0 when absent. Empty: always.
    pub windows: Vec<String>,
}

impl From<Vec<Window>> for Windows {
    fn from(windows: Vec<Window>) -> Self {
        Self { windows: windows.iter().map(ToString::to_string).collect() }
    }
}

impl From<WindowsError> for ApiError {
    fn from(error: WindowsError) -> Self {
        match error {
            WindowsError::Invalid(invalid) => invalid.into(),
            WindowsError::Store(error) => error.into(),
        }
    }
}

async fn get(state: &ApiState, whose: Whose) -> Result<Json<Windows>, ApiError> {
    let client = state.store.client().await?;
    Ok(Json(of(&**client, whose).await?.into()))
}

async fn set(
    state: &ApiState,
    whose: Whose,
    wanted: &Windows,
    actor: &str,
) -> Result<Json<Windows>, ApiError> {
    let set = windows::set(&state.store, whose, &wanted.windows, actor).await?;
    state.signals.replies.notify();
    Ok(Json(set.into()))
}

/// When moves of a tenant may begin.
#[utoipa::path(get, path = "/api/tenants/{tenant}/windows", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = Windows), (status = 404, body = super::error::ErrorBody)))]
pub async fn of_tenant(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Windows>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    get(&state, Whose::Tenant(tenant.id)).await
}

/// When moves from and to a node may begin.
#[utoipa::path(get, path = "/api/nodes/{node}/windows", tag = "nodes",
    params(("node" = String, Path, description = "id or name")),
    responses((status = 200, body = Windows), (status = 404, body = super::error::ErrorBody)))]
pub async fn of_node(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Windows>, ApiError> {
    let node = extract::node(&state, &name).await?;
    get(&state, Whose::Node(node.id)).await
}

/// Replaces a tenant's windows. A move that has begun goes on.
#[utoipa::path(put, path = "/api/tenants/{tenant}/windows", tag = "tenants", request_body = Windows,
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = Windows), (status = 404, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn set_tenant(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(name): Path<String>,
    Body(wanted): Body<Windows>,
) -> Result<Json<Windows>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    set(&state, Whose::Tenant(tenant.id), &wanted, &bearer.actor).await
}

/// Replaces a node's windows. A move that has begun goes on.
#[utoipa::path(put, path = "/api/nodes/{node}/windows", tag = "nodes", request_body = Windows,
    params(("node" = String, Path, description = "id or name")),
    responses((status = 200, body = Windows), (status = 404, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn set_node(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(name): Path<String>,
    Body(wanted): Body<Windows>,
) -> Result<Json<Windows>, ApiError> {
    let node = extract::node(&state, &name).await?;
    set(&state, Whose::Node(node.id), &wanted, &bearer.actor).await
}
