//! What the two fence rows say, and nothing else does.

use webhost_proto::ids::{Epoch, MoveId};

use super::fence::{Fence, State};

/// How a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The source serves the tenant: work goes on, or is undone.
    Before,
    /// `moved` is durable and the target is not active yet: only forward.
    PastThePoint,
    /// The target serves the tenant, or did: the switch is done.
    Switched,
    /// Both say that they serve it.
    TwoActive,
    /// The rows belong to another move or a later epoch; this order is old.
    Stale(&'static str),
}

/// Reads a move's standing out of the two rows.
///
/// A tenant without a row on the source was never moved: it is active there.
pub fn standing(
    move_id: MoveId,
    epoch: Epoch,
    source: Option<Fence>,
    target: Option<Fence>,
) -> Standing {
    let source_state = source.map_or(State::Active, |fence| fence.state);
    let source_epoch = source.map_or(Epoch(0), |fence| fence.epoch);
    let target_active = target.is_some_and(|fence| fence.state == State::Active);
    match source_state {
        State::Active if target_active => Standing::TwoActive,
        State::Active if source_epoch > epoch => {
            Standing::Stale("the source's fence has a later epoch")
        }
        State::Active if target.is_some_and(|fence| fence.epoch > epoch) => {
            Standing::Stale("the target's fence has a later epoch")
        }
        State::Active => Standing::Before,
        State::Standby => Standing::Stale("the source is itself the target of a move"),
        State::Moved => {
            if source.and_then(|fence| fence.move_id) != Some(move_id)
                || source_epoch != epoch.next()
            {
                return Standing::Stale("the tenant left the source by another move");
            }
            match target {
                Some(fence)
                    if fence.state == State::Standby
                        && fence.epoch == epoch
                        && fence.move_id == Some(move_id) =>
                {
                    Standing::PastThePoint
                }
                Some(fence) if fence.epoch >= epoch.next() => Standing::Switched,
                // The target lost its fence row: a person must look, and
                // nothing here may guess.
                _ => {
                    Standing::Stale("the source says moved, the target's fence row does not match")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_decide() {
        let ours = MoveId::generate();
        let other = MoveId::generate();
        let row = |state, epoch, move_id| Some(Fence { state, epoch: Epoch(epoch), move_id });
        let (active, standby, moved) = (State::Active, State::Standby, State::Moved);
        let stale = |standing| matches!(standing, Standing::Stale(_));
        let of = |source, target| standing(ours, Epoch(3), source, target);

        for (source, target, want) in [
            (None, None, Standing::Before),
            (row(active, 3, Some(ours)), None, Standing::Before),
            (row(active, 2, None), row(moved, 1, Some(other)), Standing::Before),
            (row(active, 3, Some(ours)), row(standby, 3, Some(ours)), Standing::Before),
            (row(moved, 4, Some(ours)), row(standby, 3, Some(ours)), Standing::PastThePoint),
            (row(moved, 4, Some(ours)), row(active, 4, Some(ours)), Standing::Switched),
            // The tenant has moved on from the target meanwhile.
            (row(moved, 4, Some(ours)), row(moved, 5, Some(other)), Standing::Switched),
            (row(active, 3, Some(ours)), row(active, 4, Some(ours)), Standing::TwoActive),
            (None, row(active, 1, None), Standing::TwoActive),
        ] {
            assert_eq!(of(source, target), want, "{source:?} {target:?}");
        }
        for (source, target) in [
            (row(active, 4, None), None),
            (row(active, 3, Some(ours)), row(standby, 7, Some(other))),
            (row(standby, 3, Some(ours)), None),
            (row(moved, 4, Some(other)), row(standby, 3, Some(ours))),
            (row(moved, 9, Some(ours)), row(standby, 3, Some(ours))),
            (row(moved, 4, Some(ours)), None),
            (row(moved, 4, Some(ours)), row(standby, 3, Some(other))),
        ] {
            assert!(stale(of(source, target)), "{source:?} {target:?}");
        }
    }
}
