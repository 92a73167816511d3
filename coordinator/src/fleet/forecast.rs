//! When the room ends, if tenants go on growing as they did: for each shared
//! node and each place, how many days are left until a dimension is above the
//! limit of overload, and what one more node would add to that.
//!
//! A node grows by the tenants that lived through all of the past that is looked
//! at: who comes anew is placed elsewhere when it is full. A place grows by its
//! newcomers, too. Growth is a straight line through the same weekday of several
//! weeks, so that a week's rhythm is not taken for growth.
//!
//! **Invariant:** the same past gives the same forecast, in whatever order.
//! **Invariant:** a dimension that grows faster never has more days left.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{NodeId, TenantId};

use super::load::Dimension;
use super::need::{DIMENSIONS, Figures, Need, allowed};
use super::node::NodeState;
use super::policy::Policy;
use super::snapshot::Snapshot;
use crate::decide::plans::{NodeKind, NodeShape, Region};

/// A line needs so many days that are known,
const LEAST_POINTS: usize = 3;
/// of which the first and the last are so far apart.
const LEAST_SPAN: i64 = 14;
/// What is further away is as good as never.
const FURTHEST: u32 = 3650;

/// What a tenant took at its peaks on a past day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// Which tenant.
    pub tenant: TenantId,
    /// Days since the Unix epoch.
    pub day: i64,
    /// In the order of [`Dimension::ALL`] and the units of [`Need`].
    pub figures: Figures,
}

/// One dimension of a node or a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reach {
    /// Which.
    #[schema(value_type = String)]
    pub dimension: Dimension,
    /// What is carried now, in the dimension's unit: thousandths of a core, MiB,
    /// hundredths of a connection or of a point a second, tenants.
    pub now: u64,
    /// Above which it is too much.
    pub limit: u64,
    /// Thousandths of the unit that it grows by each day; null while too little
    /// of the past is known.
    pub grows_milli: Option<i64>,
    /// Days until it is above the limit, 0 where it is; null where it does not
    /// grow, or not for ten years.
    pub days: Option<u32>,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct NodeForecast {
    /// Which one.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// One for each dimension.
    pub reaches: Vec<Reach>,
}

/// What becomes of all nodes of a place that take tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PlaceForecast {
    /// Which place, by its code.
    pub place: String,
    /// How many nodes are there.
    pub nodes: u32,
    /// One for each dimension, of all of them together.
    pub reaches: Vec<Reach>,
    /// What is to be added then: a shape of the catalogue.
    pub shape: Option<String>,
    /// Days until the room ends with one more of it.
    pub days_with_one_more: Option<u32>,
}

/// What becomes of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Forecast {
    /// By their codes.
    pub places: Vec<PlaceForecast>,
    /// By their ids.
    pub nodes: Vec<NodeForecast>,
}

/// How much a figure grows a day, in thousandths: the line that fits best
/// through `past` (days and figures, in any order). None where too few days are
/// known, or they are too close together.
pub fn growth(past: &[(i64, u64)]) -> Option<i64> {
    let first = past.iter().map(|(day, _)| *day).min()?;
    let last = past.iter().map(|(day, _)| *day).max()?;
    if past.len() < LEAST_POINTS || last - first < LEAST_SPAN {
        return None;
    }
    let n = past.len() as i128;
    let (mut x, mut y, mut xx, mut xy) = (0_i128, 0_i128, 0_i128, 0_i128);
    for (day, figure) in past {
        let (day, figure) = (i128::from(day - first), i128::from(*figure));
        (x, y, xx, xy) = (x + day, y + figure, xx + day * day, xy + day * figure);
    }
    let slope = (n * xy - x * y) * 1000 / (n * xx - x * x).max(1);
    Some(i64::try_from(slope).unwrap_or(if slope < 0 { i64::MIN } else { i64::MAX }))
}

/// The first day, counted from now, on which `now` is above `limit` when it
/// grows by `grows` thousandths a day. None where that is never, or not for ten
/// years.
pub fn days_left(now: u64, limit: u64, grows: i64) -> Option<u32> {
    let Some(free) = limit.checked_sub(now) else { return Some(0) };
    let grows = u128::try_from(grows).ok().filter(|grows| *grows > 0)?;
    let days = u128::from(free) * 1000 / grows + 1;
    u32::try_from(days).ok().filter(|days| *days <= FURTHEST)
}

impl Reach {
    fn of(dimension: Dimension, now: u64, limit: u64, past: &[(i64, u64)]) -> Self {
        let grows_milli = growth(past);
        let days = days_left(now, limit, grows_milli.unwrap_or(0));
        Self { dimension, now, limit, grows_milli, days }
    }
}

/// The dimension that is above its limit first.
pub fn first(reaches: &[Reach]) -> Option<&Reach> {
    reaches.iter().filter(|reach| reach.days.is_some()).min_by_key(|reach| reach.days)
}

/// The dimension that is above its limit first; where none will be, or growth
/// is not known, the one that is fullest now.
pub fn tightest(reaches: &[Reach]) -> Option<&Reach> {
    let share = |reach: &&Reach| u128::from(reach.now) * 1_000_000 / u128::from(reach.limit.max(1));
    first(reaches).or_else(|| reaches.iter().max_by_key(share))
}

