//! Watching over moves: those that are slow, and tenants that fare worse
//! where they are now.

use jiff::Timestamp;
use tracing::warn;

use super::super::durable::Wish;
use super::super::policy::{self, Verdict};
use super::super::progress::percent;
use super::super::state::{State, Step};
use super::super::timing::later;
use super::{Driver, Looked};
use crate::store::StoreError;
use crate::store::moves::{self, Move};

/// Who rolls back by policy.
const POLICY: &str = "policy";

impl Driver {
    /// Tells somebody, once a move, that less than half of it is done.
    pub(super) async fn alarm_if_slow(&self, row: &Move, now: Timestamp) -> Result<(), StoreError> {
        let Some(began) = row.durable.began_at else { return Ok(()) };
        let Some(done) = percent(row) else { return Ok(()) };
        if row.durable.slow_told || done >= 50 || later(began, self.timing.slow_after) > now {
            return Ok(());
        }
        let mut to = row.revised(now);
        to.updated_at = row.updated_at;
        to.durable.slow_told = true;
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        if !moves::save(&*tx, row, &to).await? {
            return Ok(());
        }
        let message = format!("{done} % done since {began}, in {}", row.state);
        moves::audit(&*tx, "system", "move.slow", row, &message).await?;
        tx.commit().await?;
        warn!(move_id = %row.id, tenant = %row.tenant, state = %row.state, done, "a move is slow");
        Ok(())
    }

    /// Remembers how the tenant fares before its switch.
    pub(super) fn remember_health(&self, to: &mut Move, now: Timestamp) {
        if to.durable.health_before.is_some() {
            return;
        }
        let usage = self.slots.book.tenant(to.tenant, now.as_microsecond());
        let here = usage.filter(|usage| usage.node == to.source);
        to.durable.health_before = here.as_ref().and_then(policy::health);
    }

    /// While the way back is open: goes back where the policy says so.
    pub(super) async fn watch_health(
        &self,
        row: &Move,
        now: Timestamp,
    ) -> Result<Looked, StoreError> {
        let durable = &row.durable;
        if row.state != State::Step(Step::WayBack)
            || !self.rules.auto_rollback.enabled
            || durable.roll_back.is_some()
            || durable.close_way_back.is_some()
        {
            return Ok(Looked::Waits(None));
        }
        let usage = self.slots.book.tenant(row.tenant, now.as_microsecond());
        let there = usage.filter(|usage| Some(usage.node) == row.target);
        let after = there.as_ref().and_then(policy::health);
        let (before, since) = (durable.health_before, durable.unhealthy_since);
        let verdict = policy::judge(&self.rules.auto_rollback, before, after, since, now);
        let mut to = row.revised(now);
        to.updated_at = row.updated_at;
        let wanted = match verdict {
            Verdict::Well => {
                to.durable.unhealthy_since = None;
                None
            }
            Verdict::Watch(since) => {
                to.durable.unhealthy_since = Some(since);
                None
            }
            Verdict::RollBack(why) => Some(why),
        };
        if let Some(why) = &wanted {
            to.durable.roll_back = Some(Wish { by: POLICY.to_owned(), why: why.clone() });
        } else if to.durable.unhealthy_since == since {
            return Ok(Looked::Waits(None));
        }
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        if !moves::save(&*tx, row, &to).await? {
            return Ok(Looked::Overtaken);
        }
        if let Some(why) = &wanted {
            moves::audit(&*tx, POLICY, "move.roll_back_wanted", row, why).await?;
            warn!(move_id = %row.id, tenant = %row.tenant, why, "a move is rolled back by policy");
        }
        tx.commit().await?;
        Ok(if wanted.is_some() { Looked::Changed } else { Looked::Waits(None) })
    }
}
