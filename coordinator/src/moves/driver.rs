//! The driver: a reconcile loop without input. It wakes by signal or period,
//! reads every open move, and takes each as far as it can go now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use webhost_proto::ids::MoveId;

use super::apply::applied;
use super::consider::{Action, consider, transition};
use super::limits::Limits;
use super::next::Transition;
use super::policy::Policy;
use super::progress::Progress;
use super::state::{Ending, State, Step, Undo};
use super::steps::{self, Answer, Context};
use super::timing::Timing;
use crate::link::Signals;
use crate::slots::Slots;
use crate::store::moves::{self, Move, Open};
use crate::store::{Store, StoreError, commands, nodes};

mod books;
mod told;
mod turn;
mod watch;

use told::{log, record};

/// What the driver is made of. It holds nothing that a crash could cost: the
/// progress is the newest figure of what an agent does, and comes again.
pub struct Driver {
    store: Store,
    slots: Slots,
    timing: Timing,
    signals: Signals,
    progress: Progress,
    rules: Rules,
}

/// What moves are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Rows per second that a copy may reach; 0 is unlimited.
    pub max_rows_per_second: u64,
    /// The same for copies to a shared node; the smaller of both holds.
    pub max_rows_per_second_to_shared: u64,
    /// How many moves may be under way.
    pub limits: Limits,
    /// When a move goes back by itself.
    pub auto_rollback: Policy,
    /// How long the old copy is kept once the way back has ended.
    pub keep_old_copy: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self::from(&crate::config::Moves::default())
    }
}

impl From<&crate::config::Moves> for Rules {
    fn from(config: &crate::config::Moves) -> Self {
        Self {
            max_rows_per_second: config.max_rows_per_second,
            max_rows_per_second_to_shared: config.max_rows_per_second_to_shared,
            limits: Limits {
                per_source: config.max_per_source,
                per_target: config.max_per_target,
                in_fleet: config.max_in_fleet,
            },
            auto_rollback: Policy::from(&config.auto_rollback),
            keep_old_copy: Duration::from_secs(config.keep_old_copy_s),
        }
    }
}

impl Rules {
    /// Rows per second that a copy to a node of `mode` may reach; 0 is
    /// unlimited.
    pub(super) fn rate(&self, mode: &str) -> u64 {
        let shared = if mode == "multi_tenant" { self.max_rows_per_second_to_shared } else { 0 };
        match (self.max_rows_per_second, shared) {
            (0, rate) | (rate, 0) => rate,
            (one, other) => one.min(other),
        }
    }
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
    pub fn new(
        store: Store,
        slots: Slots,
        timing: Timing,
        signals: Signals,
        progress: Progress,
    ) -> Self {
        Self { store, slots, timing, signals, progress, rules: Rules::default() }
    }

    /// Holds this driver's moves to `rules`.
    #[must_use]
    pub const fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Drives until `shutdown`. Nothing is lost by ending it anywhere.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut replies = self.signals.replies.listen();
        self.wake_queue().await;
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

    /// Takes every open move that is due as far as it can go at `now`; answers
    /// when the first of them is due again without a signal.
    ///
    /// # Errors
    /// Only when the open moves can't be read. What goes wrong with one move
    /// is logged and keeps none of the others.
    pub async fn tick(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let ids = moves::due_ids(&**self.store.client().await?, now).await?;
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
        let mut before = None;
        for _ in 0..MOST_LOOKS {
            let open = moves::open(&**self.store.client().await?, id).await?;
            let state = open.as_ref().map(|open| open.row.state);
            self.pass_turn_on(before, state).await;
            before = state;
            let Some(open) = open else {
                self.progress.forget(id);
                return Ok(None);
            };
            match self.look(&open, now).await? {
                Looked::Changed | Looked::Overtaken => {}
                Looked::Waits(due) => {
                    self.alarm_if_stuck(&open.row, now).await?;
                    self.alarm_if_slow(&open.row, now).await?;
                    if self.watch_health(&open.row, now).await? == Looked::Changed {
                        continue;
                    }
                    return Ok(due);
                }
            }
        }
        Ok(Some(now))
    }

    async fn look(&self, open: &Open, now: Timestamp) -> Result<Looked, StoreError> {
        let row = &open.row;
        let context = self.context(row, now);
        match consider(row, open.sent.as_ref(), context.as_ref(), now) {
            Action::Wait(due) => Ok(Looked::Waits(due)),
            Action::Reserve => self.reserve(row, now).await,
            Action::Send => self.send(row, now).await,
            Action::EndStep(step) => self.end_step(row, step, now).await,
            Action::Books => self.books(row, now).await,
            Action::Settle(answer) => self.settle(row, &answer, now).await,
        }
    }

