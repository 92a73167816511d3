//! The driver: a reconcile loop without input. It wakes by signal or period,
//! reads every open move, and takes each as far as it can go now.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use webhost_proto::ids::MoveId;

use super::apply::applied;
use super::consider::{Action, consider, transition};
use super::next::{Outcome, Transition};
use super::progress::Progress;
use super::state::{Ending, State, Step};
use super::steps::{self, Answer, Context};
use super::target;
use super::timing::{Timing, later};
use crate::link::Signals;
use crate::slots::Slots;
use crate::store::moves::{self, Move, Open};
use crate::store::{Store, StoreError, commands, tenants};

mod told;

use told::{log, record};

/// What the driver is made of. It holds nothing that a crash could cost: the
/// progress is the newest figure of what an agent does, and comes again.
pub struct Driver {
    store: Store,
    slots: Slots,
    timing: Timing,
    signals: Signals,
    progress: Progress,
    /// Rows per second that a copy may reach; 0 is unlimited.
    max_rows_per_second: u64,
}

/// One look at a move came to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// Something was written: look again at once.
    Changed,
    /// Somebody else was faster: look again at once.
    Overtaken,
    /// Nothing to do until a signal or that time.
    Waits(Option<Timestamp>),
}

/// How many changes one move may go through before the others get their turn;
/// more than it has states.
const MOST_LOOKS: usize = 32;

impl Driver {
    /// A driver over `store`; [`Driver::run`] makes it drive.
    pub const fn new(
        store: Store,
        slots: Slots,
        timing: Timing,
        signals: Signals,
        progress: Progress,
    ) -> Self {
        Self { store, slots, timing, signals, progress, max_rows_per_second: 0 }
    }

    /// Limits the copies of this driver's moves.
    #[must_use]
    pub const fn with_max_rows_per_second(mut self, rows: u64) -> Self {
        self.max_rows_per_second = rows;
        self
    }

