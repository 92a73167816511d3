//! The key that seals the authority's private keys in the database.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// 32 bytes that open the authority's keys. Its `Debug` prints none of them.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

/// The sealing key can't be had, or doesn't open what is sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The file system refused.
    #[error("sealing key {path}: {source}")]
    Io {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("sealing key {path} may be read by others (mode {mode:o}): chmod 600 it")]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not a key.
    #[error("sealing key {path} must hold 64 hexadecimal digits (openssl rand -hex 32 makes one)")]
    Malformed {
        /// The key's file.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random,
    /// Sealed by another key, or damaged.
    #[error(
        "the sealing key does not open the {0} authority's private key: \
         give the key that the database was set up with (a new authority is never made in its place)"
    )]
    WrongKey(String),
}

impl SealingKey {
    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`SealingError::Random`].
    pub fn generate() -> Result<Self, SealingError> {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| SealingError::Random)?;
        Ok(Self(bytes))
    }

    /// Reads a file of 64 hexadecimal digits that nobody else may read.
    ///
    /// # Errors
    /// [`SealingError`] with the path.
    pub fn from_file(path: &Path) -> Result<Self, SealingError> {
        let io = |source| SealingError::Io { path: path.into(), source };
        let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealingError::Exposed { path: path.into(), mode });
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(io)?);
        let malformed = || SealingError::Malformed { path: path.into() };
        let digits = text.trim().as_bytes();
        let mut bytes = Zeroizing::new([0; 32]);
        if digits.len() != 64 {
            return Err(malformed());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        Ok(Self(bytes))
    }

    /// [`from_file`](Self::from_file); where there is no file, a new key is
    /// made and written, durable before this returns. Of several processes
    /// that start at once all end up with the same key.
    ///
    /// # Errors
    /// [`SealingError`] with the path.
    pub fn load_or_create(path: &Path) -> Result<Self, SealingError> {
        let io = |source| SealingError::Io { path: path.into(), source };
        if path.try_exists().map_err(io)? {
            return Self::from_file(path);
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(io)?;
        let key = Self::generate()?;
        let text = Zeroizing::new(hex(key.0.as_ref()));
        let fresh = path.with_extension(format!("new-{}", uuid::Uuid::now_v7()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(io)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            // A link, not a rename: it fails where another process was first.
            .and_then(|()| std::fs::hard_link(&fresh, path));
        std::fs::remove_file(&fresh).map_err(io)?;
        match written {
            Ok(()) => {
                std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
                Ok(key)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Self::from_file(path)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// `plain`, encrypted and bound to `role`: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// [`SealingError::Random`].
    pub fn seal(&self, role: &str, plain: &[u8]) -> Result<Vec<u8>, SealingError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealingError::Random)?;
        let mut sealed = plain.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(role.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| SealingError::Random)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// What [`seal`](Self::seal) sealed under the same key and role.
    ///
    /// # Errors
    /// [`SealingError::WrongKey`].
    pub fn open(&self, role: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let wrong = || SealingError::WrongKey(role.to_owned());
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher()?
            .open_in_place(nonce, Aad::from(role.as_bytes()), &mut body)
            .map_err(|_| wrong())?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn cipher(&self) -> Result<LessSafeKey, SealingError> {
        UnboundKey::new(&AES_256_GCM, self.0.as_ref())
            .map(LessSafeKey::new)
            .map_err(|_| SealingError::Random)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let key = SealingKey::generate().expect("a key");
        let sealed = key.seal("node", b"secret").expect("seals");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(key.open("node", &sealed).expect("opens").as_slice(), b"secret");
        let other = SealingKey::generate().expect("a key");
        let mut damaged = sealed.clone();
        damaged[20] ^= 1;
        for (what, outcome) in [
            ("another key", other.open("node", &sealed)),
            ("another role", key.open("root", &sealed)),
            ("a damaged byte", key.open("node", &damaged)),
            ("too short", key.open("node", &sealed[..5])),
        ] {
            let error = outcome.expect_err(what);
            assert!(matches!(error, SealingError::WrongKey(_)), "{what}: {error}");
        }
        assert_eq!(format!("{key:?}"), "SealingKey(..)");
    }

    #[test]
    fn is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/sealing.key");
        let made = SealingKey::load_or_create(&path).expect("is made");
        let read = SealingKey::load_or_create(&path).expect("is read");
        assert_eq!(made.0, read.0);
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(std::fs::read_dir(dir.path().join("deep")).expect("lists").count(), 1);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = SealingKey::load_or_create(&path).expect_err("exposed");
        assert!(matches!(error, SealingError::Exposed { mode: 0o640, .. }), "{error}");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        for wrong in ["", "00", &"zz".repeat(32), &"+1".repeat(32)] {
            std::fs::write(&path, wrong).expect("writes");
            let error = SealingKey::load_or_create(&path).expect_err("malformed");
            assert!(matches!(error, SealingError::Malformed { .. }), "{error}");
        }
    }
}
