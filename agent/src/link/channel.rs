//! A gRPC channel over a connection that is made already: whoever dials knows
//! why dialling failed, and a broken channel never dials by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// A channel over `stream`.
///
/// # Errors
/// When the other end doesn't speak HTTP/2.
pub async fn over<S>(stream: S) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            let broken = || std::io::Error::new(std::io::ErrorKind::NotConnected, "broken");
            stream.map(TokioIo::new).ok_or_else(broken)
        }
    });
    // The scheme says that this layer does no TLS; the stream has it already.
    Endpoint::from_static("http://coordinator.invalid")
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(128 * 1024)
        .connect_with_connector(connector)
        .await
}
