//! A stand-in for the WebHost application: one HTTP server per node over that
//! node's PostgreSQL, as a real process with real connections.
//!
//! Devices post GPS points to `/ingest/{customer}/positions`; customers' users
//! call `/api/customers/{customer}/…`. Both are counted per customer on
//! `/metrics`, apart: how long an upload of a device takes says nothing about
//! what a person waits for, so `webhost_request_duration_seconds` holds the
//! API calls alone, and uploads have a histogram of their own.
//!
//! What the application knows of a move is what its database tells it: a
//! write to a tenant that lives elsewhere fails with SQLSTATE `MG001` and the
//! new place, which is handed to the client as a 503, so that it goes there.
//! Positions carry an id made by the device and are inserted with ON CONFLICT
//! DO NOTHING: a repeated upload changes nothing.

pub mod database;
pub mod http;
pub mod metrics;
pub mod socket;
pub mod wire;

use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How one instance runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of PostgreSQL's unix socket.
    pub socket_dir: PathBuf,
    /// Connections that the application keeps to its database.
    pub pool: usize,
    /// As an application that knows nothing of moves: a refusal of the fence
    /// is an error of its own, 500.
    pub bare: bool,
}

/// Serves until `shutdown`; requests that run then are let to their end.
///
/// # Errors
/// When the pool can't be built or connected, or the listener fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let database = database::Database::new(&config.socket_dir, config.pool)?;
    database.warm().await?;
    let router = http::router(http::Shared::new(database), config.bare);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}
