//! Measures a move's data path between two durable clusters on this machine:
//! the copy beside a bare `COPY | COPY` pipe of the same rows, the drain, and
//! the pause of the moved tenant's writers. Prints figure and goal, and writes
//! `target/bench/move.json`.

// A benchmark's output is its purpose.
#![allow(clippy::print_stdout)]

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::config::Host;
use webhost_agent::mover::catalog::Rules;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::error::Side;
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::run::{Run, Tuning};
use webhost_agent::mover::spec::{Done, Progress, Secret, Spec, Step};
use webhost_coordinator::embedded::{Options, binaries};
use webhost_proto::ids::{Epoch, MoveId, NodeId, TenantId};
use webhost_tests::schema;
use webhost_tests::writers::{Clusters, Findings, Isolation, World, Writers, check, session};

/// Measures the data path of a move.
#[derive(Parser)]
struct Arguments {
    /// Positions of the tenant that is copied.
    #[arg(long, default_value_t = 500_000)]
    rows: u32,
    /// Cut-overs under writers, each of a fresh tenant.
    #[arg(long, default_value_t = 20)]
    cut_overs: u32,
}

fn a_move(world: &World) -> Run {
    Run {
        spec: Spec {
            move_id: MoveId::generate(),
            tenant: TenantId(world.tenant),
            epoch: Epoch(1),
            source_node: NodeId::generate(),
            target_node: NodeId::generate(),
            target_tunnel: String::new(),
            ticket: Secret(Vec::new()),
            target_place: "target".into(),
            source_place: "node-a.example".into(),
            max_rows_per_second: 0,
            target_http: false,
            tenant_host: String::new(),
            target_dedicated: false,
            retain_from_us: 0,
            way_back_until_us: 0,
        },
        rules: Rules::default(),
        source: Endpoint::Local(Box::new(world.mover(&world.source))),
        target: Endpoint::Local(Box::new(world.mover(&world.target))),
        here: Side::Source,
        tuning: Tuning::default(),
        fail: Fail::Off,
        progress: watch::Sender::new(Progress::default()),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let clusters = tokio::task::spawn_blocking(|| {
        let options = Options::durable()
            .with("shared_buffers", "512MB")
            .with("max_wal_size", "8GB")
            .with("max_connections", "100");
        Clusters::start(&options)
    })
    .await??;

    let pipe = {
        let world = World::create(&clusters, "pipe", schema::WEBHOST, arguments.rows).await?;
        bare_pipe(&world, arguments.rows).await?
    };
    let (copy, drain) = copy_and_drain(&clusters, arguments.rows).await?;
    let mut pauses = Vec::new();
    let mut fences = Vec::new();
    for number in 0..arguments.cut_overs {
        let (pause, fence) = pause(&clusters, number).await?;
        pauses.push(pause);
        fences.push(fence);
    }
    pauses.sort_unstable();
    fences.sort_unstable();
    let middle = |sorted: &[u64]| sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let last = |sorted: &[u64]| sorted.last().copied().unwrap_or_default();

    let permille = copy * 1000 / pipe.max(1);
    println!("copy, indexes in place     {copy:>9} rows/s");
    println!("bare COPY | COPY           {pipe:>9} rows/s");
    println!("copy against the pipe      {:>9} ‰      goal ≥ 950", permille);
    println!("drain, compared            {drain:>9} keys/s  goal ≥ 30000");
    println!("pause p50, worst write     {:>9} µs      goal ≤ 10000", middle(&pauses));
    println!("pause max                  {:>9} µs      goal ≤ 40000", last(&pauses));
    println!("fence p50                  {:>9} µs      goal ≤ 4000", middle(&fences));
    println!("fence max                  {:>9} µs", last(&fences));
    let report = serde_json::json!({
        "rows": arguments.rows,
        "copy_rows_per_s": copy,
        "pipe_rows_per_s": pipe,
        "copy_against_pipe_permille": permille,
        "drain_keys_per_s": drain,
        "cut_overs": arguments.cut_overs,
        "pause_us": { "p50": middle(&pauses), "max": last(&pauses) },
        "fence_us": { "p50": middle(&fences), "max": last(&fences) },
        "debug_build": cfg!(debug_assertions),
    });
    std::fs::create_dir_all("target/bench")?;
    std::fs::write("target/bench/move.json", serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

fn per_second(count: u64, took: Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / micros
}

/// What `psql | psql` does with the same rows into the same indexes.
async fn bare_pipe(world: &World, rows: u32) -> anyhow::Result<u64> {
    // Its parents first, so that nothing else differs.
    let psql = binaries()?.join("psql");
    let tenant = world.tenant;
    let dir = |config: &tokio_postgres::Config| match config.get_hosts().first() {
        Some(Host::Unix(dir)) => Ok(dir.clone()),
        other => bail!("expected a socket, got {other:?}"),
    };
    let (from, to) = (dir(&world.source)?, dir(&world.target)?);
    let name = world.source.get_dbname().context("a database")?.to_owned();
    let started = Instant::now();
    tokio::task::spawn_blocking(move || {
        let mut out = Command::new(&psql)
            .args(["-qX", "-h"])
            .arg(&from)
            .args(["-U", "postgres", &name, "-c"])
            .arg(format!(
                "copy (select * from gps_positions where customer_id = '{tenant}') to stdout (format binary)"
            ))
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = out.stdout.take().context("a pipe")?;
        let status = Command::new(&psql)
            .env("PGOPTIONS", "-c session_replication_role=replica")
            .args(["-qX", "-h"])
            .arg(&to)
            .args(["-U", "postgres", &name, "-c", "copy gps_positions from stdin (format binary)"])
            .stdin(pipe)
            .status()?;
        ensure!(out.wait()?.success() && status.success(), "the pipe failed");
        anyhow::Ok(())
    })
    .await??;
    Ok(per_second(u64::from(rows), started.elapsed()))
}

async fn copy_and_drain(clusters: &Clusters, rows: u32) -> anyhow::Result<(u64, u64)> {
    let world = World::create(clusters, "copied", schema::WEBHOST, rows).await?;
    let run = a_move(&world);
    run.step(Step::Guard).await?;
    let Done::Copy(copied) = run.step(Step::Copy).await? else { bail!("no copy") };
    let (client, _driver) = session(&world.source).await?;
    let changed = client
        .execute(
            "update gps_positions set speed = 1 where id in \
             (select id from gps_positions where customer_id = $1 limit 50000)",
            &[&world.tenant],
        )
        .await?;
    let started = Instant::now();
    let Done::Drain(drained) = run.step(Step::Drain).await? else { bail!("no drain") };
    ensure!(drained.keys == changed && drained.remaining == 0, "drained {drained:?}");
    let drain = per_second(drained.keys, started.elapsed());
    run.step(Step::Verify).await?;
    Ok((per_second(copied.rows, Duration::from_micros(copied.duration_us)), drain))
}

/// The worst write around one cut-over, and the fence, in microseconds.
async fn pause(clusters: &Clusters, number: u32) -> anyhow::Result<(u64, u64)> {
    let world = World::create(clusters, &format!("pause_{number}"), schema::WEBHOST, 2_000).await?;
    let run = a_move(&world);
    let writers = Writers::start(
        &world,
        &[Isolation::ReadCommitted; 5],
        Duration::from_millis(18),
        u64::from(number),
    );
    for step in [Step::Guard, Step::Copy, Step::Verify] {
        run.step(step).await?;
    }
    let began = Instant::now();
    let Done::CutOver(result) = run.step(Step::CutOver).await? else { bail!("no cut-over") };
    let ended = Instant::now();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ledger = writers.stop().await?;
    let found = check(&world, &ledger, 1).await?;
    ensure!(found == Findings::default(), "{found:?}");
    let worst = ledger
        .writes
        .iter()
        .filter(|write| write.began <= ended && write.began + write.took >= began)
        .map(|write| write.took)
        .max()
        .unwrap_or_default();
    Ok((u64::try_from(worst.as_micros())?, result.fence_us))
}
