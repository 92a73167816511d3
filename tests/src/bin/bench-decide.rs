//! How fast decisions are: scoring every tenant of a large fleet, and the whole
//! decision for each. One thread, decisions only (nothing is stored).
//!
//! Prints each figure with its goal and writes `target/bench/decide.json`. The first argument divides the work, for a quick
//! look: `bench-decide 10`.

use std::hint::black_box;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use webhost_coordinator::decide::scores::totals;
use webhost_coordinator::decide::{Catalog, Cents, Compliance, Mode, Profile, Region, recommend};
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
    figures.write("decide")
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
