//! The data path of a move, between two real clusters, under writers.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use webhost_agent::mover::catalog::Rules;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::run::{Run, Tuning};
use webhost_agent::mover::spec::{CutOver, Done, Progress, Secret, Spec, Step};
use webhost_coordinator::embedded::Options;
use webhost_proto::ids::{Epoch, MoveId, NodeId, TenantId};
use webhost_tests::schema;
use webhost_tests::writers::{
    Clusters, Findings, Isolation, World, Writers, check, session, table_hashes,
};

const LEVELS: [Isolation; 6] = [
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::ReadCommitted,
];

/// One pair of clusters for all tests of this process; the kernel ends them
/// with it.
fn clusters() -> &'static Clusters {
    static CLUSTERS: OnceLock<Clusters> = OnceLock::new();
    CLUSTERS.get_or_init(|| {
        let options =
            Options::throwaway().with("max_connections", "200").with("deadlock_timeout", "200ms");
        Clusters::start(&options).expect("PostgreSQL starts")
    })
}

async fn world(schema: &str, points: u32) -> World {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("move_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let clusters = tokio::task::spawn_blocking(clusters).await.expect("a thread");
    World::create(clusters, &name, schema, points).await.expect("a world")
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
            target_place: "node-b.example".into(),
            max_rows_per_second: 0,
        },
        rules: Rules::default(),
        source: Endpoint::Local(Box::new(world.mover(&world.source))),
        target: Endpoint::Local(Box::new(world.mover(&world.target))),
        tuning: Tuning { copy_part_pages: 64, ..Tuning::default() },
        fail: Fail::Off,
        progress: watch::channel(Progress::default()).0,
    }
}

async fn steps(run: &Run, steps: &[Step]) {
    for step in steps {
        run.step(*step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    }
}

async fn cut_over(run: &Run) -> CutOver {
    match run.step(Step::CutOver).await {
        Ok(Done::CutOver(result)) => result,
        other => panic!("cut over: {other:?}"),
    }
}

async fn states(world: &World) -> (String, String) {
    let mut states = Vec::new();
    for config in [&world.source, &world.target] {
        let (client, _driver) = session(config).await.expect("a session");
        let row = client
            .query_opt(
                "select state from webhost_fleet.fence where customer_id = $1",
                &[&world.tenant],
            )
            .await
            .expect("a fence");
        states.push(row.map_or("none".to_owned(), |row| row.get(0)));
    }
    let target = states.pop().expect("two");
    (states.pop().expect("two"), target)
}

async fn moves_with_writers(schema: &str) {
    let world = world(schema, 20_000).await;
    let neighbour = table_hashes(&world.source, world.neighbour).await.expect("hashes");
    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let run = a_move(&world);
    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(5), 7);
    // Every step twice: a repetition changes nothing.
    for step in [Step::Preflight, Step::Guard, Step::Copy, Step::Drain, Step::Verify] {
        steps(&run, &[step, step]).await;
    }
    let first = cut_over(&run).await;
    assert!(!first.recovered && first.epoch == Epoch(2), "{first:?}");
    assert!(cut_over(&run).await.recovered);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ledger = writers.stop().await.expect("writers");
    assert!(ledger.positions.len() > 50, "the writers wrote: {}", ledger.positions.len());
    assert!(ledger.refused > 0, "the writers met the fence");
    assert_eq!(check(&world, &ledger, 1).await.expect("check"), Findings::default());
    steps(&run, &[Step::Finish, Step::Finish]).await;
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    let after = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    assert_eq!(foreigner, after, "the target's other tenant");
    let after = table_hashes(&world.source, world.neighbour).await.expect("hashes");
    for (table, hash) in &neighbour {
        if table != "gps_positions" {
            assert_eq!(after.get(table), Some(hash), "the source's other tenant: {table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_under_writers_and_nothing_is_lost() {
    moves_with_writers(schema::WEBHOST).await;
}
