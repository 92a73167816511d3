//! What the two fence rows say, and nothing else does.
//!
//! The target's agent may be asked when the source's is gone for good. Where it
//! reaches the source's database, it is a mover like any other. Where it does
//! not, its own row says one thing only: that the target serves the tenant
//! ([`beside`]).
//!
//! **Invariant:** a row that is not `active` says nothing about the other side,
//! and nothing is changed by looking at it alone. `moved` in the source's own
//! database is the only permission to activate the target, however long that
//! database has been away.

use webhost_proto::ids::{Epoch, MoveId};

use super::error::{MoveError, Side};
use super::fence::{self, Fence, State};
use super::leg::Leg;
use super::run::Run;
use super::spec::{Recovered, Serving};
use super::sql::{self, SCHEMA};

/// How a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The leg's first side serves the tenant: for leg 0 the source, and work
    /// goes on or is undone; for leg 1 the target, and the way may lead back.
    Before(Leg),
    /// The leg's `moved` is durable and its other side not active yet: only
    /// forward.
    PastThePoint(Leg),
    /// The target served the tenant by this move, and another move has taken
    /// it over since.
    Elsewhere,
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
    // The leg that begins with what the source's row says.
    let leg = Leg::beginning_at(epoch, source_epoch);
    match source_state {
        State::Active if target.is_some_and(|fence| fence.state == State::Active) => {
            Standing::TwoActive
        }
        State::Active => match leg {
            Some(leg)
                if leg > Leg::BACK
                    && !leg.is_back()
                    && leg.serves(move_id, epoch, source)
                    && leg.waits(move_id, epoch, target) =>
            {
                Standing::Before(leg)
            }
            Some(leg) if leg > Leg::FORTH => {
                Standing::Stale("the source's fence has a later epoch")
            }
            _ if target.is_some_and(|fence| fence.epoch > epoch) => {
                Standing::Stale("the target's fence has a later epoch")
            }
            _ => Standing::Before(Leg::FORTH),
        },
        State::Standby => Standing::Stale("the source is itself the target of a move"),
        State::Moved => {
            let (Some(back), true) = (
                leg.filter(|leg| leg.is_back()),
                source.and_then(|fence| fence.move_id) == Some(move_id),
            ) else {
                return Standing::Stale("the tenant left the source by another move");
            };
            let forth = back.previous().unwrap_or(Leg::FORTH);
            let after = back.next();
            if back.serves(move_id, epoch, target) {
                Standing::Before(back)
            } else if forth.waits(move_id, epoch, target) {
                Standing::PastThePoint(forth)
            } else if after.waits(move_id, epoch, target) {
                Standing::PastThePoint(back)
            } else if target.is_some_and(|fence| fence.epoch >= source_epoch) {
                Standing::Elsewhere
            } else {
                // The target lost its fence row: a person must look, and
                // nothing here may guess.
                Standing::Stale("the source says moved, the target's fence row does not match")
            }
        }
    }
}

/// What the row beside this process says, without the other side's. Changes
/// nothing, and takes no mover's lock: the other side's mover may be alive.
///
/// # Errors
/// What the database said; its row may be locked by a switch under way.
pub(super) async fn beside(run: &Run) -> Result<Recovered, MoveError> {
    let conn = run.connect(run.here).await?;
    // As in every reading of a row: what is answered is durable.
    conn.batch("BEGIN; SET LOCAL synchronous_commit = on").await?;
    let row = fence::read(&conn, run.spec.tenant, true).await?;
    conn.batch("COMMIT").await?;
    let serving = alone(run.spec.move_id, run.spec.epoch, run.here, row);
    let activated_at_us = match serving {
        None => 0,
        Some(_) => conn
            .one(
                &format!(
                    "select (extract(epoch from updated_at) * 1000000)::int8 \
                     from {SCHEMA}.fence where customer_id = {}",
                    sql::tenant_literal(run.spec.tenant)
                ),
                &[],
            )
            .await?
            .get(0),
    };
    let epoch = row.map_or(Epoch(0), |row| row.epoch);
    Ok(Recovered { serving, epoch, activated_at_us, both_read: false })
}

