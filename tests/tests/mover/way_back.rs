//! The way back: kept up to date, taken, and closed; and what is left at the
//! end.

use std::time::Duration;

use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::error::{Kind, Side};
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{CleanedUp, Done, Step};
use webhost_tests::schema;
use webhost_tests::writers::{Findings, World, Writers, check, session, table_hashes};

use crate::legs::{roll_back, same, soon};
use crate::scene::{LEVELS, a_move, cut_over, number, objects, sql, states, steps, world};

/// A move that has been cut over, with a way back that is open for an hour.
async fn switched(world: &World) -> Run {
    let mut run = a_move(world);
    run.spec.way_back_until_us = soon(3600);
    run.tuning.way_back_pause = Duration::from_millis(20);
    steps(&run, &[Step::Guard, Step::Copy, Step::Verify]).await;
    cut_over(&run).await;
    run
}

/// Lets the way back run until `done` says so, and ends it as a supervisor
/// does: without asking.
pub(crate) async fn mirrored(run: &Run, done: impl Future<Output = ()>) {
    tokio::select! {
        ended = run.step(Step::WayBack) => panic!("the way back ended: {ended:?}"),
        () = done => {}
    }
}

/// Returns when everything written before this call is on the old copy, and
/// the sides have been compared.
pub(crate) async fn up_to_date(run: &Run) {
    let now = soon(0);
    let mut progress = run.progress.subscribe();
    progress
        .wait_for(|seen| seen.mirrored_at_us > now && seen.verified_at_us > 0)
        .await
        .expect("progress");
}

