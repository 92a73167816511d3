//! The running agent: starts its parts, makes the rounds, and ends them in
//! order.
//!
//! systemd is told READY after the first finished round, and WATCHDOG after
//! every one: an agent whose rounds have stopped is as good as dead, however
//! alive its process is.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::collect::collector::Collector;
use crate::config::Config;
use crate::link::report::CollectedReport;
use crate::status::board::Board;
use crate::status::socket::{SocketError, StatusSocket};

/// How long the parts may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// Reports between the collectors and the link. When it is full the round's
/// increases stay with the collectors and are in the next report.
const REPORTS: usize = 4;

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The status socket.
    #[error(transparent)]
    Status(#[from] SocketError),
    /// A source could not be prepared.
    #[error("the collectors can't start: {0}")]
    Collect(String),
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

    let board = Board::new(&config.coordinator.address, config.interval_ms);
    let socket = StatusSocket::bind(&config.status_socket).await?;
    tracker.spawn(socket.serve(board.clone(), parts.clone()));
    let collector = Collector::start(&config, &tracker, &parts).map_err(RunError::Collect)?;
    let (reports, _link) = mpsc::channel(REPORTS);

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        coordinator = config.coordinator.address,
        interval_ms = config.interval_ms,
        "the agent runs"
    );
    let interval = Duration::from_millis(config.interval_ms.into());
    rounds(collector, interval, &board, &reports, &parts).await;

    notify(&[NotifyState::Stopping]);
    tracing::info!("the agent ends");
    tracker.close();
    if tokio::time::timeout(FAREWELL, tracker.wait()).await.is_err() {
        tracing::warn!(tasks = tracker.len(), "some parts did not end in time");
    }
    Ok(())
}

/// One round after another, until `stop`.
async fn rounds(
    mut collector: Collector,
    interval: Duration,
    board: &Board,
    reports: &mpsc::Sender<CollectedReport>,
    stop: &CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ready = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = collector.read(interval) => {}
        }
        let (round, ages) = collector.assemble(interval);
        board.round(&round, &ages);
        let tenants = round.tenants.len();
        if reports.try_send(round.report).is_err() {
            tracing::trace!("nobody takes reports");
        }
        let status = format!("{tenants} tenants");
        if ready {
            notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        } else {
            ready = true;
            notify(&[NotifyState::Ready, NotifyState::Watchdog, NotifyState::Status(&status)]);
        }
    }
}

/// Tells systemd; without one, nobody.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
