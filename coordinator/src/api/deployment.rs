//! The admin endpoints of the seeds, with the seeds' fields.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Path, now_us};
use super::tenants::usage_of;
use crate::decide::{
    Decision, Migration, Mode, Profile, ProfileOverrides, Usage, evaluate_migration, recommend,
};
use crate::evaluate::{FactsError, ForceError, Forced, Wanted, force};
use crate::moves::{self, Kind};
use crate::signup::{self, request};
use crate::store::decisions::{self, Outcome, Trigger};
use crate::store::placements;
use crate::store::tenants::Tenant;
use crate::usage::{UsageMetrics, metrics};

/// Where a tenant is deployed today.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Deployment {
    /// None while it waits.
    pub mode: Option<Mode>,
    /// The tenant's state.
    pub status: crate::store::tenants::TenantState,
    pub infrastructure: Option<crate::decide::Infrastructure>,
    pub plan: String,
    pub node: Option<String>,
    #[schema(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    /// Whole days in this mode, from the placements' history.
    pub days_on_current_mode: Option<i64>,
    pub epoch: u64,
}

/// Reads where a tenant is deployed.
///
/// # Errors
/// When the state database refuses.
pub async fn deployment(state: &ApiState, tenant: &Tenant) -> Result<Deployment, ApiError> {
    let client = state.store.client().await?;
    let home = placements::home(&**client, tenant.id).await?;
    let place = match &home {
        Some(placement) => Some(signup::place(&**client, placement).await?),
        None => None,
    };
    let since = match &home {
        Some(placement) => placements::in_mode_since(&**client, tenant.id, placement.mode).await?,
        None => None,
    };
    Ok(Deployment {
        mode: home.as_ref().map(|placement| placement.mode),
        status: tenant.state,
        infrastructure: home.as_ref().map(|placement| placement.mode.infrastructure()),
        plan: tenant.plan.clone(),
        node: place.map(|place| place.node),
        since,
        days_on_current_mode: since
            .map(|since| Timestamp::now().duration_since(since).as_hours() / 24),
        epoch: tenant.epoch.0,
    })
}

/// Asks the engine about a customer; what is absent is taken from its record
/// and its measured usage.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct Evaluate {
    #[schema(value_type = String)]
    pub customer_id: Uuid,
    /// Profile fields that replace what the customer stated, for this
    /// question only: budget, vehicle_count, compliance_requirements,
    /// latency_requirement, geographic_distribution, …
    #[serde(flatten)]
    #[schema(value_type = ProfileOverrides)]
    pub overrides: serde_json::Map<String, serde_json::Value>,
}

/// What the engine would recommend.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Evaluated {
    #[schema(value_type = String)]
    pub customer_id: TenantId,
    pub current_deployment: Deployment,
    pub recommended: Decision,
    pub usage_metrics: Option<UsageMetrics>,
    /// What the engine decided from.
    pub profile: Profile,
}

/// Joins a tenant's stated profile with `more` and its measured usage.
///
/// # Errors
/// 422 for a field of `more` that can't be taken.
pub fn profile_of(
    state: &ApiState,
    tenant: &Tenant,
    more: serde_json::Map<String, serde_json::Value>,
) -> Result<(Profile, Usage), ApiError> {
    let mut stated = match &tenant.profile {
        serde_json::Value::Object(stated) => stated.clone(),
        _ => serde_json::Map::new(),
    };
    stated.extend(more);
    let strip = |mut error: request::Invalid| {
        if let Some(field) = error.field.strip_prefix("profile_overrides.") {
            error.field = field.to_owned();
        }
        ApiError::from(error)
    };
    let stated = request::overrides(&stated.into(), &state.catalog).map_err(strip)?;
    let now_us = now_us();
    let usage = state.book.tenant(tenant.id, now_us).map_or_else(Usage::default, |usage| {
        let node = state.book.node(usage.node, now_us);
        metrics::for_decision(&usage, node.as_ref(), None)
    });
    let profile = Profile::build(&tenant.plan, &stated, &usage, &state.catalog)
        .map_err(|error| strip(error.into()))?;
    Ok((profile, usage))
}

/// What the engine recommends for a customer. Changes nothing but the record
/// of decisions.
#[utoipa::path(post, path = "/api/admin/deployment/evaluate", tag = "deployment",
    request_body = Evaluate,
    responses((status = 200, body = Evaluated), (status = 404, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn evaluate(
    State(state): State<ApiState>,
    Body(question): Body<Evaluate>,
) -> Result<Json<Evaluated>, ApiError> {
    let tenant = extract::tenant(&state, &question.customer_id.to_string()).await?;
    let (profile, usage) = profile_of(&state, &tenant, question.overrides)?;
    let recommended = recommend(&profile, &state.catalog);
    let current_deployment = deployment(&state, &tenant).await?;
    let verdict =
        current_deployment.mode.map(|mode| evaluate_migration(mode, &recommended, &state.catalog));
    let outcome = match verdict {
        Some(Migration::Migrate { .. }) => Outcome::Migrate,
        Some(Migration::Stay { .. }) | None => Outcome::Stay,
    };
    let client = state.store.client().await?;
    let inputs = json!({ "profile": profile, "usage": usage });
    decisions::insert(&**client, tenant.id, Trigger::Admin, &inputs, &json!(recommended), outcome)
        .await?;
    // Nobody waits for a second connection while it keeps a first.
    drop(client);
    Ok(Json(Evaluated {
        customer_id: tenant.id,
        current_deployment,
        recommended,
        usage_metrics: usage_of(&state, &tenant).await?,
        profile,
    }))
}

/// Forces a customer into a mode, or onto another node.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    #[schema(value_type = String)]
    pub customer_id: Uuid,
    /// "multi_tenant" or "single_tenant"; needed without `kind`.
    #[serde(default)]
    pub target_mode: Option<String>,
    /// "upgrade", "downgrade", "lateral" or "dedicated": refused where the
    /// move would be of another kind.
    #[serde(default)]
    pub kind: Option<String>,
    /// The node to take, by id or name; placement chooses without one.
    #[serde(default)]
    pub target: Option<String>,
    /// For the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
    /// Of a downgrade: so many rows, older than what the target's plan
    /// retains, may stay behind without asking.
    #[serde(default)]
    pub confirm_rows_left_behind: u64,
}

/// The move that was begun.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Migrated {
    /// "success".
    pub status: &'static str,
    /// "Migration queued".
    pub message: &'static str,
    #[schema(value_type = String)]
    pub move_id: webhost_proto::ids::MoveId,
    /// The forced decision, with what it breaks.
    pub decision: Decision,
}