/// A session with the target as the application has it.
async fn write(world: &World, text: &str) {
    let mut config = world.target.clone();
    config.user(schema::APP);
    let (client, _driver) = session(&config).await.expect("a session");
    client.batch_execute(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
}

pub(crate) async fn clean_up(run: &mut Run, side: Side) -> CleanedUp {
    run.here = side;
    match run.step(Step::CleanUp).await {
        Ok(Done::CleanUp(result)) => result,
        other => panic!("clean up: {other:?}"),
    }
}

/// What a tombstone consists of.
fn tombstone() -> Vec<String> {
    let tables = [
        "copied",
        "copied_pkey",
        "fence",
        "fence_pkey",
        "moves",
        "moves_customer_id_key",
        "moves_pkey",
    ];
    let mut all: Vec<String> =
        tables.iter().map(|table| format!("table webhost_fleet.{table}")).collect();
    all.push("schema webhost_fleet".into());
    all.sort();
    all
}

fn added(before: &[String], after: &[String]) -> Vec<String> {
    let gone: Vec<&String> = before.iter().filter(|object| !after.contains(object)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    let mut added: Vec<String> =
        after.iter().filter(|object| !before.contains(object)).cloned().collect();
    added.sort();
    added
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_copy_follows_and_a_roll_back_loses_nothing() {
    let world = world(schema::WEBHOST, 3_000).await;
    let before = (objects(&world.source).await, objects(&world.target).await);
    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(5), 31);
    let mut run = switched(&world).await;
    mirrored(&run, async {
        up_to_date(&run).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    })
    .await;
    // A second start goes on; once the writers rest, both sides are equal.
    let ledger = writers.stop().await.expect("writers");
    mirrored(&run, up_to_date(&run)).await;
    same(&world).await;
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    assert_eq!(check(&world, &ledger, 1).await.expect("check"), Findings::default());

    write(
        &world,
        &format!(
            "update vehicles set odometer_m = odometer_m + 7 where customer_id = '{}'",
            world.tenant
        ),
    )
    .await;
    roll_back(&run).await;
    same(&world).await;
    let least =
        format!("select min(odometer_m) from vehicles where customer_id = '{}'", world.tenant);
    assert!(number(&world.source, &least).await % 1_000_000 >= 7);
    // Not before the way back is closed.
    run.here = Side::Target;
    let error = run.step(Step::CleanUp).await.expect_err("refused").to_string();
    assert!(error.contains("finish the move first"), "{error}");
    steps(&run, &[Step::Finish, Step::Finish]).await;
    run.here = Side::Source;
    let error = run.step(Step::CleanUp).await.expect_err("refused").to_string();
    assert!(error.contains("it serves the tenant"), "{error}");
    assert!(clean_up(&mut run, Side::Target).await.rows > 3_000);
    assert_eq!(clean_up(&mut run, Side::Target).await.rows, 0);
    let after = (objects(&world.source).await, objects(&world.target).await);
    assert_eq!(added(&before.0, &after.0), tombstone(), "source");
    assert_eq!(added(&before.1, &after.1), tombstone(), "target");
    assert_eq!(states(&world).await, ("active".into(), "moved".into()));
    let left = table_hashes(&world.target, world.tenant).await.expect("hashes");
    assert!(left.values().all(|hash| hash == "0:0"), "{left:?}");
    assert_eq!(foreigner, table_hashes(&world.target, world.foreigner).await.expect("hashes"));
}

/// After a move that stays: the source's copy goes, under other tenants'
/// locks, killed in between, and nobody else's rows change.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_leaves_nothing_but_the_tombstone() {
    for schema in [schema::WEBHOST, schema::WEBHOST_PARTITIONED] {
        let world = world(schema, 3_000).await;
        let before = (objects(&world.source).await, objects(&world.target).await);
        let neighbour = table_hashes(&world.source, world.neighbour).await.expect("hashes");
        let mut run = switched(&world).await;
        steps(&run, &[Step::Finish]).await;
        run.fail = Fail::stop_at("mid_clean_up");
        assert!(run.step(Step::CleanUp).await.is_err());
        // A table that somebody locks for a while is waited for.
        let (client, _driver) = session(&world.source).await.expect("a session");
        client.batch_execute("begin; lock table vehicles in share mode").await.expect("locks");
        let released = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            client.batch_execute("commit").await.expect("commits");
        };
        let (result, ()) = tokio::join!(clean_up(&mut run, Side::Source), released);
        assert!(result.rows > 1_000, "{result:?}");
        let after = (objects(&world.source).await, objects(&world.target).await);
        assert_eq!(added(&before.0, &after.0), tombstone(), "source");
        assert_eq!(added(&before.1, &after.1), tombstone(), "target");
        let left = table_hashes(&world.source, world.tenant).await.expect("hashes");
        assert!(left.values().all(|hash| hash == "0:0"), "{left:?}");
        assert_eq!(neighbour, table_hashes(&world.source, world.neighbour).await.expect("hashes"));
        assert_eq!(states(&world).await, ("moved".into(), "active".into()));
        // Another order for the place that serves the tenant is refused.
        run.here = Side::Target;
        let error = run.step(Step::CleanUp).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}

/// Retention may delete on the new side; a roll back has those rows.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_by_retention_are_not_carried_back() {
    let world = world(schema::WEBHOST, 1_000).await;
    let run = switched(&world).await;
    let t = world.tenant;
    let count = |what: &str| {
        format!(
            "select count(*) from gps_positions where customer_id = '{t}' and altitude = {what}"
        )
    };
    // Marks: 1 for retention, 2 for an ordinary delete, 3 for both in turn.
    write(
        &world,
        &format!(
            "with n as (select id, row_number() over (order by id) r from gps_positions where customer_id = '{t}') \
             update gps_positions g set altitude = case when r <= 100 then 1 when r <= 150 then 2 else 3 end \
             from n where n.id = g.id and r <= 160"
        ),
    )
    .await;
    mirrored(&run, up_to_date(&run)).await;
    let retention = format!(
        "set webhost_fleet.retention = 'on'; delete from gps_positions where customer_id = '{t}' and altitude in (1, 3); reset webhost_fleet.retention;"
    );
    write(
        &world,
        &format!(
            "create temp table again as select * from gps_positions where customer_id = '{t}' and altitude = 3; \
             {retention} \
             delete from gps_positions where customer_id = '{t}' and altitude = 2; \
             insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location) \
               select id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location from again; \
             delete from gps_positions where customer_id = '{t}' and altitude = 3"
        ),
    )
    .await;
    mirrored(&run, up_to_date(&run)).await;
    for (mark, here, there) in [("1", 100, 0), ("2", 0, 0), ("3", 0, 0)] {
        assert_eq!(number(&world.source, &count(mark)).await, here, "source, {mark}");
        assert_eq!(number(&world.target, &count(mark)).await, there, "target, {mark}");
    }
    // The comparison leaves them out, and only them.
    steps(&run, &[Step::Verify]).await;
    roll_back(&run).await;
    assert_eq!(number(&world.source, &count("1")).await, 100);
    assert_eq!(
        number(
            &world.source,
            &format!("select count(*) from gps_positions where customer_id = '{t}'")
        )
        .await,
        940
    );
}

