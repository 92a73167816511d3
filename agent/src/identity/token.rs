//! A join token as the operator hands it over.

use std::fmt;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

/// `whf1.<secret>.<sha256 of the root certificate, hexadecimal>`.
pub struct JoinToken {
    pub(super) secret: Zeroizing<String>,
    pub(super) root_sha256: [u8; 32],
}

/// Not a join token. Says nothing of its text.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file or standard input.
    #[error("can't read the join token from {from}: {source}")]
    Io {
        /// From where.
        from: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another form.
    #[error(
        "this is no join token: expected whf1.<43 characters>.<64 hexadecimal digits>, \
         as `webhost-coordinator node token` prints it"
    )]
    Malformed,
}

impl JoinToken {
    /// Reads the text of a token; white space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let ["whf1", secret, fingerprint] = parts.as_slice() else {
            return Err(TokenError::Malformed);
        };
        let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let hexadecimal = fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
        if secret.len() != 43 || !secret.bytes().all(url_safe) {
            return Err(TokenError::Malformed);
        }
        if fingerprint.len() != 64 || !hexadecimal {
            return Err(TokenError::Malformed);
        }
        let mut root_sha256 = [0; 32];
        for (byte, at) in root_sha256.iter_mut().zip((0..64).step_by(2)) {
            let pair = fingerprint.get(at..at + 2).ok_or(TokenError::Malformed)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| TokenError::Malformed)?;
        }
        Ok(Self { secret: Zeroizing::new((*secret).to_owned()), root_sha256 })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// Reads a token from a file, or from standard input where `path` is "-".
/// Arguments are no place for it: every user of the machine sees them.
///
/// # Errors
/// [`TokenError`].
pub fn read_token(path: &Path) -> Result<JoinToken, TokenError> {
    let stdin = path == Path::new("-");
    let from = if stdin { "standard input".into() } else { path.display().to_string() };
    let mut text = Zeroizing::new(String::new());
    let read = if stdin {
        std::io::stdin().lock().take(4096).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text))
    };
    read.map_err(|source| TokenError::Io { from, source })?;
    JoinToken::parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_one_form() {
        let secret = "A".repeat(43);
        let print = "0f".repeat(32);
        let token = JoinToken::parse(&format!(" whf1.{secret}.{print}\n")).expect("a token");
        assert_eq!(token.root_sha256, [0x0f; 32]);
        assert_eq!(token.secret.as_str(), secret);
        assert!(!format!("{token:?}").contains('A'));
        for wrong in [
            String::new(),
            format!("whf2.{secret}.{print}"),
            format!("whf1.{secret}"),
            format!("whf1.{}.{print}", "A".repeat(42)),
            format!("whf1.{}/.{print}", "A".repeat(42)),
            format!("whf1.{secret}.{}", "0f".repeat(31)),
            format!("whf1.{secret}.{}", "zz".repeat(32)),
            format!("whf1.{secret}.{}", "é".repeat(32)),
            format!("whf1.{secret}.{print}.x"),
        ] {
            let error = JoinToken::parse(&wrong).expect_err("no token").to_string();
            assert!(!error.contains("AAAA"), "{error}");
        }
    }
}
