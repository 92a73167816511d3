//! The books follow what the databases say: the switch, and the switch back.

use jiff::Timestamp;
use serde_json::json;
use tracing::error;

use super::super::apply::applied;
use super::super::consider::transition;
use super::super::next::Outcome;
use super::super::state::{State, Step};
use super::super::steps::Answer;
use super::super::timing::later;
use super::told::{log, record};
use super::{Driver, Looked};
use crate::store::StoreError;
use crate::store::moves::{self, Move};

impl Driver {
    /// Placements and the tenant's epoch change with the move's state and its
    /// next command, in one transaction.
    pub(super) async fn books(&self, from: &Move, now: Timestamp) -> Result<Looked, StoreError> {
        let back = from.state == State::Step(Step::RouteBack);
        let (epoch, before) = match (from.durable.new_epoch, from.durable.back_epoch) {
            (Some(new), Some(epoch)) if back => (epoch, new),
            (Some(epoch), _) if !back => (epoch, from.epoch),
            _ => {
                error!(move_id = %from.id, state = %from.state, "a switched move has no epoch");
                return Ok(Looked::Waits(None));
            }
        };
        let answer = Answer::of(Outcome::Done, format!("the tenant is routed under epoch {epoch}"));
        let transition = transition(from, &answer, now);
        let (mut to, message) = applied(from, &answer, transition, &self.timing, now);
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        let agree = if back {
            moves::switch_back(&*tx, from, before, epoch).await?
        } else {
            moves::switch_placements(&*tx, from, epoch).await?
        };
        if !agree {
            drop(tx);
            return self.books_disagree(from, now).await;
        }
        moves::settle_commands(&*tx, from.id).await?;
        self.enqueue(&tx, &mut to, now).await?;
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        record(&tx, &to, &message, Some(json!({ "epoch": epoch })), now, true).await?;
        tx.commit().await?;
        self.signals.commands.notify();
        log(&to, &message, transition);
        Ok(Looked::Changed)
    }

    /// The switch happened but the books don't show the tenant where the move
    /// took it from. The databases are right; a person must look at the books.
    async fn books_disagree(&self, from: &Move, now: Timestamp) -> Result<Looked, StoreError> {
        let why = "the switch is done, but placements or epoch are not as the move left them";
        let mut to = from.revised(now);
        to.updated_at = from.updated_at;
        to.error = Some(why.to_owned());
        to.durable.attempts = from.durable.attempts.saturating_add(1);
        let due = later(now, self.timing.pause(to.durable.attempts));
        to.durable.not_before = Some(due);
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        tx.commit().await?;
        error!(move_id = %from.id, tenant = %from.tenant, why);
        Ok(Looked::Waits(Some(due)))
    }
}
