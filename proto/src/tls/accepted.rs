//! A stream whose handshake is done: who is at its other end, and when it
//! has to end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::accept::SourceGuard;
use super::identity::not_after;

/// Who is at the other end of an [`Accepted`] stream, for its handlers.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// From where it dialled.
    pub address: SocketAddr,
    /// The verified chain, the leaf first; empty where none is asked for.
    pub certificates: Arc<Vec<CertificateDer<'static>>>,
    /// Cancelling it closes the connection at once.
    pub cut: CancellationToken,
}

/// A stream after its handshake. It ends with an error when it is cut, and
/// when its peer's certificate expires: TLS itself looks at a certificate
/// once, at the start.
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    info: PeerInfo,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    expiry: Option<Pin<Box<tokio::time::Sleep>>>,
    _connection: OwnedSemaphorePermit,
    _source: Option<SourceGuard>,
}

impl Accepted {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        connection: OwnedSemaphorePermit,
        source: Option<SourceGuard>,
    ) -> Self {
        let certificates: Vec<_> = stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let cut = CancellationToken::new();
        let expiry = certificates.first().map(|leaf| {
            // A leaf that rustls could read and we can't is over at once.
            let left = not_after(leaf).map_or(Duration::ZERO, time_until);
            Box::pin(tokio::time::sleep(left))
        });
        Self {
            stream,
            info: PeerInfo { address, certificates: Arc::new(certificates), cut: cut.clone() },
            cut: Box::pin(cut.cancelled_owned()),
            expiry,
            _connection: connection,
            _source: source,
        }
    }

    /// Who is at the other end.
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        use std::io::{Error, ErrorKind};
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(Error::new(ErrorKind::ConnectionAborted, "cut by the server"));
        }
        let expired =
            self.expiry.as_mut().is_some_and(|expiry| expiry.as_mut().poll(context).is_ready());
        if expired {
            self.info.cut.cancel();
            return Err(Error::new(ErrorKind::ConnectionAborted, "the peer's certificate expired"));
        }
        Ok(())
    }
}

fn time_until(not_after_s: i64) -> Duration {
    // A certificate is valid to the end of the second that it names.
    let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after_s).unwrap_or(0) + 1);
    end.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO)
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Accepted {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}
