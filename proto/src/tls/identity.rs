//! A private key with the certificates that speak for it.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::FromDer;

use super::TlsError;
use super::name::PeerName;

/// Cheap to clone. Its `Debug` says whose it is, and nothing of the key.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    name: PeerName,
    not_after_s: i64,
}

impl Identity {
    /// From a chain of DER certificates, the leaf first, and the leaf's key as
    /// PKCS#8.
    ///
    /// # Errors
    /// [`TlsError`] when the leaf can't be read or names nobody.
    pub fn new(chain: Vec<Vec<u8>>, key_pkcs8: Vec<u8>) -> Result<Self, TlsError> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let leaf = chain.first().ok_or(super::name::NameError::NoCertificate)?;
        let name = PeerName::of(leaf)?;
        let not_after_s = not_after(leaf)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8));
        Ok(Self { inner: Arc::new(Inner { chain, key, name, not_after_s }) })
    }

    /// The certificates, the leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.inner.chain
    }

    /// Whose it is.
    pub fn name(&self) -> PeerName {
        self.inner.name
    }

    /// When the leaf expires: seconds since the Unix epoch.
    pub fn not_after_s(&self) -> i64 {
        self.inner.not_after_s
    }

    /// The key's PKCS#8, to hand it to a process of our own; never to be
    /// written anywhere but into that process's input.
    pub fn key_pkcs8(&self) -> &[u8] {
        self.inner.key.secret_der()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.inner.name)
            .field("not_after_s", &self.inner.not_after_s)
            .finish_non_exhaustive()
    }
}

/// When a certificate expires: seconds since the Unix epoch.
///
/// # Errors
/// [`TlsError::Certificate`] when it can't be read.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, TlsError> {
    parsed(certificate, |certificate| certificate.validity().not_after.timestamp())
}

/// A certificate's serial number, in lower-case hexadecimal.
///
/// # Errors
/// [`TlsError::Certificate`] when it can't be read.
pub fn serial(certificate: &CertificateDer<'_>) -> Result<String, TlsError> {
    parsed(certificate, |certificate| {
        let bytes = certificate.raw_serial();
        let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    })
}

fn parsed<T>(
    certificate: &CertificateDer<'_>,
    read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> Result<T, TlsError> {
    x509_parser::certificate::X509Certificate::from_der(certificate)
        .map(|(_, certificate)| read(&certificate))
        .map_err(|error| TlsError::Certificate(error.to_string()))
}
