//! An administrator's word on a signup.

use axum::extract::State;
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Path};
use crate::decide::needs::Unmet;
use crate::signup::approve::ApproveError;

impl From<ApproveError> for ApiError {
    fn from(error: ApproveError) -> Self {
        match error {
            ApproveError::Unknown(id) => Self::not_found("tenant", id),
            ApproveError::NoReason => Self::invalid("reason", error.to_string()),
            ApproveError::Store(error) => error.into(),
            other => Self::conflict(other.to_string()),
        }
    }
}

/// Why.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveSignup {
    /// For the audit trail.
    pub reason: String,
}

/// What was approved.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SignupApproved {
    /// What stays unmet.
    pub unmet_needs: Vec<Unmet>,
}

/// Lets a tenant whose needs no plan satisfies have the largest one all the
/// same. It gets its place as soon as there is one; where its profile asks for
/// more later, that is another approval.
#[utoipa::path(post, path = "/api/tenants/{tenant}/approve", tag = "tenants",
    request_body = ApproveSignup,
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = SignupApproved), (status = 404, body = super::error::ErrorBody),
              (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn approve(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(name): Path<String>,
    Body(wanted): Body<ApproveSignup>,
) -> Result<Json<SignupApproved>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    let now = Timestamp::now();
    let approved = state.desk.approve(tenant.id, &bearer.actor, &wanted.reason, now).await?;
    Ok(Json(SignupApproved { unmet_needs: approved.unmet }))
}
