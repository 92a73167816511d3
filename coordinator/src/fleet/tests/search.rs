//! The search over thousands of nodes, against looking at each of them.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;
use webhost_proto::ids::NodeId;

use super::super::rooms::{Ask, Rooms};
use super::super::*;
use crate::decide::Catalog;

fn nodes(rng: &mut StdRng, count: u128) -> Vec<NodeState> {
    let catalog = Catalog::default();
    let shape = catalog.shape("ax52").unwrap();
    (0..count)
        .map(|n| {
            let region = ["fra", "iad", "sin"][rng.random_range(0..3)];
            let mut node = NodeState::new(NodeId(Uuid::from_u128(n)), shape, region.into());
            for _ in 0..rng.random_range(0..60) {
                node.load.add(&need(rng));
            }
            node.seen = rng.random_range(0..10) > 0;
            node
        })
        .collect()
}

fn need(rng: &mut StdRng) -> Need {
    let mut need = Need {
        memory: rng.random_range(1..3000),
        disk: rng.random_range(1..30_000),
        ..Need::default()
    };
    for row in &mut need.hourly {
        let level = rng.random_range(1..300);
        row.iter_mut().for_each(|hour| *hour = level + rng.random_range(0..50));
    }
    need
}

#[test]
fn it_finds_a_place_exactly_when_there_is_one_and_charging_is_what_building_is() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut nodes = nodes(&mut rng, 12);
        let mut rooms = Rooms::new(&nodes, 75);
        for _ in 0..150 {
            let need = need(&mut rng);
            let near = rooms.regions(&["iad".into()]);
            let avoid = [rng.random_range(0..12)];
            let ask = Ask { near: &near, avoid: &avoid, ..Ask::of(&need) };
            let fits: Vec<u32> = (0..12)
                .filter(|at| *at != avoid[0])
                .filter(|at| nodes[*at as usize].is_open())
                .filter(|at| place::short(&nodes[*at as usize], &need, 75).is_none())
                .collect();
            let chosen = rooms.choose(&ask);
            assert_eq!(chosen.is_some(), !fits.is_empty(), "seed {seed}");
            let Some(chosen) = chosen else { continue };
            assert!(fits.contains(&chosen), "seed {seed}: {chosen} of {fits:?}");
            let is_near = |at: &u32| nodes[*at as usize].region.as_str() == "iad";
            assert_eq!(is_near(&chosen), fits.iter().any(is_near), "seed {seed}");
            rooms.charge(chosen, &need);
            nodes[chosen as usize].load.add(&need);
            if rng.random_range(0..3) == 0 {
                let node = rng.random_range(0..12);
                rooms.discharge(node, &need);
                nodes[node as usize].load.remove(&need);
            }
            // What was updated in place chooses as what is built afresh.
            let afresh = Rooms::new(&nodes, 75);
            assert_eq!(afresh.choose(&ask), rooms.choose(&ask), "seed {seed}");
            assert_eq!(afresh.mix(), rooms.mix(), "seed {seed}");
        }
    }
}

#[test]
fn a_closed_node_is_not_found_and_a_new_one_is() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut one = nodes(&mut rng, 2);
    one.iter_mut().for_each(|node| (node.seen, node.load) = (true, Load::default()));
    let mut rooms = Rooms::new(&one[..1], 75);
    let need = Need::default();
    assert_eq!(rooms.choose(&Ask::of(&need)), Some(0));
    rooms.close(0);
    assert_eq!(rooms.choose(&Ask::of(&need)), None);
    rooms.push(&one[1], 75);
    assert_eq!(rooms.choose(&Ask::of(&need)), Some(1));
}

/// The fleet is short of CPU; so who takes little of it goes where little is
/// left, and who takes much goes where there is more than the mix needs.
#[test]
fn nodes_fill_along_the_fleets_mix() {
    let catalog = Catalog::default();
    let shape = catalog.shape("ax52").unwrap();
    let with = |n: u128, cpu: u16, memory: u32| {
        let mut node = NodeState::new(NodeId(Uuid::from_u128(n)), shape, "fra".into());
        node.load.add(&Need { hourly: [[cpu; 24], [0; 24], [0; 24]], memory, disk: 0 });
        node
    };
    // Both as full in their fullest dimension: one of CPU, one of memory.
    let nodes = [with(1, 9000, 20_000), with(2, 2000, 68_000)];
    let rooms = Rooms::new(&nodes, 75);
    let choose = |cpu: u16, memory: u32| {
        rooms.choose(&Ask::of(&Need { hourly: [[cpu; 24], [0; 24], [0; 24]], memory, disk: 0 }))
    };
    assert_eq!(choose(500, 100), Some(1), "much CPU goes where CPU is left");
    assert_eq!(choose(10, 8000), Some(0), "much memory goes where memory is left");
}

#[test]
fn a_node_that_holds_nothing_is_not_chosen_and_changes_nothing_for_the_others() {
    let mut rng = StdRng::seed_from_u64(3);
    let ask = need(&mut rng);
    let whole = nodes(&mut rng, 5);
    let chosen = |nodes: &[NodeState]| {
        let rooms = Rooms::new(nodes, 75);
        rooms.choose(&Ask::of(&ask)).map(|node| rooms.id(node))
    };
    for hollow in 0..6 {
        let mut nothing = NodeState { id: NodeId(Uuid::from_u128(99)), ..whole[0].clone() };
        (nothing.seen, nothing.load) = (true, Load::default());
        match hollow {
            0 => nothing.shape.cpu.0 = 0,
            1 => nothing.shape.memory.0 = 0,
            2 => nothing.shape.disk.0 = 0,
            3 => nothing.shape.db_connections.0 = 0,
            4 => nothing.shape.gps.0 = 0,
            _ => nothing.max_tenants = 0,
        }
        assert_eq!(chosen(std::slice::from_ref(&nothing)), None, "{hollow}");
        // What it is charged with by measurement harms no search either.
        nothing.load = whole[0].load;
        let with = [whole.as_slice(), &[nothing]].concat();
        assert_eq!(chosen(&with), chosen(&whole), "{hollow}");
    }
}
