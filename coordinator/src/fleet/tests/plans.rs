//! What plans do in cases that a person can follow, what they may not do, and
//! that the checker sees each fault.

use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};

use super::super::plan::{Why, drain};
use super::super::snapshot::Left;
use super::super::verify::Broken;
use super::super::*;
use crate::decide::Catalog;

fn node_id(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

fn tenant_id(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(n))
}

/// CPU in thousandths of a core all day, disk in MiB.
fn need(cpu: u16, disk: u32) -> Need {
    Need { hourly: [[cpu; 24], [10; 24], [10; 24]], memory: 100, disk }
}

/// AX52 servers 1, 2, …, each with tenants of that CPU and disk. Tenants are
/// numbered 100, 101, … on the first server, 200, … on the second.
fn fleet(servers: &[&[(u16, u32)]]) -> Snapshot {
    let catalog = Catalog::default();
    let shape = catalog.shape("ax52").unwrap();
    let mut snapshot = Snapshot { now_h: 1000, ..Snapshot::default() };
    for (n, tenants) in (1..).zip(servers) {
        let mut node = NodeState::new(node_id(n), shape, "fra".into());
        for (number, (cpu, disk)) in tenants.iter().enumerate() {
            let need = need(*cpu, *disk);
            node.load.add(&need);
            snapshot.tenants.push(Tenant {
                id: tenant_id(n * 100 + number as u128),
                node: node.id,
                need,
                since_h: 0,
                left: None,
                rules: None,
            });
        }
        snapshot.nodes.push(node);
    }
    snapshot
}

fn made(snapshot: &Snapshot) -> Plan {
    let plan = plan(snapshot, &Policy::default()).unwrap();
    verify(snapshot, &Policy::default(), &plan).unwrap();
    plan
}

fn moves(plan: &Plan) -> Vec<(u128, u128)> {
    plan.moves().map(|step| (step.tenant.0.as_u128(), step.to.0.as_u128())).collect()
}

