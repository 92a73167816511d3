use proptest::prelude::*;
use uuid::Uuid;

use super::super::snapshot::Tenant;
use super::*;
use crate::decide::Catalog;

const DAYS: [i64; 5] = [20_000, 20_007, 20_014, 20_021, 20_028];

fn node(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

fn tenant(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(n))
}

/// Two AX52 in fra, and tenants on them as named, each of 1 core, 1 GiB.
fn fleet(homes: &[(u128, u128)]) -> (Snapshot, Policy, Catalog) {
    let catalog = Catalog::default();
    let shape = catalog.shape("ax52").expect("a shared shape");
    let mut nodes = [1, 2].map(|n| NodeState::new(node(n), shape, "fra".into()));
    let need = Need { hourly: [[1000; 24], [0; 24], [0; 24]], memory: 1024, disk: 0 };
    for (_, home) in homes {
        nodes[usize::try_from(*home).expect("small") - 1].load.add(&need);
    }
    let tenants = homes.iter().map(|(id, home)| Tenant {
        id: tenant(*id),
        node: node(*home),
        need,
        since_h: 0,
        left: None,
        rules: None,
    });
    let tenants = tenants.collect();
    (Snapshot { now_h: 0, nodes: nodes.to_vec(), tenants }, Policy::of(&catalog), catalog)
}

/// What a tenant took: `first` thousandths of a core, and `more` each day.
fn took(id: u128, first: u32, more: u32, days: &[i64]) -> Vec<Took> {
    let of = |day: &i64| Took {
        tenant: tenant(id),
        day: *day,
        figures: [first + more * u32::try_from(day - DAYS[0]).expect("later"), 1024, 0, 0, 0, 1],
    };
    days.iter().map(of).collect()
}

fn cpu(reaches: &[Reach]) -> Reach {
    reaches[0]
}

#[test]
fn a_node_is_full_when_those_who_live_there_have_grown_so_far() {
    let (snapshot, policy, catalog) = fleet(&[(1, 1), (2, 1), (3, 2)]);
    // Tenant 2 came three weeks ago: it is growth of the place, not of its node.
    let past =
        [took(1, 500, 100, &DAYS), took(2, 1000, 0, &DAYS[2..]), took(3, 700, 0, &DAYS)].concat();
    let found = forecast(&snapshot, &policy, &catalog.shapes, &past);
    let one = cpu(&found.nodes[0].reaches);
    // 80 % of 16 cores; 2 are taken, and 0.1 more each day.
    assert_eq!((one.now, one.limit, one.grows_milli), (2000, 12_800, Some(100_000)));
    assert_eq!(one.days, Some(109), "after 108 days it is at the limit, not above");
    let two = cpu(&found.nodes[1].reaches);
    assert_eq!((two.now, two.grows_milli, two.days), (1000, Some(0), None));
    let place = &found.places[0];
    assert_eq!(
        (place.place.as_str(), place.nodes, place.shape.as_deref()),
        ("fra", 2, Some("ax52"))
    );
    let all = cpu(&place.reaches);
    assert_eq!((all.now, all.limit), (3000, 25_600));
    // 0.1 a day, and one core that came between the second week and the third.
    let newcomer = growth(&[(0, 0), (7, 0), (14, 1000), (21, 1000), (28, 1000)]).expect("known");
    assert_eq!(all.grows_milli, Some(100_000 + newcomer));
    let tenants = place.reaches[5];
    assert_eq!((tenants.dimension, tenants.now, tenants.limit), (Dimension::Tenants, 3, 300));
    assert!(tenants.grows_milli > Some(0));
    assert_eq!(tenants.days, None, "one more in four weeks: not for ten years");
    assert_eq!(first(&place.reaches).map(|reach| reach.dimension), Some(Dimension::Cpu));
    assert_eq!(tightest(&place.reaches), first(&place.reaches));
    let still =
        |dimension, now| Reach { dimension, now, limit: 100, grows_milli: None, days: None };
    let still =
        [still(Dimension::Memory, 20), still(Dimension::Disk, 90), still(Dimension::Cpu, 3)];
    assert_eq!((first(&still), tightest(&still)), (None, Some(&still[1])), "fullest now");
    assert!(place.days_with_one_more > all.days);
}

