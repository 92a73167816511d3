//! Emptying a node by a time: who leaves when, who can't by then, and somebody
//! told once when what is left no longer fits.
//!
//! A node is empty when nobody lives there. Old copies stay for the ways back,
//! and are deleted when those are over.

pub mod ahead;
pub mod watch;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio_postgres::GenericClient;
use utoipa::ToSchema;
use webhost_proto::ids::{MoveId, NodeId, TenantId};

use self::ahead::Ahead;
use super::Rules;
use super::schedule::{Job, Times, ordered};
use super::state::{State, Step};
use crate::fleet::forecast::shape_for;
use crate::fleet::plan::{self, drain};
use crate::fleet::policy::AtOnce;
use crate::fleet::{Policy, verify};
use crate::signup::Invalid;
use crate::slots::Slots;
use crate::store::audit::{self, Entry};
use crate::store::moves::Move;
use crate::store::placements::PlacementState;
use crate::store::{StoreError, moves, nodes, placements, tenants};

/// How a node is emptied.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Drain {
    /// Which node.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// By when it is to be empty.
    #[schema(value_type = Option<String>)]
    pub by: Option<Timestamp>,
    /// When it is thought to be; none where somebody can't leave.
    #[schema(value_type = Option<String>)]
    pub ends: Option<Timestamp>,
    /// How many will still be there at `by`, or can't leave at all.
    pub late: usize,
    /// Who lives there; who leaves first comes first.
    pub tenants: Vec<Leaving>,
}

/// A tenant of such a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Leaving {
    /// Who.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// Its move, where there is one already.
    #[schema(value_type = Option<String>)]
    pub move_id: Option<MoveId>,
    /// To where.
    #[schema(value_type = Option<String>)]
    pub to: Option<NodeId>,
    /// What is copied, in MiB.
    pub disk: u32,
    /// When its windows and its nodes' are open next; now where they are.
    #[schema(value_type = Option<String>)]
    pub window: Option<Timestamp>,
    /// When its move would begin; none for one that has.
    #[schema(value_type = Option<String>)]
    pub begins: Option<Timestamp>,
    /// When it would live elsewhere.
    #[schema(value_type = Option<String>)]
    pub ends: Option<Timestamp>,
    /// It will still be there at the deadline, or can't leave at all.
    pub late: bool,
    /// What keeps it, for a person.
    pub why: Option<String>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// A plan is made for shared nodes; a dedicated one's tenant is moved by
    /// itself.
    #[error("node {0} is no shared node; move its tenant instead")]
    NotShared(NodeId),
    /// The planner, or its check.
    #[error("the plan can't be made: {0}")]
    Plan(String),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The policy of plans under these rules.
pub fn policy(slots: &Slots, rules: &Rules) -> Policy {
    let limits = &rules.limits;
    let (source, target, all) = (limits.per_source, limits.per_target, limits.in_fleet);
    Policy { at_once: AtOnce { source, target, all }, ..Policy::of(&slots.catalog) }
}

