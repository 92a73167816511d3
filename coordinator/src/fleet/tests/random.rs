//! Random fleets, by seed: ten thousand plans that the independent checker must
//! pass at every prefix, and that replay byte for byte.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::units::{Bytes, MilliCpu};

use super::super::plan::{Move, drain};
use super::super::snapshot::Left;
use super::super::*;
use crate::decide::Catalog;

const CASES: u64 = 10_000;

/// A tenant's day: a level, a busy half, now and then a large one.
fn need(rng: &mut StdRng, scale: u32) -> Need {
    let large = if rng.random_range(0..12) == 0 { 8 } else { 1 };
    let busy = rng.random_range(0..24);
    let mut need = Need {
        memory: rng.random_range(100..3000) * scale,
        disk: rng.random_range(100..30_000) * scale,
        ..Need::default()
    };
    for (row, most) in [(0, 160), (1, 90), (2, 400)] {
        let level = rng.random_range(0..=most * scale * large);
        for hour in 0..24 {
            let awake = (hour + 24 - busy) % 24 < 12;
            let now = if awake { level } else { level / 3 };
            need.hourly[row][hour] = u16::try_from(now).unwrap();
        }
    }
    need
}

/// A fleet with something wrong in it more often than not.
pub(super) fn snapshot(seed: u64) -> Snapshot {
    let mut rng = StdRng::seed_from_u64(seed);
    let catalog = Catalog::default();
    let shape = catalog.shape("ax52").unwrap();
    let regions = ["fra", "iad", "sin"];
    let now_h = 10_000;
    let mut nodes: Vec<NodeState> = (0..rng.random_range(1..8_u128))
        .map(|n| {
            let region = regions[rng.random_range(0..2)];
            let mut node = NodeState::new(NodeId(Uuid::from_u128(n)), shape, region.into());
            match rng.random_range(0..20) {
                0 => node.standing = Standing::Joining,
                1 | 2 => node.standing = Standing::Draining,
                3 => node.seen = false,
                4 => node.max_tenants = rng.random_range(1..10),
                5 => node.measured.memory = Some(Bytes(rng.random_range(1..64) << 30)),
                6 => node.measured.cpu = Some(MilliCpu(rng.random_range(500..9000))),
                _ => {}
            }
            node
        })
        .collect();
    let scale = rng.random_range(1..5);
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    let mut tenants = Vec::new();
    for n in 0..rng.random_range(0..60_u128) {
        // Most of them crowd on few nodes.
        let crowd = rng.random_range(1..=nodes.len());
        let at = rng.random_range(0..crowd);
        let need = need(&mut rng, scale);
        nodes[at].load.add(&need);
        let other = ids[rng.random_range(0..ids.len())];
        let mut maybe = |one_in: u32| rng.random_range(0..one_in) == 0;
        let rules = Rules {
            pinned: maybe(15).then_some(ids[at]),
            near: if maybe(10) { vec![regions[1].into()] } else { Vec::new() },
            only: if maybe(12) { vec![regions[0].into(), regions[2].into()] } else { Vec::new() },
            apart: if maybe(6) { vec!["a".to_owned()] } else { Vec::new() },
        };
        let took = need.peaks();
        let left = maybe(4).then_some(Left { node: other, at_h: now_h - 100, took });
        tenants.push(Tenant {
            id: TenantId(Uuid::from_u128(n)),
            node: nodes[at].id,
            need,
            since_h: now_h - rng.random_range(0..400),
            left,
            rules: (rules != Rules::default()).then(|| Box::new(rules)),
        });
    }
    Snapshot { now_h, nodes, tenants }
}

/// The first `count` moves, and nothing that is said of the end.
fn prefix(plan: &Plan, count: usize) -> Plan {
    let mut left = count;
    let waves = plan.waves.iter().map(|wave| {
        let taken: Vec<Move> = wave.iter().copied().take(left).collect();
        left -= taken.len();
        taken
    });
    Plan { waves: waves.collect(), ..Plan::default() }
}

fn check(seed: u64, snapshot: &Snapshot, policy: &Policy, plan: &Plan) {
    verify(snapshot, policy, plan).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    for count in 0..plan.moves().count() {
        verify(snapshot, policy, &prefix(plan, count))
            .unwrap_or_else(|broken| panic!("seed {seed}, first {count} moves: {broken}"));
    }
}

#[test]
fn ten_thousand_plans_hold_at_every_prefix_and_replay_byte_for_byte() {
    let counts = std::thread::scope(|threads| {
        // Side by side, each every fourth seed.
        let parts: Vec<_> =
            (0..4).map(|part| threads.spawn(move || run((part..CASES).step_by(4)))).collect();
        let parts = parts.into_iter().map(|part| part.join().unwrap());
        parts.reduce(|a, b| std::array::from_fn(|at| a[at] + b[at])).unwrap()
    });
    // The cases are worth something: all that a plan can say was said often.
    assert!(counts.iter().all(|count| *count > 300), "{counts:?}");
}

/// Plans each seed's fleet; answers how many moves, relieved, overloaded and
/// emptied nodes and stuck tenants there were.
fn run(seeds: impl Iterator<Item = u64>) -> [usize; 5] {
    let mut counts = [0_usize; 5];
    for seed in seeds {
        let policy = Policy {
            at_once: policy::AtOnce {
                source: 1 + (seed % 2) as u32,
                target: 1 + (seed % 3) as u32,
                all: 1 + (seed % 5) as u32,
            },
            ..Policy::default()
        };
        let snapshot = snapshot(seed);
        let made = plan(&snapshot, &policy).unwrap();
        check(seed, &snapshot, &policy, &made);
        let mut shuffled = snapshot.clone();
        let mut rng = StdRng::seed_from_u64(seed);
        shuffled.nodes.shuffle(&mut rng);
        shuffled.tenants.shuffle(&mut rng);
        let again = plan(&shuffled, &policy).unwrap();
        let bytes = |plan: &Plan| serde_json::to_vec(plan).unwrap();
        assert_eq!(bytes(&made), bytes(&again), "seed {seed}");
        let one = drain(&snapshot, &policy, &[snapshot.nodes[0].id]).unwrap();
        check(seed, &snapshot, &policy, &one);
        for (count, more) in counts.iter_mut().zip([
            made.moves().count(),
            made.relieved.len(),
            made.overloaded.len(),
            made.emptied.len(),
            made.stuck.len() + one.stuck.len(),
        ]) {
            *count += more;
        }
    }
    counts
}
