//! The model of the writers itself, and what two-phase commit and waiting in
//! circles mean to a move.

use std::time::Duration;

use tokio::task::JoinSet;
use webhost_agent::mover::error::Kind;
use webhost_agent::mover::spec::Step;
use webhost_tests::schema;
use webhost_tests::writers::{
    Findings, Isolation, Mix, World, Writers, check, kinds, session, table_hashes,
};

use crate::scene::{LEVELS, a_move, cut_over, number, sql, states, steps, world};

const ALL: Mix = Mix { think: true, two_phase: true, crashes: false };

/// Without a move at all, every kind of write is acknowledged in every level,
/// and the model finds what it acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_right_where_nothing_happens() {
    for schema in [schema::WEBHOST, schema::WEBHOST_PARTITIONED] {
        let world = world(schema, 200).await;
        let writers = Writers::with(&world, &LEVELS, Duration::from_millis(1), 21, ALL);
        let written = || number(&world.source, "select count(*) from infrastructure_events");
        while written().await < 150 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ledger = writers.stop().await.expect("writers");
        assert_eq!(check(&world, &ledger, 0).await.expect("check"), Findings::default());
        for kind in kinds() {
            assert!(ledger.kinds.contains_key(kind), "{kind} never happened: {:?}", ledger.kinds);
        }
        // The model's own test: each kind of damage is found as what it is.
        for (damage, wrong) in [
            (
                "update gps_positions set altitude = altitude + 1 where altitude <> 0 and customer_id = $",
                "stale",
            ),
            (
                "update zone_visits set zone_code = (select max(code) from zones) where customer_id = $",
                "stale",
            ),
            ("delete from gps_positions where altitude = 0 and customer_id = $", "lost"),
            ("update vehicles set odometer_m = odometer_m - 1 where customer_id = $", "miscounted"),
            ("insert into zones values ($, 'never written', -1)", "invented"),
        ] {
            sql(&world.source, &damage.replace('$', &format!("'{}'", world.tenant))).await;
            let found = check(&world, &ledger, 0).await.expect("check");
            let count = match wrong {
                "stale" => found.stale,
                "lost" => found.lost,
                "miscounted" => found.miscounted,
                _ => found.invented,
            };
            assert!(count > 0, "{damage}: {found:?}");
        }
    }
}

/// Think time, prepared transactions and all else, through a whole move; the
/// source's copy and the target are equal at the moment of the switch.
#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once() {
    for (schema, seed) in [(schema::WEBHOST, 31), (schema::WEBHOST_PARTITIONED, 41)] {
        let world = world(schema, 1_000).await;
        let run = a_move(&world);
        let writers = Writers::with(&world, &LEVELS, Duration::from_millis(3), seed, ALL);
        for step in [Step::Guard, Step::Copy, Step::Drain, Step::Verify] {
            steps(&run, &[step, step]).await;
        }
        patiently_switched(&run).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ledger = writers.stop().await.expect("writers");
        let found = check(&world, &ledger, 1).await.expect("check");
        assert_eq!(found, Findings::default(), "seed {seed}: {:?}", ledger.kinds);
        assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    }
}

/// A switch under writers that think may have to be asked for again.
async fn patiently_switched(run: &webhost_agent::mover::run::Run) {
    for _ in 0..5 {
        match run.step(Step::CutOver).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), Kind::Retry, "{error}"),
        }
    }
    panic!("the fence never closed");
}

/// Writers stop before the switch: both sides' rows hash the same after it.
#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_after_the_switch() {
    let world = world(schema::WEBHOST, 2_000).await;
    let run = a_move(&world);
    let writers = Writers::with(&world, &LEVELS, Duration::from_millis(2), 51, ALL);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain, Step::Verify]).await;
    let ledger = writers.stop().await.expect("writers");
    cut_over(&run).await;
    let source = table_hashes(&world.source, world.tenant).await.expect("hashes");
    let target = table_hashes(&world.target, world.tenant).await.expect("hashes");
    assert_eq!(source, target);
    assert_eq!(check(&world, &ledger, 1).await.expect("check"), Findings::default());
}

