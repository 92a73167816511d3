//! Adoption of the tenants that a node's database carries already.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Path};
use crate::signup::import::{Import, ImportError};
use crate::signup::request;

/// Whether to adopt.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportRequest {
    /// False, the default: a dry run.
    pub apply: bool,
    /// The plan of tenants whose database names none.
    pub default_plan: Option<String>,
}

/// Reads the tenants of a node's database; adopts them where `apply` is true.
#[utoipa::path(post, path = "/api/nodes/{node}/import", tag = "nodes", request_body = ImportRequest,
    params(("node" = String, Path, description = "id or name")),
    responses((status = 200, body = Import), (status = 409, body = super::error::ErrorBody),
              (status = 504, body = super::error::ErrorBody)))]
pub async fn import(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(name): Path<String>,
    Body(wanted): Body<ImportRequest>,
) -> Result<Json<Import>, ApiError> {
    let node = extract::node(&state, &name).await?;
    if let Some(plan) = &wanted.default_plan {
        request::plan(plan, &state.catalog)
            .map_err(|error| ApiError::invalid("default_plan", error.problem))?;
    }
    state
        .desk
        .import(&state.signals, &node, wanted.apply, wanted.default_plan.as_deref(), &bearer.actor)
        .await
        .map(Json)
        .map_err(|error| match error {
            ImportError::Silent(_) => ApiError::timeout(error.to_string()),
            ImportError::Refused { .. } => ApiError::conflict(error.to_string()),
            ImportError::Store(error) => error.into(),
        })
}
