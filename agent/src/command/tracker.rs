//! Runs commands by their ids: one that comes again attaches to the one that
//! runs, or is answered with the outcome that it had.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use webhost_proto::ids::CommandId;
use webhost_proto::wire::command_reply::Outcome;
use webhost_proto::wire::{
    Accepted, Command, CommandReply, Failed, FailureKind, MoveProgress, MoveStepKind, command,
};

use super::journal::Journal;
use super::{CommandName, Handler};

/// Commands at a time; a coordinator in its senses sends a handful.
const MAX_RUNNING: usize = 64;
/// Replies that wait for a session. When it is full, commands wait with what
/// they have to say, and progress is dropped.
const REPLIES: usize = 64;
/// The most often that progress of one command is told.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// The handlers, by what they handle. What has none is refused: this is the
/// agent's own list of what it lets the coordinator do.
#[derive(Clone, Default)]
pub struct Registry {
    handlers: HashMap<CommandName, Arc<dyn Handler>>,
}

impl Registry {
    /// Lets the coordinator send `name`, carried out by `handler`.
    #[must_use]
    pub fn with(mut self, name: CommandName, handler: Arc<dyn Handler>) -> Self {
        self.handlers.insert(name, handler);
        self
    }
}

/// A running command, for the status.
#[derive(Clone, Debug, Serialize)]
pub struct RunningCommand {
    /// Its id.
    pub id: CommandId,
    /// What it is.
    pub name: CommandName,
    /// Since when: microseconds since the Unix epoch.
    pub since_us: i64,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Tracker {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    running: Mutex<HashMap<CommandId, RunningCommand>>,
    journal: Mutex<Journal>,
    replies: mpsc::Sender<CommandReply>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// The coordinator's clock minus ours, in microseconds.
    clock_offset_us: AtomicI64,
}

/// What to do with a command that came.
enum Admission {
    Answer(Outcome),
    Run(Arc<dyn Handler>, command::Kind),
}

impl Tracker {
    /// A tracker, and the replies that it has for the coordinator. Running
    /// commands are dropped at `shutdown`; they come again and resume.
    pub fn new(
        registry: Registry,
        journal: Journal,
        shutdown: CancellationToken,
    ) -> (Self, mpsc::Receiver<CommandReply>) {
        let (replies, receiver) = mpsc::channel(REPLIES);
        let inner = Inner {
            registry,
            running: Mutex::default(),
            journal: Mutex::new(journal),
            replies,
            tasks: TaskTracker::new(),
            shutdown,
            clock_offset_us: AtomicI64::new(0),
        };
        (Self { inner: Arc::new(inner) }, receiver)
    }

    /// The coordinator's clock, as it was told just now; a command's time
    /// ends by it, not by ours.
    pub fn set_clock(&self, coordinator_us: i64) {
        let offset = coordinator_us.saturating_sub(now_us());
        self.inner.clock_offset_us.store(offset, Ordering::Relaxed);
    }

    /// What runs at the moment, oldest first.
    pub fn running(&self) -> Vec<RunningCommand> {
        let mut running: Vec<_> = self.lock_running().values().cloned().collect();
        running.sort_by_key(|command| (command.since_us, command.id));
        running
    }

