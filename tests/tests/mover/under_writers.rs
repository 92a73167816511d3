//! Whole moves while writers do their worst.

use std::time::Duration;

use webhost_agent::mover::spec::Step;
use webhost_proto::ids::Epoch;
use webhost_tests::schema;
use webhost_tests::writers::{Findings, Isolation, Writers, check, table_hashes};

use crate::scene::{LEVELS, a_move, cut_over, number, sql, states, steps, world};

pub(crate) async fn moves_with_writers(schema: &str) {
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

#[tokio::test(flavor = "multi_thread")]
async fn partitioned_tables_move_as_well() {
    moves_with_writers(schema::WEBHOST_PARTITIONED).await;
}

/// Ten times there and back would need the way back; ten tenants one after
/// the other do as well for the cut-over itself.
#[tokio::test(flavor = "multi_thread")]
async fn cut_overs_of_a_busy_tenant_lose_nothing() {
    for seed in 0..3 {
        let world = world(schema::WEBHOST, 500).await;
        let run = a_move(&world);
        let writers = Writers::start(&world, &LEVELS, Duration::from_millis(1), seed * 100);
        steps(&run, &[Step::Guard, Step::Copy]).await;
        cut_over(&run).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let ledger = writers.stop().await.expect("writers");
        let found = check(&world, &ledger, 1).await.expect("check");
        assert_eq!(found, Findings::default(), "seed {seed}");
    }
}

/// The test of the test: writers that nobody guards must make the model red.
#[tokio::test(flavor = "multi_thread")]
async fn without_guards_the_model_finds_what_was_lost() {
    let world = world(schema::WEBHOST, 500).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy]).await;
    let writers =
        Writers::unguarded(&world, &[Isolation::ReadCommitted; 3], Duration::from_millis(2), 3);
    let written =
        || number(&world.source, "select count(*) from gps_positions where altitude <> 0");
    while written().await < 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let verified = run.step(Step::Verify).await.map(|_| ());
    let said = verified.expect_err("the bulk comparison sees it").to_string();
    assert!(said.contains("public.") && said.contains("differ at key "), "{said}");
    // Cut over in spite of it: the model must see what the comparison saw.
    let switched = run.step(Step::CutOver).await;
    let ledger = writers.stop().await.expect("writers");
    assert!(switched.is_ok(), "{switched:?}");
    let found = check(&world, &ledger, 1).await.expect("check");
    assert!(found.lost > 0, "{found:?}");
}

/// A guard that somebody disabled is noticed before the switch.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_guard_stops_the_cut_over() {
    let world = world(schema::WEBHOST, 500).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    sql(&world.source, "alter table vehicles disable trigger all").await;
    let error = run.step(Step::CutOver).await.expect_err("refused").to_string();
    assert!(error.contains("vehicles"), "{error}");
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));
}

/// Somebody's long transaction keeps the fence open: the move waits and says
/// for whom, and the tenant's other writers go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_is_named_and_not_waited_for() {
    let world = world(schema::WEBHOST, 500).await;
    let mut run = a_move(&world);
    run.tuning.fence_attempts = 2;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    let mut config = world.source.clone();
    config.application_name("a long report");
    let (client, _driver) = webhost_tests::writers::session(&config).await.expect("a session");
    client
        .batch_execute(&format!(
            "begin; update vehicles set odometer_m = 1 where customer_id = '{}'",
            world.tenant
        ))
        .await
        .expect("writes");
    let error = run.step(Step::CutOver).await.expect_err("blocked");
    assert_eq!(error.kind(), webhost_agent::mover::error::Kind::Retry, "{error}");
    assert!(error.to_string().contains("a long report"), "{error}");
    client.batch_execute("commit").await.expect("commits");
    cut_over(&run).await;
    assert_eq!(number(&world.target, "select max(odometer_m) from vehicles").await, 1);
}

/// A target that is not ready in time gives writers back to the source at
/// once, while it is still at work on what it was asked; the next attempt
/// takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_slow_inside_the_fence_keeps_nobody_waiting() {
    let world = world(schema::WEBHOST, 500).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy]).await;
    // Only the fence's transaction does not wait for the disk.
    sql(
        &world.target,
        "create table naps (taken bool); insert into naps values (false); \
         create function nap() returns trigger security definer language plpgsql as $$ begin \
           while current_setting('synchronous_commit') = 'off' and not (select taken from naps) loop \
             perform pg_sleep(0.02); \
           end loop; \
           return new; end $$; \
         create trigger nap before update on vehicles for each row execute function nap(); \
         alter table vehicles enable always trigger nap",
    )
    .await;
    let (client, _driver) =
        webhost_tests::writers::session(&world.source).await.expect("a session");
    let update = format!(
        "update vehicles set odometer_m = coalesce(odometer_m, 0) + 1 where customer_id = '{}'",
        world.tenant
    );
    let napping = "select count(*) from pg_stat_activity \
                   where wait_event = 'PgSleep' and application_name like 'webhost-mover%'";
    let waiting = "select count(*) from pg_stat_activity \
                   where wait_event = 'advisory' and application_name like 'webhost-mover%'";
    let goes_on = async {
        // A write that ends while the fence waits for it is the fence's to
        // carry over; one that came too late for an attempt meets the next.
        while number(&world.target, napping).await == 0 {
            client.batch_execute(&format!("begin; {update}")).await.expect("writes");
            while number(&world.source, waiting).await == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            client.batch_execute("commit").await.expect("commits");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // It waits behind the fence, and then goes through, there.
        client.batch_execute(&update).await.expect("the source goes on");
        assert_eq!(number(&world.target, napping).await, 1, "the target is still at work");
        assert_eq!(states(&world).await, ("active".into(), "standby".into()));
        sql(&world.target, "update naps set taken = true").await;
    };
    let (switched, ()) = tokio::join!(cut_over(&run), goes_on);
    assert!(!switched.recovered, "{switched:?}");
    let newest = "select max(odometer_m) from vehicles";
    assert_eq!(number(&world.target, newest).await, number(&world.source, newest).await);
}
