//! Usage of a tenant over time.

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::ApiState;
use super::error::ApiError;
use super::extract::{self, Path, Query};
use crate::usage::chart::{self, Chart};
use crate::usage::series;

/// Which column, and of which time.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// cpu, gps_points, api_calls, api_errors, request_time, memory, storage,
    /// db_connections, client_connections or vehicles.
    pub metric: String,
    /// RFC 3339; a day before `to` when absent.
    pub from: Option<String>,
    /// RFC 3339; now when absent.
    pub to: Option<String>,
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    let wrong = |text| ApiError::invalid(field, format!("{text:?} is no time of RFC 3339"));
    text.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
}

/// One metric of a tenant over time: minutes, five minutes or hours, as fine as
/// that time is remembered.
#[utoipa::path(get, path = "/api/tenants/{tenant}/usage/chart", tag = "tenants",
    params(("tenant" = String, Path, description = "id or slug"), Wanted),
    responses((status = 200, body = Chart), (status = 404, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn chart(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Chart>, ApiError> {
    let tenant = extract::tenant(&state, &name).await?;
    let Some(column) = series::named(&wanted.metric) else {
        let names = series::ALL.map(|column| column.name).join(", ");
        let problem = format!("{:?} is none of {names}", wanted.metric);
        return Err(ApiError::invalid("metric", problem));
    };
    let now = Timestamp::now();
    let to = time("to", wanted.to.as_deref())?.unwrap_or(now).min(now);
    let day = SignedDuration::from_hours(24);
    let from = match time("from", wanted.from.as_deref())? {
        Some(from) => from,
        None => to.saturating_sub(day).unwrap_or(to),
    };
    if from >= to || to.duration_since(from) > chart::LONGEST {
        let problem = format!("{from} is not before {to}, or more than two years before it");
        return Err(ApiError::invalid("from", problem));
    }
    let client = state.store.client().await?;
    let (book, retention) = (&state.book, &state.retention);
    let read = chart::read(&**client, book, retention, tenant.id, column, (from, to), now);
    Ok(Json(read.await?))
}
