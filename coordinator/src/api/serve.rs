//! The port of the API: plain HTTP on a loopback address, HTTPS on every
//! other. A connection ends when the service does, after the requests that
//! are under way, or when the deadline for them is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_proto::tls::accept::{Acceptor, Limits};

/// How long a client may take to send its headers.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long requests may go on once the service ends.
const GRACE: Duration = Duration::from_secs(10);
/// The most plain connections at a time.
const PLAIN_CONNECTIONS: usize = 1024;

/// Whether `address` may be served without TLS.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// Serves until `shutdown`: with `tls` where it is given.
///
/// # Errors
/// When the listener has no address, or no TLS is given for an address that
/// is not loopback.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let tasks = TaskTracker::new();
    match tls {
        Some(config) => {
            let mut acceptor =
                Acceptor::start(listener, config, Limits::open(), &tasks, shutdown.clone())?;
            while let Some(stream) = acceptor.next().await {
                tasks.spawn(connection(stream, app.clone(), shutdown.clone()));
            }
        }
        None if is_loopback(address) => plain(&listener, &app, &tasks, &shutdown).await,
        None => {
            return Err(std::io::Error::other(format!("{address} is not loopback and needs TLS")));
        }
    }
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests were cut off at the deadline");
    }
    Ok(())
}

async fn plain(
    listener: &TcpListener,
    app: &Router,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let room = Arc::new(tokio::sync::Semaphore::new(PLAIN_CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (app, shutdown) = (app.clone(), shutdown.clone());
                tasks.spawn(async move {
                    connection(stream, app, shutdown).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: without the pause this
                // loop would spin.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: Router,
    shutdown: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .max_concurrent_streams(64)
        .max_header_list_size(16 * 1024);
    let service = TowerToHyperService::new(app);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
