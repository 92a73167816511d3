//! Emptying a node by a time: who leaves when, who can't by then, and somebody
//! told once when what is left no longer fits.
//!
//! A node is empty when nobody lives there. Old copies stay for the ways back,
//! and are deleted when those are over.
//!
//! Whoever can't leave yet is kept either by something that ends by itself (the
//! way back of the move that brought it, an old copy), and then waits for that
//! and is reckoned with from there on; or by what a person has to see to (room,
//! rules, a paused or failed move), and then is late ([`keeps`]).

pub mod ahead;
pub mod keeps;
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
use self::keeps::Keeps;
use super::Rules;
use super::schedule::{Job, Times, ordered};
use crate::fleet::forecast::shape_for;
use crate::fleet::plan::{self, drain};
use crate::fleet::policy::AtOnce;
use crate::fleet::{Policy, verify};
use crate::signup::Invalid;
use crate::slots::Slots;
use crate::store::audit::{self, Entry};
use crate::store::moves::Move;
use crate::store::nodes::{Draining, Node, NodeKind, NodeState};
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
    /// How many will still be there at `by`, or can't leave unless a person does
    /// something about it.
    pub late: usize,
    /// How many wait for something that ends by itself, in time.
    pub waiting: usize,
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
    /// It will still be there at the deadline, or can't leave unless a person does
    /// something about it.
    pub late: bool,
    /// What keeps it, for a person.
    pub why: Option<String>,
    /// When that ends by itself; none where a person is needed.
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
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
    let home = nodes::get(client, node).await?;
    let shared = |one: &Node| one.kind == NodeKind::Shared && one.state != NodeState::Revoked;
    let home = home.filter(shared).ok_or(DrainError::NotShared(node))?;
    let snapshot = slots.survey(client, now).await?;
    let policy = policy(slots, rules);
    let wrong = |error: &dyn std::fmt::Display| DrainError::Plan(error.to_string());
    let made = drain(&snapshot, &policy, &[node]).map_err(|error| wrong(&error))?;
    verify(&snapshot, &policy, &made).map_err(|broken| wrong(&broken))?;
    let mut ahead = Ahead::read(client, slots, rules, now).await?;
    let open: HashMap<TenantId, Move> =
        moves::of_those_on(client, node).await?.into_iter().map(|row| (row.tenant, row)).collect();
    let new: Vec<plan::Move> =
        made.moves().filter(|step| !open.contains_key(&step.tenant)).copied().collect();
    let steps: HashMap<TenantId, plan::Move> =
        new.iter().map(|step| (step.tenant, *step)).collect();
    let mut there = placements::open_on(client, &[node.0]).await?;
    there.retain(|placement| placement.state == PlacementState::Active);
    let there: Vec<TenantId> = there.iter().map(|placement| placement.tenant_id).collect();
    // What became of those that were asked for already.
    let mut tried: HashMap<TenantId, Move> = HashMap::new();
    if let Some(since) = home.drain_moves_from {
        for row in moves::ended_from(client, node, since).await? {
            tried.entry(row.tenant).or_insert(row);
        }
    }
    let mut kept: HashMap<TenantId, Keeps> = HashMap::new();
    for &tenant in &there {
        let keeps = match (open.get(&tenant), steps.get(&tenant)) {
            (Some(row), _) if keeps::leaves(row, node) => keeps::by_room(row),
            (Some(row), _) => Some(keeps::by_move(row, rules, now)),
            (None, Some(_)) => tried.get(&tenant).map(keeps::by_end),
            (None, None) if made.stuck.iter().any(|stuck| stuck.tenant == tenant) => {
                let need = slots.need(tenant, now.as_microsecond());
                Some(Keeps::a_person(match shape_for(&need, &slots.catalog.shapes, &policy) {
                    Some(shape) => {
                        format!("it fits on no other: one more shared node, {}", shape.name)
                    }
                    None => "it fits on no shared node: it needs one of its own".to_owned(),
                }))
            }
            (None, None) => {
                let copies = moves::copies(client, tenant).await?;
                Some(keeps::by_copies(&copies, now).unwrap_or_else(|| unplanned(slots, &home)))
            }
        };
        kept.extend(keeps.map(|keeps| (tenant, keeps)));
    }

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
    for (tenant, until) in there.iter().filter_map(|one| Some((*one, kept.get(one)?.until?))) {
        jobs.push(ahead.job_after(tenant, node, until, ahead::bytes(slots, tenant, now)));
    }
    let mine = first..jobs.len();
    jobs.extend(ahead.waiting[first..].iter().map(old));
    // Of a queue of thousands that takes most of a second.
    let (mine_too, timetable) = (mine.clone(), ahead.timetable);
    let ordering = tokio::task::spawn_blocking(move || {
        let (order, times) = ordered(&jobs, mine_too, &timetable, by, now);
        (jobs, order, times)
    });
    let (jobs, order, times) = ordering.await.map_err(|error| wrong(&error))?;
    let times: HashMap<TenantId, Times> =
        jobs.iter().zip(times).map(|(job, times)| (job.tenant, times)).collect();

    let under_way: HashMap<TenantId, Timestamp> = ahead.under_way.iter().copied().collect();
    let mut slugs = tenants::slugs(client, &there).await?;
    let mut tenants = Vec::new();
    for tenant in there {
        let row = open.get(&tenant);
        let step = steps.get(&tenant);
        let leaves = row.is_some_and(|row| keeps::leaves(row, node));
        let runs = under_way.get(&tenant).filter(|_| leaves);
        let keeps = kept.remove(&tenant);
        let goes =
            leaves || step.is_some() || keeps.as_ref().is_some_and(|one| one.until.is_some());
        let times = times.get(&tenant).filter(|_| goes && runs.is_none());
        let ends = times.map_or(runs.copied(), |times| times.ends);
        let keeps = keeps.or_else(|| {
            let never = "its windows and those of its nodes are never open at once";
            ends.is_none().then(|| Keeps::a_person(never))
        });
        let in_time = ends.is_some_and(|ends| by.is_none_or(|by| ends <= by));
        let late = !in_time || keeps.as_ref().is_some_and(|keeps| keeps.until.is_none());
        let (why, until) = keeps.map_or((None, None), |keeps| (Some(keeps.why), keeps.until));
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
            until,
        });
    }
    tenants.sort_by(|a, b| {
        let key = |one: &Leaving| (one.ends.unwrap_or(Timestamp::MAX), one.begins, one.tenant);
        key(a).cmp(&key(b))
    });
    let late = tenants.iter().filter(|one| one.late).count();
    let waiting = tenants.iter().filter(|one| !one.late && one.until.is_some()).count();
    let ends = tenants.iter().map(|one| one.ends).collect::<Option<Vec<_>>>();
    let ends = ends.map(|ends| ends.into_iter().max().unwrap_or(now));
    let new = order[mine].iter().filter_map(|at| new.get(at - first).copied()).collect();
    Ok((Drain { node, by, ends, late, waiting, tenants }, new))
}

/// What keeps a tenant that no plan knows.
fn unplanned(slots: &Slots, home: &Node) -> Keeps {
    Keeps::a_person(if slots.catalog.shape(&home.shape).is_none() {
        format!(
            "no plan can be made for {}: its shape {} is not in the catalogue; add it, or move \
             each tenant (webhost-coordinator move begin)",
            home.name, home.shape
        )
    } else {
        "it can't be planned: it is not active".to_owned()
    })
}

/// Sets a node draining, or, without `draining`, active again, with an audit row;
/// false where the node can't be either.
///
/// # Errors
/// [`StoreError`].
pub async fn set(
    tx: &impl GenericClient,
    node: NodeId,
    draining: Option<Draining>,
    actor: &str,
) -> Result<bool, StoreError> {
    if !nodes::set_draining(tx, node, draining).await? {
        return Ok(false);
    }
    let action = if draining.is_some() { "node.draining" } else { "node.active" };
    let by = draining.and_then(|draining| draining.by);
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
