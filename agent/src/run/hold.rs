//! The hold point: its thread, its listener, and what nginx is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::RunError;
use crate::config::Config;
use crate::hold::moves::{Front, HoldPoint, Moves, Untouched};
use crate::hold::{Hold, Settings};
use crate::mover::supervisor::Identify;
use crate::nginx::Nginx;

/// The hold point as it was prepared; it serves once [`Prepared::serve`] is
/// called.
pub(super) struct Prepared {
    hold: Hold,
    listener: std::net::TcpListener,
    thread: Thread,
}

/// A runtime of one thread, which may be dropped inside another runtime.
struct Thread(Option<Runtime>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the configuration asks for: the point to serve, if any, and what moves
/// talk to.
///
/// # Errors
/// [`RunError`], when the port is taken or an earlier run's records can't be
/// read.
pub(super) async fn prepare(
    config: &Config,
    identify: Identify,
) -> Result<(Option<Prepared>, Arc<dyn HoldPoint>), RunError> {
    let Some(section) = &config.hold else { return Ok((None, Arc::new(Untouched))) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("hold")
        .enable_all()
        .build()
        .map_err(|error| RunError::Hold(format!("no thread: {error}")))?;
    let settings =
        Settings { application: section.application, max_connections: section.max_connections };
    let hold = Hold::new(settings, runtime.handle().clone());
    let front = match &config.nginx {
        _ if section.always => Front::Always,
        Some(nginx) => Front::Snippets(Nginx::open(
            nginx.dir.clone(),
            nginx.verdict.clone(),
            Duration::from_secs(nginx.worker_shutdown_s),
        )?),
        None => Front::Nothing,
    };
    let moves = Moves::load(hold.clone(), front, identify, &config.state_dir)?;
    let listening = |error| RunError::Hold(format!("hold.listen {}: {error}", section.listen));
    let listener = TcpListener::bind(section.listen)
        .await
        .and_then(TcpListener::into_std)
        .map_err(listening)?;
    let thread = Thread(Some(runtime));
    Ok((Some(Prepared { hold, listener, thread }), Arc::new(moves)))
}

impl Prepared {
    /// The hold point, for the status.
    pub(super) fn hold(&self) -> Hold {
        self.hold.clone()
    }

    /// Serves until `stop`, as a task of `tasks`.
    pub(super) fn serve(self, tasks: &TaskTracker, stop: CancellationToken) {
        let Self { hold, listener, thread } = self;
        let Some(runtime) = &thread.0 else { return };
        let served = tasks.track_future(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => hold.serve(listener, stop).await,
                Err(error) => tracing::error!(%error, "the hold point can't listen"),
            }
        });
        let ended = tasks.spawn_on(served, runtime.handle());
        tasks.spawn(async move {
            // The thread lives until its last request has ended.
            let _thread = thread;
            if let Err(error) = ended.await {
                tracing::error!(%error, "the hold point ended");
            }
        });
    }
}
