//! A node that never returns: a person lets a move end without what it left
//! there; and takes that back when the node returns after all.
//!
//! Before a switch that is the target of a move that was abandoned, after it
//! the node with the old copy.
//!
//! **Invariant:** only what can never be activated is forgotten. Of an
//! abandoned move the source's fence row names no move any more; after a switch
//! the old copy's says `moved`, and nothing but a `moved` of the side that
//! serves could change that. What the node holds stays behind its closed
//! guards.

use jiff::Timestamp;
use webhost_proto::ids::{MoveId, NodeId};

use super::durable::Forgotten;
use super::request::{MoveRefused, note};
use super::state::{Ending, State, Step, Undo};
use crate::store::Store;
use crate::store::moves::{self, Move};
use crate::store::nodes;

/// Ends a move that waits for a node that is gone for good, and gives its room
/// there in the books back. An open way back is closed by that.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it waits for nothing but a node that serves
/// the tenant no more, or not yet; and while that node's agent is connected.
pub async fn forget(store: &Store, id: MoveId, actor: &str) -> Result<(), MoveRefused> {
    let mut client = store.client().await?;
    let tx = client.transaction().await?;
    let Some(from) = moves::get(&*tx, id).await? else {
        return Err(MoveRefused::UnknownMove(id));
    };
    let refused = |cannot: String| MoveRefused::TooLate { id, state: from.state, cannot };
    let (gone, state) = without(&from).map_err(refused)?;
    // Under the node's lock an agent that connects is seen, or sees the end.
    let node = nodes::lock(&*tx, gone).await?;
    let name = node.as_ref().map_or_else(|| gone.to_string(), |node| node.name.clone());
    if node.is_some_and(|node| node.connected_at.is_some()) {
        return Err(refused(format!("is not forgotten: node {name} is connected")));
    }
    let now = Timestamp::now();
    let mut to = from.revised(now);
    to.state = state;
    to.durable.pass(from.state, from.updated_at, now);
    to.durable.begin_step(None, None);
    to.durable.roll_back = None;
    to.durable.forgotten = Some(Forgotten { by: actor.to_owned(), at: now });
    if matches!(state, State::Ended(_)) {
        to.durable.ticket = None;
    }
    let message = format!(
        "{actor} says that node {name} is gone for good: what the move left there is forgotten; \
         should it return, `move clean-up {id}` deletes it"
    );
    moves::settle_commands(&*tx, id).await?;
    // Otherwise it ends when the side that serves is freed.
    if state != State::Step(Step::Finish) {
        moves::end_kept(&*tx, &from, gone).await?;
    }
    if !moves::save(&*tx, &from, &to).await? {
        return Err(MoveRefused::Busy(id));
    }
    note(&*tx, &to, actor, "move.forgotten", &message, now).await?;
    tx.commit().await?;
    Ok(())
}

/// Which node a move waits for, and where it goes on without.
fn without(from: &Move) -> Result<(NodeId, State), String> {
    let (node, state) = match from.state {
        State::Undoing(Undo::CleanTarget) => (from.target, State::Ended(from.durable.ending())),
        // The side that serves is freed of the log that it keeps for the other.
        State::Step(Step::WayBack | Step::Finish) => (from.old_copy(), State::Step(Step::Finish)),
        State::Step(Step::Kept | Step::CleanUp) => {
            (from.old_copy(), State::Step(Step::CloseTunnel))
        }
        State::Undoing(Undo::Source | Undo::Abandon) => {
            return Err("is still being let go of by its source: wait for clean_target".into());
        }
        State::Step(Step::CutOver | Step::Route | Step::RollBack | Step::RouteBack) => {
            return Err("is in a switch, which one of its databases must settle first".into());
        }
        State::Step(step) if !step.is_past_return() => {
            return Err("has not switched: cancel it instead".into());
        }
        _ => return Err("waits for no node".into()),
    };
    node.map(|node| (node, state)).ok_or_else(|| "waits for no node".into())
}

/// The node of a forgotten move is back: what it holds is deleted after all.
/// None where the move was not forgotten.
///
/// # Errors
/// [`MoveRefused::TooLate`] where the tenant lives on that node by now, or is
/// about to.
pub(super) async fn remember(
    store: &Store,
    id: MoveId,
    actor: &str,
) -> Result<Option<()>, MoveRefused> {
    let mut client = store.client().await?;
    let tx = client.transaction().await?;
    let Some(from) = moves::get(&*tx, id).await? else {
        return Err(MoveRefused::UnknownMove(id));
    };
    let (node, state) = match from.state {
        _ if from.durable.forgotten.is_none() => return Ok(None),
        State::Ended(Ending::Failed | Ending::Cancelled) => {
            (from.target, State::Undoing(Undo::CleanTarget))
        }
        State::Ended(Ending::Completed | Ending::RolledBack) => {
            (from.old_copy(), State::Step(Step::CleanUp))
        }
        _ => return Ok(None),
    };
    let Some(node) = node else { return Ok(None) };
    nodes::lock(&*tx, node).await?;
    if !moves::keep_again(&*tx, &from, node).await? {
        let cannot = "is not cleaned up: its tenant has another place on that node".into();
        return Err(MoveRefused::TooLate { id, state: from.state, cannot });
    }
    let now = Timestamp::now();
    let mut to = from.revised(now);
    to.state = state;
    to.durable.begin_step(None, None);
    // An old copy's agent must be told that the move was finished without it.
    if matches!(state, State::Undoing(_)) {
        to.durable.forgotten = None;
    }
    if !moves::reopen(&*tx, &from, &to).await? {
        return Err(MoveRefused::Busy(id));
    }
    let message = format!("{actor} has deleted what the forgotten node still holds");
    note(&*tx, &to, actor, "move.clean_up_wanted", &message, now).await?;
    tx.commit().await?;
    Ok(Some(()))
}
