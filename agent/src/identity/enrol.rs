//! Enrolment: a join token for a certificate.

use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use tonic::Code;
use webhost_proto::ids::NodeId;
use webhost_proto::tls::{self, ConnectError, PeerName, TlsError};
use webhost_proto::wire::{EnrolRequest, EnrolResponse, enrolment_client::EnrolmentClient};
use zeroize::Zeroizing;

use super::stored::{IdentityError, StoredIdentity};
use super::token::JoinToken;
use crate::link::channel;
use crate::link::spool::owner;

/// This machine was not enrolled; nothing was changed on it.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The identity's file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nobody there, or not the fleet of the token.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The coordinator doesn't take the token.
    #[error("the coordinator refused: {0}")]
    Token(String),
    /// The coordinator can't at the moment; the token is still good.
    #[error("the coordinator can't enrol at the moment, try again: {0}")]
    Unavailable(String),
    /// Anything else that the coordinator answers.
    #[error("enrolment failed: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the coordinator's answer can't be used: {0}")]
    Answer(String),
    /// The key could not be made.
    #[error("can't make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// A TLS configuration could not be built.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Who this machine became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The node's id.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
}

/// Enrols this machine at `address` ("host:port") and keeps its identity
/// below `state_dir`. An existing identity is replaced only with `force`.
///
/// # Errors
/// [`EnrolError`]; then what was on disk before still is.
pub async fn enrol(
    address: &str,
    token: &JoinToken,
    state_dir: &Path,
    force: bool,
) -> Result<Enrolled, EnrolError> {
    let path = StoredIdentity::path(state_dir);
    // Looked at before the token is used up.
    if !force && path.exists() {
        return Err(IdentityError::Exists { path }.into());
    }
    StoredIdentity::writable(state_dir)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let config = tls::enrolment_client(token.root_sha256)?;
    let stream = tls::connect(address, config).await?;
    let channel =
        channel::over(stream).await.map_err(|error| EnrolError::Unavailable(error.to_string()))?;
    let request = EnrolRequest {
        secret: token.secret.to_string(),
        csr_der: request.der().to_vec(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
    };
    let mut client = EnrolmentClient::new(channel);
    let answer = tokio::time::timeout(Duration::from_secs(30), client.enrol(request))
        .await
        .map_err(|_| EnrolError::Unavailable("no answer within 30 s".into()))?
        .map_err(|status| {
            let message = status.message().to_owned();
            match status.code() {
                Code::PermissionDenied => EnrolError::Token(message),
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted => {
                    EnrolError::Unavailable(message)
                }
                _ => EnrolError::Refused(message),
            }
        })?
        .into_inner();
    let identity = read_answer(answer, &key)?;
    // rustls looks whether key and certificate belong together.
    identity.link_client()?;
    identity.tunnel_server()?;
    // What waits to be sent is the node's that this machine was until now.
    if let Ok(before) = StoredIdentity::load(state_dir) {
        owner::settle(state_dir, before.node)
            .map_err(|source| IdentityError::Io { path: state_dir.to_owned(), source })?;
    }
    identity.save(state_dir, &Zeroizing::new(key.serialize_pem()))?;
    Ok(Enrolled { node: identity.node, node_name: identity.node_name })
}

fn read_answer(answer: EnrolResponse, key: &KeyPair) -> Result<StoredIdentity, EnrolError> {
    let unusable = |what: String| EnrolError::Answer(what);
    let node = NodeId::from_wire(&answer.node_id).map_err(|error| unusable(error.to_string()))?;
    let tls = tls::Identity::new(answer.certificate_chain, key.serialize_der())?;
    if tls.name() != PeerName::Node(node) {
        return Err(unusable(format!("the certificate is {}'s, not {node}'s", tls.name())));
    }
    let [coordinators, nodes]: [Vec<u8>; 2] = answer
        .trust_roots
        .try_into()
        .map_err(|roots: Vec<_>| unusable(format!("{} trust roots instead of 2", roots.len())))?;
    Ok(StoredIdentity {
        node,
        node_name: answer.node_name,
        tls,
        coordinators: vec![CertificateDer::from(coordinators)],
        nodes: vec![CertificateDer::from(nodes)],
    })
}
