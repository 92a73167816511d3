//! Why a tenant is where it is and not elsewhere: every node's verdict.

use serde::{Deserialize, Serialize};
use webhost_proto::ids::{NodeId, TenantId};

use super::load::Dimension;
use super::node::{NodeState, Standing};
use super::place::{Refusal, fullest, short};
use super::policy::Policy;
use super::rooms::Ask;
use super::seats::Fleet;
use super::snapshot::{Snapshot, SnapshotError, Tenant};
use crate::decide::amount::Hundredths;
use crate::decide::plans::NodeKind;

/// What one node is to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It lives there.
    Home {
        /// The fullest dimension there.
        binding: Dimension,
        /// How full it is, of what placement may fill.
        filled: Hundredths,
    },
    /// It would fit.
    Fits {
        /// 1 is what placement would choose among those that fit and are in a
        /// wanted place.
        rank: u32,
        /// The dimension that would be fullest.
        binding: Dimension,
        /// How full it would be, of what placement may fill.
        filled: Hundredths,
    },
    /// It would not.
    Refused(Refusal),
}

/// One line of an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Which node.
    pub node: NodeId,
    /// What it is to the tenant.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Every node's verdict on one tenant, its home first, then those that fit,
/// best first, then the others by id. None when the snapshot does not have the
/// tenant.
///
/// # Errors
/// [`SnapshotError`] when the snapshot contradicts itself.
pub fn explain(
    snapshot: &Snapshot,
    policy: &Policy,
    tenant: TenantId,
) -> Result<Option<Vec<Explained>>, SnapshotError> {
    let fleet = Fleet::of(snapshot, policy)?;
    let Some(tenant) = snapshot.tenants.iter().find(|one| one.id == tenant) else {
        return Ok(None);
    };
    let taste = fleet.rooms.taste(&tenant.need);
    let ask = Ask::of(&tenant.need);
    let mut fits = Vec::new();
    let mut lines = Vec::new();
    for node in &snapshot.nodes {
        let position = fleet.position(node.id);
        if let Some(at) = position.filter(|_| node.id == tenant.node) {
            let (binding, filled) = fullest(&fleet.rooms, at, &fleet.rooms.room(at).figures);
            lines.push(Explained { node: node.id, verdict: Verdict::Home { binding, filled } });
            continue;
        }
        let figures = position.and_then(|at| Some((at, fleet.rooms.fits(at, &ask)?)));
        match (refused(snapshot, policy, tenant, node), figures) {
            (None, Some((at, figures))) => {
                let near = tenant.rules.as_ref().map(|rules| rules.near.as_slice());
                let near = near.unwrap_or_default();
                let away = !near.is_empty() && !near.contains(&node.region);
                let empty = node.load.tenants == 0;
                fits.push(((away, empty, fleet.rooms.score(at, &figures, &taste)), figures));
            }
            (refusal, _) => {
                let refusal = refusal.unwrap_or(Refusal::OtherKind);
                lines.push(Explained { node: node.id, verdict: Verdict::Refused(refusal) });
            }
        }
    }
    fits.sort_unstable_by_key(|(rank, _)| *rank);
    for (rank, ((_, _, score), figures)) in fits.iter().enumerate() {
        let (binding, filled) = fullest(&fleet.rooms, score.node, figures);
        let rank = u32::try_from(rank + 1).unwrap_or(u32::MAX);
        let verdict = Verdict::Fits { rank, binding, filled };
        lines.push(Explained { node: fleet.rooms.id(score.node), verdict });
    }
    lines.sort_by_key(|line| match line.verdict {
        Verdict::Home { .. } => (0, 0, line.node),
        Verdict::Fits { rank, .. } => (1, rank, line.node),
        Verdict::Refused(_) => (2, 0, line.node),
    });
    Ok(Some(lines))
}

/// Why the tenant could not move to that node.
fn refused(
    snapshot: &Snapshot,
    policy: &Policy,
    tenant: &Tenant,
    node: &NodeState,
) -> Option<Refusal> {
    if node.kind != NodeKind::Shared {
        return Some(Refusal::OtherKind);
    }
    if node.standing != Standing::Active {
        return Some(Refusal::NotActive { standing: node.standing });
    }
    if !node.seen {
        return Some(Refusal::NotSeen);
    }
    if let Some(rules) = &tenant.rules {
        if let Some(pinned) = rules.pinned.filter(|pinned| *pinned != node.id) {
            return Some(Refusal::Pinned { node: pinned });
        }
        if !rules.only.is_empty() && !rules.only.contains(&node.region) {
            return Some(Refusal::OtherRegion);
        }
        let near_it = |other: &&Tenant| {
            let theirs = other.rules.as_ref();
            other.node == node.id
                && other.id != tenant.id
                && theirs.is_some_and(|theirs| theirs.apart.iter().any(|l| rules.apart.contains(l)))
        };
        if let Some(other) = snapshot.tenants.iter().filter(near_it).min_by_key(|other| other.id) {
            return Some(Refusal::Apart { tenant: other.id });
        }
    }
    let left = tenant.left.filter(|left| left.node == node.id);
    if left.is_some_and(|left| left.holds(&tenant.need, snapshot.now_h, policy)) {
        return Some(Refusal::JustLeft);
    }
    short(node, &tenant.need, policy.place_limit)
}
