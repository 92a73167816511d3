//! TLS for every connection of the fleet: who a peer is, and how connections
//! are made and accepted.
//!
//! Background. Nodes and coordinators hold short-lived certificates of the
//! fleet's own authority. What a certificate says is its one URI name,
//! `spiffe://webhost-fleet/node/<uuid>` or `…/coordinator/<uuid>`; host names
//! play no part between them, so an address may change freely.
//!
//! Theory of operation. [`name`] reads that name by a strict grammar.
//! [`identity`] is a key with its certificates. [`config`] builds the rustls
//! configurations, [`verify`] the checks in them; [`accept`] takes connections
//! in; [`connect`] makes them.
//!
//! **Invariant:** being signed is not being authorised. A node and a
//! coordinator are signed by different intermediates, each verifier trusts
//! only the intermediate of the role it expects, and it checks the kind of
//! the name besides. A node's certificate serves only client authentication.
//!
//! **Invariant:** TLS 1.3 only, and no session is ever resumed: a resumed
//! session would let an expired or revoked certificate back in.
//!
//! **Invariant:** `ring` is the one provider of cryptography, chosen in
//! [`provider`].

pub mod name;

pub mod identity;

mod verify;

pub mod config;

pub mod accept;

mod accepted;

pub mod connect;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use accept::{Acceptor, Counts, Limits};
pub use accepted::{Accepted, PeerInfo};
pub use config::{
    enrolment_client, link_client, link_server, open_server, tunnel_client, tunnel_server,
};
pub use connect::{ConnectError, connect};
pub use identity::Identity;
pub use name::{PeerName, peer_node};

/// A certificate, key or configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused the pieces.
    #[error("tls configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// A certificate could not be read.
    #[error("unreadable certificate: {0}")]
    Certificate(String),
    /// A private key could not be read. Says nothing of the key.
    #[error("unreadable private key: expected PKCS#8")]
    Key,
    /// The certificate names its holder in a way that we don't accept.
    #[error(transparent)]
    Name(#[from] name::NameError),
    /// No authority to trust was given.
    #[error("no trusted authority for {0}")]
    NoAuthority(&'static str),
}

/// The one place where the provider of cryptography is chosen.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes [`provider`] the process's default, for libraries that ask for one.
/// Called first in `main`; a second call changes nothing.
pub fn install_provider() {
    // An error says that a default is set already, which is what we want.
    let _already_set = rustls::crypto::ring::default_provider().install_default();
}

/// Why a handshake failed, in words: rustls prints our own verifiers' errors
/// in the form that is for debugging.
fn reason(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(ours))) => {
            ours.0.to_string()
        }
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
