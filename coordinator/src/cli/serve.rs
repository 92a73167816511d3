//! `serve`: the service, with systemd's words for ready and alive.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::CliError;
use super::open::{State, sealing_key};
use crate::config::Config;
use crate::run::{self, Listeners};

pub(super) async fn serve(config: Config, embedded: bool) -> Result<(), CliError> {
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = told.cancelled() => {}
        }
        told.cancel();
    });
    let state = State::serve(&config, embedded).await?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let key = sealing_key(&config, credentials.as_deref(), state.embedded)?;
    let listeners = Listeners::bind(&config).await?;
    let alive = tasks.clone();
    let watched = shutdown.clone();
    let ready = move |_: &run::Addresses| {
        notify(&[sd_notify::NotifyState::Ready]);
        if let Some(period) = sd_notify::watchdog_enabled() {
            alive.spawn(async move {
                // Runs on the same threads as everything else: a runtime
                // that is stuck stops it.
                loop {
                    tokio::select! {
                        () = watched.cancelled() => return,
                        () = tokio::time::sleep(period / 2) => {}
                    }
                    notify(&[sd_notify::NotifyState::Watchdog]);
                }
            });
        }
    };
    let outcome =
        run::run(config, state.store.clone(), &key, listeners, ready, shutdown.clone()).await;
    notify(&[sd_notify::NotifyState::Stopping]);
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    // The private PostgreSQL blocks until it has shut down.
    tokio::task::spawn_blocking(move || drop(state)).await.map_err(super::OpenError::Task)?;
    outcome.map_err(Into::into)
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}
