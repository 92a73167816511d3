//! Join tokens: `whf1.<secret>.<sha256 of the root>`. The secret lets one
//! machine in, once; the hash lets that machine know whom it talks to before
//! it trusts anybody.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use zeroize::Zeroizing;

use super::authority::Authority;
use super::sealing::{SealingError, hex};
use crate::store::audit::{self, Entry};
use crate::store::join_tokens::{self, Promise};
use crate::store::nodes::{self, NodeState};
use crate::store::{Store, StoreError};

/// How long a token may be used unless the caller says otherwise.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// The longest that a token may live.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A token's text. `Debug` prints nothing of it; [`expose`](Self::expose)
/// gives it to who prints or writes it once.
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    /// The text, for the operator's eyes or a file of mode 0600.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// No token was made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] SealingError),
    /// Not a name for a node.
    #[error("{0:?} is no node name: 1 to 63 of a-z, 0-9 and hyphen, no hyphen at either end")]
    Name(String),
    /// The name is taken by a node that this token doesn't fit.
    #[error("a node named {name} exists and {why}; choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// What is in the way.
        why: String,
    },
    /// Too long or nothing.
    #[error("a token may live between 1 second and 24 hours, not {0:?}")]
    Lifetime(Duration),
}

/// Makes a token for one node. For a name that a node of the same kind, shape
/// and region has already, the token lets that node enrol again, under its
/// id; from then on its earlier certificate is refused.
///
/// # Errors
/// [`TokenError`].
pub async fn create_join_token(
    store: &Store,
    authority: &Authority,
    promise: &Promise,
    lifetime: Duration,
    actor: &str,
) -> Result<JoinToken, TokenError> {
    if !is_name(&promise.node_name) {
        return Err(TokenError::Name(promise.node_name.clone()));
    }
    if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
        return Err(TokenError::Lifetime(lifetime));
    }
    let mut random = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(random.as_mut()).map_err(|_| SealingError::Random)?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_ref()));
    let expires_at = Timestamp::now() + lifetime;

    let mut client = store.client().await?;
    let transaction = (**client).transaction().await.map_err(StoreError::from)?;
    if let Some(node) = nodes::by_name(&transaction, &promise.node_name).await? {
        let why = if node.state == NodeState::Revoked {
            Some("is revoked for good".to_owned())
        } else if (node.kind, &node.shape, &node.region)
            != (promise.kind, &promise.shape, &promise.region)
        {
            Some(format!("is {} of shape {} in {}", node.kind.as_str(), node.shape, node.region))
        } else {
            None
        };
        if let Some(why) = why {
            return Err(TokenError::NameTaken { name: node.name, why });
        }
    }
    join_tokens::insert(&transaction, &secret_sha256(&secret), promise, actor, expires_at).await?;
    let entry = Entry {
        actor,
        action: "node.invited",
        subject: "node",
        subject_id: promise.node_name.clone(),
        detail: json!({
            "kind": promise.kind, "shape": promise.shape, "region": promise.region,
            "expires_at": expires_at,
        }),
    };
    audit::record(&transaction, &entry).await?;
    transaction.commit().await.map_err(StoreError::from)?;
    let text = format!("whf1.{}.{}", secret.as_str(), hex(&authority.root_sha256()));
    Ok(JoinToken(Zeroizing::new(text)))
}

pub(super) fn secret_sha256(secret: &str) -> Vec<u8> {
    digest(&SHA256, secret.as_bytes()).as_ref().to_vec()
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}
