//! The choice of one node for one tenant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use webhost_proto::ids::NodeId;

use super::load::{Amounts, Dimension};
use super::node::{NodeState, Standing};
use crate::decide::Mode;
use crate::decide::amount::Hundredths;
use crate::decide::plans::{Catalog, NodeKind, Plan, Region};
use crate::decide::profile::Profile;

/// What kind of node a tenant needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// A slot on a shared node, near that place if there is one.
    Shared {
        /// A preference, not a condition.
        near: Vec<Region>,
    },
    /// An idle dedicated node.
    Dedicated {
        /// The shape of the plan; a node's shape must hold at least that.
        least: Amounts,
        /// The node stands in one of these; empty: anywhere.
        regions: Vec<Region>,
    },
}

/// What a tenant takes, and where it may live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Dimension by dimension: measured, or the catalogue's averages.
    pub amounts: Amounts,
    /// What kind of node.
    pub home: Home,
}

impl Demand {
    /// The demand of a tenant that is to live by `plan`. `measured` is what it
    /// takes now; None for a new tenant, which is charged with the averages.
    pub fn of(
        plan: &Plan,
        profile: &Profile,
        measured: Option<Amounts>,
        catalog: &Catalog,
    ) -> Self {
        let amounts = measured.unwrap_or_else(|| catalog.averages.amounts());
        let home = match plan.mode {
            Mode::MultiTenant => Home::Shared { near: profile.regions.clone() },
            Mode::SingleTenant => Home::Dedicated {
                least: catalog.shape(&plan.shape).map(|s| s.capacity()).unwrap_or_default(),
                regions: profile.regions.clone(),
            },
        };
        Self { amounts, home }
    }
}

/// How nodes may be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// No dimension is filled above this share of its capacity.
    pub place_limit: Hundredths,
    /// How many runners-up to name.
    pub runners_up: usize,
    /// How many refusals to spell out; all are counted.
    pub refusals: usize,
}

impl Policy {
    /// The catalogue's placement limit, three runners-up, sixteen refusals.
    pub fn of(catalog: &Catalog) -> Self {
        Self { place_limit: catalog.thresholds.place_limit, runners_up: 3, refusals: 16 }
    }
}

/// How good a choice is; the smallest is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Score {
    /// 0 in a wanted place, 1 elsewhere.
    away: u8,
    /// The sum over the dimensions of the squared share (in ten-thousandths)
    /// of the node's allowance that stays free: the tightest fit is smallest.
    waste: u64,
    /// Settles ties, so that runs repeat.
    node: NodeId,
}

/// A node that was almost chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// Which one.
    pub node: NodeId,
    /// The dimension that would be fullest there.
    pub binding: Dimension,
}

/// The choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The chosen node.
    pub node: NodeId,
    /// The dimension that is fullest there once the tenant lives there.
    pub binding: Dimension,
    /// How full it is then, as a share of what may be filled.
    pub filled: Hundredths,
    /// The next best, best first.
    pub runners_up: Vec<RunnerUp>,
}

/// Why a node can't take a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Refusal {
    /// Shared where a dedicated node is needed, or the reverse.
    OtherKind,
    /// Joining, draining or revoked.
    NotActive {
        /// Which of them.
        standing: Standing,
    },
    /// Its agent is silent.
    NotSeen,
    /// It stands elsewhere.
    OtherRegion,
    /// A dedicated node that has its tenant.
    Taken,
    /// It has as many tenants as its shape allows.
    Full {
        /// That many.
        tenants: u32,
    },
    /// A dedicated node of a smaller shape than the plan's.
    ShapeTooSmall {
        /// The first dimension that falls short.
        dimension: Dimension,
    },
    /// Too little is left below the placement limit.
    NoRoomIn {
        /// The first dimension that falls short.
        dimension: Dimension,
        /// What the tenant takes.
        wanted: u64,
        /// What is left.
        free: u64,
    },
}

