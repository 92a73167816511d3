//! The independent check of a plan, before anything of it is carried out.
//!
//! It shares the planner's data types and not a line of its code: it keeps its
//! own books, in plain maps and wide integers, and reads the rules from the
//! snapshot again. What it checks stands in [`Broken`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{NodeId, TenantId};

use super::load::{Amounts, Dimension};
use super::node::{NodeState, Standing};
use super::plan::{Move, Plan, Why};
use super::policy::Policy;
use super::snapshot::{Snapshot, Tenant};
use crate::decide::plans::NodeKind;

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Broken {
    #[error("tenant {0} is not in the snapshot")]
    UnknownTenant(TenantId),
    #[error("node {0} is not in the snapshot")]
    UnknownNode(NodeId),
    #[error("tenant {0} moves twice")]
    MovesTwice(TenantId),
    #[error("tenant {0} does not live where it is moved from")]
    NotThere(TenantId),
    #[error("tenant {0} moves to where it is")]
    Nowhere(TenantId),
    #[error("node {0} may be given no tenants")]
    Closed(NodeId),
    #[error(
        "node {node} has {would} of {may} {dimension:?} (hour {hour}) when tenant {tenant} comes"
    )]
    Overfull {
        node: NodeId,
        tenant: TenantId,
        dimension: Dimension,
        hour: usize,
        would: u64,
        may: u64,
    },
    #[error("tenant {0} must not live there")]
    Forbidden(TenantId),
    #[error("tenants {0} and {1} must live apart")]
    Together(TenantId, TenantId),
    #[error("tenant {0} returns to where it left too early")]
    Returns(TenantId),
    #[error("tenant {0} is moved for balance and has not settled")]
    Unsettled(TenantId),
    #[error("{0} moves for balance are too many")]
    OverBudget(usize),
    #[error("wave {0} has too many moves at once")]
    Crowded(usize),
    #[error("node {0} is said to be relieved and is not")]
    NotRelieved(NodeId),
    #[error("node {0} is said to be emptied and is not")]
    NotEmptied(NodeId),
    #[error("tenant {0} is said to be stuck and moves")]
    StuckMoves(TenantId),
}

/// 24 hours of CPU, connections and GPS points; then memory, disk, tenants.
type Sums = [[u64; 24]; 6];

/// Rows of [`Sums`] and what they are called.
const ROWS: [Dimension; 6] = [
    Dimension::Cpu,
    Dimension::DbConnections,
    Dimension::Gps,
    Dimension::Memory,
    Dimension::Disk,
    Dimension::Tenants,
];

