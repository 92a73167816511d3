//! A target that never returns: a person lets an abandoned move end without
//! what it left there; and takes that back when the node returns after all.
//!
//! **Invariant:** only a move that the source has let go of is forgotten: its
//! fence row names no move, so nothing that the target still holds can ever be
//! activated. What the target holds stays behind its closed guards.

use jiff::Timestamp;
use webhost_proto::ids::MoveId;

use super::durable::Forgotten;
use super::request::{MoveRefused, note};
use super::state::{Ending, State, Undo};
use crate::store::Store;
use crate::store::{moves, nodes};

/// Ends an abandoned move whose target is gone for good, and gives its room
/// in the books back.
///
/// # Errors
/// [`MoveRefused::TooLate`] unless it waits for its target to be cleaned, and
/// while that node's agent is connected.
pub async fn forget(store: &Store, id: MoveId, actor: &str) -> Result<(), MoveRefused> {
    let mut client = store.client().await?;
    let tx = client.transaction().await?;
    let Some(from) = moves::get(&*tx, id).await? else {
        return Err(MoveRefused::UnknownMove(id));
    };
    let refused = |cannot: String| Err(MoveRefused::TooLate { id, state: from.state, cannot });
    let target = match (from.state, from.target) {
        (State::Undoing(Undo::CleanTarget), Some(target)) => target,
        (State::Undoing(Undo::Source | Undo::Abandon), _) => {
            return refused("is still being let go of by its source: wait for clean_target".into());
        }
        _ => return refused("has no target that it waits for".into()),
    };
    // Under the node's lock an agent that connects is seen, or sees the end.
    let node = nodes::lock(&*tx, target).await?;
    let name = node.as_ref().map_or_else(|| target.to_string(), |node| node.name.clone());
    if node.is_some_and(|node| node.connected_at.is_some()) {
        return refused(format!("is not forgotten: node {name} is connected, and cleans up"));
    }
    let now = Timestamp::now();
    let mut to = from.revised(now);
    to.state = State::Ended(from.durable.ending());
    to.durable.pass(from.state, from.updated_at, now);
    to.durable.begin_step(None, None);
    to.durable.ticket = None;
    to.durable.forgotten = Some(Forgotten { by: actor.to_owned(), at: now });
    let message = format!(
        "{actor} says that node {name} is gone for good: what the move left there is forgotten; \
         should it return, `move clean-up {id}` deletes it"
    );
    moves::settle_commands(&*tx, id).await?;
    moves::end_kept(&*tx, &from, target).await?;
    if !moves::save(&*tx, &from, &to).await? {
        return Err(MoveRefused::Busy(id));
    }
    note(&*tx, &to, actor, "move.forgotten", &message, now).await?;
    tx.commit().await?;
    Ok(())
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
    let forgotten = matches!(from.state, State::Ended(Ending::Failed | Ending::Cancelled))
        && from.durable.forgotten.is_some();
    let (true, Some(target)) = (forgotten, from.target) else { return Ok(None) };
    nodes::lock(&*tx, target).await?;
    if !moves::keep_again(&*tx, &from, target).await? {
        let cannot = "is not cleaned up: its tenant has another place on that node".into();
        return Err(MoveRefused::TooLate { id, state: from.state, cannot });
    }
    let now = Timestamp::now();
    let mut to = from.revised(now);
    to.state = State::Undoing(Undo::CleanTarget);
    to.durable.begin_step(None, None);
    to.durable.forgotten = None;
    if !moves::reopen(&*tx, &from, &to).await? {
        return Err(MoveRefused::Busy(id));
    }
    let message = format!("{actor} has deleted what the forgotten target still holds");
    note(&*tx, &to, actor, "move.clean_up_wanted", &message, now).await?;
    tx.commit().await?;
    Ok(Some(()))
}