impl Refusal {
    /// A short name to count refusals by: "memory", "not_seen".
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::OtherKind => "other_kind",
            Self::NotActive { .. } => "not_active",
            Self::NotSeen => "not_seen",
            Self::OtherRegion => "other_region",
            Self::Taken => "taken",
            Self::Full { .. } => Dimension::Tenants.as_str(),
            Self::ShapeTooSmall { .. } => "shape_too_small",
            Self::NoRoomIn { dimension, .. } => dimension.as_str(),
        }
    }
}

/// One node's refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which node.
    pub node: NodeId,
    /// Why not.
    #[serde(flatten)]
    pub refusal: Refusal,
}

/// No node can take the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no node has room: {}", self.summary())]
pub struct NoRoom {
    /// How many nodes refused for each reason.
    pub counts: BTreeMap<String, u32>,
    /// The first refusals, those of the right kind of node first.
    pub refused: Vec<Refused>,
}

impl NoRoom {
    /// "2 memory, 1 not_seen", or that there are no nodes.
    pub fn summary(&self) -> String {
        if self.counts.is_empty() {
            return "the fleet has no nodes".to_owned();
        }
        let parts: Vec<String> = self.counts.iter().map(|(why, n)| format!("{n} {why}")).collect();
        parts.join(", ")
    }
}

/// Chooses the node for `demand`.
///
/// # Errors
/// [`NoRoom`] with each node's reason when none can take it.
pub fn place(fleet: &[NodeState], demand: &Demand, policy: &Policy) -> Result<Placed, NoRoom> {
    // The best few so far, best first; most nodes of a large fleet never enter.
    let keep = policy.runners_up.saturating_add(1);
    let mut fits: Vec<(Score, Fit)> = Vec::new();
    for node in fleet {
        let Ok(fit) = fit(node, demand, policy) else { continue };
        let score = Score { away: fit.away, waste: fit.waste, node: node.id };
        if fits.len() < keep || fits.last().is_some_and(|(worst, _)| score < *worst) {
            let rank = fits.partition_point(|(other, _)| *other < score);
            fits.insert(rank, (score, fit));
            fits.truncate(keep);
        }
    }
    let Some(((best, fit), others)) = fits.split_first() else {
        return Err(refusals(fleet, demand, policy));
    };
    Ok(Placed {
        node: best.node,
        binding: fit.binding,
        filled: fit.filled,
        runners_up: others
            .iter()
            .map(|(score, fit)| RunnerUp { node: score.node, binding: fit.binding })
            .collect(),
    })
}

fn refusals(fleet: &[NodeState], demand: &Demand, policy: &Policy) -> NoRoom {
    let mut all: Vec<Refused> = fleet
        .iter()
        .filter_map(|node| {
            fit(node, demand, policy).err().map(|refusal| Refused { node: node.id, refusal })
        })
        .collect();
    let mut counts = BTreeMap::new();
    for refused in &all {
        *counts.entry(refused.refusal.kind().to_owned()).or_insert(0) += 1;
    }
    all.sort_unstable_by_key(|refused| (refused.refusal == Refusal::OtherKind, refused.node));
    all.truncate(policy.refusals);
    NoRoom { counts, refused: all }
}

/// How a tenant would sit on one node.
#[derive(Clone, Copy)]
struct Fit {
    away: u8,
    waste: u64,
    binding: Dimension,
    filled: Hundredths,
}

/// What may be filled of `capacity`, rounded down, without leaving 64 bits.
fn allowance(capacity: u64, limit: Hundredths) -> u64 {
    let limit = u64::try_from(limit.0).unwrap_or(0).min(100);
    capacity / 100 * limit + capacity % 100 * limit / 100
}

fn fit(node: &NodeState, demand: &Demand, policy: &Policy) -> Result<Fit, Refusal> {
    let kind = match demand.home {
        Home::Shared { .. } => NodeKind::Shared,
        Home::Dedicated { .. } => NodeKind::Dedicated,
    };
    if node.kind != kind {
        return Err(Refusal::OtherKind);
    }
    if node.standing != Standing::Active {
        return Err(Refusal::NotActive { standing: node.standing });
    }
    if !node.seen {
        return Err(Refusal::NotSeen);
    }
    match &demand.home {
        Home::Shared { near } => fit_shared(node, demand.amounts, near, policy),
        Home::Dedicated { least, regions } => {
            fit_dedicated(node, demand.amounts, *least, regions, policy)
        }
    }
}

