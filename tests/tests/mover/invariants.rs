//! One test for each thing that the whole rests on, made so that it fails at
//! once when that thing is taken away: `make mutants` takes it away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;
use webhost_agent::mover::error::{Kind, MoveError};
use webhost_agent::mover::fail::{Deed, Fail, RELEASED};
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Step};
use webhost_tests::schema;
use webhost_tests::writers::{World, session};

use crate::scene::{a_move, cut_over, number, sql, states, steps, world};

fn count(world: &World) -> String {
    format!("update vehicles set odometer_m = odometer_m + 1 where id = '{}'", world.vehicles[0])
}

fn odometer(world: &World) -> String {
    format!("select odometer_m from vehicles where id = '{}'", world.vehicles[0])
}

/// The same move once more, as a restarted mover sees it.
fn again(run: &Run, world: &World) -> Run {
    Run { spec: run.spec.clone(), ..a_move(world) }
}

/// A run that stands still at `point`, until it is released.
fn held(run: &Run, world: &World, dir: &Path, point: &str) -> (Run, PathBuf) {
    let marker = dir.join(point);
    let fail = Fail::Marked { deed: Deed::Hold, point: point.into(), marker: marker.clone() };
    (Run { fail, ..again(run, world) }, marker)
}

async fn reached(marker: &Path) {
    while !marker.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn release(marker: &Path) {
    std::fs::write(format!("{}{RELEASED}", marker.display()), "").expect("writes");
}

/// Runs the step in a runtime of its own: one that is held must not keep the
/// test's from its timers.
fn spawned(run: Run, step: Step) -> JoinSet<Result<Done, MoveError>> {
    let mut task = JoinSet::new();
    task.spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(run.step(step))
    });
    task
}

/// A snapshot from before the switch still sees `active`; only the row lock
/// makes such a writer notice.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_does_not_write_past_the_switch() {
    for level in ["repeatable read", "serializable"] {
        let world = world(schema::WEBHOST, 100).await;
        let run = a_move(&world);
        steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
        let (client, _driver) = session(&world.source).await.expect("a session");
        client
            .batch_execute(&format!("begin isolation level {level}; select count(*) from vehicles"))
            .await
            .expect("takes its snapshot");
        cut_over(&run).await;
        let error = client.batch_execute(&count(&world)).await.expect_err("refused");
        assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{level}: {error:?}");
        client.batch_execute("rollback").await.expect("rolls back");
    }
}

/// A key leaves the log only after its row is durable on the target: a mover
/// that dies in between finds it there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_forgotten_only_after_its_row_is_there() {
    let world = world(schema::WEBHOST, 100).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    sql(&world.source, &count(&world)).await;
    let dies = Run { fail: Fail::stop_at("between_commits"), ..again(&run, &world) };
    dies.step(Step::Drain).await.expect_err("stops");
    drop(dies);
    steps(&run, &[Step::Drain, Step::Verify]).await;
    cut_over(&run).await;
    assert_eq!(number(&world.target, &odometer(&world)).await, 1);
}

/// A mover that was thought dead wakes up when the target has become active:
/// what it holds is old, and may not be applied.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_applied_to_a_side_that_is_active() {
    let world = world(schema::WEBHOST, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    sql(&world.source, &count(&world)).await;
    let (sleeper, marker) = held(&run, &world, dir.path(), "mid_drain");
    let mut drains = spawned(sleeper, Step::Drain);
    reached(&marker).await;
    // As a switch by somebody else leaves it, with a newer value.
    sql(
        &world.target,
        &format!(
            "update webhost_fleet.fence set state = 'active', epoch = epoch + 1; \
             update vehicles set odometer_m = 100 where id = '{}'",
            world.vehicles[0]
        ),
    )
    .await;
    release(&marker);
    let error = drains.join_next().await.expect("a task").expect("no panic").expect_err("refused");
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(number(&world.target, &odometer(&world)).await, 100);
}

/// A statement that came to the target too early has a snapshot without the
/// last rows: it must be refused even though the target is active by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_began_before_the_activation_is_refused() {
    let world = world(schema::WEBHOST, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    let (switching, marker) = held(&run, &world, dir.path(), "after_prepare");
    let mut switch = spawned(switching, Step::CutOver);
    reached(&marker).await;
    let (client, _driver) = session(&world.target).await.expect("a session");
    let early = count(&world);
    let mut writes = JoinSet::new();
    writes.spawn(async move { client.batch_execute(&early).await });
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    while number(&world.target, waits).await == 0 {
        if let Some(ended) = writes.try_join_next() {
            panic!("the statement did not wait for the activation: {ended:?}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    release(&marker);
    switch.join_next().await.expect("a task").expect("no panic").expect("switches");
    let error = writes.join_next().await.expect("a task").expect("no panic").expect_err("refused");
    let told = error.as_db_error().expect("an answer");
    // "Try again here": no other place is named.
    assert_eq!((told.code().code(), told.detail().unwrap_or_default()), ("MG001", ""));
    sql(&world.target, &count(&world)).await;
    assert_eq!(number(&world.target, &odometer(&world)).await, 1);
}

/// Wherever a switch stops, at most one side is active; and which, is as the
/// point of no return says.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_stops_leaves_no_two_sides_active() {
    let world = world(schema::WEBHOST, 100).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    for (point, expected) in [
        ("after_take", ("active", "standby")),
        ("after_prepare", ("active", "standby")),
        ("after_moved", ("moved", "standby")),
    ] {
        let stops = Run { fail: Fail::stop_at(point), ..again(&run, &world) };
        stops.step(Step::CutOver).await.expect_err("stops");
        drop(stops);
        let (source, target) = states(&world).await;
        assert_eq!((source.as_str(), target.as_str()), expected, "{point}");
    }
    assert!(cut_over(&run).await.recovered);
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
}