    /// What the step's command is made of; none before a target is promised.
    fn context<'a>(&self, row: &'a Move, now: Timestamp) -> Option<Context<'a>> {
        Some(Context {
            id: row.id,
            tenant: row.tenant,
            source: row.source,
            target: row.target?,
            epoch: row.epoch,
            durable: &row.durable,
            now,
            max_rows_per_second: self.rules.rate(&row.durable.wanted.mode),
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
        let transition = transition(from, answer, now);
        let (mut to, message) = applied(from, answer, transition, &self.timing, now);
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        moves::settle_commands(&*tx, from.id).await?;
        follow(&tx, from, &to).await?;
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

    /// Tells the agent to end the running step for a pause, once: the step's
    /// own command is answered then, and that is what the move waits for.
    async fn end_step(
        &self,
        from: &Move,
        step: Step,
        now: Timestamp,
    ) -> Result<Looked, StoreError> {
        let mut to = from.revised(now);
        to.updated_at = from.updated_at;
        to.durable.pause_sent = true;
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        let outgoing =
            self.context(&to, now).and_then(|context| steps::pause_command(step, &context));
        if let Some(outgoing) = outgoing {
            let expires = self.timing.expiry(Some(step), now, to.durable.deadline);
            commands::enqueue(&*tx, outgoing.node, Some(to.id), outgoing.kind, expires).await?;
        }
        if !moves::save(&*tx, from, &to).await? {
            return Ok(Looked::Overtaken);
        }
        tx.commit().await?;
        self.signals.commands.notify();
        Ok(Looked::Changed)
    }

    /// Whether a switch that was asked for is to be settled by the target's
    /// agent: the source's has been silent for long.
    async fn asks_target(
        &self,
        tx: &tokio_postgres::Transaction<'_>,
        to: &Move,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let switches = matches!(to.state, State::Step(Step::CutOver | Step::RollBack));
        if !switches || to.durable.attempts == 0 {
            return Ok(false);
        }
        let silent = SignedDuration::try_from(self.timing.source_gone).unwrap_or_default();
        let since = now.checked_sub(silent).unwrap_or(Timestamp::MIN);
        nodes::silent_since(tx, to.source, since).await
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
        to.durable.asked_target = self.asks_target(tx, to, now).await?;
        to.durable.pause_sent = false;
        let outgoing = self.context(to, now).and_then(|context| match state {
            State::Step(step) => steps::command(step, &context),
            State::Undoing(undo) => Some(steps::undo_command(undo, &context)),
            State::AwaitingApproval
            | State::AwaitingConfirmation
            | State::WaitingForNode
            | State::Paused
            | State::Ended(_) => None,
        });
        let Some(outgoing) = outgoing else { return Ok(false) };
        let step = if let State::Step(step) = state { Some(step) } else { None };
        // A step that a person's wish began has its times from here on.
        if to.durable.attempts == 0 {
            let (timing, durable) = (&self.timing, &mut to.durable);
            durable.deadline = durable.deadline.or(timing.deadline(state, durable, now));
            durable.alarm_at = durable.alarm_at.or(timing.alarm(state, now));
        }
        let expires = self.timing.expiry(step, now, to.durable.deadline);
        let id = commands::enqueue(tx, outgoing.node, Some(to.id), outgoing.kind, expires).await?;
        to.durable.command = Some(id);
        to.durable.not_before = None;
        to.durable.attempts += 1;
        if step == Some(Step::CutOver) {
            to.durable.cut_over_sent = true;
            self.remember_health(to, now);
        }
        Ok(true)
    }
}

/// The books follow the change of a move from `from` to `to`, in its own
/// transaction.
async fn follow(
    tx: &tokio_postgres::Transaction<'_>,
    from: &Move,
    to: &Move,
) -> Result<(), StoreError> {
    if from.state == to.state {
        return Ok(());
    }
    match (from.state, to.state) {
        (State::Undoing(Undo::Abandon), State::Undoing(Undo::CleanTarget)) => {
            moves::keep_incoming(tx, from).await
        }
        (State::Undoing(Undo::CleanTarget), State::Step(Step::CloseTunnel)) => match from.target {
            Some(target) => moves::end_kept(tx, from, target).await,
            None => Ok(()),
        },
        (State::Step(Step::Finish | Step::CleanUp), State::Step(Step::CloseTunnel)) => {
            match from.old_copy() {
                Some(node) => moves::end_kept(tx, from, node).await,
                None => Ok(()),
            }
        }
        // An abandoned move gave its promise up long ago, and another one may
        // have made a new one.
        (_, State::Ended(Ending::Failed | Ending::Cancelled | Ending::Checked))
            if !from.durable.abandoned =>
        {
            moves::release_incoming(tx, from).await
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
