//! There and back again, as often as one likes: the legs of a move.

use std::time::Duration;

use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{CutOver, Done, Step};
use webhost_proto::ids::Epoch;
use webhost_tests::schema;
use webhost_tests::writers::{Findings, World, Writers, check, table_hashes};

use crate::scene::{LEVELS, a_move, cut_over, number, sql, states, steps, world};

/// A second hence, in microseconds since 1970.
pub(crate) fn soon(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_microsecond() + seconds * 1_000_000
}

pub(crate) async fn roll_back(run: &Run) -> CutOver {
    match run.step(Step::RollBack).await {
        Ok(Done::RollBack(result)) => result,
        other => panic!("roll back: {other:?}"),
    }
}

/// The tenant's rows are the same on both sides.
pub(crate) async fn same(world: &World) {
    let here = table_hashes(&world.source, world.tenant).await.expect("hashes");
    let there = table_hashes(&world.target, world.tenant).await.expect("hashes");
    assert_eq!(here, there);
}

async fn there_and_back(schema: &str, legs: u64) {
    let world = world(schema, 2_000).await;
    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let mut run = a_move(&world);
    run.tuning.last_leg = 1_000;
    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(5), 21);
    steps(&run, &[Step::Guard, Step::Copy, Step::Verify]).await;
    for leg in 0..legs {
        let result = if leg % 2 == 0 { cut_over(&run).await } else { roll_back(&run).await };
        assert!(!result.recovered && result.epoch == Epoch(2 + leg), "{leg}: {result:?}");
        let again = if leg % 2 == 0 { cut_over(&run).await } else { roll_back(&run).await };
        assert!(again.recovered && again.epoch == result.epoch, "{leg}: {again:?}");
        if leg == 2 {
            steps(&run, &[Step::Verify]).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ledger = writers.stop().await.expect("writers");
    assert!(ledger.refused > 0, "the writers met the fence");
    let home = usize::from(legs % 2 == 1);
    let found = check(&world, &ledger, home).await.expect("check");
    // The copy that serves nobody is still there.
    assert_eq!(Findings { foreign: 0, ..found }, Findings::default());
    // One more leg without writers carries the rest: both sides are equal.
    if legs.is_multiple_of(2) {
        cut_over(&run).await
    } else {
        roll_back(&run).await
    };
    same(&world).await;
    steps(&run, &[Step::Finish, Step::Finish]).await;
    let after = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    assert_eq!(foreigner, after, "the target's other tenant");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_loses_nothing() {
    there_and_back(schema::WEBHOST, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitioned_tables_go_back_as_well() {
    there_and_back(schema::WEBHOST_PARTITIONED, 3).await;
}

/// The product goes there, and back once: an old order for the cut-over does
/// not switch a tenant that was rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_is_the_last_switch() {
    let world = world(schema::WEBHOST, 200).await;
    let run = a_move(&world);
    let error = run.step(Step::RollBack).await.expect_err("refused").to_string();
    assert!(error.contains("not switched yet"), "{error}");
    steps(&run, &[Step::Guard, Step::Copy]).await;
    cut_over(&run).await;
    let write =
        format!("update vehicles set odometer_m = 5 where customer_id = '{}'", world.tenant);
    sql(&world.target, &write).await;
    roll_back(&run).await;
    assert_eq!(number(&world.source, "select min(odometer_m) from vehicles v join customers c on c.id = v.customer_id where c.slug like 't-%' and odometer_m <> 0").await, 5);
    assert_eq!(states(&world).await, ("active".into(), "moved".into()));
    let error = run.step(Step::CutOver).await.expect_err("refused").to_string();
    assert!(error.contains("rolled back"), "{error}");
    // A writer at the side that was left is told where the tenant is.
    let (client, _driver) =
        webhost_tests::writers::session(&world.target).await.expect("a session");
    let error = client.batch_execute(&write).await.expect_err("refused");
    let told = error.as_db_error().expect("an answer");
    assert_eq!((told.code().code(), told.detail()), ("MG001", Some("node-a.example")));
    steps(&run, &[Step::Finish]).await;
    let error = run.step(Step::RollBack).await.map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(error, Ok(()), "it was rolled back, and that is said again");
}
