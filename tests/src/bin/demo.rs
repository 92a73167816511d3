//! `make demo`: see `webhost_tests::demo`.
//!
//! Exits with 0 when everything that the demo promises happened, with 1 when
//! it didn't, with 130 on Ctrl-C; in every case nothing is left running.
//! `DEMO_STAY=1` keeps the fleet for a look around, until Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use webhost_tests::containers::Engine;
use webhost_tests::demo::story;
use webhost_tests::demo::timeline::Timeline;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let timeline = Timeline::default();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    // Short: a unix socket's path may have 107 bytes.
    let engine_dir = tempfile::Builder::new().prefix("wh-engine-").tempdir()?;
    let engine = tokio::select! {
        engine = Engine::start(engine_dir.path()) => engine.map_err(|error| format!("{error:#}")),
        _ = interrupted.recv() => return Ok(stopped(&timeline)),
    };
    let played = tokio::select! {
        played = story::play(&timeline, engine.as_ref().map_err(Clone::clone)) => Some(played),
        _ = interrupted.recv() => None,
        _ = terminated.recv() => None,
    };
    let ended = match played {
        None => Ok(ExitCode::from(130)),
        Some(Err(error)) => {
            timeline.text(&format!("the demo failed: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
        Some(Ok((fleet, summary))) => {
            summary.show(&timeline);
            let path = PathBuf::from("target/demo/summary.json");
            let written = summary.write(&path);
            timeline.text(&format!("written to {}", path.display()));
            if std::env::var_os("DEMO_STAY").is_some_and(|stay| stay == "1") {
                timeline.text(&story::look_around(&fleet)?);
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                }
            }
            timeline.say("demo", "ending all processes");
            drop(fleet);
            written.map(|()| match summary.verdict() {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => {
                    timeline.text(&format!("the demo failed: {why}"));
                    ExitCode::FAILURE
                }
            })
        }
    };
    if let Ok(engine) = engine {
        engine.stop().await;
    }
    timeline.say("demo", "nothing is left running");
    ended
}

fn stopped(timeline: &Timeline) -> ExitCode {
    timeline.say("demo", "stopped; nothing is left running");
    ExitCode::from(130)
}
