//! Emptying a node.

use axum::extract::State;
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::auth::Bearer;
use super::error::ApiError;
use super::extract::{self, Body, Path, Query};
use super::fleet::{NodeView, view};
use crate::evaluate::carry;
use crate::moves::drains::{self, Drain as Plan, DrainError};
use crate::store::nodes::{Draining, NodeKind};

impl From<DrainError> for ApiError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Store(error) => error.into(),
            other => Self::conflict(other.to_string()),
        }
    }
}

/// By when.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct By {
    /// The node is to be empty by then; the time that it has already when
    /// absent.
    #[param(value_type = Option<String>)]
    pub by: Option<Timestamp>,
}

/// How a shared node would be emptied: who leaves when, and who can't by then.
/// Changes nothing.
#[utoipa::path(get, path = "/api/nodes/{node}/drain", tag = "nodes",
    params(("node" = String, Path, description = "id or name"), By),
    responses((status = 200, body = Plan), (status = 404, body = super::error::ErrorBody),
              (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn look(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(wanted): Query<By>,
) -> Result<Json<Plan>, ApiError> {
    let now = Timestamp::now();
    let by = wanted.by.map(|by| drains::deadline(by, now)).transpose()?;
    let node = extract::node(&state, &name).await?;
    let by = by.or(node.drain_by);
    let client = state.store.client().await?;
    let (slots, rules) = (&state.desk.slots, &state.rules);
    let (drain, _) = drains::look(&**client, slots, rules, node.id, by, now).await?;
    Ok(Json(drain))
}

/// Whether the node is to be emptied.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// True: no new tenants; false: takes tenants again.
    pub draining: bool,
    /// Of a shared node: it is to be empty by then; a node that drains keeps the
    /// time that it has when absent. Somebody is told when what is left no
    /// longer fits, and when the time has come and it is not empty.
    #[schema(value_type = Option<String>)]
    pub by: Option<Timestamp>,
    /// Ask for the moves of its tenants as well, in the order in which they
    /// are done by then if that can be; of those that something else keeps for
    /// now as soon as that has ended.
    #[serde(default)]
    pub move_tenants: bool,
}

/// What came of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Drained {
    #[serde(flatten)]
    pub node: NodeView,
    /// So many moves were asked for.
    pub begun: usize,
    /// Why others were not, a sentence each.
    pub refused: Vec<String>,
}

/// Sets a node draining, by a time where there is one, and moves its tenants
/// where that is wanted; or takes it back into use.
#[utoipa::path(post, path = "/api/nodes/{node}/drain", tag = "nodes", request_body = Drain,
    params(("node" = String, Path, description = "id or name")),
    responses((status = 200, body = Drained), (status = 409, body = super::error::ErrorBody),
              (status = 422, body = super::error::ErrorBody)))]
pub async fn drain(
    State(state): State<ApiState>,
    Extension(bearer): Extension<Bearer>,
    Path(name): Path<String>,
    Body(wanted): Body<Drain>,
) -> Result<Json<Drained>, ApiError> {
    let now = Timestamp::now();
    let node = extract::node(&state, &name).await?;
    let by = wanted.by.map(|by| drains::deadline(by, now)).transpose()?;
    // Asked again without one, a node keeps its time; it loses it with the drain.
    let kept = node.drain_by.filter(|_| wanted.draining);
    for (field, given) in [("by", by.is_some()), ("move_tenants", wanted.move_tenants)] {
        if given && !wanted.draining {
            return Err(ApiError::invalid(field, "only a node that is drained has it"));
        }
        if given && node.kind != NodeKind::Shared {
            return Err(ApiError::invalid(field, "only of a shared node; move its tenant instead"));
        }
    }
    let by = by.or(kept);
    let mut client = state.store.client().await?;
    let (slots, rules) = (&state.desk.slots, &state.rules);
    let steps = if wanted.move_tenants {
        drains::look(&**client, slots, rules, node.id, by, now).await?.1
    } else {
        Vec::new()
    };
    let tx = (**client).transaction().await?;
    let moves_from = wanted.move_tenants.then_some(now);
    let draining = wanted.draining.then_some(Draining { by, moves_from });
    if !drains::set(&tx, node.id, draining, &bearer.actor).await? {
        return Err(ApiError::conflict(format!(
            "node {} is {}; only an active or draining one can be drained",
            node.name, node.state
        )));
    }
    tx.commit().await?;
    drop(client);
    let (mut begun, mut refused) = (0, Vec::new());
    for (tenant, answer) in carry(&state.store, slots, &steps, &bearer.actor).await {
        match answer {
            Ok(_) => begun += 1,
            Err(error) => refused.push(format!("{tenant}: {error}")),
        }
    }
    state.desk.changed.notify();
    state.signals.replies.notify();
    let node = extract::node(&state, &node.id.to_string()).await?;
    Ok(Json(Drained { node: view(&state, node).await?, begun, refused }))
}
