//! Who a certificate says that its holder is.
//!
//! One URI name and nothing else counts, read by a grammar that has one
//! spelling for each name: identities are compared whole, never by parts, and
//! a certificate with two names is nobody's.

use std::fmt;

use rustls_pki_types::CertificateDer;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::ids::NodeId;

/// The trust domain: the part of a name before its role.
pub const TRUST_DOMAIN: &str = "spiffe://webhost-fleet";

/// The holder of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerName {
    /// A machine with an agent.
    Node(NodeId),
    /// A coordinator process.
    Coordinator(Uuid),
}

/// A certificate that names nobody we know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// No certificate was presented.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The bytes are no certificate.
    #[error("the peer's certificate is unreadable: {0}")]
    Unreadable(String),
    /// There must be exactly one.
    #[error("the certificate must have exactly one URI name, it has {0}")]
    UriNames(usize),
    /// Not in the grammar.
    #[error(
        "the certificate's name {0:?} is none of spiffe://webhost-fleet/{{node,coordinator}}/<uuid>"
    )]
    Unknown(String),
    /// Another role than this connection is for.
    #[error("the certificate is {found}'s, where {expected}'s was expected")]
    Wrong {
        /// Who holds it.
        found: PeerName,
        /// Who should.
        expected: String,
    },
}

impl PeerName {
    /// Reads a URI: `spiffe://webhost-fleet/<role>/<uuid>`, the UUID in its
    /// one lower-case hyphenated spelling.
    ///
    /// # Errors
    /// [`NameError::Unknown`] with the text.
    pub fn parse(uri: &str) -> Result<Self, NameError> {
        let unknown = || NameError::Unknown(uri.chars().take(200).collect());
        let path = uri.strip_prefix(TRUST_DOMAIN).and_then(|rest| rest.strip_prefix('/'));
        let (role, id) = path.and_then(|path| path.split_once('/')).ok_or_else(unknown)?;
        let uuid: Uuid = id.parse().map_err(|_| unknown())?;
        if uuid.hyphenated().to_string() != id {
            return Err(unknown());
        }
        match role {
            "node" => Ok(Self::Node(NodeId(uuid))),
            "coordinator" => Ok(Self::Coordinator(uuid)),
            _ => Err(unknown()),
        }
    }

    /// The name in a certificate.
    ///
    /// # Errors
    /// [`NameError`] unless it has exactly one URI name, in the grammar.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NameError> {
        let unreadable = |error: String| NameError::Unreadable(error);
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
            .map_err(|error| unreadable(error.to_string()))?;
        let names =
            parsed.subject_alternative_name().map_err(|error| unreadable(error.to_string()))?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] => Self::parse(uri),
            more => Err(NameError::UriNames(more.len())),
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "{TRUST_DOMAIN}/node/{id}"),
            Self::Coordinator(id) => write!(f, "{TRUST_DOMAIN}/coordinator/{id}"),
        }
    }
}

/// The node whose certificate leads `chain`, as rustls verified it.
///
/// # Errors
/// [`NameError`] when there is none, or when it is not a node's.
pub fn peer_node(chain: &[CertificateDer<'_>]) -> Result<NodeId, NameError> {
    match PeerName::of(chain.first().ok_or(NameError::NoCertificate)?)? {
        PeerName::Node(node) => Ok(node),
        found @ PeerName::Coordinator(_) => {
            Err(NameError::Wrong { found, expected: "a node".into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192f0c1-2b3c-7d4e-8f50-617283940a1b";

    #[test]
    fn names_have_one_spelling() {
        let uuid: Uuid = ID.parse().expect("a uuid");
        let node = PeerName::Node(NodeId(uuid));
        let coordinator = PeerName::Coordinator(uuid);
        for name in [node, coordinator] {
            assert_eq!(PeerName::parse(&name.to_string()), Ok(name));
        }
        for wrong in [
            "".into(),
            format!("spiffe://webhost-fleet/node/{}", ID.to_uppercase()),
            format!("spiffe://webhost-fleet/node/{{{ID}}}"),
            format!("spiffe://webhost-fleet/node/{}", ID.replace('-', "")),
            format!("spiffe://webhost-fleet/node/urn:uuid:{ID}"),
            format!("spiffe://webhost-fleet/node/{ID}/"),
            format!("spiffe://webhost-fleet/node/{ID},spiffe://webhost-fleet/coordinator/{ID}"),
            format!("spiffe://webhost-fleet/node//{ID}"),
            format!("spiffe://webhost-fleet//node/{ID}"),
            format!("spiffe://webhost-fleet/admin/{ID}"),
            format!("spiffe://webhost-fleet/Node/{ID}"),
            format!("spiffe://webhost-fleet-evil/node/{ID}"),
            format!("spiffe://webhost-fleetnode/{ID}"),
            format!("SPIFFE://webhost-fleet/node/{ID}"),
            format!(" spiffe://webhost-fleet/node/{ID}"),
            format!("spiffe://webhost-fleet/node/{ID}?x=1"),
        ] {
            assert!(PeerName::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
