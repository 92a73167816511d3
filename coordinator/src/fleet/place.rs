//! The choice of one node for one tenant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{NodeId, TenantId};

use super::dedicated;
use super::load::{Amounts, Dimension};
use super::need::{Figures, HOURLY_DIMENSIONS, Need};
use super::node::{NodeState, Standing};
use super::policy::Policy;
use super::room::{FULL, tightest};
use super::rooms::{Ask, Rooms, Score};
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

impl Home {
    /// Prefers nodes in one of `near`, as the tenant's rules say, to what its
    /// profile prefers. Where a dedicated node may stand remains as it is.
    pub fn prefer(&mut self, preferred: &[Region]) {
        match self {
            Self::Shared { near } if !preferred.is_empty() => *near = preferred.to_vec(),
            Self::Shared { .. } => {}
            Self::Dedicated { regions, .. } => {
                regions.sort_by_key(|region| !preferred.contains(region));
            }
        }
    }
}

/// What a tenant takes, and where it may live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Hour by hour: measured, or the catalogue's averages.
    pub need: Need,
    /// What kind of node.
    pub home: Home,
}

impl Demand {
    /// The demand of a tenant that is to live by `plan`. `measured` is what it
    /// takes now; None for a new tenant, which is charged with the averages.
    pub fn of(plan: &Plan, profile: &Profile, measured: Option<Need>, catalog: &Catalog) -> Self {
        let need = measured.unwrap_or_else(|| Need::flat(&catalog.averages.amounts()));
        let home = match plan.mode {
            Mode::MultiTenant => Home::Shared { near: profile.regions.clone() },
            Mode::SingleTenant => Home::Dedicated {
                least: catalog.shape(&plan.shape).map(|s| s.capacity()).unwrap_or_default(),
                regions: profile.regions.clone(),
            },
        };
        Self { need, home }
    }
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
    /// The tenant is pinned to another node.
    Pinned {
        /// To which.
        node: NodeId,
    },
    /// A tenant lives there that it is kept apart from.
    Apart {
        /// Which tenant.
        tenant: TenantId,
    },
    /// It left that node lately, and takes what it took then.
    JustLeft,
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
        /// In which UTC hour by most, where the dimension varies.
        hour: Option<u8>,
        /// What the tenant takes then, in the units of [`Need`].
        wanted: u32,
        /// What is left then.
        free: u32,
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
            Self::Pinned { .. } => "pinned",
            Self::Apart { .. } => "apart",
            Self::JustLeft => "just_left",
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

/// Chooses the node for `demand`.
///
/// # Errors
/// [`NoRoom`] with each node's reason when none can take it.
pub fn place(fleet: &[NodeState], demand: &Demand, policy: &Policy) -> Result<Placed, NoRoom> {
    let placed = match &demand.home {
        Home::Shared { near } => {
            let rooms = Rooms::new(fleet, policy.place_limit);
            shared(&rooms, &demand.need, near, &[], policy)
        }
        Home::Dedicated { least, regions } => {
            dedicated::place(fleet, &demand.need, *least, regions, policy)
        }
    };
    placed.ok_or_else(|| refusals(fleet, demand, policy))
}

/// The best of the shared nodes, and the next best; none of the positions in
/// `avoid`.
pub fn shared(
    rooms: &Rooms,
    need: &Need,
    near: &[Region],
    avoid: &[u32],
    policy: &Policy,
) -> Option<Placed> {
    let near = rooms.regions(near);
    let ask = Ask { near: &near, avoid, ..Ask::of(need) };
    let node = rooms.choose(&ask)?;
    let figures = rooms.fits(node, &ask)?;
    let (binding, filled) = fullest(rooms, node, &figures);
    let runners_up = runners_up(rooms, node, &ask, policy);
    Some(Placed { node: rooms.id(node), binding, filled, runners_up })
}

fn runners_up(rooms: &Rooms, chosen: u32, ask: &Ask<'_>, policy: &Policy) -> Vec<RunnerUp> {
    let taste = rooms.taste(ask.need);
    let keep = policy.runners_up;
    let mut best: Vec<((bool, bool, Score), Figures)> = Vec::new();
    let nodes = (0..rooms.len()).filter_map(|at| u32::try_from(at).ok());
    for node in nodes.filter(|node| keep > 0 && *node != chosen) {
        let Some(figures) = rooms.fits(node, ask) else { continue };
        let away = !ask.near.is_empty() && !ask.near.contains(&rooms.room(node).region);
        let empty = rooms.load(node).tenants == 0;
        let rank = (away, empty, rooms.score(node, &figures, &taste));
        if best.len() < keep || best.last().is_some_and(|(worst, _)| rank < *worst) {
            let at = best.partition_point(|(other, _)| *other < rank);
            best.insert(at, (rank, figures));
            best.truncate(keep);
        }
    }
    best.iter()
        .map(|((_, _, score), figures)| RunnerUp {
            node: rooms.id(score.node),
            binding: fullest(rooms, score.node, figures).0,
        })
        .collect()
}

/// The dimension that a node would be fullest in, and how full.
pub fn fullest(rooms: &Rooms, node: u32, figures: &Figures) -> (Dimension, Hundredths) {
    let (d, share) = tightest(&rooms.room(node).shares(figures));
    // Nearly full reads as full.
    let filled = i64::try_from((share * 100).div_ceil(FULL)).unwrap_or(100);
    (Dimension::ALL[d], Hundredths(filled))
}

pub(super) fn refusals(fleet: &[NodeState], demand: &Demand, policy: &Policy) -> NoRoom {
    let mut all: Vec<Refused> = fleet
        .iter()
        .filter_map(|node| {
            refusal(node, demand, policy).map(|refusal| Refused { node: node.id, refusal })
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

/// Why a node can't take the tenant; none where it can.
pub fn refusal(node: &NodeState, demand: &Demand, policy: &Policy) -> Option<Refusal> {
    let kind = match demand.home {
        Home::Shared { .. } => NodeKind::Shared,
        Home::Dedicated { .. } => NodeKind::Dedicated,
    };
    if node.kind != kind {
        return Some(Refusal::OtherKind);
    }
    if node.standing != Standing::Active {
        return Some(Refusal::NotActive { standing: node.standing });
    }
    if !node.seen {
        return Some(Refusal::NotSeen);
    }
    match &demand.home {
        Home::Shared { .. } => short(node, &demand.need, policy.place_limit),
        Home::Dedicated { least, regions } => {
            dedicated::fit(node, &demand.need, *least, regions, policy).err()
        }
    }
}

/// What a shared node is short of, in its first dimension and worst hour, to
/// take the tenant within `percent` of what it holds.
pub fn short(node: &NodeState, need: &Need, percent: u32) -> Option<Refusal> {
    if node.load.tenants >= node.max_tenants {
        return Some(Refusal::Full { tenants: node.load.tenants });
    }
    let limit = node.allowed(percent);
    let (peaks, carried_peaks) = (need.peaks(), node.load.peaks());
    let beyond = need.beyond();
    for (d, dimension) in Dimension::ALL.into_iter().enumerate() {
        let row = HOURLY_DIMENSIONS.iter().position(|hourly| *hourly == dimension);
        let (hour, wanted, carried) = match row {
            Some(row) => {
                let day = need.hourly[row].iter().zip(&node.load.hourly[row]).enumerate();
                let worst = day.max_by_key(|(hour, (need, load))| {
                    (**load + u32::from(**need), std::cmp::Reverse(*hour))
                });
                let (hour, (need, load)) = worst.unwrap_or((0, (&0, &0)));
                (u8::try_from(hour).ok(), u32::from(*need), *load)
            }
            None => (None, peaks[d], carried_peaks[d]),
        };
        let free = limit[d].saturating_sub(carried);
        if wanted > free || carried > limit[d] || limit[d] == 0 || beyond == Some(dimension) {
            return Some(Refusal::NoRoomIn { dimension, hour, wanted, free });
        }
    }
    None
}