/// Who serves, as far as one side's row alone says it: that side, where its row
/// was activated by this move.
fn alone(move_id: MoveId, epoch: Epoch, here: Side, row: Option<Fence>) -> Option<Serving> {
    let row = row.filter(|row| row.state == State::Active && row.move_id == Some(move_id))?;
    let leg = Leg::beginning_at(epoch, row.epoch).filter(|leg| *leg > Leg::FORTH)?;
    (leg.from_side() == here).then_some(match here {
        Side::Source => Serving::Source,
        Side::Target => Serving::Target,
    })
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
        let leg = |number| Leg::beginning_at(Epoch(0), Epoch(number)).expect("a leg");
        let before = |number| Standing::Before(leg(number));
        let past = |number| Standing::PastThePoint(leg(number));

        for (source, target, want) in [
            (None, None, before(0)),
            (row(active, 3, Some(ours)), None, before(0)),
            (row(active, 2, None), row(moved, 1, Some(other)), before(0)),
            (row(active, 3, Some(ours)), row(standby, 3, Some(ours)), before(0)),
            (row(moved, 4, Some(ours)), row(standby, 3, Some(ours)), past(0)),
            (row(moved, 4, Some(ours)), row(active, 4, Some(ours)), before(1)),
            (row(moved, 4, Some(ours)), row(moved, 5, Some(ours)), past(1)),
            (row(active, 5, Some(ours)), row(moved, 5, Some(ours)), before(2)),
            (row(moved, 6, Some(ours)), row(moved, 5, Some(ours)), past(2)),
            (row(moved, 6, Some(ours)), row(active, 6, Some(ours)), before(3)),
            (row(moved, 6, Some(ours)), row(moved, 7, Some(ours)), past(3)),
            (row(active, 7, Some(ours)), row(moved, 7, Some(ours)), before(4)),
            // The tenant has moved on from the target meanwhile.
            (row(moved, 4, Some(ours)), row(active, 4, Some(other)), Standing::Elsewhere),
            (row(moved, 4, Some(ours)), row(active, 4, None), Standing::Elsewhere),
            (row(moved, 4, Some(ours)), row(moved, 5, Some(other)), Standing::Elsewhere),
            (row(active, 3, Some(ours)), row(active, 4, Some(ours)), Standing::TwoActive),
            (row(active, 5, Some(ours)), row(active, 4, Some(ours)), Standing::TwoActive),
            (None, row(active, 1, None), Standing::TwoActive),
        ] {
            assert_eq!(of(source, target), want, "{source:?} {target:?}");
        }
        for (source, target) in [
            (row(active, 4, None), None),
            (row(active, 3, Some(ours)), row(standby, 7, Some(other))),
            (row(standby, 3, Some(ours)), None),
            (row(moved, 4, Some(other)), row(standby, 3, Some(ours))),
            (row(moved, 2, Some(ours)), row(standby, 3, Some(ours))),
            (row(moved, 5, Some(ours)), row(moved, 5, Some(ours))),
            (row(moved, 4, Some(ours)), None),
            (row(moved, 4, Some(ours)), row(standby, 3, Some(other))),
            // Rolled back, and taken over by another move since.
            (row(active, 5, Some(other)), row(moved, 5, Some(ours))),
            (row(active, 5, Some(ours)), row(standby, 5, Some(other))),
            (row(active, 5, Some(ours)), row(moved, 3, Some(ours))),
        ] {
            assert!(stale(of(source, target)), "{source:?} {target:?}");
        }
    }

    /// Only an activation by this very move is an answer; the rest is silence.
    #[test]
    fn one_row_alone_says_only_that_its_side_serves() {
        let ours = MoveId::generate();
        let other = Some(MoveId::generate());
        let row = |state, epoch, move_id| Some(Fence { state, epoch: Epoch(epoch), move_id });
        let of = |here, row| alone(ours, Epoch(3), here, row);
        let (source, target) = (Side::Source, Side::Target);
        let (active, standby, moved) = (State::Active, State::Standby, State::Moved);
        for (here, row, want) in [
            (target, row(active, 4, Some(ours)), Some(Serving::Target)),
            (source, row(active, 5, Some(ours)), Some(Serving::Source)),
            (target, None, None),
            (target, row(standby, 3, Some(ours)), None),
            (target, row(moved, 5, Some(ours)), None),
            (target, row(active, 4, other), None),
            (target, row(active, 4, None), None),
            // Of no leg of this move that ends there.
            (target, row(active, 3, Some(ours)), None),
            (target, row(active, 5, Some(ours)), None),
            (source, row(active, 3, Some(ours)), None),
            (source, row(active, 4, Some(ours)), None),
            (source, row(moved, 4, Some(ours)), None),
        ] {
            assert_eq!(of(here, row), want, "{here:?} {row:?}");
        }
    }

    /// Walks the rows through every commit of many legs: each is read as what
    /// it is, one side is active or the way forward is known, and a row that
    /// never came to be is no standing of ours.
    #[test]
    fn every_commit_of_a_hundred_legs_is_known() {
        let ours = MoveId::generate();
        let mut rows = [(State::Active, 7_u64), (State::Standby, 7)];
        for number in 0..100_u64 {
            let leg = Leg::beginning_at(Epoch(0), Epoch(number)).expect("a leg");
            let (from, to) = if leg.is_back() { (1, 0) } else { (0, 1) };
            let read = |rows: &[(State, u64); 2]| {
                let row = |at: usize| {
                    let (state, epoch) = rows[at];
                    Some(Fence { state, epoch: Epoch(epoch), move_id: Some(ours) })
                };
                standing(ours, Epoch(7), row(0), row(1))
            };
            assert_eq!(read(&rows), Standing::Before(leg));
            rows[from] = (State::Moved, 7 + number + 1);
            assert_eq!(read(&rows), Standing::PastThePoint(leg));
            rows[to] = (State::Active, 7 + number + 1);
        }
    }
}
