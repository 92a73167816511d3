//! Readers of requests whose refusals have the API's own error body.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use webhost_proto::ids::NodeId;

use super::ApiState;
use super::error::ApiError;
use crate::store::nodes::{self, Node};
use crate::store::tenants::{self, Tenant};

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// The query string.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Query(value) =
            axum::extract::Query::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// The path's parts.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Path(value) =
            axum::extract::Path::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// The most rows of one page.
const MOST: u32 = 1000;

/// How much of a list to show. `after` is the last id of the page before.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// The last id of the page before.
    pub after: Option<String>,
}

impl Page {
    /// The number of rows.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn limit(&self) -> Result<i64, ApiError> {
        match self.limit.unwrap_or(100) {
            limit @ 1..=MOST => Ok(i64::from(limit)),
            other => Err(ApiError::invalid("limit", format!("{other} is not 1 to {MOST}"))),
        }
    }

    /// The id to go on after.
    ///
    /// # Errors
    /// When it is no id of that kind.
    pub fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        self.after
            .as_deref()
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::invalid("after", format!("{text:?} is no id of this list"))
                })
            })
            .transpose()
    }
}

/// The tenant that a path names by its id or slug.
///
/// # Errors
/// 404 when there is none.
pub async fn tenant(state: &ApiState, name: &str) -> Result<Tenant, ApiError> {
    let client = state.store.client().await?;
    let found = match name.parse() {
        Ok(id) => tenants::get(&**client, id).await?,
        Err(_) => tenants::by_slug(&**client, name).await?,
    };
    found.ok_or_else(|| ApiError::not_found("tenant", name))
}

/// The node that a path names by its id or name.
///
/// # Errors
/// 404 when there is none.
pub async fn node(state: &ApiState, name: &str) -> Result<Node, ApiError> {
    let client = state.store.client().await?;
    let found = match name.parse::<NodeId>() {
        Ok(id) => nodes::get(&**client, id).await?,
        Err(_) => nodes::by_name(&**client, name).await?,
    };
    found.ok_or_else(|| ApiError::not_found("node", name))
}

/// The coordinator's clock.
pub fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}
