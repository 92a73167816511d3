//! How fast decisions are: scoring every tenant of a large fleet, the whole
//! decision for each, and placing tenants on 1,000 and 10,000 servers. One
//! thread, decisions only (nothing is stored).
//!
//! Prints each figure with its goal and writes `target/bench/decide.json`. The first argument divides the work, for a quick
//! look: `bench-decide 10`.

use std::hint::black_box;
use std::io::Write;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_coordinator::decide::scores::totals;
use webhost_coordinator::decide::{Catalog, Cents, Compliance, Mode, Profile, Region, recommend};
use webhost_coordinator::fleet::{
    Amounts, Demand, Home, MilliConnections, MilliPoints, NodeState, Policy, place,
};
use webhost_proto::ids::NodeId;
use webhost_proto::units::{Bytes, MilliCpu};
use webhost_tests::measure::figures::Figures;

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
    let mut figures = Figures::default();
    score(&profiles, &catalog, divide, &mut figures);
    whole(&profiles, &catalog, divide, &mut figures);
    for (servers, goal) in [(1000, 500_000.0), (10_000, 200_000.0)] {
        let rate = placed(servers, divide, &catalog, &mut rng)?;
        let name = format!("place, decision only, {servers} servers");
        figures.more(&name, rate.round(), "per s", Some(goal));
    }
    figures.write("decide")?;
    let note = "place: a plain scan of every server for each tenant, with one figure a dimension \
                (not yet 24 hourly ones)";
    writeln!(std::io::stdout().lock(), "{note}")?;
    Ok(())
}

fn score(profiles: &[Profile], catalog: &Catalog, divide: usize, figures: &mut Figures) {
    let started = Instant::now();
    let mut shared = 0_u64;
    for profile in profiles.iter().cycle().take(TENANTS / divide) {
        let (mode, _) = totals(black_box(profile)).choose(catalog.thresholds.choose_score);
        shared += u64::from(mode == Mode::MultiTenant);
    }
    black_box(shared);
    let seconds = started.elapsed().as_secs_f64() * divide as f64;
    figures.less("both scores and the choice, 1.5 M tenants", seconds, "s", Some(1.0));
}

fn whole(profiles: &[Profile], catalog: &Catalog, divide: usize, figures: &mut Figures) {
    let count = TENANTS / divide / 10;
    let started = Instant::now();
    for profile in profiles.iter().cycle().take(count) {
        black_box(recommend(black_box(profile), catalog));
    }
    let seconds = started.elapsed().as_secs_f64() * TENANTS as f64 / count.max(1) as f64;
    // From a tenth of them.
    figures.less("decision with reasons and alternatives, 1.5 M tenants", seconds, "s", None);
}

/// Places tenants one after another on `servers` that are three quarters of
/// the way to their limits, and charges each choice.
fn placed(
    servers: u128,
    divide: usize,
    catalog: &Catalog,
    rng: &mut StdRng,
) -> anyhow::Result<f64> {
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
    Ok(count as f64 / started.elapsed().as_secs_f64())
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
