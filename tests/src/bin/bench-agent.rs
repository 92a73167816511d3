//! Measures the agent as it is shipped: CPU, memory, bytes on the wire and
//! size, at one report a second, with 50 and 150 tenants; what it costs inside
//! Docker; and what collectd and Prometheus's node exporter cost beside it, on
//! the same machine. Writes `target/bench/agent.json`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use uuid::Uuid;
use webhost_tests::containers::{Appetite, Engine};
use webhost_tests::measure::agent::database::Database;
use webhost_tests::measure::agent::peers::{self, Cost};
use webhost_tests::measure::agent::processes::{Docker, megabytes};
use webhost_tests::measure::agent::stage::{self, Running, Scene, Seen};
use webhost_tests::measure::figures::Figures;

/// The agent's goals at 50 containers, and how much more may be at 150.
const CPU: f64 = 0.5;
const RSS_MB: f64 = 10.0;
const RSS_MB_MANY: f64 = 15.0;
const MORE: f64 = 3.0;
/// Of the agent and PostgreSQL together, for the tenants' database.
const DATABASE: f64 = 0.2;
/// Between two surveys of it, by default.
const SURVEY_MS: f64 = 300_000.0;

/// Containers that sleep: what is measured is the watching, not the work.
const ASLEEP: Appetite = Appetite { memory_mb: 2, busy_ms: 0, burn_ms: 0 };

const SHARED: &str = "bench-application";

/// Measures the agent beside its peers.
#[derive(Parser)]
struct Arguments {
    /// The agent to measure.
    #[arg(long, default_value = "target/small/webhost-agent")]
    agent: PathBuf,
    /// Seconds of each window.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Tenants with containers, few and many.
    #[arg(long, default_value_t = 50)]
    few: usize,
    #[arg(long, default_value_t = 150)]
    many: usize,
    /// Only what the tenants' database costs; the figures of before stay.
    #[arg(long)]
    only_database: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let size = std::fs::metadata(&arguments.agent)
        .with_context(|| format!("{}: `make bench-agent` builds it", arguments.agent.display()))?;
    let mut figures = Figures::default();
    if arguments.only_database {
        return database(&arguments, &mut figures).await;
    }
    figures.less("binary, stripped", megabytes(size.len()), "MB", Some(8.0));
    let dir = tempfile::Builder::new().prefix("whb").tempdir()?;
    match Engine::start(dir.path()).await {
        Ok(engine) => {
            let measured = containers(&arguments, &engine, &mut figures).await;
            engine.stop().await;
            measured?;
        }
        Err(why) => say(&format!("no containers here: {why:#}")),
    }
    application(&arguments, &mut figures).await?;
    database(&arguments, &mut figures).await?;
    beside(&arguments, &mut figures).await?;
    figures.write("agent")
}

fn say(words: &str) {
    // A reader that is gone does not end a measurement.
    let _gone = writeln!(std::io::stdout().lock(), "{words}");
}

/// Tenants with a container each, few and then many.
async fn containers(
    arguments: &Arguments,
    engine: &Engine,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let window = Duration::from_secs(arguments.seconds);
    engine.run_shared(SHARED, Appetite { memory_mb: 64, busy_ms: 20, burn_ms: 0 }).await?;
    let mut tenants = Vec::new();
    let mut few_cpu = 0.0;
    for (count, many) in [(arguments.few, false), (arguments.many, true)] {
        while tenants.len() < count {
            let tenant = Uuid::new_v4();
            engine.run_tenant(tenant, &format!("tenant-{}", tenants.len()), ASLEEP).await?;
            tenants.push(tenant);
        }
        let before = idle_docker(window).await;
        let scene = Scene {
            containers: Some(engine.socket()),
            values: 2 * count as u64,
            ..Scene::default()
        };
        let seen = stage::run(&arguments.agent, &scene, window).await?;
        let what = format!("{count} containers");
        let goal = if many { few_cpu * MORE } else { CPU };
        few_cpu = seen.cpu_percent;
        costs(&what, &seen, Some(goal), if many { RSS_MB_MANY } else { RSS_MB }, figures);
        // An engine has its own moods: idle is what it uses before and after.
        let after = idle_docker(window).await;
        let docker = (seen.docker_percent - (before + after) / 2.0).max(0.0);
        let name = format!("{what}: CPU inside Docker above idle ({before:.2} and {after:.2})");
        figures.less(&name, docker, "% core", Some(CPU));
        if !many {
            let scene = Scene {
                page: tenants.clone(),
                shared: Some(SHARED.into()),
                values: 12 * count as u64,
                ..scene
            };
            let seen = stage::run(&arguments.agent, &scene, window).await?;
            let what =
                format!("{count} containers and an application, {} columns", seen.heard.columns);
            costs(&what, &seen, Some(CPU), RSS_MB, figures);
            wire(&what, &seen, figures);
        }
    }
    Ok(())
}