/// Checks that every prefix of the plan holds: after each move, with those
/// that are under way charged on both their ends, no target is above its
/// limit; and that every rule is kept and everything said is true.
///
/// # Errors
/// The first thing that is [`Broken`].
pub fn verify(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Result<(), Broken> {
    let nodes: BTreeMap<NodeId, &NodeState> = snapshot.nodes.iter().map(|n| (n.id, n)).collect();
    let tenants: BTreeMap<TenantId, &Tenant> = snapshot.tenants.iter().map(|t| (t.id, t)).collect();
    let mut carried: BTreeMap<NodeId, Sums> =
        snapshot.nodes.iter().map(|node| (node.id, sums_of(node))).collect();
    // Where each tenant is; during its move it is on both.
    let mut homes: BTreeMap<TenantId, BTreeSet<NodeId>> =
        tenants.iter().map(|(id, tenant)| (*id, BTreeSet::from([tenant.node]))).collect();
    let mut moved = BTreeSet::new();
    for (number, wave) in plan.waves.iter().enumerate() {
        crowded(number, wave, policy)?;
        for step in wave {
            let tenant = *tenants.get(&step.tenant).ok_or(Broken::UnknownTenant(step.tenant))?;
            let target = *nodes.get(&step.to).ok_or(Broken::UnknownNode(step.to))?;
            if !moved.insert(tenant.id) {
                return Err(Broken::MovesTwice(tenant.id));
            }
            if tenant.node != step.from {
                return Err(Broken::NotThere(tenant.id));
            }
            if step.from == step.to {
                return Err(Broken::Nowhere(tenant.id));
            }
            rules(snapshot.now_h, policy, step, tenant, target)?;
            apart(tenant, step.to, &tenants, &homes)?;
            let sums = carried.get_mut(&step.to).ok_or(Broken::UnknownNode(step.to))?;
            charge(sums, tenant, true);
            within(target, sums, step, policy)?;
            homes.entry(tenant.id).or_default().insert(step.to);
        }
        for step in wave {
            // The copy is gone from its source when the wave is over.
            if let (Some(sums), Some(tenant)) =
                (carried.get_mut(&step.from), tenants.get(&step.tenant))
            {
                charge(sums, tenant, false);
            }
            homes.entry(step.tenant).or_default().remove(&step.from);
        }
    }
    let balance = plan.waves.iter().flatten().filter(|step| step.why == Why::Consolidate).count();
    if balance > policy.balance_moves as usize {
        return Err(Broken::OverBudget(balance));
    }
    outcome(plan, policy, &nodes, &carried, &homes, &moved)
}

/// What the plan says of the fleet afterwards.
fn outcome(
    plan: &Plan,
    policy: &Policy,
    nodes: &BTreeMap<NodeId, &NodeState>,
    carried: &BTreeMap<NodeId, Sums>,
    homes: &BTreeMap<TenantId, BTreeSet<NodeId>>,
    moved: &BTreeSet<TenantId>,
) -> Result<(), Broken> {
    for overload in &plan.relieved {
        let (node, sums) = (nodes.get(&overload.node), carried.get(&overload.node));
        let calm = node.zip(sums).is_some_and(|(node, sums)| {
            let may = limits(node, policy.relieve_to);
            (0..5).all(|row| sums[row].iter().all(|sum| *sum <= may[row]))
        });
        if !calm {
            return Err(Broken::NotRelieved(overload.node));
        }
    }
    for node in &plan.emptied {
        if homes.values().any(|home| home.contains(node)) {
            return Err(Broken::NotEmptied(*node));
        }
    }
    match plan.stuck.iter().find(|stuck| moved.contains(&stuck.tenant)) {
        Some(stuck) => Err(Broken::StuckMoves(stuck.tenant)),
        None => Ok(()),
    }
}

/// A figure for each hour of each row: the same all day where it is one.
fn rows<T: Copy + Into<u64>>(hourly: &[[T; 24]; 3], memory: u32, disk: u32, tenants: u32) -> Sums {
    let [cpu, connections, gps] = hourly.map(|day| day.map(Into::into));
    let all_day = |figure: u32| [u64::from(figure); 24];
    [cpu, connections, gps, all_day(memory), all_day(disk), all_day(tenants)]
}

fn sums_of(node: &NodeState) -> Sums {
    let load = &node.load;
    rows(&load.hourly, load.memory, load.disk, load.tenants)
}

fn charge(sums: &mut Sums, tenant: &Tenant, comes: bool) {
    let takes = rows(&tenant.need.hourly, tenant.need.memory, tenant.need.disk, 1);
    for (sum, takes) in sums.iter_mut().flatten().zip(takes.iter().flatten()) {
        *sum = if comes { *sum + takes } else { sum.saturating_sub(*takes) };
    }
}

/// What a node may be filled to, by row of [`Sums`]: in the units of a need,
/// from the bytes and thousandths of its shape and its measure.
fn limits(node: &NodeState, percent: u32) -> [u64; 6] {
    let Amounts { cpu, memory, disk, db_connections, gps } = node.shape;
    let measured = &node.measured;
    let smaller = |shape: u64, measured: Option<u64>| measured.map_or(shape, |m| m.min(shape));
    let cpu = smaller(cpu.0, measured.cpu.map(|cpu| cpu.0));
    let memory = smaller(memory.0, measured.memory.map(|memory| memory.0)) >> 20;
    let disk = smaller(disk.0, measured.disk.map(|disk| disk.0)) >> 20;
    let connections = smaller(db_connections.0, measured.db_connections.map(|n| n * 1000)) / 10;
    let part = |whole: u64| {
        u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
    };
    [
        part(cpu),
        part(connections),
        part(gps.0 / 10),
        part(memory),
        part(disk),
        u64::from(node.max_tenants),
    ]
}

fn within(node: &NodeState, sums: &Sums, step: &Move, policy: &Policy) -> Result<(), Broken> {
    let percent = match step.why {
        Why::Consolidate => policy.relieve_to,
        Why::Relieve | Why::Drain => policy.place_limit,
    };
    let may = limits(node, percent);
    for ((day, may), dimension) in sums.iter().zip(may).zip(ROWS) {
        if let Some(hour) = day.iter().position(|sum| *sum > may) {
            let (node, tenant, would) = (node.id, step.tenant, day[hour]);
            return Err(Broken::Overfull { node, tenant, dimension, hour, would, may });
        }
    }
    Ok(())
}

fn rules(
    now_h: u32,
    policy: &Policy,
    step: &Move,
    tenant: &Tenant,
    target: &NodeState,
) -> Result<(), Broken> {
    let open =
        target.kind == NodeKind::Shared && target.standing == Standing::Active && target.seen;
    if !open {
        return Err(Broken::Closed(target.id));
    }
    let stayed = now_h.saturating_sub(tenant.since_h);
    if step.why == Why::Consolidate && stayed < policy.residency_h {
        return Err(Broken::Unsettled(tenant.id));
    }
    if let Some(left) = tenant.left.filter(|left| left.node == step.to) {
        let early = now_h.saturating_sub(left.at_h) < policy.residency_h;
        let hourly = |row: usize| u64::from(*tenant.need.hourly[row].iter().max().unwrap_or(&0));
        let now = [
            hourly(0),
            tenant.need.memory.into(),
            tenant.need.disk.into(),
            hourly(1),
            hourly(2),
            1,
        ];
        let same = now.iter().zip(left.took).all(|(now, then)| {
            let (now, then) = (u128::from(*now), u128::from(then));
            let (less, more) = (now.min(then), now.max(then));
            (more - less) * 100 <= then * u128::from(policy.changed)
        });
        if early && same {
            return Err(Broken::Returns(tenant.id));
        }
    }
    if let Some(rules) = &tenant.rules {
        let there = rules.only.is_empty() || rules.only.contains(&target.region);
        if !there || rules.pinned.is_some_and(|pinned| pinned != target.id) {
            return Err(Broken::Forbidden(tenant.id));
        }
    }
    Ok(())
}

/// No tenant that is on the target, or on its way there or away, shares a
/// label.
fn apart(
    tenant: &Tenant,
    target: NodeId,
    tenants: &BTreeMap<TenantId, &Tenant>,
    homes: &BTreeMap<TenantId, BTreeSet<NodeId>>,
) -> Result<(), Broken> {
    let Some(rules) = &tenant.rules else { return Ok(()) };
    for (other, home) in homes {
        let theirs = tenants.get(other).and_then(|other| other.rules.as_ref());
        let shared = |label: &String| theirs.is_some_and(|theirs| theirs.apart.contains(label));
        if *other != tenant.id && home.contains(&target) && rules.apart.iter().any(shared) {
            return Err(Broken::Together(tenant.id, *other));
        }
    }
    Ok(())
}

fn crowded(number: usize, wave: &[Move], policy: &Policy) -> Result<(), Broken> {
    let most = |count: usize, most: u32| count > most.max(1) as usize;
    let same = |of: fn(&Move) -> NodeId, limit: u32| {
        wave.iter().any(|one| most(wave.iter().filter(|step| of(step) == of(one)).count(), limit))
    };
    let limits = policy.at_once;
    if most(wave.len(), limits.all)
        || same(|step| step.from, limits.source)
        || same(|step| step.to, limits.target)
    {
        return Err(Broken::Crowded(number));
    }
    Ok(())
}
