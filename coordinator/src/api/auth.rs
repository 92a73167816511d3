//! Who may ask: bearer tokens, each with one role.
//!
//! A token is 256 random bits; what is stored is its SHA-256, and the lookup
//! is by that hash, so the work is the same whatever was sent.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;

use super::ApiState;
use super::error::ApiError;
use crate::store::api_tokens::{self, Role};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// "token NAME", as the audit trail names it.
    pub actor: String,
    pub role: Role,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub &'static [Role]);

/// Changes things.
pub const ADMIN: Access = Access(&[Role::Admin]);
/// Signs tenants up.
pub const SIGNUP: Access = Access(&[Role::Admin, Role::App]);
/// Asks where a tenant lives.
pub const LOOKUP: Access = Access(&[Role::Admin, Role::App, Role::Viewer]);
/// Looks at the fleet.
pub const READ: Access = Access(&[Role::Admin, Role::Viewer]);

impl Access {
    /// "admin or app".
    pub fn words(self) -> String {
        self.0.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ")
    }
}

/// A new secret; it is shown once and stored as [`hash`] only.
///
/// # Errors
/// When the system has no randomness.
pub fn generate() -> Result<String, ring::error::Unspecified> {
    let mut secret = [0_u8; 32];
    ring::rand::SystemRandom::new().fill(&mut secret)?;
    Ok(format!("whf_{}", URL_SAFE_NO_PAD.encode(secret)))
}

/// What is stored of a token.
pub fn hash(token: &str) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

/// Lets nobody by who has no token that works. Outermost: an unknown path
/// answers 401, too.
pub async fn authenticate(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let Some(token) = token else {
        return Err(ApiError::unauthorized(
            "send a token: Authorization: Bearer …; make one with: webhost-coordinator token create",
        ));
    };
    let client = state.store.client().await?;
    let Some(known) = api_tokens::authenticate(&**client, &hash(token)).await? else {
        return Err(ApiError::unauthorized("the token is unknown, expired or revoked"));
    };
    drop(client);
    let bearer = Bearer { actor: format!("token {}", known.name), role: known.role };
    request.extensions_mut().insert(bearer);
    Ok(next.run(request).await)
}

/// Lets by only whom the route is for.
pub async fn authorize(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let role = request.extensions().get::<Bearer>().map(|bearer| bearer.role);
    match role {
        Some(role) if access.0.contains(&role) => Ok(next.run(request).await),
        Some(role) => Err(ApiError::forbidden(format!(
            "a token of role {role} may not do this; it takes {}",
            access.words()
        ))),
        None => Err(ApiError::unauthorized("send a token")),
    }
}