/// Docker's use when nobody asks it anything.
async fn idle_docker(window: Duration) -> f64 {
    let before = Docker::look();
    tokio::time::sleep(window).await;
    Docker::look().cpu_percent_since(&before)
}

/// All tenants in one application, without containers.
async fn application(arguments: &Arguments, figures: &mut Figures) -> anyhow::Result<()> {
    let window = Duration::from_secs(arguments.seconds);
    let scene = Scene {
        page: (0..arguments.many).map(|_| Uuid::new_v4()).collect(),
        values: 8 * arguments.many as u64,
        ..Scene::default()
    };
    let seen = stage::run(&arguments.agent, &scene, window).await?;
    let what = format!("{} tenants in one application", arguments.many);
    costs(&what, &seen, Some(CPU * MORE), RSS_MB_MANY, figures);
    wire(&what, &seen, figures);
    Ok(())
}

/// All tenants in one database: what the agent takes for it, and what its
/// connection takes in PostgreSQL. Without an application the points are counted
/// there, too.
async fn database(arguments: &Arguments, figures: &mut Figures) -> anyhow::Result<()> {
    let window = Duration::from_secs(arguments.seconds);
    let settled = Duration::from_secs(5);
    let bare = stage::run(&arguments.agent, &Scene::default(), window).await?.cpu_percent;
    let database = Database::start(arguments.many).await?;
    let scans = database.whole_scans().await?;
    let scene = Scene {
        database: Some(database.url()),
        // Storage and vehicles; connections, all and active.
        values: 4 * arguments.many as u64,
        ..Scene::default()
    };
    let running = Running::start(&arguments.agent, &scene).await?;
    // It has connected, read the catalog and made its survey.
    let first_ms = database.backend().await?.cpu_ms();
    tokio::time::sleep(settled).await;
    let before = database.backend().await?;
    let seen = running.watch(window).await?;
    let server = database.backend().await?.cpu_percent_since(&before);
    let scans = database.whole_scans().await? - scans;
    let own = (seen.cpu_percent - bare).max(0.0);
    let survey = first_ms / SURVEY_MS * 100.0;
    let what = format!("{} tenants in one database", arguments.many);
    figures.less(&format!("{what}: CPU of the agent for it"), own, "% core", None);
    figures.less(&format!("{what}: CPU in PostgreSQL for it"), server, "% core", None);
    let name = format!("{what}: the survey every 5 minutes, in PostgreSQL");
    figures.less(&name, survey, "% core", None);
    let all = own + server + survey;
    figures.less(&format!("{what}: all of it"), all, "% core", Some(DATABASE));
    let name = format!("{what}: scans of whole tables of points");
    figures.less(&name, scans as f64, "", Some(0.0));
    Ok(())
}

fn costs(what: &str, seen: &Seen, cpu: Option<f64>, rss: f64, figures: &mut Figures) {
    figures.less(&format!("{what}: CPU"), seen.cpu_percent, "% core", cpu);
    figures.less(&format!("{what}: RSS"), megabytes(seen.end.rss), "MB", Some(rss));
    let own = megabytes(seen.end.anonymous);
    figures.less(&format!("{what}: of it the agent's own"), own, "MB", None);
    figures.less(&format!("{what}: threads"), seen.end.threads as f64, "", None);
}

fn wire(what: &str, seen: &Seen, figures: &mut Figures) {
    let values = seen.heard.values as f64 / seen.heard.reports.max(1) as f64;
    figures.more(&format!("{what}: values in a report"), values, "", None);
    let name = format!("{what}: bytes a value, with TLS and framing");
    figures.less(&name, seen.bytes_per_value(), "B", Some(2.0));
    let name = format!("{what}: the same of the acknowledgements");
    figures.less(&name, seen.bytes_back_per_value(), "B", None);
}

/// The peers, where Debian's packages are installed.
async fn beside(arguments: &Arguments, figures: &mut Figures) -> anyhow::Result<()> {
    let window = Duration::from_secs(arguments.seconds);
    let missing = |what: &str| {
        say(&format!("{what} is not installed; `tests/deps.sh peers` installs it"));
    };
    match peers::installed("collectd") {
        Some(program) => {
            peer("collectd, 1 s", peers::collectd(&program, window).await?, window, figures);
        }
        None => missing("collectd"),
    }
    match peers::installed("prometheus-node-exporter") {
        Some(program) => {
            let cost = peers::node_exporter(&program, window).await?;
            peer("node exporter, asked every second", cost, window, figures);
        }
        None => missing("prometheus-node-exporter"),
    }
    Ok(())
}

fn peer(what: &str, cost: Cost, window: Duration, figures: &mut Figures) {
    figures.less(&format!("{what}: CPU"), cost.cpu_percent, "% core", None);
    figures.less(&format!("{what}: RSS"), megabytes(cost.end.rss), "MB", None);
    let rate = cost.bytes as f64 / window.as_secs_f64();
    figures.less(&format!("{what}: said"), rate, "B/s", None);
}
