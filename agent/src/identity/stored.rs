//! The identity on disk: one file of mode 0600, replaced as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use webhost_proto::ids::NodeId;
use webhost_proto::tls::{self, PeerName, TlsError};
use zeroize::{Zeroize, Zeroizing};

use crate::durable;

/// The identity can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none yet.
    #[error("this machine is not enrolled ({path} does not exist): run `webhost-agent enroll`")]
    NotEnrolled {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is one, and nobody said to replace it.
    #[error("this machine is enrolled already ({path}); --force replaces its identity")]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not what we wrote.
    #[error("{path} is damaged ({detail}): enrol again with --force and a new token")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong; nothing of the key.
        detail: String,
    },
    /// Key and certificates don't work together.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Who this agent is, and whom it trusts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoredIdentity {
    /// The id in the certificate.
    pub node: NodeId,
    /// The name that the operator gave.
    pub node_name: String,
    /// Key and certificates.
    pub tls: tls::Identity,
    /// What signs coordinators.
    pub coordinators: Vec<CertificateDer<'static>>,
    /// What signs nodes.
    pub nodes: Vec<CertificateDer<'static>>,
}

/// The file's content. PEM inside, so that `openssl x509` reads what is
/// copied out of it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    node_name: String,
    private_key: String,
    certificate_chain: String,
    coordinator_authorities: String,
    node_authorities: String,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

impl StoredIdentity {
    /// Where an agent with this state directory keeps it.
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("identity/identity.json")
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = Self::path(state_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(IdentityError::NotEnrolled { path });
            }
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        let damaged = |detail: String| IdentityError::Damaged { path: path.clone(), detail };
        // serde's message would quote the text, which holds the key.
        let content: Content = serde_json::from_str(&text).map_err(|error| {
            damaged(format!("line {}, column {}", error.line(), error.column()))
        })?;
        let certificates = |pem: &str| {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| damaged(error.to_string()))
        };
        let chain = certificates(&content.certificate_chain)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(content.private_key.as_bytes())
            .map_err(|_| damaged("private key".into()))?;
        let chain = chain.into_iter().map(|der| der.to_vec()).collect();
        let tls = tls::Identity::new(chain, key.secret_pkcs8_der().to_vec())?;
        let PeerName::Node(node) = tls.name() else {
            return Err(damaged("the certificate is not a node's".into()));
        };
        Ok(Self {
            node,
            node_name: content.node_name.clone(),
            tls,
            coordinators: certificates(&content.coordinator_authorities)?,
            nodes: certificates(&content.node_authorities)?,
        })
    }

    /// Whether [`Self::save`] could write: asked before a token is used up.
    pub(super) fn writable(state_dir: &Path) -> Result<(), IdentityError> {
        let path = Self::path(state_dir);
        let dir = path.parent().unwrap_or(state_dir);
        let probe = dir.join("probe");
        durable::private_dir(dir)
            .map_err(|source| IdentityError::Io { path: dir.to_owned(), source })?;
        std::fs::write(&probe, b"")
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|source| IdentityError::Io { path: probe, source })
    }

    /// Writes it, durable before this returns.
    pub(super) fn save(&self, state_dir: &Path, key_pem: &str) -> Result<(), IdentityError> {
        let path = Self::path(state_dir);
        let io = |source| IdentityError::Io { path: path.clone(), source };
        let content = Content {
            node_name: self.node_name.clone(),
            private_key: key_pem.to_owned(),
            certificate_chain: pem(self.tls.chain()),
            coordinator_authorities: pem(&self.coordinators),
            node_authorities: pem(&self.nodes),
        };
        let text = serde_json::to_vec_pretty(&content)
            .map(Zeroizing::new)
            .map_err(|error| io(error.into()))?;
        durable::private_dir(path.parent().unwrap_or(state_dir)).map_err(io)?;
        durable::replace(&path, &text).map_err(io)
    }

    /// For the link: the other end must be a coordinator.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn link_client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        tls::link_client(&self.tls, &self.coordinators)
    }

    /// For this agent's tunnel: clients must be nodes.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn tunnel_server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        tls::tunnel_server(&self.tls, &self.nodes)
    }

    /// For another agent's tunnel: the other end must be exactly `expected`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn tunnel_client(&self, expected: NodeId) -> Result<Arc<ClientConfig>, TlsError> {
        tls::tunnel_client(&self.tls, &self.nodes, expected)
    }
}

fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
