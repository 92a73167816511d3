//! One test for each thing that the whole rests on, made so that it fails at
//! once when that thing is taken away: `make mutants` takes it away.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinSet;
use webhost_agent::mover::error::{Kind, MoveError};
use webhost_agent::mover::fail::{Deed, Fail, RELEASED, marker};
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Step};
use webhost_tests::chaos::Sides;
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

/// Ends what hangs, so that it fails; nothing is measured by it.
const DEADLINE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

async fn ended<T: 'static>(task: &mut JoinSet<T>) -> T {
    soon("the end", task.join_next()).await.expect("a task").expect("no panic")
}

/// A run that stands still at a point, until it is released or this is gone: a
/// test that fails must not wait for the run's thread.
struct Held {
    marker: PathBuf,
    _dir: tempfile::TempDir,
}

fn held(run: &Run, world: &World, point: &str) -> (Run, Held) {
    let dir = tempfile::tempdir().expect("a directory");
    let marker = marker(dir.path(), point);
    let points = vec![point.to_owned()];
    let fail = Fail::Marked { deed: Deed::Hold, points, dir: dir.path().into() };
    (Run { fail, ..again(run, world) }, Held { marker, _dir: dir })
}

impl Held {
    async fn reached(&self) {
        let there = async {
            while !self.marker.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("the point", there).await;
    }

    fn release(&self) {
        std::fs::write(format!("{}{RELEASED}", self.marker.display()), "").expect("writes");
    }
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
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    sql(&world.source, &count(&world)).await;
    let (sleeper, held) = held(&run, &world, "mid_drain");
    let mut drains = spawned(sleeper, Step::Drain);
    held.reached().await;
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
    held.release();
    let error = ended(&mut drains).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(number(&world.target, &odometer(&world)).await, 100);
}

/// A statement that came to the target too early has a snapshot without the
/// last rows: it must be refused even though the target is active by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_began_before_the_activation_is_refused() {
    let world = world(schema::WEBHOST, 100).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    let (switching, held) = held(&run, &world, "after_prepare");
    let mut switch = spawned(switching, Step::CutOver);
    held.reached().await;
    let (client, _driver) = session(&world.target).await.expect("a session");
    let early = count(&world);
    let mut writes = JoinSet::new();
    writes.spawn(async move { client.batch_execute(&early).await });
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    let waiting = async {
        while number(&world.target, waits).await == 0 {
            if let Some(ended) = writes.try_join_next() {
                panic!("the statement did not wait for the activation: {ended:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("the statement's wait", waiting).await;
    held.release();
    ended(&mut switch).await.expect("switches");
    let error = ended(&mut writes).await.expect_err("refused");
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

/// Waits until the watcher has looked `more` often than now.
async fn looked(sides: &Sides, more: u64) {
    let (before, _) = sides.seen();
    let looked = async {
        while sides.seen().0 < before + more {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("the watcher's look", looked).await;
}

fn watch(world: &World) -> Sides {
    Sides::watch([world.source.clone(), world.target.clone()], world.tenant)
}

/// What every test of a switch rests on: the watcher says so when both sides
/// serve the tenant, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn two_active_sides_are_seen() {
    let world = world(schema::WEBHOST, 10).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard]).await;
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));
    let sides = watch(&world);
    looked(&sides, 3).await;
    assert_eq!(sides.seen().1, 0, "one side is active");
    sql(&world.target, "update webhost_fleet.fence set state = 'active'").await;
    looked(&sides, 3).await;
    let (looks, both) = sides.end().await;
    assert!(both > 0, "two active sides were seen {both} of {looks} times");
}

/// The watcher can't read two databases at once: a tenant that goes back and
/// forth between its reads is active on one side at each moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_goes_back_and_forth_is_not_seen_twice() {
    let world = world(schema::WEBHOST, 10).await;
    steps(&a_move(&world), &[Step::Guard]).await;
    let set = |state: &str| format!("update webhost_fleet.fence set state = '{state}'");
    sql(&world.source, &set("moved")).await;
    sql(&world.target, &set("active")).await;
    let lock = "begin; lock table webhost_fleet.fence in access exclusive mode";
    let waits = "select count(*) from pg_locks where locktype = 'relation' and not granted \
                 and database = (select oid from pg_database where datname = current_database())";
    let held_up = async |config| {
        while number(config, waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Read once at the target, the watcher waits at the source.
    let (source, _a) = session(&world.source).await.expect("a session");
    source.batch_execute(lock).await.expect("locks");
    let sides = watch(&world);
    soon("the read of the source", held_up(&world.source)).await;
    // Meanwhile the tenant goes back, and the source is read.
    sql(&world.target, &set("moved")).await;
    source.batch_execute(&set("active")).await.expect("sets");
    let (target, _b) = session(&world.target).await.expect("a session");
    target.batch_execute(lock).await.expect("locks");
    source.batch_execute("commit").await.expect("commits");
    soon("the second read of the target", held_up(&world.target)).await;
    // And forth, before the target is read again.
    sql(&world.source, &set("moved")).await;
    target.batch_execute(&format!("{}; commit", set("active"))).await.expect("commits");
    looked(&sides, 3).await;
    let (looks, both) = sides.end().await;
    assert_eq!(both, 0, "two active sides were seen {both} of {looks} times");
}
