//! The fleet's own certificate authority.
//!
//! One root signs two intermediates, one for nodes and one for coordinators;
//! verifiers trust the intermediate of the role that they expect, so that no
//! node's certificate is ever good for a coordinator. A leaf is built here
//! from start to end: of a signing request only the public key is used,
//! whatever else stands in it.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use uuid::Uuid;
use webhost_proto::ids::NodeId;
use webhost_proto::tls::{self, PeerName, TlsError};

use super::sealing::{SealingError, SealingKey};
use crate::store::certificates::{self, AuthorityRow};
use crate::store::{Store, StoreError};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(1825 * 24 * 3600);

/// How far a certificate's start lies in the past, for clocks that go after.
const BACKDATED: Duration = Duration::from_secs(60);

/// No authority, or no certificate from it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sealing key.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// A certificate could not be built or read.
    #[error("certificate authority: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate of ours does not fit our own rules.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The request is none, its signature is wrong, or its key is of another
    /// kind.
    #[error("certificate request refused: {0}")]
    Request(String),
    /// A name of the coordinator is neither a host name nor an address.
    #[error("{0:?} is neither a host name nor an IP address")]
    HostName(String),
}

/// How leaves are made.
#[derive(Clone, Copy, Debug)]
pub struct Leaves {
    /// How long a leaf is valid. 24 hours unless configured.
    pub lifetime: Duration,
}

impl Default for Leaves {
    fn default() -> Self {
        Self { lifetime: DAY }
    }
}

/// The opened authority. Holds private keys: no `Debug`, no `Clone`.
pub struct Authority {
    root: CertificateDer<'static>,
    nodes: Intermediate,
    coordinators: Intermediate,
    leaves: Leaves,
}

struct Intermediate {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A node's new certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER: the leaf, then its intermediate.
    pub chain: Vec<Vec<u8>>,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// When it expires.
    pub not_after: SystemTime,
}

impl Authority {
    /// Opens the fleet's authority; the first time, makes it. When it returns,
    /// every coordinator on this database has the same one.
    ///
    /// # Errors
    /// [`AuthorityError`]; [`SealingError::WrongKey`] where one exists that
    /// `key` doesn't open. Never makes a second one.
    pub async fn load_or_create(
        store: &Store,
        key: &SealingKey,
        leaves: Leaves,
    ) -> Result<Self, AuthorityError> {
        let mut client = store.client().await?;
        let transaction = (**client).transaction().await.map_err(StoreError::from)?;
        certificates::lock(&transaction).await?;
        let rows = certificates::all(&transaction).await?;
        let find = |role: &str| rows.iter().find(|row| row.role == role);
        let root = match find("root") {
            Some(row) => open(row, key)?,
            None => {
                let (made, row) = make("root", None, ROOT_LIFETIME, key)?;
                certificates::insert(&transaction, &row).await?;
                made
            }
        };
        let mut intermediates = Vec::new();
        for role in ["node", "coordinator"] {
            intermediates.push(match find(role) {
                Some(row) => open(row, key)?,
                None => {
                    let (made, row) = make(role, Some(&root), INTERMEDIATE_LIFETIME, key)?;
                    certificates::insert(&transaction, &row).await?;
                    made
                }
            });
        }
        transaction.commit().await.map_err(StoreError::from)?;
        let [nodes, coordinators]: [Intermediate; 2] = intermediates
            .try_into()
            .map_err(|_| AuthorityError::Certificate(rcgen::Error::CouldNotParseCertificate))?;
        Ok(Self { root: root.certificate, nodes, coordinators, leaves })
    }