/// 16 cores: 11,520 is calm, 12,000 may be placed, above 12,800 is too much.
#[test]
fn an_overloaded_server_is_relieved_by_the_smallest_and_cheapest_set() {
    let rest = (1000, 100);
    type Case = (&'static str, Vec<(u16, u32)>, Vec<u128>);
    let cases: [Case; 5] = [
        ("nothing above the limit", vec![(12_700, 9)], vec![]),
        ("one is enough: the cheaper", vec![(2000, 900), (2000, 500), (9000, 10)], vec![101]),
        (
            "one that is cheaper but too light does not do",
            vec![(1000, 1), (2000, 500), (10_000, 900)],
            vec![101],
        ),
        (
            "two, the cheapest pair",
            [vec![(1500, 40), (1500, 20), (1500, 30)], vec![rest; 9]].concat(),
            vec![101, 102],
        ),
        ("four", [vec![(600, 10); 4], vec![(365, 5); 31]].concat(), vec![100, 101, 102, 103]),
    ];
    for (what, tenants, want) in cases {
        let mut snapshot = fleet(&[&tenants, &[(5000, 10)]]);
        // Nobody may be moved for balance here.
        snapshot.tenants.iter_mut().for_each(|tenant| tenant.since_h = snapshot.now_h);
        let plan = made(&snapshot);
        let mut moved: Vec<u128> = moves(&plan).iter().map(|(tenant, _)| *tenant).collect();
        moved.sort_unstable();
        assert_eq!(moved, want, "{what}");
        assert_eq!(plan.relieved.len(), usize::from(!want.is_empty()), "{what}");
    }
}

#[test]
fn who_fits_nowhere_is_reported_and_named_not_moved_around() {
    let snapshot = fleet(&[&[(9000, 10), (4500, 10)], &[(9000, 10)]]);
    let plan = made(&snapshot);
    assert_eq!(moves(&plan), []);
    let [overload] = plan.overloaded.as_slice() else { panic!("{plan:?}") };
    assert_eq!((overload.node, overload.dimension), (node_id(1), Dimension::Cpu));
    assert_eq!((overload.hour, overload.carries, overload.limit), (Some(0), 13_500, 12_800));
    assert_eq!(overload.noisiest, Some(tenant_id(100)));

    let plan = drain(&snapshot, &Policy::default(), &[node_id(1)]).unwrap();
    verify(&snapshot, &Policy::default(), &plan).unwrap();
    assert_eq!(plan.stuck.len(), 2);
    assert!(plan.stuck.iter().all(|stuck| stuck.another_node_would_do));
    assert_eq!(plan.emptied, []);
}

#[test]
fn a_draining_server_is_emptied_and_nobody_goes_to_another_that_drains() {
    let mut snapshot = fleet(&[&[(500, 10); 6], &[(500, 10); 6], &[(500, 10); 6]]);
    snapshot.nodes[0].standing = Standing::Draining;
    snapshot.nodes[1].standing = Standing::Draining;
    let plan = made(&snapshot);
    assert_eq!(plan.emptied, [node_id(1), node_id(2)]);
    assert_eq!(plan.moves().count(), 12);
    assert!(plan.moves().all(|step| step.to == node_id(3) && step.why == Why::Drain));
    assert_eq!(plan.waves.len(), 12, "one at a time to one target");
}

#[test]
fn a_server_that_the_rest_can_do_without_is_given_up_once_all_have_settled() {
    let mut snapshot = fleet(&[&[(1000, 10); 8], &[(1000, 10); 3], &[(1000, 10); 8]]);
    let plan = made(&snapshot);
    assert_eq!(plan.emptied, [node_id(2)]);
    assert!(plan.moves().all(|step| step.why == Why::Consolidate && step.from == node_id(2)));
    snapshot.tenants[9].since_h = snapshot.now_h - 167;
    assert_eq!(made(&snapshot).emptied, [node_id(1)], "another, because one has not settled");
    snapshot.tenants.iter_mut().for_each(|tenant| tenant.since_h = snapshot.now_h - 167);
    assert_eq!(made(&snapshot), Plan::default());
}

#[test]
fn who_left_does_not_return_until_its_load_or_the_week_has_changed() {
    let mut snapshot = fleet(&[&[(6000, 10), (8000, 99)], &[]]);
    let took = snapshot.tenants[0].need.peaks();
    let lately = Left { node: node_id(2), at_h: 900, took };
    snapshot.tenants[0].left = Some(lately);
    assert_eq!(moves(&made(&snapshot)), [(101, 2)], "not the cheaper one, which came from there");
    snapshot.tenants[0].left = Some(Left { at_h: 1000 - 168, ..lately });
    assert_eq!(moves(&made(&snapshot)), [(100, 2)]);
    let mut other = took;
    other[0] = 4900;
    snapshot.tenants[0].left = Some(Left { took: other, ..lately });
    assert_eq!(moves(&made(&snapshot)), [(100, 2)], "it takes 22 % more than then");
}

fn ruled(rules: Rules) -> Option<Box<Rules>> {
    Some(Box::new(rules))
}

#[test]
fn pins_labels_and_contracts_are_kept() {
    let mut snapshot = fleet(&[&[(500, 10); 2], &[(500, 10)], &[(600, 10)]]);
    snapshot.nodes[0].standing = Standing::Draining;
    snapshot.tenants.iter_mut().for_each(|tenant| tenant.since_h = 1000);
    let go = |snapshot: &Snapshot| {
        let mut moves = moves(&made(snapshot));
        moves.sort_unstable();
        moves
    };
    let label = || ruled(Rules { apart: vec!["rivals".into()], ..Rules::default() });
    snapshot.tenants[0].rules = label();
    snapshot.tenants[3].rules = label();
    assert_eq!(go(&snapshot)[0], (100, 2), "apart from the one on 3");
    snapshot.tenants[1].rules = label();
    snapshot.tenants[3].rules = None;
    let targets: Vec<u128> = go(&snapshot).iter().map(|(_, to)| *to).collect();
    assert_ne!(targets[0], targets[1], "apart on their way as well");
    snapshot.tenants[1].rules = ruled(Rules { pinned: Some(node_id(3)), ..Rules::default() });
    assert_eq!(go(&snapshot)[1], (101, 3));
    snapshot.nodes[1].region = "iad".into();
    snapshot.tenants[1].rules = ruled(Rules { only: vec!["iad".into()], ..Rules::default() });
    assert_eq!(go(&snapshot)[1], (101, 2));
    snapshot.tenants[1].rules = ruled(Rules { only: vec!["sin".into()], ..Rules::default() });
    let plan = made(&snapshot);
    assert_eq!(plan.stuck.iter().map(|stuck| stuck.tenant).collect::<Vec<_>>(), [tenant_id(101)]);
}

#[test]
fn every_server_gives_its_verdict() {
    let mut snapshot =
        fleet(&[&[(500, 10)], &[(11_800, 10)], &[(600, 10)], &[(500, 10)], &[], &[]]);
    snapshot.nodes[3].standing = Standing::Draining;
    snapshot.nodes[4].seen = false;
    let took = snapshot.tenants[0].need.peaks();
    snapshot.tenants[0].left = Some(Left { node: node_id(6), at_h: 990, took });
    let lines = explain(&snapshot, &Policy::default(), tenant_id(100)).unwrap().unwrap();
    let nodes: Vec<u128> = lines.iter().map(|line| line.node.0.as_u128()).collect();
    assert_eq!(nodes, [1, 3, 2, 4, 5, 6]);
    assert!(matches!(lines[0].verdict, Verdict::Home { .. }));
    assert!(matches!(lines[1].verdict, Verdict::Fits { rank: 1, binding: Dimension::Cpu, .. }));
    let refusals: Vec<Refusal> = lines[2..]
        .iter()
        .map(|line| match line.verdict {
            Verdict::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        })
        .collect();
    let no_cpu =
        Refusal::NoRoomIn { dimension: Dimension::Cpu, hour: Some(0), wanted: 500, free: 200 };
    let draining = Refusal::NotActive { standing: Standing::Draining };
    assert_eq!(refusals, [no_cpu, draining, Refusal::NotSeen, Refusal::JustLeft]);
    assert_eq!(explain(&snapshot, &Policy::default(), tenant_id(7)).unwrap(), None);
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    let good = fleet(&[&[(500, 10)], &[(500, 10)]]);
    let refuse = |spoil: fn(&mut Snapshot)| {
        let mut bad = good.clone();
        spoil(&mut bad);
        plan(&bad, &Policy::default()).unwrap_err()
    };
    let error = refuse(|bad| bad.tenants[0].node = node_id(9));
    assert!(matches!(error, SnapshotError::UnknownNode { .. }), "{error}");
    let error = refuse(|bad| bad.tenants[1].id = bad.tenants[0].id);
    assert!(matches!(error, SnapshotError::Twice(_)), "{error}");
    let error = refuse(|bad| bad.nodes[1].id = bad.nodes[0].id);
    assert!(matches!(error, SnapshotError::Twice(_)), "{error}");
}

/// One good plan, spoiled in every way that the checker knows.
#[test]
fn the_checker_sees_each_fault() {
    let mut good = fleet(&[&[(500, 10); 3], &[(500, 10)], &[(600, 10)]]);
    good.nodes[0].standing = Standing::Draining;
    let policy = Policy::default();
    let plan = drain(&good, &policy, &[node_id(1)]).unwrap();
    verify(&good, &policy, &plan).unwrap();
    type Spoil = fn(&mut Snapshot, &mut Plan);
    let cases: [(Spoil, &str); 15] = [
        (|_, p| p.waves[0][0].tenant = tenant_id(9), "is not in the snapshot"),
        (|_, p| p.waves[0][0].to = node_id(9), "is not in the snapshot"),
        (|_, p| p.waves.push(p.waves[0].clone()), "moves twice"),
        (|_, p| p.waves[0][0].from = node_id(3), "does not live where"),
        (|_, p| p.waves[0][0].to = node_id(1), "to where it is"),
        (|s, _| s.nodes[1..].iter_mut().for_each(|n| n.seen = false), "may be given no tenants"),
        (|s, _| s.nodes[1..].iter_mut().for_each(|n| n.load.hourly[0][7] = 11_600), "(hour 7)"),
        (|s, _| s.nodes[1..].iter_mut().for_each(|n| n.max_tenants = 1), "Tenants"),
        (
            |s, _| {
                let rules = Rules { only: vec!["iad".into()], ..Rules::default() };
                s.tenants.iter_mut().for_each(|t| t.rules = ruled(rules.clone()));
            },
            "must not live there",
        ),
        (
            |s, _| {
                let rules = Rules { apart: vec!["x".into()], ..Rules::default() };
                s.tenants.iter_mut().for_each(|t| t.rules = ruled(rules.clone()));
            },
            "must live apart",
        ),
        (
            |s, p| {
                let to = p.waves[0][0].to;
                let took = s.tenants[0].need.peaks();
                let left = Some(Left { node: to, at_h: 999, took });
                s.tenants.iter_mut().for_each(|t| t.left = left);
            },
            "too early",
        ),
        (
            |s, p| {
                s.tenants.iter_mut().for_each(|t| t.since_h = 999);
                p.waves[0][0].why = Why::Consolidate;
            },
            "has not settled",
        ),
        (|_, p| p.waves = vec![p.waves.concat()], "too many moves at once"),
        (|_, p| p.waves.truncate(1), "said to be emptied"),
        (
            |_, p| {
                let (tenant, node) = (p.waves[0][0].tenant, node_id(1));
                p.stuck.push(plan::Stuck { tenant, node, another_node_would_do: true });
            },
            "said to be stuck",
        ),
    ];
    for (spoil, said) in cases {
        let (mut snapshot, mut spoiled) = (good.clone(), plan.clone());
        spoil(&mut snapshot, &mut spoiled);
        let broken = verify(&snapshot, &policy, &spoiled).expect_err(said);
        assert!(broken.to_string().contains(said), "{broken} is not {said}");
    }
    let crowded = fleet(&[&[(9000, 10), (4000, 10)], &[]]);
    let mut relief = made(&crowded);
    relief.waves.clear();
    let broken = verify(&crowded, &policy, &relief).unwrap_err();
    assert_eq!(broken, Broken::NotRelieved(node_id(1)));
    let tight = Policy { balance_moves: 2, ..policy };
    let loose = fleet(&[&[(1000, 10); 8], &[(1000, 10); 3], &[(1000, 10); 8]]);
    assert_eq!(verify(&loose, &tight, &made(&loose)), Err(Broken::OverBudget(3)));
}
