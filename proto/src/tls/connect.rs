//! Making a connection: resolve, connect, shake hands, each with a limit.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::reason;

/// How long each of connecting and shaking hands may take.
const LIMIT: Duration = Duration::from_secs(10);

/// No connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not "host:port".
    #[error("{0:?} is no address: expected \"host:port\"")]
    Address(String),
    /// Nobody answers there.
    #[error("can't reach {address}: {source}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody answers, but we don't trust each other.
    #[error("TLS with {address}: {reason}")]
    Handshake {
        /// What was dialled.
        address: String,
        /// rustls' reason, or ours.
        reason: String,
    },
    /// Took too long.
    #[error("{address} did not answer within {} s", LIMIT.as_secs())]
    TimedOut {
        /// What was dialled.
        address: String,
    },
}

/// Connects to `address` ("host:port", IPv6 in brackets) by `config`, whose
/// verifier says who must answer.
///
/// # Errors
/// [`ConnectError`]. In TLS 1.3 a server's refusal of *our* certificate shows
/// only at the first read, not here.
pub async fn connect(
    address: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let owned = || address.to_owned();
    let host = address
        .rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']'))
        .ok_or_else(|| ConnectError::Address(owned()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Address(owned()))?;
    let timed_out = |_| ConnectError::TimedOut { address: owned() };
    let tcp = tokio::time::timeout(LIMIT, TcpStream::connect(address))
        .await
        .map_err(timed_out)?
        .map_err(|source| ConnectError::Unreachable { address: owned(), source })?;
    tcp.set_nodelay(true)
        .map_err(|source| ConnectError::Unreachable { address: owned(), source })?;
    tokio::time::timeout(LIMIT, TlsConnector::from(config).connect(name, tcp))
        .await
        .map_err(timed_out)?
        .map_err(|error| ConnectError::Handshake { address: owned(), reason: reason(&error) })
}