    /// Drives until `shutdown`. Nothing is lost by ending it anywhere.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut replies = self.signals.replies.listen();
        loop {
            let now = Timestamp::now();
            let pause = match self.tick(now).await {
                Ok(due) => self.pause(due, now),
                Err(error) => {
                    warn!(%error, "moves can't be driven at the moment");
                    self.timing.period
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = replies.heard() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn pause(&self, due: Option<Timestamp>, now: Timestamp) -> Duration {
        let until = due.and_then(|due| Duration::try_from(due.duration_since(now)).ok());
        until.unwrap_or(self.timing.period).min(self.timing.period)
    }

    /// Takes every open move as far as it can go at `now`; answers when the
    /// first of them is due again without a signal.
    ///
    /// # Errors
    /// Only when the open moves can't be read. What goes wrong with one move
    /// is logged and keeps none of the others.
    pub async fn tick(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let ids = moves::open_ids(&**self.store.client().await?).await?;
        let mut first = None;
        for id in ids {
            match self.drive(id, now).await {
                Ok(due) => first = [first, due].into_iter().flatten().min(),
                Err(error) => warn!(move_id = %id, %error, "a move can't be driven"),
            }
        }
        Ok(first)
    }

    async fn drive(&self, id: MoveId, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        for _ in 0..MOST_LOOKS {
            let open = moves::open(&**self.store.client().await?, id).await?;
            let Some(open) = open else {
                self.progress.forget(id);
                return Ok(None);
            };
            match self.look(&open, now).await? {
                Looked::Changed | Looked::Overtaken => {}
                Looked::Waits(due) => {
                    self.alarm_if_stuck(&open.row, now).await?;
                    return Ok(due);
                }
            }
        }
        Ok(Some(now))
    }

    async fn look(&self, open: &Open, now: Timestamp) -> Result<Looked, StoreError> {
        let row = &open.row;
        let context = self.context(row);
        match consider(row, open.sent.as_ref(), context.as_ref(), now) {
            Action::Wait(due) => Ok(Looked::Waits(due)),
            Action::Reserve => self.reserve(row, now).await,
            Action::Send => self.send(row, now).await,
            Action::Route => self.route(row, now).await,
            Action::Settle(answer) => self.settle(row, &answer, now).await,
        }
    }

    /// What the step's command is made of; none before a target is promised.
    fn context<'a>(&self, row: &'a Move) -> Option<Context<'a>> {
        Some(Context {
            id: row.id,
            tenant: row.tenant,
            source: row.source,
            target: row.target?,
            epoch: row.epoch,
            durable: &row.durable,
            max_rows_per_second: self.max_rows_per_second,
        })
    }

    /// A step came to something: the row, its history, the audit, the promise
    /// of the target and the next command change together, or not at all.
    async fn settle(
        &self,
        from: &Move,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<Looked, StoreError> {
        let transition = transition(from, answer.outcome, now);
        let (mut to, message) = applied(from, answer, transition, &self.timing, now);
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        moves::settle_commands(&*tx, from.id).await?;
        if matches!(to.state, State::Ended(Ending::Failed | Ending::Cancelled)) {
            moves::release_incoming(&*tx, from).await?;
        }
        if to.durable.not_before.is_none() {
            self.enqueue(&tx, &mut to, now).await?;
        }
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        let detail = answer.learned.as_ref().and_then(|learned| learned.result.clone());
        // A step that fails in the same way again and again is told once.
        let changed = transition != Transition::Repeat;
        if changed || from.error != to.error {
            record(&tx, &to, &message, detail, now, changed).await?;
            log(&to, &message, transition);
        }
        tx.commit().await?;
        self.signals.commands.notify();
        Ok(Looked::Changed)
    }

    /// A step is tried again, or begun after a crash in between.
    async fn send(&self, from: &Move, now: Timestamp) -> Result<Looked, StoreError> {
        let mut to = from.revised(now);
        to.updated_at = from.updated_at;
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        moves::settle_commands(&*tx, from.id).await?;
        if !self.enqueue(&tx, &mut to, now).await? {
            error!(move_id = %from.id, state = %from.state, "a step has no command to send");
            return Ok(Looked::Waits(None));
        }
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        tx.commit().await?;
        self.signals.commands.notify();
        Ok(Looked::Changed)
    }

    /// Puts the command of `to`'s state into the outbox, in `tx`. False where
    /// the state has none.
    async fn enqueue(
        &self,
        tx: &tokio_postgres::Transaction<'_>,
        to: &mut Move,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let state = to.state;
        let outgoing = self.context(to).and_then(|context| match state {
            State::Step(step) => steps::command(step, &context),
            State::Undoing(undo) => Some(steps::undo_command(undo, &context)),
            State::AwaitingApproval | State::WaitingForNode | State::Ended(_) => None,
        });
        let Some(outgoing) = outgoing else { return Ok(false) };
        let step = if let State::Step(step) = state { Some(step) } else { None };
        let expires = self.timing.expiry(step, now, to.durable.deadline);
        let id = commands::enqueue(tx, outgoing.node, Some(to.id), outgoing.kind, expires).await?;
        to.durable.command = Some(id);
        to.durable.not_before = None;
        to.durable.attempts += 1;
        if step == Some(Step::CutOver) {
            to.durable.cut_over_sent = true;
        }
        Ok(true)
    }

    /// Finds and promises a node, and begins.
    async fn reserve(&self, from: &Move, now: Timestamp) -> Result<Looked, StoreError> {
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        let mut to = from.revised(now);
        let message = if moves::still_at_source(&*tx, from).await? {
            match target::choose(&tx, &self.slots, from, now).await? {
                Ok(chosen) => {
                    moves::reserve_incoming(&*tx, from, chosen.id, &from.durable.wanted.mode)
                        .await?;
                    to.target = Some(chosen.id);
                    to.state = State::Step(Step::OpenTunnel);
                    to.error = None;
                    let budget = self.timing.budget(Step::OpenTunnel);
                    to.durable.begin_step(
                        budget.map(|budget| later(now, budget)),
                        Some(later(now, self.timing.stuck_after)),
                    );
                    to.durable.ticket = Some(super::durable::Ticket::generate());
                    to.durable.ticket_expires_at = Some(later(now, self.timing.ticket));
                    to.durable.target_tunnel = chosen.tunnel_address;
                    to.durable.target_place.clone_from(&chosen.name);
                    to.durable.tenant_host = tenants::host(&*tx, from.tenant).await?;
                    self.enqueue(&tx, &mut to, now).await?;
                    format!("{} is promised to the tenant", chosen.name)
                }
                Err(why) => return self.wait_for_node(tx, from, to, &why, now).await,
            }
        } else {
            to.state = State::Ended(Ending::Failed);
            let why = "the tenant is not active where the move was to take it from".to_owned();
            to.error = Some(why.clone());
            why
        };
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        record(&tx, &to, &message, None, now, true).await?;
        tx.commit().await?;
        self.signals.commands.notify();
        log(&to, &message, Transition::To(to.state));
        Ok(Looked::Changed)
    }

    /// No node is free: said once per reason, tried again and again.
    async fn wait_for_node(
        &self,
        tx: deadpool_postgres::Transaction<'_>,
        from: &Move,
        mut to: Move,
        why: &str,
        now: Timestamp,
    ) -> Result<Looked, StoreError> {
        let news = from.error.as_deref() != Some(why);
        to.updated_at = from.updated_at;
        to.error = Some(why.to_owned());
        to.durable.attempts = from.durable.attempts.saturating_add(1);
        let due = later(now, self.timing.pause(to.durable.attempts));
        to.durable.not_before = Some(due);
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        if news {
            record(&tx, &to, why, None, now, true).await?;
            info!(move_id = %from.id, tenant = %from.tenant, why, "a move waits for a node");
        }
        tx.commit().await?;
        Ok(Looked::Waits(Some(due)))
    }

    /// The books follow the switch, with the next command, in one transaction.
    async fn route(&self, from: &Move, now: Timestamp) -> Result<Looked, StoreError> {
        let Some(epoch) = from.durable.new_epoch else {
            error!(move_id = %from.id, "a move past its cut-over has no epoch");
            return Ok(Looked::Waits(None));
        };
        let answer = Answer::of(Outcome::Done, format!("the tenant is routed under epoch {epoch}"));
        let transition = transition(from, answer.outcome, now);
        let (mut to, message) = applied(from, &answer, transition, &self.timing, now);
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        if !moves::switch_placements(&*tx, from, epoch).await? {
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

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
