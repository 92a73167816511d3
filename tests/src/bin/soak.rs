//! The agent over half an hour in which containers come and go: its memory and
//! its descriptors must stay where they are.
//!
//! `MINUTES` is the length, 30 unless set; the first tenth is the way to a
//! steady state. Exit code 1 when memory or descriptors have grown.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_tests::containers::{Appetite, Engine};
use webhost_tests::measure::agent::processes::{Look, look, megabytes};
use webhost_tests::measure::agent::stage::{Running, Scene};

/// Containers at a time; the oldest gives way to a new one.
const AT_A_TIME: usize = 20;
/// What growth is: more than the allocator's habits explain.
const MEMORY_BYTES: u64 = 1_000_000;
const DESCRIPTORS: u64 = 8;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let minutes: u64 = match std::env::var("MINUTES") {
        Ok(text) => text.parse().with_context(|| format!("MINUTES: {text:?} is not a number"))?,
        Err(_) => 30,
    };
    ensure!(minutes > 0, "MINUTES must be at least 1");
    let dir = tempfile::Builder::new().prefix("whs").tempdir()?;
    let engine = Engine::start(dir.path()).await?;
    let soaked = soak(&engine, Duration::from_secs(minutes * 60)).await;
    engine.stop().await;
    soaked
}

async fn soak(engine: &Engine, length: Duration) -> anyhow::Result<()> {
    let mut containers = VecDeque::new();
    let mut started = 0_u64;
    for _ in 0..AT_A_TIME {
        containers.push_back(start(engine, &mut started).await?);
    }
    let page = (0..50).map(|_| Uuid::new_v4()).collect();
    let socket = Some(engine.socket());
    let scene = Scene { containers: socket, page, values: 40, ..Scene::default() };
    let agent = PathBuf::from("target/small/webhost-agent");
    let running = Running::start(&agent, &scene).await?;
    let pid = running.process.pid();
    let began = Instant::now();
    let mut steady: Option<Look> = None;
    let mut shown = began;
    let mut highest = 0;
    while began.elapsed() < length {
        if let Some(oldest) = containers.pop_front() {
            engine.remove(&oldest).await?;
        }
        containers.push_back(start(engine, &mut started).await?);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = look(pid).with_context(|| running.process.log_tail(20))?;
        if steady.is_none() && began.elapsed() >= length / 10 {
            steady = Some(now);
        }
        if steady.is_some() {
            highest = highest.max(now.rss);
        }
        if shown.elapsed() >= Duration::from_secs(60) {
            shown = Instant::now();
            say(&now, began, started, running.heard().reports);
        }
    }
    let (before, now) = (steady.context("no steady state")?, look(pid)?);
    say(&now, began, started, running.heard().reports);
    let grown = now.rss.saturating_sub(before.rss);
    let more = now.descriptors.saturating_sub(before.descriptors);
    let words = format!(
        "grown by {:.2} MB (at most {:.2} MB in between) and {more} descriptors",
        megabytes(grown),
        megabytes(highest.saturating_sub(before.rss))
    );
    // A reader that is gone does not end a soak.
    let _gone = writeln!(std::io::stdout().lock(), "{words}");
    ensure!(grown <= MEMORY_BYTES && more <= DESCRIPTORS, "not flat: {words}");
    Ok(())
}

async fn start(engine: &Engine, started: &mut u64) -> anyhow::Result<String> {
    *started += 1;
    let appetite = Appetite { memory_mb: 2, busy_ms: 1, burn_ms: 0 };
    engine.run_tenant(Uuid::new_v4(), &format!("soak-{started}"), appetite).await
}

fn say(now: &Look, began: Instant, started: u64, reports: u64) {
    // As above.
    let _gone = writeln!(
        std::io::stdout().lock(),
        "{:>5} s  {:>6.2} MB, of it {:>6.2} MB its own  {:>3} descriptors  {started} containers \
         so far, {reports} reports",
        began.elapsed().as_secs(),
        megabytes(now.rss),
        megabytes(now.anonymous),
        now.descriptors
    );
}