fn fit_shared(
    node: &NodeState,
    wanted: Amounts,
    near: &[Region],
    policy: &Policy,
) -> Result<Fit, Refusal> {
    if node.load.tenants >= node.max_tenants {
        return Err(Refusal::Full { tenants: node.load.tenants });
    }
    let (capacity, load) = (node.capacity().to_array(), node.load.amounts.to_array());
    let wanted = wanted.to_array();
    let tenants = u64::from(node.load.tenants) + 1;
    let mut binding = Dimension::Tenants;
    let mut filled = tenants * 10_000 / u64::from(node.max_tenants);
    let mut waste = 0;
    for (d, dimension) in Amounts::DIMENSIONS.into_iter().enumerate() {
        let allowed = allowance(capacity[d], policy.place_limit);
        let left = allowed.checked_sub(load[d].saturating_add(wanted[d]));
        let (Some(left), true) = (left, allowed > 0) else {
            let free = allowed.saturating_sub(load[d]);
            return Err(Refusal::NoRoomIn { dimension, wanted: wanted[d], free });
        };
        let unused = share(left, allowed);
        waste += unused * unused;
        if 10_000 - unused > filled {
            (binding, filled) = (dimension, 10_000 - unused);
        }
    }
    let away = u8::from(!near.is_empty() && !near.contains(&node.region));
    Ok(Fit { away, waste, binding, filled: Hundredths(whole_hundredths(filled)) })
}

/// A dedicated node is taken whole: its shape must be the plan's or more, and
/// the tenant's data must fit its disk. What the tenant takes of CPU and memory
/// today says little, because that is measured on another machine.
fn fit_dedicated(
    node: &NodeState,
    wanted: Amounts,
    least: Amounts,
    regions: &[Region],
    policy: &Policy,
) -> Result<Fit, Refusal> {
    if node.load.tenants > 0 {
        return Err(Refusal::Taken);
    }
    if !regions.is_empty() && !regions.contains(&node.region) {
        return Err(Refusal::OtherRegion);
    }
    let (shape, least) = (node.shape.to_array(), least.to_array());
    let mut waste = 0;
    for (d, dimension) in Amounts::DIMENSIONS.into_iter().enumerate() {
        let Some(left) = shape[d].checked_sub(least[d]) else {
            return Err(Refusal::ShapeTooSmall { dimension });
        };
        let unused = if shape[d] == 0 { 0 } else { share(left, shape[d]) };
        waste += unused * unused;
    }
    let allowed = allowance(node.capacity().disk.0, policy.place_limit);
    if wanted.disk.0 > allowed {
        let dimension = Dimension::Disk;
        return Err(Refusal::NoRoomIn { dimension, wanted: wanted.disk.0, free: allowed });
    }
    let filled = if allowed == 0 { 0 } else { share(wanted.disk.0, allowed) };
    // The place that the customer named first is where its primary stands.
    let away = u8::from(regions.first().is_some_and(|first| *first != node.region));
    let filled = Hundredths(whole_hundredths(filled));
    Ok(Fit { away, waste, binding: Dimension::Disk, filled })
}

/// `part` of `whole` in ten-thousandths, rounded down; `whole` is not 0 and
/// `part` not more than it.
fn share(part: u64, whole: u64) -> u64 {
    match part.checked_mul(10_000) {
        Some(scaled) => scaled / whole,
        // Wide division is slow, and only absurd sizes need it.
        None => u64::try_from(u128::from(part) * 10_000 / u128::from(whole)).unwrap_or(10_000),
    }
}

/// Ten-thousandths as hundredths, rounded up: nearly full reads as full.
fn whole_hundredths(share: u64) -> i64 {
    i64::try_from(share.div_ceil(100)).unwrap_or(100)
}
