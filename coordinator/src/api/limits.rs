//! What a tenant uses of what its plan allows.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::ApiState;
use super::error::ApiError;
use super::extract::{self, Path, now_us};
use crate::decide::limits::{Level, Limit};
use crate::evaluate::limits::{metric, used};
use crate::store::limits;

/// One limit of a tenant's plan.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LimitView {
    pub limit: Limit,
    /// What the figures are in.
    pub unit: &'static str,
    pub allowed: u64,
    /// Null where it is not measured, which is not 0.
    pub used: Option<u64>,
    /// Of what is allowed, rounded up.
    pub percent: Option<u64>,
    /// From here on a warning is told, until it is below 75 %. Null of retention:
    /// keeping points as long as the plan lets one is no reason to warn.
    pub near_from: Option<u64>,
    /// Above this it is crossed, until it is at most 95 %. Of retention that is
    /// the plan's days and the grace (`retention_grace_days`): old points go a
    /// chunk of the table at a time.
    pub crossed_above: u64,
    /// The level that is told.
    pub level: Level,
    /// "measured", "attributed" or "not measured".
    pub basis: &'static str,
}

/// All limits of a tenant's plan, and how its usage stands to them.
#[utoipa::path(get, path = "/api/tenants/{tenant}/limits", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug")),
    responses((status = 200, body = Vec<LimitView>), (status = 404, body = super::error::ErrorBody),
              (status = 409, body = super::error::ErrorBody)))]
pub async fn of_tenant(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Vec<LimitView>>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    let plan = state.catalog.plan(&tenant.plan).ok_or_else(|| {
        ApiError::conflict(format!("plan {} is not in the catalogue any more", tenant.plan))
    })?;
    let told = limits::list(&**state.store.client().await?, Some(tenant.id)).await?;
    let usage = state.book.tenant(tenant.id, now_us());
    let view = |limit: Limit| {
        let used = usage.as_ref().and_then(|usage| used(usage, limit));
        let allowed = limit.of(plan);
        let percent = used.map(|used| {
            let percent = (u128::from(used) * 100).div_ceil(u128::from(allowed.max(1)));
            u64::try_from(percent).unwrap_or(u64::MAX)
        });
        let level = told.iter().find(|one| one.limit == limit).map(|one| one.level);
        let attributed =
            usage.as_ref().is_some_and(|usage| usage.attributed.contains(metric(limit)));
        let bound = limit.bound(plan, &state.catalog.thresholds);
        LimitView {
            limit,
            unit: limit.unit(),
            allowed,
            used,
            percent,
            near_from: bound.near_from(),
            crossed_above: bound.most(),
            level: level.unwrap_or_default(),
            basis: match (used, attributed) {
                (None, _) => "not measured",
                (Some(_), true) => "attributed",
                (Some(_), false) => "measured",
            },
        }
    };
    Ok(Json(Limit::ALL.into_iter().map(view).collect()))
}