/// The smallest shape of a shared node on which a tenant fits below the limit of
/// placement; none where none is large enough: it needs a node of its own.
pub fn shape_for<'a>(
    need: &Need,
    shapes: &'a [NodeShape],
    policy: &Policy,
) -> Option<&'a NodeShape> {
    let peaks = need.peaks();
    let fits = |shape: &&NodeShape| {
        let room = allowed(&shape.capacity(), shape.max_tenants, policy.place_limit);
        shape.kind == NodeKind::Shared && (0..DIMENSIONS).all(|d| peaks[d] <= room[d])
    };
    let smallest = |shape: &&NodeShape| (shape.memory_mb, shape.cpu_millicores, shape.name.clone());
    shapes.iter().filter(fits).min_by_key(smallest)
}

/// What becomes of every shared node of a snapshot, and of every place, if the
/// growth of `past` goes on. Nodes that take no tenants add no room to a place.
pub fn forecast(
    snapshot: &Snapshot,
    policy: &Policy,
    shapes: &[NodeShape],
    past: &[Took],
) -> Forecast {
    let days: BTreeSet<i64> = past.iter().map(|took| took.day).collect();
    let home: HashMap<TenantId, NodeId> =
        snapshot.tenants.iter().map(|tenant| (tenant.id, tenant.node)).collect();
    let place: HashMap<NodeId, &Region> =
        snapshot.nodes.iter().map(|node| (node.id, &node.region)).collect();
    let mut known: HashMap<TenantId, HashSet<i64>> = HashMap::new();
    for took in past {
        known.entry(took.tenant).or_default().insert(took.day);
    }
    let mut of_nodes: HashMap<NodeId, Past> = HashMap::new();
    let mut of_places: HashMap<&Region, Past> = HashMap::new();
    for took in past {
        let Some(node) = home.get(&took.tenant) else { continue };
        if known.get(&took.tenant).is_some_and(|known| known.len() == days.len()) {
            of_nodes.entry(*node).or_default().add(took);
        }
        if let Some(place) = place.get(node) {
            of_places.entry(place).or_default().add(took);
        }
    }
    let empty = Past::default();
    let mut nodes: Vec<NodeForecast> = snapshot
        .nodes
        .iter()
        .map(|node| {
            let past = of_nodes.get(&node.id).unwrap_or(&empty);
            let limit = node.allowed(policy.act_limit).map(u64::from);
            NodeForecast { node: node.id, reaches: past.reaches(&figures(node), &limit) }
        })
        .collect();
    nodes.sort_unstable_by_key(|node| node.node);
    let open = snapshot.nodes.iter().filter(|node| node.is_open());
    let mut by_place: BTreeMap<&str, Vec<&NodeState>> = BTreeMap::new();
    for node in open {
        by_place.entry(&node.region.0).or_default().push(node);
    }
    let shape = shapes.iter().find(|shape| shape.kind == NodeKind::Shared);
    let places = by_place
        .into_iter()
        .map(|(code, nodes)| {
            let sum = |of: &dyn Fn(&NodeState) -> [u64; DIMENSIONS]| {
                nodes.iter().map(|node| of(node)).fold([0; DIMENSIONS], plus)
            };
            let now = sum(&figures);
            let limit = sum(&|node| node.allowed(policy.act_limit).map(u64::from));
            let past = nodes.first().and_then(|node| of_places.get(&node.region));
            let past = past.unwrap_or(&empty);
            let more = shape.map_or([0; DIMENSIONS], |shape| {
                allowed(&shape.capacity(), shape.max_tenants, policy.act_limit).map(u64::from)
            });
            let later = past.reaches(&now, &plus(limit, more));
            PlaceForecast {
                place: code.to_owned(),
                nodes: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
                reaches: past.reaches(&now, &limit),
                shape: shape.map(|shape| shape.name.clone()),
                days_with_one_more: first(&later).and_then(|reach| reach.days),
            }
        })
        .collect();
    Forecast { places, nodes }
}

fn figures(node: &NodeState) -> [u64; DIMENSIONS] {
    node.load.peaks().map(u64::from)
}

fn plus(a: [u64; DIMENSIONS], b: [u64; DIMENSIONS]) -> [u64; DIMENSIONS] {
    std::array::from_fn(|d| a[d].saturating_add(b[d]))
}

/// The sums of several tenants, by day.
#[derive(Default)]
struct Past(BTreeMap<i64, [u64; DIMENSIONS]>);

impl Past {
    fn add(&mut self, took: &Took) {
        let sum = self.0.entry(took.day).or_default();
        *sum = plus(*sum, took.figures.map(u64::from));
    }

    fn reaches(&self, now: &[u64; DIMENSIONS], limit: &[u64; DIMENSIONS]) -> Vec<Reach> {
        let of = |d: usize| {
            let past: Vec<(i64, u64)> = self.0.iter().map(|(day, sum)| (*day, sum[d])).collect();
            Reach::of(Dimension::ALL[d], now[d], limit[d], &past)
        };
        (0..DIMENSIONS).map(of).collect()
    }
}

#[cfg(test)]
mod tests;