    /// SHA-256 of the root's DER: what a join token pins.
    pub fn root_sha256(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, &self.root).as_ref());
        out
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// What signs nodes: the only authority that servers trust for them.
    pub fn nodes(&self) -> &CertificateDer<'static> {
        &self.nodes.certificate
    }

    /// What signs coordinators.
    pub fn coordinators(&self) -> &CertificateDer<'static> {
        &self.coordinators.certificate
    }

    /// How long leaves are valid.
    pub fn leaves(&self) -> Leaves {
        self.leaves
    }

    /// A certificate for `node`, with the public key of `csr_der` and nothing
    /// else of it.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] when the request is not PKCS#10 signed by
    /// its own P-256 key.
    pub fn issue_node(
        &self,
        node: NodeId,
        csr_der: &[u8],
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let refused = |reason: &str| AuthorityError::Request(reason.to_owned());
        if csr_der.len() > 8 * 1024 {
            return Err(refused("longer than 8192 bytes"));
        }
        let request = CertificateSigningRequestParams::from_der(&csr_der.to_vec().into())
            .map_err(|error| refused(&error.to_string()))?;
        let key = request.public_key;
        // The algorithm is the signature's; an uncompressed point of 65 bytes
        // is what makes it a P-256 key.
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != 65 {
            return Err(refused("the key must be ECDSA P-256"));
        }
        let name = PeerName::Node(node);
        let (mut params, not_after) = leaf(&name, self.leaves.lifetime, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.nodes.issuer)?.der().clone();
        Ok(Issued {
            serial: tls::identity::serial(&certificate)?,
            chain: vec![certificate.to_vec(), self.nodes.certificate.to_vec()],
            not_after,
        })
    }

    /// A key and certificate for this coordinator process, also good for
    /// browsers that dial one of `names` (host names or addresses). The chain
    /// ends with the root, which enrolling agents pin.
    ///
    /// # Errors
    /// [`AuthorityError::HostName`].
    pub fn issue_coordinator(
        &self,
        coordinator: Uuid,
        names: &[String],
        now: SystemTime,
    ) -> Result<tls::Identity, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let (mut params, _) = leaf(&PeerName::Coordinator(coordinator), self.leaves.lifetime, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            let host = name.trim_start_matches('[').trim_end_matches(']');
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if host_name(host) => SanType::DnsName(
                    host.try_into().map_err(|_| AuthorityError::HostName(name.clone()))?,
                ),
                Err(_) => return Err(AuthorityError::HostName(name.clone())),
            });
        }
        let certificate = params.signed_by(&key, &self.coordinators.issuer)?;
        let chain = vec![
            certificate.der().to_vec(),
            self.coordinators.certificate.to_vec(),
            self.root.to_vec(),
        ];
        Ok(tls::Identity::new(chain, key.serialize_der())?)
    }
}

fn host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn leaf(
    name: &PeerName,
    lifetime: Duration,
    now: SystemTime,
) -> Result<(CertificateParams, SystemTime), AuthorityError> {
    let mut params = CertificateParams::default();
    let not_after = now + lifetime;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.to_string());
    let uri = name.to_string();
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params.serial_number = Some(serial_number()?);
    params.not_before = (now - BACKDATED).into();
    params.not_after = not_after.into();
    params.use_authority_key_identifier_extension = true;
    Ok((params, not_after))
}

/// 127 random bits: positive, and unlike any other.
fn serial_number() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SealingError::Random)?;
    // Neither negative nor starting with a zero byte, which DER would drop.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn make(
    role: &str,
    signer: Option<&Intermediate>,
    lifetime: Duration,
    sealing: &SealingKey,
) -> Result<(Intermediate, AuthorityRow), AuthorityError> {
    let now = SystemTime::now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "WebHost Fleet");
    params.distinguished_name.push(DnType::CommonName, format!("WebHost Fleet {role} authority"));
    // An intermediate signs leaves and nothing that signs.
    params.is_ca = IsCa::Ca(match signer {
        Some(_) => BasicConstraints::Constrained(0),
        None => BasicConstraints::Constrained(1),
    });
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial_number()?);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + lifetime).into();
    params.use_authority_key_identifier_extension = signer.is_some();
    let certificate = match signer {
        Some(signer) => params.signed_by(&key, &signer.issuer)?,
        None => params.self_signed(&key)?,
    }
    .der()
    .clone();
    let row = AuthorityRow {
        role: role.to_owned(),
        certificate_der: certificate.to_vec(),
        key_sealed: sealing.seal(role, &zeroize::Zeroizing::new(key.serialize_der()))?,
    };
    Ok((Intermediate { certificate, issuer: Issuer::new(params, key) }, row))
}

fn open(row: &AuthorityRow, sealing: &SealingKey) -> Result<Intermediate, AuthorityError> {
    let plain = sealing.open(&row.role, &row.key_sealed)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(plain.as_slice()));
    let key = KeyPair::from_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?;
    let certificate = CertificateDer::from(row.certificate_der.clone());
    let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
    Ok(Intermediate { certificate, issuer })
}

#[cfg(test)]
mod tests;