#[test]
fn nothing_is_foretold_of_two_weeks_or_of_nobody() {
    let (snapshot, policy, catalog) = fleet(&[(1, 1)]);
    for past in [Vec::new(), took(1, 500, 100, &DAYS[..2]), took(9, 500, 100, &DAYS)] {
        let found = forecast(&snapshot, &policy, &catalog.shapes, &past);
        let reach = cpu(&found.nodes[0].reaches);
        assert_eq!((reach.now, reach.grows_milli, reach.days), (1000, None, None));
        assert_eq!(found.places[0].days_with_one_more, None);
    }
    let (mut full, ..) = fleet(&[(1, 1)]);
    full.nodes[0].load.hourly[0][3] = 12_801;
    let found = forecast(&full, &policy, &catalog.shapes, &[]);
    assert_eq!(cpu(&found.nodes[0].reaches).days, Some(0), "it is above already");
    full.nodes[1].standing = super::super::node::Standing::Draining;
    let found = forecast(&full, &policy, &catalog.shapes, &[]);
    assert_eq!((found.places[0].nodes, found.nodes.len()), (1, 2));
}

#[test]
fn the_smallest_shared_shape_that_takes_a_tenant() {
    let (_, policy, mut catalog) = fleet(&[]);
    let mut large = catalog.shape("ax52").expect("a shape").clone();
    (large.name, large.cpu_millicores, large.memory_mb) = ("ax102".into(), 32_000, 256_000);
    catalog.shapes.insert(0, large);
    let named = |cores: u16| {
        let need = Need { hourly: [[cores * 1000; 24], [0; 24], [0; 24]], ..Need::default() };
        shape_for(&need, &catalog.shapes, &policy).map(|shape| shape.name.as_str())
    };
    assert_eq!(
        [named(12), named(13), named(24), named(25)],
        [Some("ax52"), Some("ax102"), Some("ax102"), None]
    );
}

proptest! {
    #[test]
    fn the_day_foretold_is_the_first_above_the_limit(
        now in 0_u64..1 << 40, free in 0_u64..1 << 30, grows in 1_i64..1 << 40,
    ) {
        let limit = now + free;
        let at = |days: u32| u128::from(now) * 1000 + u128::from(grows.unsigned_abs()) * u128::from(days);
        let limit_milli = u128::from(limit) * 1000;
        match days_left(now, limit, grows) {
            Some(days) => {
                prop_assert!(days >= 1 && at(days) > limit_milli && at(days - 1) <= limit_milli);
            }
            None => prop_assert!(at(FURTHEST) <= limit_milli),
        }
        prop_assert_eq!(days_left(now, limit, 0), None);
        prop_assert_eq!(days_left(now, limit, -grows), None);
        prop_assert_eq!(days_left(limit + 1, limit, -grows), Some(0));
    }

    #[test]
    fn a_line_is_found_whatever_its_order_and_where_it_begins(
        first in 0_u64..1 << 40, grows in 0_u64..1 << 20, shift in -10_000_i64..10_000,
        weeks in 3_i64..30, turn in 0_usize..30,
    ) {
        let mut past: Vec<(i64, u64)> = (0..weeks)
            .map(|week| (shift + week * 7, first + grows * (week * 7).unsigned_abs()))
            .collect();
        let count = past.len();
        past.rotate_left(turn % count);
        prop_assert_eq!(growth(&past), Some(i64::try_from(grows * 1000).expect("small")));
        prop_assert_eq!(growth(&past[..2]), None);
    }

    #[test]
    fn who_grows_faster_has_no_more_days(
        figures in prop::collection::vec(0_u32..100_000, 5), more in 0_u32..1000,
        now in 0_u64..50_000,
    ) {
        let past: Vec<(i64, u64)> =
            DAYS.iter().zip(&figures).map(|(day, figure)| (*day, u64::from(*figure))).collect();
        let faster: Vec<(i64, u64)> = past
            .iter()
            .map(|(day, figure)| (*day, figure + u64::from(more) * (day - DAYS[0]).unsigned_abs()))
            .collect();
        let left = |past: &[(i64, u64)]| {
            Reach::of(Dimension::Cpu, now, 60_000, past).days.unwrap_or(u32::MAX)
        };
        prop_assert!(left(&faster) <= left(&past));
    }
}
