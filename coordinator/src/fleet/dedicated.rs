//! A node of one tenant's own: a small scan, because a dedicated node is taken
//! whole. Its shape must be the plan's or more, and the tenant's data must fit
//! its disk. What the tenant takes of CPU and memory today says little, because
//! that is measured on another machine.

use webhost_proto::ids::NodeId;

use super::load::{Amounts, Dimension};
use super::need::Need;
use super::node::NodeState;
use super::place::{Demand, Home, Placed, Refusal, RunnerUp, refusal};
use super::policy::Policy;
use crate::decide::amount::Hundredths;
use crate::decide::plans::Region;

/// How good a choice is; the smallest is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// 0 in the place that the customer named first, 1 in the others.
    away: bool,
    /// The sum over the dimensions of the squared share (in ten-thousandths)
    /// of the node's shape that stays free: the tightest fit is smallest.
    waste: u64,
    /// How full the disk is then, in hundredths.
    filled: i64,
    /// Settles ties, so that runs repeat.
    node: NodeId,
}

/// The tightest node that is idle, large enough and in place.
pub(super) fn place(
    fleet: &[NodeState],
    need: &Need,
    least: Amounts,
    regions: &[Region],
    policy: &Policy,
) -> Option<Placed> {
    let home = Home::Dedicated { least, regions: regions.to_vec() };
    let demand = Demand { need: *need, home };
    let mut fits: Vec<Score> = fleet
        .iter()
        .filter(|node| refusal(node, &demand, policy).is_none())
        .map(|node| score(node, need, least, regions, policy))
        .collect();
    fits.sort_unstable();
    let (best, others) = fits.split_first()?;
    let binding = Dimension::Disk;
    let runner_up = |score: &Score| RunnerUp { node: score.node, binding };
    Some(Placed {
        node: best.node,
        binding,
        filled: Hundredths(best.filled),
        runners_up: others.iter().take(policy.runners_up).map(runner_up).collect(),
    })
}

/// Whether a dedicated node that is open can take the tenant.
///
/// # Errors
/// Why it can't.
pub(super) fn fit(
    node: &NodeState,
    need: &Need,
    least: Amounts,
    regions: &[Region],
    policy: &Policy,
) -> Result<(), Refusal> {
    if node.load.tenants > 0 {
        return Err(Refusal::Taken);
    }
    if !regions.is_empty() && !regions.contains(&node.region) {
        return Err(Refusal::OtherRegion);
    }
    let (shape, least) = (node.shape.to_array(), least.to_array());
    for (d, dimension) in Amounts::DIMENSIONS.into_iter().enumerate() {
        if shape[d] < least[d] {
            return Err(Refusal::ShapeTooSmall { dimension });
        }
    }
    let free = disk(node, policy);
    if need.disk > free {
        let dimension = Dimension::Disk;
        return Err(Refusal::NoRoomIn { dimension, hour: None, wanted: need.disk, free });
    }
    Ok(())
}

/// What may be filled of its disk, in MiB.
fn disk(node: &NodeState, policy: &Policy) -> u32 {
    node.allowed(policy.place_limit)[2]
}

fn score(
    node: &NodeState,
    need: &Need,
    least: Amounts,
    regions: &[Region],
    policy: &Policy,
) -> Score {
    let (shape, least) = (node.shape.to_array(), least.to_array());
    let free = |d: usize| {
        let share = u128::from(shape[d].saturating_sub(least[d])) * 10_000;
        u64::try_from(share.checked_div(u128::from(shape[d])).unwrap_or(0)).unwrap_or(10_000)
    };
    let filled = (u64::from(need.disk) * 100).div_ceil(u64::from(disk(node, policy)).max(1));
    Score {
        away: regions.first().is_some_and(|first| *first != node.region),
        waste: (0..shape.len()).map(|d| free(d) * free(d)).sum(),
        filled: i64::try_from(filled).unwrap_or(100),
        node: node.id,
    }
}