/// A difference ends the way back, named; the new side serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_ends_the_way_back_and_nothing_else() {
    let world = world(schema::WEBHOST, 500).await;
    let run = switched(&world).await;
    sql(&world.source, &format!("set session_replication_role = replica; update gps_positions set speed = speed + 1 where id = (select id from gps_positions where customer_id = '{}' limit 1)", world.tenant)).await;
    let error = run.step(Step::WayBack).await.expect_err("found");
    assert_eq!(error.kind(), Kind::Refused);
    let said = error.to_string();
    assert!(said.contains("gps_positions") && said.contains("key "), "{said}");
    write(
        &world,
        &format!("update vehicles set odometer_m = 1 where customer_id = '{}'", world.tenant),
    )
    .await;
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    steps(&run, &[Step::Finish]).await;
}

/// What refuses statements from before the activation goes when no such
/// statement can be left, and comes back for nobody but the old copy.
#[tokio::test(flavor = "multi_thread")]
async fn the_looks_at_snapshots_end_with_the_last_old_transaction() {
    let world = world(schema::WEBHOST, 200).await;
    let (old, _driver) = session(&world.target).await.expect("a session");
    old.batch_execute("begin; select 1").await.expect("begins");
    let mut run = switched(&world).await;
    run.tuning.settle_after = Duration::from_millis(100);
    let looks = "select count(*) from pg_trigger where tgname like '%\\_x_' and not tgisinternal";
    mirrored(&run, async {
        up_to_date(&run).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    })
    .await;
    assert!(number(&world.target, looks).await > 0, "an old transaction is open");
    old.batch_execute("commit").await.expect("commits");
    mirrored(&run, async {
        while number(&world.target, looks).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(number(&world.source, looks).await > 0, "the old copy may be activated");
    roll_back(&run).await;
    steps(&run, &[Step::Finish]).await;
}

/// DDL on the new side is not in the way of the application: it closes the way
/// back, which says so and names the table.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_on_the_new_side_closes_the_way_back() {
    let world = world(schema::WEBHOST, 200).await;
    let run = switched(&world).await;
    mirrored(&run, up_to_date(&run)).await;
    let altered = async {
        up_to_date(&run).await;
        write(&world, "alter table drivers add column licence text").await;
        write(&world, "update drivers set licence = 'C'").await;
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        ended = run.step(Step::WayBack) => ended.expect_err("closed"),
        () = altered => unreachable!("it never ends"),
    };
    assert_eq!(error.kind(), Kind::Refused);
    let said = error.to_string();
    assert!(said.contains("public.drivers") && said.contains("closes the way back"), "{said}");
    let error = run.step(Step::RollBack).await.expect_err("closed").to_string();
    assert!(error.contains("closes the way back"), "{error}");
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    steps(&run, &[Step::Finish]).await;
}

/// Its time ends it, and without one none is opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_ends_when_its_time_does() {
    let world = world(schema::WEBHOST, 200).await;
    let mut run = switched(&world).await;
    write(
        &world,
        &format!("update vehicles set odometer_m = 3 where customer_id = '{}'", world.tenant),
    )
    .await;
    run.spec.way_back_until_us = soon(1);
    let Done::WayBack(result) = run.step(Step::WayBack).await.expect("ends") else {
        panic!("another answer")
    };
    assert!(
        result.keys >= 5 && result.verifications == 1 && result.verified_at_us > 0,
        "{result:?}"
    );
    run.spec.way_back_until_us = 0;
    let error = run.step(Step::WayBack).await.expect_err("refused").to_string();
    assert!(error.contains("without a way back"), "{error}");
    steps(&run, &[Step::Finish]).await;
    let error = run.step(Step::RollBack).await.expect_err("closed").to_string();
    assert!(error.contains("way back closed"), "{error}");
}

