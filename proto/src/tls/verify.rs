//! The checks of a peer's certificate: the chain to the authority of the
//! expected role, then the name.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::name::{NameError, PeerName};
use super::{TlsError, provider};

/// Whom a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Any node.
    AnyNode,
    /// This node alone.
    Node(crate::ids::NodeId),
    /// Any coordinator.
    AnyCoordinator,
}

impl Expected {
    fn check(self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = PeerName::of(certificate).map_err(refuse)?;
        let fits = match (self, found) {
            (Self::AnyNode, PeerName::Node(_))
            | (Self::AnyCoordinator, PeerName::Coordinator(_)) => true,
            (Self::Node(expected), PeerName::Node(found)) => expected == found,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let expected = match self {
            Self::AnyNode => "a node".into(),
            Self::Node(node) => PeerName::Node(node).to_string(),
            Self::AnyCoordinator => "a coordinator".into(),
        };
        Err(refuse(NameError::Wrong { found, expected }))
    }
}

fn refuse(error: NameError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

pub(super) fn trusted(
    authorities: &[CertificateDer<'static>],
    role: &'static str,
) -> Result<Arc<RootCertStore>, TlsError> {
    if authorities.is_empty() {
        return Err(TlsError::NoAuthority(role));
    }
    let mut store = RootCertStore::empty();
    for authority in authorities {
        store.add(authority.clone())?;
    }
    Ok(Arc::new(store))
}

fn node_chain(
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = trusted(authorities, "nodes")?;
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsError::Certificate(error.to_string()))
}

/// For servers: the client must be a node.
#[derive(Debug)]
pub(super) struct NodeClient(Arc<dyn ClientCertVerifier>);

impl NodeClient {
    pub(super) fn new(authorities: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        Ok(Self(node_chain(authorities)?))
    }
}

impl ClientCertVerifier for NodeClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        Expected::AnyNode.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// How a server's chain is checked.
enum Chain {
    /// To a coordinator authority, for server authentication.
    Coordinator(Arc<RootCertStore>),
    /// To a node authority. Nodes' certificates serve client authentication
    /// only; on a tunnel both ends are nodes, and the one that listens is
    /// checked as a client would be.
    Node(Arc<dyn ClientCertVerifier>),
    /// To the root with this SHA-256, which the server must send along.
    Pinned([u8; 32]),
}

/// For clients: the server must be whom we expect. The host name that was
/// dialled plays no part.
pub(super) struct NamedServer {
    chain: Chain,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl NamedServer {
    pub(super) fn coordinator(authorities: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let chain = Chain::Coordinator(trusted(authorities, "coordinators")?);
        Ok(Self { chain, expected: Expected::AnyCoordinator, provider: provider() })
    }

    pub(super) fn node(
        authorities: &[CertificateDer<'static>],
        node: crate::ids::NodeId,
    ) -> Result<Self, TlsError> {
        let chain = Chain::Node(node_chain(authorities)?);
        Ok(Self { chain, expected: Expected::Node(node), provider: provider() })
    }

    pub(super) fn pinned(root_sha256: [u8; 32]) -> Self {
        let expected = Expected::AnyCoordinator;
        Self { chain: Chain::Pinned(root_sha256), expected, provider: provider() }
    }

    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let verify = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )
        };
        match &self.chain {
            Chain::Coordinator(roots) => verify(roots),
            Chain::Node(nodes) => {
                nodes.verify_client_cert(end_entity, intermediates, now).map(|_| ())
            }
            Chain::Pinned(fingerprint) => {
                let root = intermediates
                    .iter()
                    .find(|sent| digest(&SHA256, sent).as_ref() == fingerprint)
                    .ok_or_else(|| refuse_pin(fingerprint))?;
                let mut roots = RootCertStore::empty();
                roots.add(root.clone().into_owned())?;
                verify(&roots)
            }
        }
    }
}

/// The server is not of the fleet that the join token was made for.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server's authority is not the one of the join token (sha256 {0}): \
     wrong address, wrong token, or somebody in between"
)]
pub(super) struct WrongFleet(String);

fn refuse_pin(fingerprint: &[u8; 32]) -> Error {
    let hex = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(WrongFleet(hex)))))
}

impl fmt::Debug for NamedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedServer").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for NamedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_chain(end_entity, intermediates, now)?;
        self.expected.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