/// Reads what is wanted.
async fn wanted(state: &ApiState, wanted: Migrate) -> Result<Wanted, ApiError> {
    let tenant = extract::tenant(state, &wanted.customer_id.to_string()).await?;
    let kind = wanted.kind.as_deref().map(str::parse::<Kind>).transpose();
    let kind = kind.map_err(|error| ApiError::invalid("kind", error.to_string()))?;
    let mode = match (wanted.target_mode, kind) {
        (Some(mode), _) => mode.parse().map_err(|error: crate::decide::plans::ModeError| {
            ApiError::invalid("target_mode", error.to_string())
        })?,
        (None, Some(kind)) => kind.target_mode(),
        (None, None) => {
            return Err(ApiError::invalid("target_mode", "target_mode or kind is needed"));
        }
    };
    let target = match &wanted.target {
        Some(name) => Some(extract::node(state, name).await?.id),
        None => None,
    };
    Ok(Wanted {
        tenant: tenant.id,
        mode,
        kind,
        target,
        reason: wanted.reason,
        confirm_rows: wanted.confirm_rows_left_behind,
        dry_run: false,
    })
}

/// Moves a customer into a mode although the scores say otherwise; never
/// against a compliance rule.
#[utoipa::path(post, path = "/api/admin/deployment/migrate", tag = "deployment",
    request_body = Migrate,
    responses((status = 202, body = Migrated), (status = 404, body = super::error::ErrorBody),
              (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn migrate(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Body(body): Body<Migrate>,
) -> Result<(StatusCode, Json<Migrated>), ApiError> {
    begin(&state, wanted(&state, body).await?, &bearer, "Migration queued").await
}

/// Looks at both sides as a move would, and changes nothing: the report is
/// `result.preflight` of the answered move once that has ended.
#[utoipa::path(post, path = "/api/moves/preflight", tag = "moves",
    request_body = Migrate,
    responses((status = 202, body = Migrated), (status = 404, body = super::error::ErrorBody),
              (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn preflight(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Body(body): Body<Migrate>,
) -> Result<(StatusCode, Json<Migrated>), ApiError> {
    let wanted = Wanted { dry_run: true, ..wanted(&state, body).await? };
    begin(&state, wanted, &bearer, "Preflight queued").await
}

async fn begin(
    state: &ApiState,
    wanted: Wanted,
    bearer: &Bearer,
    message: &'static str,
) -> Result<(StatusCode, Json<Migrated>), ApiError> {
    let begun = force(&state.store, &state.desk.slots, wanted, &bearer.actor).await?;
    // The driver wakes by this signal as well as by its period.
    state.signals.replies.notify();
    let Forced { move_id, decision, .. } = begun;
    let answer = Migrated { status: "success", message, move_id, decision };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

impl From<ForceError> for ApiError {
    fn from(error: ForceError) -> Self {
        match error {
            ForceError::Move(refused) => refused.into(),
            ForceError::Store(error) | ForceError::Facts(FactsError::Store(error)) => error.into(),
            other @ (ForceError::Refused(_) | ForceError::Kind { .. } | ForceError::Facts(_)) => {
                Self::conflict(other.to_string())
            }
        }
    }
}

/// How a customer is deployed, what it uses, and what moves.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Status {
    #[schema(value_type = String)]
    pub customer_id: TenantId,
    pub deployment: Deployment,
    pub usage_metrics: Option<UsageMetrics>,
    /// "none", or the state of the open move.
    pub migration_status: String,
    /// The open move.
    #[serde(rename = "move")]
    pub open_move: Option<moves::MoveView>,
}

/// How a customer is deployed.
#[utoipa::path(get, path = "/api/admin/deployment/status/{customer_id}", tag = "deployment",
    params(("customer_id" = String, Path)),
    responses((status = 200, body = Status), (status = 404, body = super::error::ErrorBody)))]
pub async fn status(
    State(state): State<ApiState>,
    Path(customer_id): Path<String>,
) -> Result<Json<Status>, ApiError> {
    let tenant = extract::tenant(&state, &customer_id).await?;
    let open = moves::view::open_of(&state.store, tenant.id).await?;
    Ok(Json(Status {
        customer_id: tenant.id,
        deployment: deployment(&state, &tenant).await?,
        usage_metrics: usage_of(&state, &tenant).await?,
        migration_status: open.as_ref().map_or("none".to_owned(), |open| open.state.clone()),
        open_move: open,
    }))
}