    /// Waits until every command has ended, after shutdown.
    pub async fn wait(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Takes a command: starts it, attaches to it, or answers it.
    pub fn receive(&self, command: Command) {
        let Ok(id) = CommandId::from_wire(&command.id) else {
            warn!("a command without a usable id was dropped");
            return;
        };
        match self.admit(id, command) {
            Admission::Answer(outcome) => {
                let this = self.clone();
                self.inner.tasks.spawn(async move { this.reply(id, outcome).await });
            }
            Admission::Run(handler, kind) => {
                let this = self.clone();
                self.inner.tasks.spawn(async move { this.run(id, handler, kind).await });
            }
        }
    }

    fn admit(&self, id: CommandId, command: Command) -> Admission {
        let mut running = self.lock_running();
        if running.contains_key(&id) {
            info!(%id, "command came again while it runs");
            return Admission::Answer(Outcome::Accepted(Accepted {}));
        }
        if let Some(known) = self.lock_journal().outcome(id).and_then(|reply| reply.outcome.clone())
        {
            info!(%id, "command came again after its end");
            return Admission::Answer(known);
        }
        let Some(kind) = command.kind else {
            return Admission::Answer(failed(
                FailureKind::Refused,
                "this agent doesn't know that kind of command: install matching versions",
            ));
        };
        let name = CommandName::of(&kind);
        let offset = self.inner.clock_offset_us.load(Ordering::Relaxed);
        if command.expires_at_us <= now_us().saturating_add(offset) {
            // It may have run before a restart that lost its outcome; nothing
            // is said about that.
            warn!(%id, %name, "command refused: its time ended");
            return Admission::Answer(failed(FailureKind::Expired, "the command's time ended"));
        }
        let Some(handler) = self.inner.registry.handlers.get(&name) else {
            warn!(%id, %name, "command refused: this agent doesn't let the coordinator do it");
            let message = format!("this agent does not carry out {name}");
            return Admission::Answer(not_carried_out(&kind, &message));
        };
        if running.len() >= MAX_RUNNING {
            warn!(%id, %name, running = running.len(), "command refused: too many run");
            return Admission::Answer(failed(
                FailureKind::Interrupted,
                "too many commands run at once",
            ));
        }
        running.insert(id, RunningCommand { id, name, since_us: now_us() });
        info!(%id, %name, "command started");
        Admission::Run(handler.clone(), kind)
    }

    async fn run(self, id: CommandId, handler: Arc<dyn Handler>, kind: command::Kind) {
        self.reply(id, Outcome::Accepted(Accepted {})).await;
        let (progress, seen) = watch::channel(None);
        // A task of its own, so that a panic in it ends the command and not
        // the agent's account of it.
        let work = self.inner.tasks.spawn({
            let shutdown = self.inner.shutdown.clone();
            async move {
                tokio::select! {
                    () = shutdown.cancelled() => None,
                    outcome = handler.handle(kind, progress) => Some(outcome),
                }
            }
        });
        tokio::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = self.tell_progress(id, seen) => work.await,
        };
        let outcome = match ended {
            Ok(Some(outcome)) => outcome,
            // The agent ends: the command comes again and resumes.
            Ok(None) => {
                self.lock_running().remove(&id);
                return;
            }
            Err(error) => {
                warn!(%id, %error, "a command's handler failed");
                failed(FailureKind::Interrupted, "the agent failed while carrying it out")
            }
        };
        self.finish(id, outcome).await;
    }

    /// Journal first, then the reply: what the coordinator has heard of is
    /// never run again.
    async fn finish(&self, id: CommandId, outcome: Outcome) {
        let reply = CommandReply { command_id: id.to_wire(), outcome: Some(outcome.clone()) };
        let this = self.clone();
        let append = tokio::task::spawn_blocking(move || this.lock_journal().append(id, reply));
        match append.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%id, %error, "the outcome is not durable"),
            Err(error) => warn!(%id, %error, "the outcome is not durable"),
        }
        self.lock_running().remove(&id);
        info!(%id, outcome = outcome_name(&outcome), "command ended");
        self.reply(id, outcome).await;
    }

    /// Never ends while the handler holds its end of `seen`; then neither, as
    /// its caller waits for the handler itself.
    async fn tell_progress(&self, id: CommandId, mut seen: watch::Receiver<Option<MoveProgress>>) {
        while seen.changed().await.is_ok() {
            let latest = seen.borrow_and_update().clone();
            if let Some(progress) = latest {
                let outcome = Some(Outcome::Progress(progress));
                let reply = CommandReply { command_id: id.to_wire(), outcome };
                // Progress that finds no room is out of date before there is.
                let _dropped = self.inner.replies.try_send(reply);
            }
            tokio::time::sleep(PROGRESS_PERIOD).await;
        }
    }

    /// Waits for room: a reply is not lost while the link is down.
    async fn reply(&self, id: CommandId, outcome: Outcome) {
        let reply = CommandReply { command_id: id.to_wire(), outcome: Some(outcome) };
        tokio::select! {
            // What is journaled is answered when the command comes again.
            () = self.inner.shutdown.cancelled() => {}
            // An error says that the link has ended with the agent.
            _ended = self.inner.replies.send(reply) => {}
        }
    }

    fn lock_running(&self) -> std::sync::MutexGuard<'_, HashMap<CommandId, RunningCommand>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.inner.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(kind: FailureKind, message: &str) -> Outcome {
    Outcome::Failed(Failed { kind: kind.into(), message: message.to_owned(), preflight: None })
}

/// "Refused" says something about a tenant's fence when it answers a cut-over
/// or an undo, and only who has read the fence may say it.
fn not_carried_out(kind: &command::Kind, message: &str) -> Outcome {
    let about_a_fence = match kind {
        command::Kind::MoveStep(step) => {
            matches!(
                step.step(),
                MoveStepKind::CutOver
                    | MoveStepKind::Undo
                    | MoveStepKind::RollBack
                    | MoveStepKind::Abandon
            )
        }
        _ => false,
    };
    let kind = if about_a_fence { FailureKind::Interrupted } else { FailureKind::Refused };
    failed(kind, message)
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Failed(_) => "failed",
        Outcome::Accepted(_) | Outcome::Progress(_) => "unfinished",
        _ => "done",
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
