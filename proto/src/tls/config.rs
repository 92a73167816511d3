//! The rustls configurations: one function for each kind of connection.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::identity::Identity;
use super::verify::{NamedServer, NodeClient};
use super::{TlsError, provider};
use crate::ids::NodeId;

/// gRPC, on the link and at enrolment.
pub const ALPN_GRPC: &[u8] = b"h2";
/// Between two agents.
pub const ALPN_TUNNEL: &[u8] = b"whf-tunnel/1";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The coordinator's end of the link: the client must be a node.
///
/// # Errors
/// [`TlsError`] when key, chain or authorities don't fit.
pub fn link_server(
    identity: &Identity,
    node_authorities: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, TlsError> {
    server(identity, Some(node_authorities), &[ALPN_GRPC])
}

/// A server that asks for no client certificate: enrolment, the HTTPS API.
///
/// # Errors
/// As [`link_server`].
pub fn open_server(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    server(identity, None, &[ALPN_GRPC, ALPN_HTTP1])
}

/// The agent's tunnel: the client must be a node; which one, the ticket says.
///
/// # Errors
/// As [`link_server`].
pub fn tunnel_server(
    identity: &Identity,
    node_authorities: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, TlsError> {
    server(identity, Some(node_authorities), &[ALPN_TUNNEL])
}

/// The agent's end of the link: the server must be a coordinator.
///
/// # Errors
/// As [`link_server`].
pub fn link_client(
    identity: &Identity,
    coordinator_authorities: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = NamedServer::coordinator(coordinator_authorities)?;
    client(Some(identity), verifier, ALPN_GRPC)
}

/// A mover's connection to another agent's tunnel: the other end must be
/// exactly `expected`.
///
/// # Errors
/// As [`link_server`].
pub fn tunnel_client(
    identity: &Identity,
    node_authorities: &[CertificateDer<'static>],
    expected: NodeId,
) -> Result<Arc<ClientConfig>, TlsError> {
    client(Some(identity), NamedServer::node(node_authorities, expected)?, ALPN_TUNNEL)
}

/// Enrolment: no certificate of our own yet, and all that we know of the
/// server is the SHA-256 of its root's DER, from the join token.
///
/// # Errors
/// As [`link_server`].
pub fn enrolment_client(root_sha256: [u8; 32]) -> Result<Arc<ClientConfig>, TlsError> {
    client(None, NamedServer::pinned(root_sha256), ALPN_GRPC)
}

fn server(
    identity: &Identity,
    node_authorities: Option<&[CertificateDer<'static>]>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let builder = match node_authorities {
        Some(authorities) => {
            builder.with_client_cert_verifier(Arc::new(NodeClient::new(authorities)?))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(identity.chain().to_vec(), identity.key())?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // A resumed session skips the check of the certificate: one that expired
    // or was revoked would come back in.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    identity: Option<&Identity>,
    verifier: NamedServer,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain().to_vec(), identity.key())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    // The server's name plays no part in the check and is nobody's business.
    config.enable_sni = false;
    Ok(Arc::new(config))
}
