//! Nodes: what they are, how loaded, and draining them.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use webhost_proto::ids::NodeId;

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Page, Path, Query, now_us};
use crate::decide::Catalog;
use crate::fleet::forecast::Forecast;
use crate::link::{TokenError, create_join_token, token};
use crate::signup::Invalid;
use crate::store::join_tokens::Promise;
use crate::store::nodes::{self, Node, NodeKind};
use crate::store::placements;
use crate::usage::NodeUsage;

/// A node, its load, and how many tenants are on it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct NodeView {
    #[serde(flatten)]
    pub node: Node,
    /// Whether its agent has a session at the moment.
    pub connected: bool,
    /// Tenants that live there, are promised a place, move in, or left a copy.
    pub tenants: usize,
    /// None until it reported to this coordinator.
    pub usage: Option<NodeUsage>,
}

pub(super) async fn view(state: &ApiState, node: Node) -> Result<NodeView, ApiError> {
    let client = state.store.client().await?;
    let tenants = placements::open_on(&**client, &[node.id.0]).await?.len();
    let usage = state.book.node(node.id, now_us());
    Ok(NodeView { connected: node.connected_at.is_some(), node, tenants, usage })
}

/// Lists nodes by id.
#[utoipa::path(get, path = "/api/nodes", tag = "nodes", params(Page),
    responses((status = 200, body = Vec<NodeView>)))]
pub async fn nodes(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<NodeView>>, ApiError> {
    let after: Option<NodeId> = page.after()?;
    let rows = {
        let client = state.store.client().await?;
        nodes::list(&**client, after, page.limit()?).await?
    };
    let mut views = Vec::with_capacity(rows.len());
    for node in rows {
        views.push(view(&state, node).await?);
    }
    Ok(Json(views))
}

/// One node, by id or name.
#[utoipa::path(get, path = "/api/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "id or name")),
    responses((status = 200, body = NodeView), (status = 404, body = super::error::ErrorBody)))]
pub async fn node(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<NodeView>, ApiError> {
    let node = extract::node(&state, &name).await?;
    Ok(Json(view(&state, node).await?))
}

/// When the room of each shared node and of each place ends, if tenants go on
/// growing as in the last four weeks.
#[utoipa::path(get, path = "/api/forecast", tag = "fleet",
    responses((status = 200, body = Forecast)))]
pub async fn forecast(State(state): State<ApiState>) -> Result<Json<Forecast>, ApiError> {
    let client = state.store.client().await?;
    Ok(Json(state.desk.slots.forecast(&**client, Timestamp::now()).await?))
}

/// Invites a machine to join.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// 1 to 63 of a-z, 0-9 and hyphens.
    pub name: String,
    pub kind: NodeKind,
    /// A shape of the catalogue.
    pub shape: String,
    /// A place by its code, or a region of the catalogue.
    pub region: String,
    /// 900 when absent; at most a day.
    pub lifetime_s: Option<u64>,
}

/// A join token; shown once.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Invitation {
    pub name: String,
    /// For `webhost-agent enroll`, on its standard input or from a file.
    pub token: String,
}

/// Makes a join token for one machine.
#[utoipa::path(post, path = "/api/node-tokens", tag = "nodes", request_body = Invite,
    responses((status = 201, body = Invitation), (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn invite(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Body(invite): Body<Invite>,
) -> Result<(StatusCode, Json<Invitation>), ApiError> {
    let promise = promise(&state.catalog, invite.name, invite.kind, invite.shape, &invite.region)?;
    let lifetime = invite.lifetime_s.map_or(token::LIFETIME, Duration::from_secs);
    let made =
        create_join_token(&state.store, &state.authority, &promise, lifetime, &bearer.actor).await;
    let made = made.map_err(|error| match error {
        TokenError::Store(error) => error.into(),
        TokenError::Name(_) => ApiError::invalid("name", error.to_string()),
        TokenError::Lifetime(_) => ApiError::invalid("lifetime_s", error.to_string()),
        other => ApiError::conflict(other.to_string()),
    })?;
    let answer = Invitation { name: promise.node_name, token: made.expose().to_owned() };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Checks what a node is promised to be against the catalogue.
///
/// # Errors
/// [`Invalid`] with the field.
pub fn promise(
    catalog: &Catalog,
    node_name: String,
    kind: NodeKind,
    shape: String,
    region: &str,
) -> Result<Promise, Invalid> {
    let Some(known) = catalog.shape(&shape) else {
        let names: Vec<&str> = catalog.shapes.iter().map(|shape| shape.name.as_str()).collect();
        let problem = format!("{shape:?} is no shape; shapes are {}", names.join(", "));
        return Err(Invalid::new("shape", problem));
    };
    if known.kind != kind {
        let problem = format!("{shape} is a {} shape", known.kind.as_str());
        return Err(Invalid::new("kind", problem));
    }
    let Some(place) = catalog.region(region) else {
        return Err(Invalid::new("region", format!("{region:?} is neither a region nor a place")));
    };
    Ok(Promise { node_name, kind, shape, region: place.0 })
}