/// Looks at how `node` would be emptied, and answers it with the moves that
/// are still to be asked for, in their order.
///
/// # Errors
/// [`DrainError`].
pub async fn look(
    client: &impl GenericClient,
    slots: &Slots,
    rules: &Rules,
    node: NodeId,
    by: Option<Timestamp>,
    now: Timestamp,
) -> Result<(Drain, Vec<plan::Move>), DrainError> {
    let snapshot = slots.survey(client, now).await?;
    if !snapshot.nodes.iter().any(|one| one.id == node) {
        return Err(DrainError::NotShared(node));
    }
    let policy = policy(slots, rules);
    let wrong = |error: &dyn std::fmt::Display| DrainError::Plan(error.to_string());
    let made = drain(&snapshot, &policy, &[node]).map_err(|error| wrong(&error))?;
    verify(&snapshot, &policy, &made).map_err(|broken| wrong(&broken))?;
    let mut ahead = Ahead::read(client, slots, rules, now).await?;
    let open: HashMap<TenantId, Move> =
        moves::of_those_on(client, node).await?.into_iter().map(|row| (row.tenant, row)).collect();
    let new: Vec<plan::Move> =
        made.moves().filter(|step| !open.contains_key(&step.tenant)).copied().collect();

    // Whoever leaves a node that is to be empty sooner goes first.
    let deadlines: HashMap<NodeId, Timestamp> = nodes::all(client)
        .await?
        .into_iter()
        .filter_map(|one| Some((one.id, if one.id == node { by } else { one.drain_by }?)))
        .collect();
    let deadline = |source: &NodeId| deadlines.get(source).copied().unwrap_or(Timestamp::MAX);
    ahead.waiting.sort_by_key(|row| (deadline(&row.source), row.created_at, row.id));
    let first = ahead.waiting.partition_point(|row| deadline(&row.source) <= deadline(&node));
    let old = |row: &Move| ahead.job_of(row, slots, now);
    let mut jobs: Vec<Job> = ahead.waiting[..first].iter().map(old).collect();
    jobs.extend(new.iter().map(|step| ahead.job(step)));
    jobs.extend(ahead.waiting[first..].iter().map(old));
    let mine = first..first + new.len();
    let (order, times) = ordered(&jobs, mine.clone(), &ahead.timetable, by, now);
    let times: HashMap<TenantId, Times> =
        jobs.iter().zip(times).map(|(job, times)| (job.tenant, times)).collect();

    let under_way: HashMap<TenantId, Timestamp> = ahead.under_way.iter().copied().collect();
    let mut there = placements::open_on(client, &[node.0]).await?;
    there.retain(|placement| placement.state == PlacementState::Active);
    let ids: Vec<TenantId> = there.iter().map(|placement| placement.tenant_id).collect();
    let mut slugs = tenants::slugs(client, &ids).await?;
    let mut tenants = Vec::new();
    for tenant in ids {
        let row = open.get(&tenant);
        let step = new.iter().find(|step| step.tenant == tenant);
        let waits = row.is_some_and(|row| row.state == State::WaitingForNode && row.source == node);
        let runs = under_way.get(&tenant).filter(|_| row.is_some_and(|row| row.source == node));
        let times = times.get(&tenant).filter(|_| waits || step.is_some());
        let ends = times.map_or(runs.copied(), |times| times.ends);
        let why = match (row, ends) {
            (_, Some(_)) => None,
            (Some(row), None) => Some(kept(row)),
            (None, None) if step.is_some() => {
                Some("its windows and those of its nodes are never open at once".to_owned())
            }
            (None, None) if made.stuck.iter().any(|stuck| stuck.tenant == tenant) => {
                let need = slots.need(tenant, now.as_microsecond());
                Some(match shape_for(&need, &slots.catalog.shapes, &policy) {
                    Some(shape) => {
                        format!("it fits on no other: one more shared node, {}", shape.name)
                    }
                    None => "it fits on no shared node: it needs one of its own".to_owned(),
                })
            }
            (None, None) => Some(
                "it can't be planned: it is not active, or another node keeps an old copy of it \
                 (webhost-coordinator move list --tenant shows whose, move clean-up deletes it)"
                    .to_owned(),
            ),
        };
        let late = why.is_some() || by.is_some_and(|by| ends.is_none_or(|ends| ends > by));
        tenants.push(Leaving {
            tenant,
            slug: slugs.remove(&tenant).unwrap_or_else(|| tenant.to_string()),
            move_id: row.map(|row| row.id),
            to: row.map_or(step.map(|step| step.to), |row| row.target.or(row.durable.wanted.node)),
            disk: u32::try_from(ahead::bytes(slots, tenant, now) >> 20).unwrap_or(u32::MAX),
            window: times.and_then(|times| times.window),
            begins: times.and_then(|times| times.begins),
            ends,
            late,
            why,
        });
    }
    tenants.sort_by(|a, b| {
        let key = |one: &Leaving| (one.ends.unwrap_or(Timestamp::MAX), one.begins, one.tenant);
        key(a).cmp(&key(b))
    });
    let late = tenants.iter().filter(|one| one.late).count();
    let ends = tenants.iter().map(|one| one.ends).collect::<Option<Vec<_>>>();
    let ends = ends.map(|ends| ends.into_iter().max().unwrap_or(now));
    let new = order[mine].iter().filter_map(|at| new.get(at - first).copied()).collect();
    Ok((Drain { node, by, ends, late, tenants }, new))
}

/// What keeps a tenant with that open move.
fn kept(row: &Move) -> String {
    let id = row.id;
    if row.durable.wanted.dry_run {
        return format!("the dry run {id} of a move of it has to end first");
    }
    match row.state {
        State::AwaitingApproval => format!("its move {id} awaits an approval"),
        State::AwaitingConfirmation => {
            format!("its move {id} awaits that somebody confirms what stays behind")
        }
        State::Paused => format!("its move {id} is paused"),
        State::WaitingForNode => {
            "its windows and those of its nodes are never open at once".to_owned()
        }
        State::Step(Step::WayBack) => {
            let until = row.durable.way_back_until;
            let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
            format!(
                "it came by move {id}, whose way back is open{until}: close that first \
                 (webhost-coordinator move close-way-back {id})"
            )
        }
        state => format!("its move {id} is in {state}"),
    }
}

/// Sets a node draining, to be empty `by` a time where there is one, or active
/// again, with an audit row; false where the node can't be either.
///
/// # Errors
/// [`StoreError`].
pub async fn set(
    tx: &impl GenericClient,
    node: NodeId,
    draining: bool,
    by: Option<Timestamp>,
    actor: &str,
) -> Result<bool, StoreError> {
    if !nodes::set_draining(tx, node, draining, by).await? {
        return Ok(false);
    }
    let action = if draining { "node.draining" } else { "node.active" };
    let detail = by.map_or_else(|| json!({}), |by| json!({ "by": by }));
    let entry = Entry { actor, action, subject: "node", subject_id: node.to_string(), detail };
    audit::record(tx, &entry).await?;
    Ok(true)
}

/// A deadline is in the future, and within a year.
///
/// # Errors
/// [`Invalid`] that says so.
pub fn deadline(by: Timestamp, now: Timestamp) -> Result<Timestamp, Invalid> {
    let ahead = by.duration_since(now);
    if ahead.is_positive() && ahead <= jiff::SignedDuration::from_hours(366 * 24) {
        Ok(by)
    } else {
        Err(Invalid::new("by", format!("{by} is not within the year that begins now")))
    }
}
