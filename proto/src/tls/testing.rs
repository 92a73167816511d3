//! A small authority of its own for this crate's tests.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use super::Identity;
use super::name::PeerName;
use crate::ids::NodeId;

pub(super) struct Authority {
    pub(super) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// How a leaf is made; tests change one thing at a time.
pub(super) struct Leaf {
    pub(super) uris: Vec<String>,
    pub(super) usage: ExtendedKeyUsagePurpose,
    /// Seconds from now.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Leaf {
    pub(super) fn node(node: NodeId) -> Self {
        Self {
            uris: vec![PeerName::Node(node).to_string()],
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            not_before: -60,
            not_after: 3600,
        }
    }

    pub(super) fn coordinator() -> Self {
        Self {
            uris: vec![PeerName::Coordinator(Uuid::now_v7()).to_string()],
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            not_before: -60,
            not_after: 3600,
        }
    }
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, Uuid::now_v7().to_string());
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(super) fn issue(&self, leaf: &Leaf) -> Identity {
        let (chain, key) = self.issue_der(leaf);
        Identity::new(chain, key).expect("an identity")
    }

    pub(super) fn issue_der(&self, leaf: &Leaf) -> (Vec<Vec<u8>>, Vec<u8>) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = leaf
            .uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().expect("ascii")))
            .collect();
        params.extended_key_usages = vec![leaf.usage.clone()];
        let now = std::time::SystemTime::now();
        let at = |seconds: i64| {
            let from = std::time::Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - from } else { now + from }
        };
        params.not_before = at(leaf.not_before).into();
        params.not_after = at(leaf.not_after).into();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (vec![certificate.der().to_vec()], key.serialize_der())
    }
}
