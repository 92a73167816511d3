//! The application's HTTP side.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::database::{Database, Refused};
use super::metrics::Metrics;
use super::wire::{Accepted, Customer, Problem, Upload, Vehicle};

/// An import of history may be this large.
const BODY_LIMIT: usize = 16 << 20;

/// Who asks: one person's browser. Distinct values are the connected clients.
pub const SESSION_HEADER: &str = "x-session";

/// What all requests share.
#[derive(Clone)]
pub struct Shared {
    database: Database,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

impl Shared {
    /// Fresh counters over `database`.
    pub fn new(database: Database) -> Self {
        Self { database, metrics: Arc::default(), tasks: TaskTracker::new() }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// What outlives a request.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}

/// Marks an answer that the fence caused.
#[derive(Clone, Copy)]
struct Fenced;

/// All routes. A `bare` application makes a 500 of what the fence refuses.
pub fn router(shared: Shared, bare: bool) -> Router {
    let routes = routes(shared);
    if !bare {
        return routes;
    }
    routes.layer(axum::middleware::map_response(async |mut response: Response| {
        if response.extensions().get::<Fenced>().is_some() {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    }))
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/socket/{customer}/{vehicle}", get(super::socket::upgrade))
        .route("/api/customers/{customer}/export", get(export))
        .route("/metrics", get(metrics))
        .route("/internal/customers", post(create_customer))
        .route("/ingest/{customer}/positions", post(upload))
        .route("/ingest/{customer}/import", post(import))
        .route("/api/customers/{customer}/vehicles", get(list_vehicles).post(add_vehicles))
        .route("/api/customers/{customer}/reports/mileage", get(mileage))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared)
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let message = self.to_string();
        let (status, error, place) = match self {
            Self::Moved(place) => (StatusCode::SERVICE_UNAVAILABLE, "moved", Some(place)),
            Self::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_customer", None),
            Self::Retry(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", None),
            Self::Never(_) => (StatusCode::UNPROCESSABLE_ENTITY, "refused", None),
        };
        let fenced = place.is_some();
        let mut response =
            (status, Json(Problem { error: error.into(), message, place })).into_response();
        if fenced {
            response.extensions_mut().insert(Fenced);
        }
        response
    }
}

async fn metrics(State(shared): State<Shared>) -> String {
    shared.metrics.render(Instant::now())
}

async fn create_customer(
    State(shared): State<Shared>,
    Json(customer): Json<Customer>,
) -> Result<StatusCode, Refused> {
    shared.database.create_customer(&customer).await?;
    Ok(StatusCode::CREATED)
}

async fn upload(
    State(shared): State<Shared>,
    Path(customer): Path<Uuid>,
    Json(upload): Json<Upload>,
) -> Result<(StatusCode, Json<Accepted>), Refused> {
    let started = Instant::now();
    shared.database.insert_points(customer, &upload.points).await?;
    let rows = upload.points.len() as u64;
    shared.metrics.uploaded(customer, rows, started.elapsed());
    Ok((StatusCode::CREATED, Json(Accepted { rows })))
}

async fn import(
    State(shared): State<Shared>,
    Path(customer): Path<Uuid>,
    csv: String,
) -> Result<(StatusCode, Json<Accepted>), Refused> {
    let rows = shared.database.import_points(customer, &csv).await?;
    shared.metrics.imported(customer);
    Ok((StatusCode::CREATED, Json(Accepted { rows })))
}

async fn list_vehicles(
    State(shared): State<Shared>,
    Path(customer): Path<Uuid>,
    headers: HeaderMap,
) -> Response {
    let work = async { Ok(Json(shared.database.vehicles(customer).await?).into_response()) };
    called(&shared, customer, &headers, work).await
}

async fn add_vehicles(
    State(shared): State<Shared>,
    Path(customer): Path<Uuid>,
    headers: HeaderMap,
    Json(vehicles): Json<Vec<Vehicle>>,
) -> Response {
    let work = async {
        shared.database.add_vehicles(customer, &vehicles).await?;
        Ok(StatusCode::CREATED.into_response())
    };
    called(&shared, customer, &headers, work).await
}

/// Pieces of an export, and the pause between two.
pub const EXPORT: (usize, Duration) = (40, Duration::from_millis(100));
/// One piece's bytes.
pub const EXPORT_PIECE: usize = 1_000;

/// A download that takes its time.
async fn export(State(shared): State<Shared>, Path(customer): Path<Uuid>) -> Response {
    if let Err(refused) = shared.database.vehicles(customer).await {
        return refused.into_response();
    }
    let began = Instant::now();
    // By the clock: a slow machine makes it no longer than it is.
    let pieces = futures_util::stream::unfold(1, move |piece: u32| async move {
        if piece as usize > EXPORT.0 {
            return None;
        }
        tokio::time::sleep_until(began + EXPORT.1 * piece).await;
        Some((Ok::<_, std::convert::Infallible>(vec![b'x'; EXPORT_PIECE]), piece + 1))
    });
    axum::body::Body::from_stream(pieces).into_response()
}

async fn mileage(
    State(shared): State<Shared>,
    Path(customer): Path<Uuid>,
    headers: HeaderMap,
) -> Response {
    let work = async { Ok(Json(shared.database.mileage(customer).await?).into_response()) };
    called(&shared, customer, &headers, work).await
}

/// Runs an API call and counts it.
async fn called(
    shared: &Shared,
    customer: Uuid,
    headers: &HeaderMap,
    work: impl Future<Output = Result<Response, Refused>>,
) -> Response {
    let started = Instant::now();
    let outcome = work.await;
    // A request for a customer that this node has never had is a client's
    // mistake about the place; it must not make the customer appear here.
    if !matches!(outcome, Err(Refused::Unknown(_) | Refused::Moved(_))) {
        let session = headers.get(SESSION_HEADER).and_then(|value| value.to_str().ok());
        shared.metrics.called(
            customer,
            session,
            outcome.is_err(),
            started.elapsed(),
            Instant::now(),
        );
    }
    outcome.unwrap_or_else(IntoResponse::into_response)
}
