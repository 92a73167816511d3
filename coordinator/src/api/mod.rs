//! The HTTP API: JSON over axum, described at `/api/openapi.json`.
//!
//! Every route belongs to one of four groups, and the group says which roles
//! may use it ([`auth::Access`]); a route outside a group can't be built, and
//! `/healthz` alone answers without a token. Handlers are thin: they read a
//! request, call a room, and turn what it says into a body. What changes
//! something writes its audit row in the same transaction.
//!
//! Lists take `limit` and `after`; ids are those of the last row shown.

pub mod auth;
pub mod error;
pub mod extract;
pub mod serve;
pub mod signups;

pub mod charts;
pub mod deployment;
pub mod drains;
pub mod fleet;
pub mod import;
pub mod limits;
pub mod moves;
pub mod places;
pub mod records;
pub mod rules;
pub mod tenants;
pub mod windows;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::{HeaderName, HeaderValue};
use tracing::Instrument;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use auth::{ADMIN, Access, LOOKUP, READ, SIGNUP};
use error::ApiError;

use crate::decide::Catalog;
use crate::link::Signals;
use crate::link::authority::Authority;
use crate::routing::Directory;
use crate::signup::Desk;
use crate::store::Store;
use crate::usage::Book;
use crate::usage::record::Retention;

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub store: Store,
    pub book: Arc<Book>,
    pub catalog: Arc<Catalog>,
    pub desk: Desk,
    pub signals: Signals,
    pub authority: Arc<Authority>,
    pub directory: Directory,
    /// What moves are held to.
    pub rules: crate::moves::Rules,
    /// How long usage is remembered.
    pub retention: Retention,
}

/// What one request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub body_bytes: usize,
    pub time: Duration,
}

/// The API, ready to serve, and its description.
pub fn router(state: &ApiState, bounds: Bounds) -> (Router, OpenApi) {
    let groups = [
        (SIGNUP, OpenApiRouter::new().routes(routes!(tenants::sign_up))),
        (
            LOOKUP,
            OpenApiRouter::new()
                .routes(routes!(tenants::get))
                .routes(routes!(places::place))
                .routes(routes!(places::changes))
                .routes(routes!(openapi)),
        ),
        (
            READ,
            OpenApiRouter::new()
                .routes(routes!(tenants::list))
                .routes(routes!(tenants::usage))
                .routes(routes!(charts::chart))
                .routes(routes!(rules::get))
                .routes(routes!(windows::of_tenant))
                .routes(routes!(windows::of_node))
                .routes(routes!(tenants::placements))
                .routes(routes!(fleet::nodes))
                .routes(routes!(fleet::node))
                .routes(routes!(fleet::forecast))
                .routes(routes!(drains::look))
                .routes(routes!(moves::list))
                .routes(routes!(moves::get))
                .routes(routes!(places::dns))
                .routes(routes!(records::placements))
                .routes(routes!(records::decisions))
                .routes(routes!(records::audit))
                .routes(routes!(records::limits))
                .routes(routes!(limits::of_tenant))
                .routes(routes!(records::accuracy))
                .routes(routes!(deployment::status)),
        ),
        (
            ADMIN,
            OpenApiRouter::new()
                .routes(routes!(tenants::change))
                .routes(routes!(signups::approve))
                .routes(routes!(rules::set))
                .routes(routes!(windows::set_tenant))
                .routes(routes!(windows::set_node))
                .routes(routes!(moves::begin_now))
                .routes(routes!(drains::drain))
                .routes(routes!(import::import))
                .routes(routes!(fleet::invite))
                .routes(routes!(moves::approve))
                .routes(routes!(moves::refuse))
                .routes(routes!(moves::cancel))
                .routes(routes!(moves::confirm))
                .routes(routes!(moves::pause))
                .routes(routes!(moves::resume))
                .routes(routes!(moves::roll_back))
                .routes(routes!(moves::close_way_back))
                .routes(routes!(moves::clean_up))
                .routes(routes!(moves::forget))
                .routes(routes!(deployment::preflight))
                .routes(routes!(deployment::evaluate))
                .routes(routes!(deployment::migrate)),
        ),
    ];
    let mut all = OpenApiRouter::new();
    for (access, group) in groups {
        all = all.merge(guarded(access, group));
    }
    let (routes, mut description) = all.split_for_parts();
    describe(&mut description);
    let described = Arc::new(description.clone());
    let guarded = routes
        .fallback(unknown_path)
        .layer(from_fn_with_state(state.clone(), auth::authenticate))
        .layer(axum::Extension(described))
        .with_state(state.clone());
    let open =
        Router::new().route("/healthz", axum::routing::get(healthz)).with_state(state.clone());
    let app = open
        .merge(guarded)
        .layer(DefaultBodyLimit::max(bounds.body_bytes))
        .layer(from_fn_with_state(bounds.time, envelope));
    (app, description)
}

/// A group whose every route lets only `access` by, and says so.
fn guarded(access: Access, mut group: OpenApiRouter<ApiState>) -> OpenApiRouter<ApiState> {
    let roles: Vec<&str> = access.0.iter().map(|role| role.as_str()).collect();
    for path in group.get_openapi_mut().paths.paths.values_mut() {
        for operation in
            [&mut path.get, &mut path.post, &mut path.patch, &mut path.put, &mut path.delete]
                .into_iter()
                .flatten()
        {
            operation.security = Some(vec![SecurityRequirement::new("bearer", roles.clone())]);
        }
    }
    group.route_layer(from_fn_with_state(access, auth::authorize))
}

fn describe(description: &mut OpenApi) {
    description.info.title = "WebHost Fleet".into();
    description.info.version = env!("CARGO_PKG_VERSION").into();
    description.info.description =
        Some("Tenants, nodes, decisions and moves of the fleet. Money is in dollars.".into());
    description
        .components
        .get_or_insert_default()
        .add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
}

/// Gives each request an id, a deadline and a line in the log.
async fn envelope(State(time): State<Duration>, request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let span = tracing::info_span!("request", %id, method = %request.method(),
        path = %request.uri().path());
    async move {
        let began = tokio::time::Instant::now();
        let mut response = match tokio::time::timeout(time, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                ApiError::timeout(format!("no answer within {} s", time.as_secs())).into_response()
            }
        };
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
        }
        let status = response.status().as_u16();
        let took_ms = began.elapsed().as_millis();
        tracing::debug!(status, took_ms, "answered");
        response
    }
    .instrument(span)
    .await
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::not_found("path", request.uri().path())
}

/// Answers without a token: whether the service and its database do.
async fn healthz(State(state): State<ApiState>) -> Response {
    match state.store.ping().await {
        Ok(()) => Json(serde_json::json!({ "status": "ok" })).into_response(),
        Err(error) => {
            tracing::warn!(%error, "not healthy");
            ApiError::unavailable("the state database is not available").into_response()
        }
    }
}

/// This description.
#[utoipa::path(get, path = "/api/openapi.json", tag = "api",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn openapi(axum::Extension(description): axum::Extension<Arc<OpenApi>>) -> Json<OpenApi> {
    Json((*description).clone())
}
