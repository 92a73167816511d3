//! A move's turn: a node is found and promised, within the limits, and the
//! move begins.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tracing::{info, warn};

use super::super::durable::Ticket;
use super::super::kind::Kind;
use super::super::limits::Busy;
use super::super::next::Transition;
use super::super::proposals;
use super::super::state::{Ending, State, Step};
use super::super::target;
use super::super::timing::later;
use super::super::windows;
use super::told::{log, record};
use super::{Driver, Looked};
use crate::store::moves::{self, Move};
use crate::store::{StoreError, nodes, tenants};

/// So many moves of a queue are looked at from behind, and woken for a turn.
const MOST_BEFORE: i64 = 32;

/// What a move waits for, in words.
enum Wait<'a> {
    /// A window, or a node with a turn left.
    For(&'a str),
    /// A node with room.
    Room(&'a str),
    /// Its turn, and nothing else.
    Turn(&'a str),
}

impl Driver {
    /// Finds and promises a node, and begins; or waits for one, or for the
    /// move's turn. A move whose target is promised already (a person had to
    /// confirm something) only waits for its turn.
    pub(super) async fn reserve(&self, from: &Move, now: Timestamp) -> Result<Looked, StoreError> {
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        if !moves::still_at_source(&*tx, from).await? {
            let why = "the tenant is not active where the move was to take it from";
            return self.not_begun(tx, from, why, now).await;
        }
        if let Some(why) = proposals::outdated(&*tx, &self.slots, from, now).await? {
            tenants::evaluate_again(&*tx, from.tenant).await?;
            return self.not_begun(tx, from, &why, now).await;
        }
        if let Some(why) = windows::closed(&*tx, from, now).await? {
            return self.wait_for_node(tx, from, Wait::For(&why), now).await;
        }
        moves::take_turn(&*tx).await?;
        let limits = &self.rules.limits;
        let busy = if from.durable.wanted.dry_run { Vec::new() } else { moves::busy(&*tx).await? };
        if let Err(why) = limits.source(&busy, from.source) {
            return self.wait_for_node(tx, from, Wait::Turn(&why), now).await;
        }
        if self.another_comes_first(&tx, from, &busy, now).await? {
            let why = "waits for its turn: one that comes before it may begin";
            return self.wait_for_node(tx, from, Wait::Turn(why), now).await;
        }
        let mut to = from.revised(now);
        let message = if let Some(target) = from.target {
            if !limits.takes(&busy, target) {
                return self.wait_for_node(tx, from, Wait::Turn(&limits.full()), now).await;
            }
            format!("{} is promised to the tenant", from.durable.target_place)
        } else {
            let mut full: Vec<_> = busy.iter().filter_map(|one| one.target).collect();
            full.retain(|target| !limits.takes(&busy, *target));
            let copies = moves::copies(&*tx, from.tenant).await?;
            let closed = windows::closed_nodes(&*tx, from, now).await?;
            let mut taken = full.clone();
            taken.extend(&closed);
            taken.extend(copies.iter().map(|copy| copy.node));
            let chosen = match target::choose(&tx, &self.slots, from, &taken, now).await? {
                Ok(chosen) => chosen,
                Err(why) => {
                    let mut why = why;
                    if !full.is_empty() {
                        why = format!("{}; or: {why}", limits.full());
                    }
                    if !closed.is_empty() {
                        why = format!("{why}; the windows of {} nodes are closed", closed.len());
                    }
                    for copy in &copies {
                        why = format!("{why}; {} holds an old copy of the tenant", copy.name);
                    }
                    let passes = match from.durable.wanted.node {
                        Some(node) => full.contains(&node) || closed.contains(&node),
                        None if full.is_empty() && closed.is_empty() => false,
                        None => {
                            let held: Vec<_> = copies.iter().map(|copy| copy.node).collect();
                            target::choose(&tx, &self.slots, from, &held, now).await?.is_ok()
                        }
                    };
                    let wait = if passes { Wait::For(&why) } else { Wait::Room(&why) };
                    return self.wait_for_node(tx, from, wait, now).await;
                }
            };
            moves::reserve_incoming(&*tx, from, chosen.id, &from.durable.wanted.mode).await?;
            to.target = Some(chosen.id);
            to.durable.target_tunnel = chosen.tunnel_address;
            to.durable.target_place.clone_from(&chosen.name);
            to.durable.source_place =
                nodes::get(&*tx, from.source).await?.map(|node| node.name).unwrap_or_default();
            to.durable.tenant_host = tenants::host(&*tx, from.tenant).await?;
            format!("{} is promised to the tenant", chosen.name)
        };
        self.begin(&mut to, from, now);
        self.enqueue(&tx, &mut to, now).await?;
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        record(&tx, &to, &message, None, now, true).await?;
        tx.commit().await?;
        self.signals.commands.notify();
        log(&to, &message, Transition::To(to.state));
        Ok(Looked::Changed)
    }

    /// What a move has from its first step on. Times are fixed once, and a
    /// second beginning changes none of them but the ticket's.
    fn begin(&self, to: &mut Move, from: &Move, now: Timestamp) {
        let state = State::Step(Step::OpenTunnel);
        to.state = state;
        to.error = None;
        let durable = &mut to.durable;
        durable.pass(from.state, from.updated_at, now);
        durable
            .begin_step(self.timing.deadline(state, durable, now), self.timing.alarm(state, now));
        durable.ticket.get_or_insert_with(Ticket::generate);
        durable.ticket_expires_at = Some(self.timing.ticket_end(now));
        durable.began_at.get_or_insert(now);
        durable.way_back_s = self.timing.way_back.as_secs();
        if durable.retain_from.is_none() && from.kind == Kind::Downgrade.as_str() {
            durable.retain_from = self.retain_from(from, now);
        }
    }

    /// From when on a downgraded tenant's rows come along: the target plan's
    /// retention, before the approval. None where the plan keeps everything,
    /// or is not in the catalogue.
    fn retain_from(&self, row: &Move, now: Timestamp) -> Option<Timestamp> {
        let days = self.slots.catalog.plan(&row.durable.wanted.plan)?.retention_days;
        let approved = row.approved_at.unwrap_or(now);
        let back = SignedDuration::from_hours(24 * i64::from(days));
        (days > 0).then(|| approved.checked_sub(back).ok()).flatten()
    }

    /// The move makes no sense any more, and nothing of it was done.
    async fn not_begun(
        &self,
        tx: deadpool_postgres::Transaction<'_>,
        from: &Move,
        why: &str,
        now: Timestamp,
    ) -> Result<Looked, StoreError> {
        let mut to = from.revised(now);
        to.durable.pass(from.state, from.updated_at, now);
        to.durable.begin_step(None, None);
        to.durable.ticket = None;
        to.state = State::Ended(Ending::Failed);
        to.error = Some(why.to_owned());
        moves::release_incoming(&*tx, from).await?;
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        record(&tx, &to, why, None, now, true).await?;
        tx.commit().await?;
        log(&to, why, Transition::To(to.state));
        Ok(Looked::Changed)
    }

    /// Whether a move that comes before this one, and waited for nothing but
    /// its turn, could begin now: whoever looks first doesn't go first.
    async fn another_comes_first(
        &self,
        tx: &deadpool_postgres::Transaction<'_>,
        from: &Move,
        busy: &[Busy],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if from.durable.wanted.dry_run {
            return Ok(false);
        }
        let limits = &self.rules.limits;
        for other in moves::before(&**tx, from, MOST_BEFORE).await? {
            let target = other.target.or(other.durable.wanted.node);
            if limits.has_turn(busy, other.source)
                && target.is_none_or(|target| limits.takes(busy, target))
                && windows::closed(&**tx, &other, now).await?.is_none()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was in state `before` is in `after` now, none of both where it is not
    /// open: where that gave a turn back, or let somebody else be next of their
    /// node, the queue is looked at at once. (What a person ends in the queue wakes
    /// nobody; who comes next asks by itself.)
    pub(super) async fn pass_turn_on(&self, before: Option<State>, after: Option<State>) {
        let Some(before) = before else { return };
        let loads = after.is_some_and(State::is_busy);
        if before.is_busy() != loads {
            self.wake_queue().await;
        }
    }

    /// Whoever is first in the queue looks again at once. Without that they do
    /// after a while: a failure here costs time alone.
    pub(super) async fn wake_queue(&self) {
        let woken = match self.store.client().await {
            Ok(client) => moves::wake_queue(&**client, MOST_BEFORE).await,
            Err(error) => Err(error),
        };
        match woken {
            Ok(0) => {}
            Ok(_) => self.signals.replies.notify(),
            Err(error) => warn!(%error, "moves that wait for their turn look again later"),
        }
    }

    /// No node is free, or it is not the move's turn: said once per reason,
    /// tried again and again. A turn that is given back wakes those who come
    /// first ([`Driver::wake_queue`]); the others needn't ask often.
    async fn wait_for_node(
        &self,
        tx: deadpool_postgres::Transaction<'_>,
        from: &Move,
        wait: Wait<'_>,
        now: Timestamp,
    ) -> Result<Looked, StoreError> {
        let (Wait::For(why) | Wait::Room(why) | Wait::Turn(why)) = wait;
        let news = from.error.as_deref() != Some(why);
        let mut to = from.revised(now);
        to.updated_at = from.updated_at;
        to.error = Some(why.to_owned());
        to.durable.attempts = from.durable.attempts.saturating_add(1);
        let mut pause = self.timing.pause(to.durable.attempts);
        to.durable.queued = matches!(wait, Wait::Turn(_));
        to.durable.no_room = matches!(wait, Wait::Room(_));
        if to.durable.queued {
            let before = moves::before(&*tx, from, MOST_BEFORE).await?;
            if before.iter().any(|other| other.source == from.source) {
                pause = self.timing.queue_pause;
            }
            pause = spread(pause);
        }
        let due = later(now, pause);
        to.durable.not_before = Some(due);
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        if news {
            record(&tx, &to, why, None, now, true).await?;
            info!(move_id = %from.id, tenant = %from.tenant, why, "a move waits");
        }
        tx.commit().await?;
        Ok(Looked::Waits(Some(due)))
    }
}

/// Between a half and all of a pause, so that thousands don't ask at once.
fn spread(pause: Duration) -> Duration {
    rand::rng().random_range(pause / 2..=pause)
}
