//! Placement: what a server takes, who is never chosen, and what always holds.

use proptest::prelude::*;
use uuid::Uuid;
use webhost_proto::ids::NodeId;
use webhost_proto::units::{Bytes, MilliCpu};

use super::super::*;
use crate::decide::{Catalog, Hundredths, Mode, Profile, Region};

const GB: u64 = 1_000_000_000;

fn node_id(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

fn node(n: u128, shape: &str) -> NodeState {
    let catalog = Catalog::default();
    NodeState::new(node_id(n), catalog.shape(shape).unwrap(), Region::from("iad"))
}

fn average() -> Amounts {
    Catalog::default().averages.amounts()
}

fn policy() -> Policy {
    Policy::of(&Catalog::default())
}

fn shared(amounts: Amounts) -> Demand {
    Demand { need: Need::flat(&amounts), home: Home::Shared { near: Vec::new() } }
}

fn dedicated(plan: &str, regions: &[&str]) -> Demand {
    let catalog = Catalog::default();
    let least = catalog.shape(&catalog.plan(plan).unwrap().shape).unwrap().capacity();
    let regions = regions.iter().map(|r| Region::from(*r)).collect();
    Demand { need: Need::flat(&average()), home: Home::Dedicated { least, regions } }
}

/// Charges the chosen node, as the caller does in its transaction.
fn take(fleet: &mut [NodeState], demand: &Demand) -> Result<Placed, NoRoom> {
    let placed = place(fleet, demand, &policy())?;
    let node = fleet.iter_mut().find(|node| node.id == placed.node).unwrap();
    node.load.add(&demand.need);
    Ok(placed)
}

fn fill(fleet: &mut [NodeState], demand: &Demand) -> (u32, NoRoom) {
    let mut placed = 0;
    loop {
        match take(fleet, demand) {
            Ok(_) => placed += 1,
            Err(no_room) => return (placed, no_room),
        }
    }
}

#[test]
fn an_ax52_takes_112_average_tenants_and_then_memory_ends() {
    let (placed, no_room) = fill(&mut [node(1, "ax52")], &shared(average()));
    assert_eq!(placed, 112);
    assert_eq!(no_room.counts, [("memory".to_owned(), 1)].into());
    let [Refused { refusal: Refusal::NoRoomIn { dimension, hour, wanted, free }, .. }] =
        no_room.refused.as_slice()
    else {
        panic!("{no_room:?}")
    };
    // 850 MB are 811 MiB, rounded up; 75 % of 128 GB are 91,552 MiB.
    assert_eq!((*dimension, *wanted, *hour), (Dimension::Memory, 811, None));
    assert_eq!(*free, 91_552 - 112 * 811);
    assert_eq!(no_room.to_string(), "no node has room: 1 lacks memory");
}

#[test]
fn never_more_than_150_tenants_however_small() {
    let (placed, no_room) = fill(&mut [node(1, "ax52")], &shared(Amounts::default()));
    assert_eq!(placed, 150);
    assert_eq!(no_room.refused[0].refusal, Refusal::Full { tenants: 150 });
}

#[test]
fn each_dimension_ends_at_the_placement_limit() {
    let cases = [
        (Dimension::Cpu, Amounts { cpu: MilliCpu(12_000), ..Default::default() }),
        (Dimension::Memory, Amounts { memory: Bytes(91_552 << 20), ..Default::default() }),
        (Dimension::Disk, Amounts { disk: Bytes(715_255 << 20), ..Default::default() }),
        (
            Dimension::DbConnections,
            Amounts { db_connections: MilliConnections(75_000), ..Default::default() },
        ),
        (Dimension::Gps, Amounts { gps: MilliPoints(375_000), ..Default::default() }),
    ];
    for (dimension, exactly) in cases {
        let fleet = [node(1, "ax52")];
        let placed = place(&fleet, &shared(exactly), &policy()).unwrap();
        assert_eq!((placed.binding, placed.filled), (dimension, Hundredths(100)));
        let one = Amounts {
            cpu: MilliCpu(1),
            memory: Bytes(1),
            disk: Bytes(1),
            db_connections: MilliConnections(1),
            gps: MilliPoints(1),
        };
        // Whatever is above it by the smallest amount does not fit.
        let no_room = place(&fleet, &shared(exactly.plus(one)), &policy()).unwrap_err();
        assert_eq!(no_room.counts, [(dimension.as_str().to_owned(), 1)].into());
    }
}

#[test]
fn capacity_is_the_smaller_of_shape_and_measurement() {
    let mut small = node(1, "ax52");
    small.measured = Measured {
        cpu: Some(MilliCpu(2000)),
        memory: Some(Bytes(999 * GB)),
        disk: None,
        db_connections: Some(50),
    };
    let capacity = small.capacity();
    assert_eq!(capacity.cpu, MilliCpu(2000));
    assert_eq!(capacity.memory, Bytes(128 * GB));
    assert_eq!(capacity.disk, Bytes(1000 * GB));
    assert_eq!(capacity.db_connections, MilliConnections(50_000));
    let (placed, _) = fill(&mut [small], &shared(average()));
    assert_eq!(placed, 15, "1500 of 2000 millicores, 100 each");
}

#[test]
fn the_fullest_node_that_fits_is_chosen_and_ties_end_at_the_smallest_id() {
    let mut fleet = vec![node(3, "ax52"), node(1, "ax52"), node(2, "ax52")];
    assert_eq!(take(&mut fleet, &shared(average())).unwrap().node, node_id(1));
    let placed = take(&mut fleet, &shared(average())).unwrap();
    assert_eq!(placed.node, node_id(1), "best fit keeps filling it");
    let runners: Vec<NodeId> = placed.runners_up.iter().map(|r| r.node).collect();
    assert_eq!(runners, [node_id(2), node_id(3)]);
    let (placed, _) = fill(&mut fleet, &shared(average()));
    assert_eq!(placed, 3 * 112 - 2);
}

#[test]
fn a_wanted_place_is_preferred_but_no_condition_on_shared_nodes() {
    let mut far = node(1, "ax52");
    far.region = Region::from("fra");
    far.load.tenants = 5;
    let fleet = [far.clone(), node(2, "ax52")];
    let near =
        Demand { need: Need::flat(&average()), home: Home::Shared { near: vec!["iad".into()] } };
    assert_eq!(place(&fleet, &near, &policy()).unwrap().node, node_id(2));
    assert_eq!(place(&[far], &near, &policy()).unwrap().node, node_id(1));
}

#[test]
fn who_is_never_chosen() {
    type Spoil = fn(&mut NodeState);
    let cases: [(&str, Spoil); 6] = [
        ("not_active", |n| n.standing = Standing::Joining),
        ("not_active", |n| n.standing = Standing::Draining),
        ("not_active", |n| n.standing = Standing::Revoked),
        ("not_seen", |n| n.seen = false),
        ("disk", |n| n.measured.disk = Some(Bytes(0))),
        ("other_kind", |n| n.kind = crate::decide::plans::NodeKind::Dedicated),
    ];
    for (why, spoil) in cases {
        let mut spoiled = node(1, "ax52");
        spoil(&mut spoiled);
        let no_room = place(&[spoiled], &shared(average()), &policy()).unwrap_err();
        assert_eq!(no_room.counts, [(why.to_owned(), 1)].into());
    }
    let none = place(&[], &shared(average()), &policy()).unwrap_err();
    assert_eq!(none.to_string(), "no node has room: there is none");
}

#[test]
fn a_dedicated_node_is_idle_large_enough_and_in_place() {
    let small = node(1, "shared-cpu-512");
    let large = node(2, "performance-1x");
    let both = [large.clone(), small.clone()];
    let on = |fleet: &[NodeState], demand: Demand| place(fleet, &demand, &policy());
    assert_eq!(on(&both, dedicated("starter", &["iad"])).unwrap().node, node_id(1), "the tightest");
    assert_eq!(on(&both, dedicated("professional", &["iad"])).unwrap().node, node_id(2));
    let refused = on(&both, dedicated("business", &["iad"])).unwrap_err();
    assert_eq!(refused.counts, [("shape_too_small".to_owned(), 2)].into());
    let refused = on(&both, dedicated("starter", &["fra"])).unwrap_err();
    assert_eq!(refused.counts, [("other_region".to_owned(), 2)].into());

    let mut taken = small.clone();
    taken.load.tenants = 1;
    let refused = on(&[taken], dedicated("starter", &[])).unwrap_err();
    assert_eq!(refused.refused[0].refusal, Refusal::Taken);

    // The data must fit the disk below the limit: 7.5 of 10 GB, 7,152 MiB.
    let mut demand = dedicated("starter", &[]);
    demand.need.disk = 7152;
    assert!(on(std::slice::from_ref(&small), demand.clone()).is_ok());
    demand.need.disk = 7153;
    assert_eq!(on(&[small], demand).unwrap_err().counts, [("disk".to_owned(), 1)].into());
}

#[test]
fn demand_follows_the_plan_and_the_measurement() {
    let catalog = Catalog::default();
    let profile =
        Profile::build("hobby", &Default::default(), &Default::default(), &catalog).unwrap();
    let hobby = catalog.plan("hobby").unwrap();
    let demand = Demand::of(hobby, &profile, None, &catalog);
    assert_eq!(demand.need, Need::flat(&average()));
    assert_eq!(demand.home, Home::Shared { near: vec!["iad".into()] });
    let starter = catalog.plan("starter").unwrap();
    assert_eq!(starter.mode, Mode::SingleTenant);
    let measured = Need::flat(&Amounts { cpu: MilliCpu(7), ..Default::default() });
    let demand = Demand::of(starter, &profile, Some(measured), &catalog);
    assert_eq!(demand.need, measured);
    let Home::Dedicated { least, .. } = demand.home else { panic!("starter is dedicated") };
    assert_eq!(least, catalog.shape("shared-cpu-512").unwrap().capacity());
}

#[test]
fn load_counts_strangers_and_promises() {
    let mib = |n: u64| Amounts { memory: Bytes(n << 20), ..Default::default() };
    let need = |n: u64| Need::flat(&mib(n));
    // The host takes more than its tenants are known to: the host's figure holds.
    let load = Load::of(&mib(1000), [need(300), need(300)], [need(850)]);
    assert_eq!((load.memory, load.tenants), (1850, 3));
    let load = Load::of(&mib(100), [need(300), need(300)], []);
    assert_eq!((load.memory, load.tenants), (600, 2));
    let kept = Load::of(&mib(0), [need(300).at_rest()], []);
    assert_eq!((kept.memory, kept.tenants), (0, 1), "nobody uses a kept copy");
}

/// One tenant that takes `cpu` thousandths of a core in those hours.
fn busy(hours: std::ops::Range<usize>, cpu: u16) -> Need {
    let mut need = Need::default();
    need.hourly[0][hours].fill(cpu);
    need
}

#[test]
fn who_is_busy_at_other_hours_shares_a_node() {
    let mut one = node(1, "ax52");
    one.load.add(&busy(8..16, 10_000));
    let fits = |need: Need| {
        place(&[one.clone()], &Demand { need, ..shared(Amounts::default()) }, &policy())
    };
    assert!(fits(busy(16..24, 10_000)).is_ok(), "12,000 are allowed in each hour, not in all");
    let no_room = fits(busy(15..24, 2001)).unwrap_err();
    let refusal =
        Refusal::NoRoomIn { dimension: Dimension::Cpu, hour: Some(15), wanted: 2001, free: 2000 };
    assert_eq!(no_room.refused[0].refusal, refusal);
}

#[test]
fn what_the_units_cannot_express_fits_nowhere() {
    let mut large = node(1, "ax52");
    large.shape.cpu = MilliCpu(1_000_000);
    let fits = |cpu: u64| {
        let need = shared(Amounts { cpu: MilliCpu(cpu), ..Default::default() });
        place(std::slice::from_ref(&large), &need, &policy())
    };
    assert!(fits(65_534).is_ok());
    for cpu in [65_535, 65_536, 10_000_000] {
        assert_eq!(fits(cpu).unwrap_err().counts, [("cpu".to_owned(), 1)].into(), "{cpu}");
    }
}

prop_compose! {
    fn amounts()(
        cpu in 0..5000_u64, memory in 0..(40 * GB), disk in 0..(300 * GB),
        connections in 0..40_000_u64, gps in 0..200_000_u64,
    ) -> Amounts {
        Amounts {
            cpu: MilliCpu(cpu),
            memory: Bytes(memory),
            disk: Bytes(disk),
            db_connections: MilliConnections(connections),
            gps: MilliPoints(gps),
        }
    }
}

prop_compose! {
    fn nodes()(
        standing in prop_oneof![
            4 => Just(Standing::Active),
            1 => prop_oneof![
                Just(Standing::Joining), Just(Standing::Draining), Just(Standing::Revoked)
            ],
        ],
        seen in prop_oneof![4 => Just(true), 1 => Just(false)],
        shape in proptest::sample::select(vec!["ax52", "ax52", "ax52", "shared-cpu-512"]),
        load in amounts(), tenants in 0..160_u32,
        memory in proptest::option::of(0..(200 * GB)),
    ) -> NodeState {
        let mut node = node(0, shape);
        node.standing = standing;
        node.seen = seen;
        node.load = Load::flat(&load);
        node.load.tenants = tenants;
        node.measured.memory = memory.map(Bytes);
        node
    }
}

fn fleets() -> impl Strategy<Value = Vec<NodeState>> {
    proptest::collection::vec(nodes(), 0..12).prop_map(|mut fleet| {
        for (n, node) in fleet.iter_mut().enumerate() {
            node.id = node_id(n as u128);
        }
        fleet
    })
}

proptest! {
    /// Checked in the terms of the rule, not by the code that placed.
    #[test]
    fn a_choice_never_breaks_a_limit(fleet in fleets(), wanted in amounts()) {
        let demand = shared(wanted);
        let placed = place(&fleet, &demand, &policy());
        let need = demand.need;
        let fits = |node: &NodeState| {
            let capacity = node.capacity();
            let may = |value: u64, unit: u64| value / unit * 75 / 100;
            let within = |row: usize, may: u64| {
                (0..24).all(|hour| {
                    let load = u64::from(node.load.hourly[row][hour]);
                    load + u64::from(need.hourly[row][hour]) <= may
                })
            };
            let mib = 1 << 20;
            let (memory, disk) = (u64::from(node.load.memory), u64::from(node.load.disk));
            node.standing == Standing::Active
                && node.seen
                && node.kind == crate::decide::plans::NodeKind::Shared
                && node.load.tenants < node.max_tenants
                && may(capacity.memory.0, mib) > 0
                && within(0, may(capacity.cpu.0, 1))
                && within(1, may(capacity.db_connections.0, 10))
                && within(2, may(capacity.gps.0, 10))
                && memory + u64::from(need.memory) <= may(capacity.memory.0, mib)
                && disk + u64::from(need.disk) <= may(capacity.disk.0, mib)
        };
        match placed {
            Ok(placed) => {
                let chosen = |id| fleet.iter().find(|node| node.id == id).unwrap();
                prop_assert!(fits(chosen(placed.node)));
                prop_assert!(placed.runners_up.iter().all(|r| fits(chosen(r.node))));
                prop_assert!(placed.filled <= Hundredths(100));
            }
            Err(no_room) => {
                prop_assert!(!fleet.iter().any(fits));
                prop_assert_eq!(no_room.counts.values().sum::<u32>() as usize, fleet.len());
            }
        }
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(fleet in fleets(), wanted in amounts()) {
        let mut reversed = fleet.clone();
        reversed.reverse();
        let demand = shared(wanted);
        prop_assert_eq!(place(&fleet, &demand, &policy()), place(&reversed, &demand, &policy()));
    }
}
