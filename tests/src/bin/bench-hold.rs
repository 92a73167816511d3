//! Measures what a tenant's requests feel of a move: the added latency of the
//! hold point, and latency and throughput over a whole move beside the same
//! time without one. Writes `target/bench/hold.json`.

// A benchmark's output is its purpose.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::{Value, json};
use webhost_coordinator::embedded::Options;
use webhost_tests::held::clients::{Clients, Kind, Sample};
use webhost_tests::held::wire::Connection;
use webhost_tests::held::{DEDICATED, SHARED, Stage};

/// How far around the switch a request counts as touched by it.
const WINDOW: Duration = Duration::from_millis(500);

/// Measures the hold point.
#[derive(Parser)]
struct Arguments {
    /// Pairs of an uploading device and a listing person.
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Milliseconds between two requests of one client.
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
    /// Seconds of the run without a move.
    #[arg(long, default_value_t = 10)]
    quiet_s: u64,
    /// Requests of each comparison of ways.
    #[arg(long, default_value_t = 2_000)]
    direct: usize,
}

#[derive(Default)]
struct Report(Vec<Value>);

impl Report {
    fn add(&mut self, figure: &str, value: f64, unit: &str, goal: Option<f64>, better: &str) {
        let shown = goal.map_or(String::new(), |goal| format!("   goal {goal}"));
        println!("{figure:<58} {value:>10.2} {unit}{shown}");
        self.0.push(json!({
            "figure": figure, "value": value, "unit": unit, "goal": goal, "better": better,
        }));
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The p-th permille of sorted durations.
fn at(sorted: &[Duration], permille: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * permille / 1_000).copied().unwrap_or_default()
}

fn sorted(samples: &[Sample], of: impl Fn(&Sample) -> bool) -> Vec<Duration> {
    let mut all: Vec<Duration> =
        samples.iter().filter(|sample| of(sample)).map(|sample| sample.took).collect();
    all.sort_unstable();
    all
}

/// Requests one after another over one connection.
async fn one_way(
    stage: &Stage,
    address: std::net::SocketAddr,
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::new(address);
    let head = format!(
        "GET /api/customers/{}/vehicles HTTP/1.1\r\nHost: {}\r\n\r\n",
        stage.tenant.id,
        stage.host()
    );
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let began = tokio::time::Instant::now();
        let answer = connection.exchange(&[head.as_bytes()]).await.map_err(anyhow::Error::msg)?;
        ensure!(answer.status == 200, "{answer:?}");
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stage = Stage::start(Options::durable(), &[]).await?;
    let mut report = Report::default();

    let node = stage.fleet.nodes.get(SHARED).context("a node")?;
    let hold = node.nginx.as_ref().context("nginx")?.places.hold;
    // Taken in turns, so that both have the same neighbours.
    let (mut direct, mut held) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        direct.extend(one_way(&stage, node.app, arguments.direct / 10).await?);
        held.extend(one_way(&stage, hold, arguments.direct / 10).await?);
    }
    direct.sort_unstable();
    held.sort_unstable();
    report.add(
        "request straight to the application, p50",
        ms(at(&direct, 500)),
        "ms",
        None,
        "less",
    );
    report.add("the same through the hold point, p50", ms(at(&held, 500)), "ms", None, "less");
    let added = ms(at(&held, 500)) - ms(at(&direct, 500));
    report.add("added by the hold point, p50", added, "ms", Some(0.5), "less");
    let added = ms(at(&held, 990)) - ms(at(&direct, 990));
    report.add("added by the hold point, p99", added, "ms", None, "less");

    let pause = Duration::from_millis(arguments.pause_ms);
    let start = |stage: &Stage| {
        anyhow::Ok(Clients::start(
            stage.front()?,
            stage.host(),
            stage.tenant.clone(),
            arguments.pairs,
            pause,
            true,
        ))
    };
    let quiet = start(&stage)?;
    tokio::time::sleep(Duration::from_secs(arguments.quiet_s)).await;
    let quiet_for = quiet.now();
    let quiet = quiet.stop().await;

    let clients = start(&stage)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let from = clients.now();
    let id = stage.begin().await?;
    // The switch shows in the tenant's directory before the next state does.
    let row = stage.switched(&id).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let to = clients.now();
    let wall = jiff::Timestamp::now();
    let seen = clients.stop().await;
    let activated = row["result"]["cut_over"]["activated_at"]
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let switch = activated.map(|at| {
        let ago = Duration::try_from(wall.duration_since(at)).unwrap_or_default();
        to.saturating_sub(ago)
    });

    let http = |sample: &Sample| matches!(sample.kind, Kind::Upload | Kind::List);
    let usual = sorted(&quiet.samples, http);
    let moving = |sample: &Sample| http(sample) && sample.began >= from && sample.began <= to;
    let during = sorted(&seen.samples, moving);
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    report.add("without a move: requests", rate(usual.len(), quiet_for), "/s", None, "more");
    report.add("without a move: p50", ms(at(&usual, 500)), "ms", None, "less");
    report.add("without a move: p99", ms(at(&usual, 990)), "ms", None, "less");
    report.add("without a move: max", ms(at(&usual, 1_000)), "ms", None, "less");
    report.add("over the whole move: requests", rate(during.len(), to - from), "/s", None, "more");
    report.add("over the whole move: p50", ms(at(&during, 500)), "ms", None, "less");
    report.add("over the whole move: p99", ms(at(&during, 990)), "ms", None, "less");
    report.add("over the whole move: max", ms(at(&during, 1_000)), "ms", None, "less");
    if let Some(switch) = switch {
        let window = |sample: &Sample| {
            http(sample)
                && sample.began <= switch + WINDOW
                && sample.began + sample.took + WINDOW >= switch
        };
        let felt = sorted(&seen.samples, window);
        report.add("around the switch: requests", felt.len() as f64, "", None, "more");
        report.add("around the switch: p50", ms(at(&felt, 500)), "ms", None, "less");
        report.add("around the switch: p99", ms(at(&felt, 990)), "ms", None, "less");
        report.add("around the switch: max", ms(at(&felt, 1_000)), "ms", Some(1_000.0), "less");
    }
    report.add("client errors", seen.errors.len() as f64, "", Some(0.0), "less");
    report.add("connections reopened at a reload of nginx", seen.reopened as f64, "", None, "less");
    report.add("WebSockets told to come again", seen.told as f64, "", None, "more");
    report.add("WebSockets cut", seen.cut as f64, "", None, "less");
    for error in seen.errors.iter().take(10) {
        println!("  error at {:?} after {:?}: {}", error.at, error.took, error.what);
    }
    let found = stage.found(DEDICATED, &seen.written).await?;
    report.add(
        "acknowledged and not found",
        (seen.written.len() - found) as f64,
        "",
        Some(0.0),
        "less",
    );
    std::fs::create_dir_all("target/bench")?;
    std::fs::write("target/bench/hold.json", serde_json::to_string_pretty(&report.0)?)?;
    ensure!(seen.errors.is_empty(), "{} client errors", seen.errors.len());
    Ok(())
}
