//! How fast decisions are: scoring every tenant of a large fleet, the whole
//! decision for each, and placing tenants on 1,000 and 10,000 servers. One
//! thread, decisions only (nothing is stored).
//!
//! Prints each figure with its goal and writes `target/bench/decide.json` and
//! `target/bench/place.json`. The first argument divides the work, for a quick
//! look: `bench-decide 10`.

use std::hint::black_box;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_coordinator::decide::scores::totals;
use webhost_coordinator::decide::{Catalog, Cents, Compliance, Mode, Profile, Region, recommend};
use webhost_coordinator::fleet::{
    Amounts, Demand, Home, MilliConnections, MilliPoints, NodeState, Policy, place,
};
use webhost_proto::ids::NodeId;
use webhost_proto::units::{Bytes, MilliCpu};

/// The tenants of the goal.
const TENANTS: usize = 1_500_000;

/// Distinct profiles; cycled through, so that memory is not what is measured.
const PROFILES: usize = 20_000;

fn main() -> anyhow::Result<()> {
    let divide: usize = match std::env::args().nth(1) {
        Some(text) => text.parse().with_context(|| format!("{text:?} is not a divisor"))?,
        None => 1,
    };
    anyhow::ensure!(divide > 0, "the divisor must be at least 1");
    let catalog = Catalog::default();
    let mut rng = StdRng::seed_from_u64(7);
    let profiles: Vec<Profile> = (0..PROFILES).map(|_| profile(&mut rng)).collect();
    let decide = [score(&profiles, &catalog, divide), whole(&profiles, &catalog, divide)];
    report("decide", &decide)?;
    let place = [
        placed(1000, 500_000, divide, &catalog, &mut rng)?,
        placed(10_000, 200_000, divide, &catalog, &mut rng)?,
    ];
    report("place", &place)?;
    let note = "place: a plain scan of every server for each tenant, with one figure a dimension \
                (not yet 24 hourly ones)";
    writeln!(std::io::stdout().lock(), "{note}")?;
    Ok(())
}

fn score(profiles: &[Profile], catalog: &Catalog, divide: usize) -> Value {
    let started = Instant::now();
    let mut shared = 0_u64;
    for profile in profiles.iter().cycle().take(TENANTS / divide) {
        let (mode, _) = totals(black_box(profile)).choose(catalog.thresholds.choose_score);
        shared += u64::from(mode == Mode::MultiTenant);
    }
    black_box(shared);
    let seconds = started.elapsed().as_secs_f64() * divide as f64;
    figure("both scores and the choice, 1.5 M tenants", seconds, "s", json!(1), "less")
}

fn whole(profiles: &[Profile], catalog: &Catalog, divide: usize) -> Value {
    let count = TENANTS / divide / 10;
    let started = Instant::now();
    for profile in profiles.iter().cycle().take(count) {
        black_box(recommend(black_box(profile), catalog));
    }
    let seconds = started.elapsed().as_secs_f64() * TENANTS as f64 / count.max(1) as f64;
    figure(
        "whole decision with reasons and alternatives, 1.5 M tenants, from a tenth of them",
        seconds,
        "s",
        Value::Null,
        "less",
    )
}

/// Places tenants one after another on `servers` that are three quarters of
/// the way to their limits, and charges each choice.
fn placed(
    servers: u128,
    goal: u64,
    divide: usize,
    catalog: &Catalog,
    rng: &mut StdRng,
) -> anyhow::Result<Value> {
    let shape = catalog.shape("ax52").context("the default catalogue has an ax52")?;
    let policy = Policy::of(catalog);
    let average = catalog.averages.amounts();
    let mut fleet: Vec<NodeState> = (1..=servers)
        .map(|n| {
            let mut node = NodeState::new(NodeId(Uuid::from_u128(n)), shape, "iad".into());
            for _ in 0..rng.random_range(60..110) {
                node.load.amounts = node.load.amounts.plus(varied(average, rng));
                node.load.tenants += 1;
            }
            node
        })
        .collect();
    let count = 20_000_000 / usize::try_from(servers)? / divide;
    let demands: Vec<Demand> = (0..count)
        .map(|_| Demand {
            amounts: varied(average, rng),
            home: Home::Shared { near: vec![Region::from("iad")] },
        })
        .collect();
    let started = Instant::now();
    for demand in &demands {
        let chosen = place(&fleet, demand, &policy)?.node;
        // Ids are positions here, so that finding the node costs nothing.
        let index = usize::try_from(chosen.0.as_u128() - 1)?;
        let load = &mut fleet[index].load;
        load.amounts = load.amounts.plus(demand.amounts);
        load.tenants += 1;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let name = format!("place, decision only, {servers} servers");
    Ok(figure(&name, rate.round(), "per second", json!(goal), "more"))
}

fn varied(average: Amounts, rng: &mut StdRng) -> Amounts {
    let mut vary = |amount: u64| amount * rng.random_range(30..170) / 100;
    Amounts {
        cpu: MilliCpu(vary(average.cpu.0)),
        memory: Bytes(vary(average.memory.0)),
        disk: Bytes(vary(average.disk.0)),
        db_connections: MilliConnections(vary(average.db_connections.0)),
        gps: MilliPoints(vary(average.gps.0)),
    }
}

fn profile(rng: &mut StdRng) -> Profile {
    let mut compliance = std::collections::BTreeSet::new();
    if rng.random_range(0..10) == 0 {
        compliance.insert(Compliance::ALL[rng.random_range(0..Compliance::ALL.len())]);
    }
    let places = ["iad", "fra", "sin"];
    let regions = if rng.random_range(0..5) == 0 { rng.random_range(2..=3) } else { 1 };
    Profile {
        plan: "hobby".into(),
        budget: Cents(rng.random_range(0..20_000)),
        vehicle_count: rng.random_range(0..15),
        compliance_requirements: compliance,
        latency_requirement: rng.random_range(40..150),
        regions: places.iter().take(regions).map(|place| Region::from(*place)).collect(),
        peak_concurrent_users: Some(rng.random_range(0..120)),
        gps_points_per_day: rng.random_range(0..60_000),
        gps_points_per_second: rng.random_range(0..20),
        retention_days: 0,
        storage_mb: rng.random_range(0..7000),
    }
}

fn figure(name: &str, value: f64, unit: &str, goal: Value, better: &str) -> Value {
    json!({"figure": name, "value": value, "unit": unit, "goal": goal, "better": better})
}

fn report(name: &str, figures: &[Value]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for figure in figures {
        let text = |key: &str| figure[key].as_str().unwrap_or_default().to_owned();
        let goal = match &figure["goal"] {
            Value::Null => "none".to_owned(),
            goal => format!("{goal} or {}", text("better")),
        };
        let (what, unit) = (text("figure"), text("unit"));
        let value = figure["value"].as_f64().unwrap_or_default();
        let decimals = if value < 100.0 { 3 } else { 0 };
        writeln!(out, "{what}: {value:.decimals$} {unit} (goal {goal})")?;
    }
    let folder = Path::new("target/bench");
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(figures)?)
        .with_context(|| format!("write {}", file.display()))
}