/// The target is gone: the source lets go alone, and what comes late from the
/// other side changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_move_frees_the_source_at_once() {
    let world = world(schema::WEBHOST, 1_000).await;
    let before = (objects(&world.source).await, objects(&world.target).await);
    let writers = Writers::start(&world, &LEVELS[..3], Duration::from_millis(5), 41);
    for (reached, fail) in
        [(Step::Guard, "none"), (Step::Copy, "none"), (Step::CutOver, "after_prepare")]
    {
        let mut run = a_move(&world);
        for step in [Step::Guard, Step::Copy, Step::Drain, Step::CutOver] {
            run.fail = if step == reached { Fail::stop_at(fail) } else { Fail::Off };
            let outcome = run.step(step).await;
            assert_eq!(outcome.is_err(), fail != "none" && step == reached, "{step}: {outcome:?}");
            if step == reached {
                break;
            }
        }
        let there = run.target.clone();
        let mut nowhere = tokio_postgres::Config::new();
        nowhere.host_path("/nonexistent").user("nobody").dbname("none");
        run.target = Endpoint::Local(Box::new(nowhere));
        assert!(run.step(Step::Undo).await.is_err(), "an undo needs both");
        run.fail = Fail::stop_at("mid_abandon");
        assert!(run.step(Step::Abandon).await.is_err());
        steps(&run, &[Step::Abandon, Step::Abandon]).await;
        assert_eq!(objects(&world.source).await, before.0, "after {reached}");
        // The target comes back, with a mover that still believes in the move.
        run.target = there;
        let error = run.step(Step::CutOver).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        let rows = clean_up(&mut run, Side::Target).await.rows;
        assert_eq!(rows > 0, reached != Step::Guard, "after {reached}");
        assert_eq!(clean_up(&mut run, Side::Target).await.rows, 0);
        assert_eq!(added(&before.1, &objects(&world.target).await), tombstone());
    }
    let ledger = writers.stop().await.expect("writers");
    assert_eq!(check(&world, &ledger, 0).await.expect("check"), Findings::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_source_that_serves_lets_go() {
    let world = world(schema::WEBHOST, 100).await;
    let mut run = switched(&world).await;
    let error = run.step(Step::Abandon).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    roll_back(&run).await;
    // Refused would say that the source is not active.
    let error = run.step(Step::Abandon).await.expect_err("not now");
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    let error = run.step(Step::Undo).await.expect_err("not now");
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    // A copy that waits for another move is nobody's to delete.
    steps(&run, &[Step::Finish]).await;
    let mut next = a_move(&world);
    next.spec.epoch = webhost_proto::ids::Epoch(3);
    clean_up(&mut run, Side::Target).await;
    steps(&next, &[Step::Guard, Step::Copy]).await;
    let error = run.step(Step::CleanUp).await.expect_err("refused").to_string();
    assert!(error.contains("another move"), "{error}");
    cut_over(&next).await;
    steps(&next, &[Step::Finish]).await;
}