/// A transaction that was prepared before the guards came holds its tables:
/// the guards wait for its end, and what it wrote is part of the copy.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_before_the_guards_is_moved() {
    for (ending, expected) in [("commit", 7), ("rollback", 0)] {
        let world = world(schema::WEBHOST, 200).await;
        let run = a_move(&world);
        prepare(&world, "early", 7).await;
        let said = run.step(Step::Preflight).await.expect_err("refused").to_string();
        assert!(said.contains("early"), "{said}");
        let mut guards = JoinSet::new();
        let (spec, rules) = (run.spec.clone(), run.rules.clone());
        let ours = webhost_agent::mover::run::Run { spec, rules, ..a_move(&world) };
        guards.spawn(async move { ours.step(Step::Guard).await.map(|_| ()) });
        // The other tables get theirs; this one can't.
        let waits =
            "select count(*) from pg_locks where not granted and relation = 'vehicles'::regclass";
        while number(&world.source, waits).await == 0 {
            assert!(guards.try_join_next().is_none(), "the guards waited for nothing");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sql(&world.source, &format!("{ending} prepared 'early'")).await;
        let guarded = guards.join_next().await.expect("a task").expect("no panic");
        guarded.expect("the guards go in");
        steps(&run, &[Step::Copy, Step::Drain, Step::Verify]).await;
        cut_over(&run).await;
        let moved = number(&world.target, &odometer(&world)).await;
        assert_eq!(moved, expected, "{ending}");
    }
}

/// One that is prepared behind the guards keeps the fence open, and is named;
/// what it wrote is on the target.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_prepared_blocks_the_fence_and_is_named() {
    let world = world(schema::WEBHOST, 200).await;
    let mut run = a_move(&world);
    run.tuning.fence_attempts = 1;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    prepare(&world, "late", 9).await;
    let error = run.step(Step::CutOver).await.expect_err("blocked");
    assert_eq!(error.kind(), Kind::Retry, "{error}");
    assert!(error.to_string().contains("late"), "{error}");
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));
    sql(&world.source, "commit prepared 'late'").await;
    cut_over(&run).await;
    assert_eq!(number(&world.target, &odometer(&world)).await, 9);
}

fn odometer(world: &World) -> String {
    format!("select odometer_m from vehicles where id = '{}'", world.vehicles[0])
}

async fn prepare(world: &World, name: &str, odometer: i64) {
    sql(
        &world.source,
        &format!(
            "begin; update vehicles set odometer_m = {odometer} where id = '{}'; prepare transaction '{name}'",
            world.vehicles[0]
        ),
    )
    .await;
}

/// One writer waits for the other's row, the mover for the first, the second
/// for the mover: the mover is the one who gives up, and nobody is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_waiting_is_broken_by_the_mover() {
    let world = world(schema::WEBHOST, 200).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    let (one, _a) = session(&world.source).await.expect("a session");
    let (two, _b) = session(&world.source).await.expect("a session");
    let [first, second] = [world.vehicles[0], world.vehicles[1]];
    let count = |id| format!("update vehicles set odometer_m = odometer_m + 1 where id = '{id}'");
    two.batch_execute(&format!("begin; select 1 from vehicles where id = '{second}' for update"))
        .await
        .expect("locks");
    one.batch_execute(&format!("begin; {}", count(first))).await.expect("writes");
    let mut tasks = JoinSet::new();
    let waits = count(second);
    tasks.spawn(async move {
        one.batch_execute(&waits).await.expect("waits, then writes");
        one.batch_execute("commit").await.expect("commits");
    });
    tasks.spawn(async move {
        // While the mover waits for the first: queued behind it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        two.batch_execute(&count(second)).await.expect("waits, then writes");
        two.batch_execute("commit").await.expect("commits");
    });
    cut_over(&run).await;
    while let Some(ended) = tasks.join_next().await {
        ended.expect("both writers got through");
    }
    let sum = "select sum(odometer_m)::int8 from vehicles";
    assert_eq!(
        number(&world.target, &format!("{sum} where customer_id = '{}'", world.tenant)).await,
        3
    );
}

/// Writers in one level each, so that no level hides behind another.
#[tokio::test(flavor = "multi_thread")]
async fn each_isolation_level_alone() {
    for (level, seed) in [
        (Isolation::ReadCommitted, 61),
        (Isolation::RepeatableRead, 71),
        (Isolation::Serializable, 81),
    ] {
        let world = world(schema::WEBHOST, 300).await;
        let run = a_move(&world);
        let mix = Mix { think: true, ..Mix::default() };
        let writers = Writers::with(&world, &[level; 4], Duration::from_millis(1), seed, mix);
        steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
        patiently_switched(&run).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let ledger = writers.stop().await.expect("writers");
        let found = check(&world, &ledger, 1).await.expect("check");
        assert_eq!(found, Findings::default(), "{level:?}, seed {seed}: {:?}", ledger.kinds);
        assert!(ledger.refused + ledger.serialization > 0, "{level:?} met the fence");
    }
}
