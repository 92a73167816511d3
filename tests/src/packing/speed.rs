//! How fast placements and plans are, how large a tenant is in memory, and
//! what the plain packers do with the same tenants.

use std::hint::black_box;

use anyhow::{Context, ensure};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_coordinator::fleet::plan::{Draft, drain};
use webhost_coordinator::fleet::rooms::{Ask, Rooms};
use webhost_coordinator::fleet::seats::Fleet;
use webhost_coordinator::fleet::{Need, Policy, Snapshot, Tenant, plan, verify};
use webhost_proto::ids::TenantId;

use super::ax52::{self, Tenants};
use super::plain::Plain;
use crate::measure::figures::{Figures, quantile};

/// The limit that the plain packers and the bound are held to as well.
const FULL: u32 = 75;

/// Placements in a fleet that fills from nothing, then in a full one where
/// tenants come and go; and plans for it.
///
/// # Errors
/// When a tenant finds no place, or a plan does not pass its check.
pub fn all(servers: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let goal = if servers > 5000 { 200_000.0 } else { 500_000.0 };
    let count = servers as usize * 150;
    let mut tenants = Tenants::new(7);
    let mut needs: Vec<Need> = (0..count).map(|_| tenants.next(true).need()).collect();
    // Days coincide in part, so the peaks want more servers than the means.
    let bound = ax52::bound(&needs, FULL);
    let fleet = bound + bound / 10;
    let mut rooms = Rooms::new(&ax52::servers(fleet), FULL);
    let mut homes: Vec<u32> = Vec::with_capacity(count);
    let started = Instant::now();
    for need in &needs {
        let at = rooms.choose(&Ask::of(need)).context("no room for a tenant")?;
        rooms.charge(at, need);
        homes.push(at);
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let name = |what: &str| format!("{what}, {count} tenants");
    figures.more(&name("place, filling"), rate.round(), "per s", Some(goal));
    let used = rooms.rooms().iter().filter(|room| room.load.tenants > 0).count();
    let over = |used: u32, bound: u32| (f64::from(used) / f64::from(bound) - 1.0) * 100.0;
    figures.less(&name("  servers over the lower bound"), over(used as u32, bound), "%", None);
    plains(&needs, servers, bound, figures);
    come_and_go(&mut needs, &mut rooms, &mut homes, &mut tenants, servers, goal, figures)?;
    drop(rooms);
    plans(&needs, &homes, servers, fleet, figures)
}

/// Tenants leave and others come, in the full fleet.
fn come_and_go(
    needs: &mut [Need],
    rooms: &mut Rooms,
    homes: &mut [u32],
    tenants: &mut Tenants,
    servers: u32,
    goal: f64,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let rounds = 200_000;
    let arrivals: Vec<(usize, Need)> =
        (0..rounds).map(|_| (tenants.below(needs.len()), tenants.next(true).need())).collect();
    let mut took: Vec<u64> = Vec::with_capacity(rounds);
    let mut placing = std::time::Duration::ZERO;
    for (leaves, need) in arrivals {
        rooms.discharge(homes[leaves], &needs[leaves]);
        let started = Instant::now();
        let at = rooms.choose(&Ask::of(&need)).context("no room for a tenant")?;
        rooms.charge(at, &need);
        let one = started.elapsed();
        placing += one;
        took.push(u64::try_from(one.as_nanos())?);
        (homes[leaves], needs[leaves]) = (at, need);
    }
    took.sort_unstable();
    let name = |what: &str| format!("{what}, {servers} servers");
    let rate = rounds as f64 / placing.as_secs_f64();
    figures.more(&name("place, tenants come and go"), rate.round(), "per s", Some(goal));
    let micros = |permille: usize| quantile(&took, permille) as f64 / 1000.0;
    figures.less(&name("  p50"), micros(500), "us", None);
    let goal = if servers > 5000 { 25.0 } else { 5.0 };
    figures.less(&name("  p99"), micros(990), "us", Some(goal));
    Ok(())
}

type Packer = fn(&mut Plain, &Need) -> Option<usize>;

/// The plain packers on the first of the same tenants, on as many servers.
fn plains(needs: &[Need], servers: u32, bound: u32, figures: &mut Figures) {
    let limit = ax52::server(0).allowed(FULL);
    let packers: [(&str, Packer); 3] = [
        ("baseline, first fit", Plain::first_fit),
        ("baseline, best fit of all servers", Plain::best_fit),
        ("baseline, the scan by peaks", Plain::by_peaks),
    ];
    for (what, pack) in packers {
        // All of a small fleet; of a large one as much as a minute allows.
        let count = if servers > 5000 { 60_000 } else { needs.len() };
        let mut plain = Plain::new(bound as usize * 11 / 10, limit);
        let started = Instant::now();
        for need in needs.iter().take(count) {
            black_box(pack(&mut plain, need));
        }
        let rate = count as f64 / started.elapsed().as_secs_f64();
        figures.more(&format!("{what}, {servers} servers"), rate.round(), "per s", None);
        if count == needs.len() {
            let over = (f64::from(plain.used()) / f64::from(bound) - 1.0) * 100.0;
            figures.less("  servers over the lower bound", over, "%", None);
        }
    }
}

/// A full plan for a fleet of which every hundredth tenant has grown by half,
/// and the drain of one server.
fn plans(
    needs: &[Need],
    homes: &[u32],
    servers: u32,
    fleet: u32,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let mut nodes = ax52::servers(fleet);
    let mut tenants = Vec::with_capacity(needs.len());
    for (number, (need, home)) in needs.iter().zip(homes).enumerate() {
        let mut need = *need;
        if number % 100 == 0 {
            need.hourly.iter_mut().flatten().for_each(|hour| *hour += *hour / 2);
        }
        let node = &mut nodes[*home as usize];
        node.load.add(&need);
        tenants.push(Tenant {
            id: TenantId(Uuid::from_u128(number as u128)),
            node: node.id,
            need,
            since_h: 0,
            left: None,
            rules: None,
        });
    }
    let snapshot = Snapshot { now_h: 1000, nodes, tenants };
    let policy = Policy::default();
    let name = |what: &str| format!("{what}, {servers} servers, {} tenants", needs.len());
    let large = servers > 5000;
    let started = Instant::now();
    let made = plan(&snapshot, &policy)?;
    let goal = if large { 10.0 } else { 1.0 };
    figures.less(&name("full plan"), started.elapsed().as_secs_f64(), "s", Some(goal));
    figures.more("  moves in it", made.moves().count() as f64, "", None);
    figures.more("  servers relieved", made.relieved.len() as f64, "", None);
    figures.less("  servers left overloaded", made.overloaded.len() as f64, "", None);
    let started = Instant::now();
    verify(&snapshot, &policy, &made)?;
    figures.less(&name("  its independent check"), started.elapsed().as_secs_f64(), "s", None);

    let fleet = Fleet::of(&snapshot, &policy)?;
    let bytes = fleet.bytes() as f64 / needs.len() as f64;
    figures.less(&name("memory of the planner a tenant"), bytes, "B", Some(300.0));
    let fullest = (0..fleet.rooms.len() as u32).max_by_key(|node| fleet.count_on(*node));
    let fullest = fullest.context("a server")?;
    let id = fleet.rooms.id(fullest);
    let mut draft = Draft::of(fleet);
    let started = Instant::now();
    webhost_coordinator::fleet::drain::drain(&mut draft, &[fullest]);
    let made = draft.finish();
    let millis = started.elapsed().as_secs_f64() * 1000.0;
    figures.less(&name("drain plan of the fullest server"), millis, "ms", large.then_some(10.0));
    verify(&snapshot, &policy, &made)?;
    ensure!(made == drain(&snapshot, &policy, &[id])?, "a drain does not replay");
    Ok(())
}
