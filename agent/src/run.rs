//! The running agent: starts its parts, makes the rounds, and ends them in
//! order.
//!
//! systemd is told READY after the first finished round, and WATCHDOG after
//! every one: an agent whose rounds have stopped is as good as dead, however
//! alive its process is.

mod coordinator;
mod hold;
mod mover;
mod recovery;

pub use recovery::{locked_supervisor, supervisor};

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::coordinator::Coordinator;
use crate::collect::collector::Collector;
use crate::collect::machine;
use crate::command::JournalError;
use crate::config::Config;
use crate::durable::{DurableError, StateLock, StateLockError};
use crate::identity::{IdentityError, StoredIdentity};
use crate::link::LinkError;
use crate::status::board::Board;
use crate::status::socket::{SocketError, StatusSocket};

/// How long the parts may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The status socket.
    #[error(transparent)]
    Status(#[from] SocketError),
    /// A source could not be prepared.
    #[error("the collectors can't start: {0}")]
    Collect(String),
    /// This machine is not enrolled, or its identity can't be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal of commands.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What an earlier run left of its moves can't be read.
    #[error(transparent)]
    Moves(#[from] DurableError),
    /// Somebody else works on the state directory.
    #[error(transparent)]
    State(#[from] StateLockError),
    /// The part for moves could not be prepared.
    #[error("moves: {0}")]
    Mover(String),
    /// The hold point could not be prepared.
    #[error("hold point: {0}")]
    Hold(String),
    /// The link could not be prepared.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Runs until `stop`.
///
/// # Errors
/// [`RunError`], when it can't start; once it runs, it runs.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let tracker = TaskTracker::new();
    // Parts end at this token, so that an error below ends those that run.
    let parts = stop.child_token();
    let _ends_the_parts = parts.clone().drop_guard();

    let identity = StoredIdentity::load(&config.state_dir)?;
    let _lock = StateLock::take(&config.state_dir)?;
    let board = Board::new(&config.coordinator.address, config.interval_ms);
    board.update(|document| document.machine = machine::here(config.machine.tenant));
    let socket = StatusSocket::bind(&config.status_socket).await?;
    tracker.spawn(socket.serve(board.clone(), parts.clone()));
    // Before all that takes time: a move that was in its cut-over when the
    // last agent ended is settled now.
    let mover = mover::start(&config, &identity, &board, &tracker, &parts).await?;
    let mut collector = Collector::start(&config, &tracker, &parts).map_err(RunError::Collect)?;

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %identity.node,
        name = identity.node_name,
        coordinator = config.coordinator.address,
        interval_ms = config.interval_ms,
        "the agent runs"
    );
    let interval = Duration::from_millis(config.interval_ms.into());
    // The Hello says how large this machine is, so it is measured first.
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = collector.read(interval) => {}
    }
    let capacity = collector.capacity(config.host.cpu_millicores);
    let coordinator =
        Coordinator::start(&config, identity, capacity, &mover, &board, &tracker, &parts)?;
    rounds(collector, interval, &board, &coordinator, &parts).await;

    notify(&[NotifyState::Stopping]);
    tracing::info!("the agent ends");
    parts.cancel();
    tracker.close();
    let ended = async {
        coordinator.ended().await;
        tracker.wait().await;
    };
    if tokio::time::timeout(FAREWELL, ended).await.is_err() {
        tracing::warn!(tasks = tracker.len(), "some parts did not end in time");
    }
    Ok(())
}

/// One round after another, until `stop`. The coordinator may ask for another
/// interval than the configured one.
async fn rounds(
    mut collector: Collector,
    mut interval: Duration,
    board: &Board,
    coordinator: &Coordinator,
    stop: &CancellationToken,
) {
    let mut orders = coordinator.orders.clone();
    let mut ticks = ticks(interval);
    let mut ready = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Before anything is consumed: with no room for its report, this
        // round's increases stay for the next one.
        let Ok(room) = coordinator.reports.try_reserve() else {
            tracing::warn!("the link takes no reports; the next one covers a longer interval");
            continue;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = collector.read(interval) => {}
        }
        let (round, ages) = collector.assemble(interval);
        board.round(&round, &ages);
        let status = format!("{} tenants", round.tenants.len());
        room.send(round.report);
        if ready {
            notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        } else {
            ready = true;
            notify(&[NotifyState::Ready, NotifyState::Watchdog, NotifyState::Status(&status)]);
        }
        let wanted = orders.borrow_and_update().report_interval_ms;
        if let Some(ms) = wanted
            && interval != Duration::from_millis(ms.into())
        {
            tracing::info!(interval_ms = ms, "the coordinator asks for another interval");
            interval = Duration::from_millis(ms.into());
            ticks = self::ticks(interval);
            board.update(|document| document.interval_ms = ms);
        }
    }
}

/// Ticks that begin after one interval; a late round delays the next ones.
fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Tells systemd; without one, nobody.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
