//! Where a tenant may and may not live.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use webhost_proto::ids::NodeId;

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Path};
use crate::fleet;
use crate::slots::rules::{self, RulesError, Wish};

/// The rules that hold for a tenant. All empty: anywhere.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RulesView {
    /// On this node and no other.
    #[schema(value_type = Option<String>)]
    pub pinned: Option<NodeId>,
    /// Places by their codes: best there.
    pub near: Vec<String>,
    /// There and nowhere else.
    pub only: Vec<String>,
    /// Not on one node with another tenant that has one of these labels.
    pub apart: Vec<String>,
}

impl From<fleet::Rules> for RulesView {
    fn from(rules: fleet::Rules) -> Self {
        let names = |regions: Vec<crate::decide::Region>| {
            regions.into_iter().map(|region| region.0).collect()
        };
        let (near, only) = (names(rules.near), names(rules.only));
        Self { pinned: rules.pinned, near, only, apart: rules.apart }
    }
}

impl From<RulesError> for ApiError {
    fn from(error: RulesError) -> Self {
        match error {
            RulesError::Invalid(invalid) => invalid.into(),
            RulesError::Store(error) => error.into(),
        }
    }
}

/// The rules of a tenant.
#[utoipa::path(get, path = "/api/tenants/{tenant}/rules", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = RulesView), (status = 404, body = super::error::ErrorBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<RulesView>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    let client = state.store.client().await?;
    Ok(Json(rules::get(&**client, tenant.id).await?.into()))
}

/// Replaces the rules of a tenant. It moves nobody by itself: plans and new
/// places keep to it.
#[utoipa::path(put, path = "/api/tenants/{tenant}/rules", tag = "tenants", request_body = Wish,
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = RulesView), (status = 404, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn set(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(name): Path<String>,
    Body(wish): Body<Wish>,
) -> Result<Json<RulesView>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    let (store, catalog) = (&state.store, &state.catalog);
    let set = rules::set(store, catalog, tenant.id, &wish, &bearer.actor).await?;
    state.desk.changed.notify();
    Ok(Json(set.into()))
}
