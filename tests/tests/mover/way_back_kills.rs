//! The mover's process killed on the way back, and the agent with it.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use webhost_agent::command::Handler;
use webhost_agent::mover::fail::{MARKER, points};
use webhost_agent::mover::operator::{self, Remedy};
use webhost_agent::mover::spec::{Spec, Step};
use webhost_agent::mover::supervisor::Supervisor;
use webhost_proto::wire::{MoveStepKind as K, command_reply::Outcome, move_step_done};
use webhost_tests::schema;
use webhost_tests::writers::{Findings, World, Writers, check};

use crate::kills::{answer, login, order, setup, well};
use crate::legs::soon;
use crate::scene::{LEVELS, a_move, number, sql, states, world};

fn a_way_back(world: &World) -> Spec {
    let mut spec = a_move(world).spec;
    spec.way_back_until_us = soon(3600);
    spec
}

/// The agent beside the target's database.
fn target_side(world: &World, spec: &Spec, dir: &Path, fail_at: Option<&str>) -> Supervisor {
    let mut setup = setup(world, spec, dir, fail_at);
    setup.node = spec.target_node;
    setup.database = Some(login(&world.target));
    Supervisor::load(setup).expect("loads")
}

/// Runs the way back until `done`, then rolls back: the roll back ends it.
async fn there_and_back(supervisor: &Supervisor, spec: &Spec, done: impl Future<Output = ()>) {
    let (progress, mut seen) = watch::channel(None);
    let way_back = supervisor.handle(order(spec, K::WayBack), progress);
    let roll_back = async {
        seen.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.mirrored_at_us > 0))
            .await
            .expect("a way back that runs");
        done.await;
        well(supervisor, spec, K::RollBack).await
    };
    let (ended, result) = tokio::join!(way_back, roll_back);
    assert!(matches!(ended, Outcome::Failed(_)), "the roll back ends it: {ended:?}");
    let Some(move_step_done::Result::RollBack(result)) = result.result else {
        panic!("{result:?}")
    };
    assert_eq!(result.epoch, 3);
}

async fn survives(point: &str) {
    let world = world(schema::WEBHOST, 1_500).await;
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_way_back(&world);
    let supervisor =
        Supervisor::load(setup(&world, &spec, dir.path(), Some(point))).expect("loads");
    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(15), 51);
    for step in [K::Guard, K::Copy, K::CutOver] {
        well(&supervisor, &spec, step).await;
    }
    there_and_back(&supervisor, &spec, tokio::time::sleep(Duration::from_millis(100))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ledger = writers.stop().await.expect("writers");
    assert_eq!(states(&world).await, ("active".into(), "moved".into()), "{point}");
    well(&supervisor, &spec, K::Finish).await;
    assert!(supervisor.status().is_empty(), "an ended move is forgotten");
    // The target's agent deletes what is left there, killed in between or not.
    let there = tempfile::tempdir().expect("a directory");
    let target = target_side(&world, &spec, there.path(), Some(point));
    well(&target, &spec, K::CleanUp).await;
    assert!(target.status().is_empty());
    let marked = [&dir, &there]
        .iter()
        .any(|dir| dir.path().join("moves").join(format!("{MARKER}{point}")).exists());
    assert!(marked, "{point} was never reached");
    assert_eq!(check(&world, &ledger, 0).await.expect("check"), Findings::default(), "{point}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_the_way_back() {
    for point in points(Step::WayBack).iter().filter(|point| **point != "after_way_back") {
        survives(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_rolls_back() {
    for point in points(Step::RollBack) {
        survives(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_tidies_up() {
    for point in points(Step::Finish).iter().chain(points(Step::CleanUp)) {
        survives(point).await;
    }
}

/// An agent that comes back keeps the old copy up to date again, before any
/// coordinator says a word; its next word takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_goes_on_with_the_way_back() {
    let world = world(schema::WEBHOST, 300).await;
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_way_back(&world);
    let first = setup(&world, &spec, dir.path(), None);
    let dies = first.shutdown.clone();
    let first = Supervisor::load(first).expect("loads");
    for step in [K::Guard, K::Copy, K::CutOver] {
        well(&first, &spec, step).await;
    }
    let (progress, mut seen) = watch::channel(None);
    let (ended, _) = tokio::join!(first.handle(order(&spec, K::WayBack), progress), async {
        seen.wait_for(Option::is_some).await.expect("it runs");
        dies.cancel();
    });
    assert!(matches!(ended, Outcome::Failed(_)), "{ended:?}");
    drop(first);

    let write = |value: u32| {
        format!("update vehicles set odometer_m = {value} where customer_id = '{}'", world.tenant)
    };
    let read =
        format!("select min(odometer_m) from vehicles where customer_id = '{}'", world.tenant);
    sql(&world.target, &write(11)).await;
    let second = Supervisor::load(setup(&world, &spec, dir.path(), None)).expect("loads");
    let resumed = second.clone();
    let mut resuming = JoinSet::new();
    resuming.spawn(async move { resumed.resume().await });
    while number(&world.source, &read).await != 11 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    there_and_back(&second, &spec, async {
        sql(&world.target, &write(12)).await;
    })
    .await;
    resuming.join_next().await.expect("it ran").expect("it gave way");
    assert_eq!(number(&world.source, &read).await, 12);
    assert_eq!(states(&world).await, ("active".into(), "moved".into()));
}

/// The agent dies past the point of no return of a roll back: the next one
/// activates the old copy by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_finishes_a_roll_back() {
    let world = world(schema::WEBHOST, 300).await;
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_way_back(&world);
    let first = setup(&world, &spec, dir.path(), Some("back_after_moved"));
    let dies = first.shutdown.clone();
    let first = Supervisor::load(first).expect("loads");
    for step in [K::Guard, K::Copy, K::CutOver] {
        well(&first, &spec, step).await;
    }
    let marker = dir.path().join("moves").join(format!("{MARKER}back_after_moved"));
    let killed = async {
        while !marker.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Before the supervisor can start another child.
        dies.cancel();
    };
    let (outcome, ()) = tokio::join!(answer(&first, &spec, K::RollBack), killed);
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    drop(first);
    assert_eq!(states(&world).await, ("moved".into(), "moved".into()));
    let second = Supervisor::load(setup(&world, &spec, dir.path(), None)).expect("loads");
    second.resume().await;
    assert_eq!(states(&world).await, ("active".into(), "moved".into()));
    let done = well(&second, &spec, K::RollBack).await;
    let Some(move_step_done::Result::RollBack(result)) = done.result else { panic!("{done:?}") };
    assert!(result.recovered && result.epoch == 3, "{result:?}");
}

/// A clean-up is ordered from the node that holds the copy, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_is_refused_where_the_tenant_lives() {
    let world = world(schema::WEBHOST, 100).await;
    let (here, there) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let spec = a_way_back(&world);
    let source = Supervisor::load(setup(&world, &spec, here.path(), None)).expect("loads");
    let target = target_side(&world, &spec, there.path(), None);
    for step in [K::Guard, K::Copy, K::CutOver] {
        well(&source, &spec, step).await;
    }
    let refusal = |outcome| match outcome {
        Outcome::Failed(failed) => failed.message,
        other => panic!("{other:?}"),
    };
    let said = refusal(answer(&target, &spec, K::CleanUp).await);
    assert!(said.contains("it serves the tenant"), "{said}");
    let said = refusal(answer(&source, &spec, K::CleanUp).await);
    assert!(said.contains("finish the move first"), "{said}");
    // Only that step comes to the target's agent.
    let said = refusal(answer(&target, &spec, K::RollBack).await);
    assert!(said.contains("this is node"), "{said}");
    well(&source, &spec, K::Finish).await;
    well(&source, &spec, K::CleanUp).await;
    assert!(source.status().is_empty());
}

/// No agent comes back: an operator settles what it left, by the same rules.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_settles_what_a_dead_agent_left() {
    let world = world(schema::WEBHOST, 200).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut spec = a_move(&world).spec;
    let begun = |fail: Option<&str>| {
        let setup = setup(&world, &spec, dir.path(), fail);
        let dies = setup.shutdown.clone();
        (Supervisor::load(setup).expect("loads"), dies)
    };
    let (first, dies) = begun(Some("after_moved"));
    for step in [K::Guard, K::Copy] {
        well(&first, &spec, step).await;
    }
    let marker = dir.path().join("moves").join(format!("{MARKER}after_moved"));
    let killed = async {
        while !marker.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        dies.cancel();
    };
    let (outcome, ()) = tokio::join!(answer(&first, &spec, K::CutOver), killed);
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    drop(first);
    assert_eq!(states(&world).await, ("moved".into(), "standby".into()));

    let (second, _) = begun(None);
    let listed = operator::list(&second);
    assert_eq!((listed.len(), listed[0].step.as_str(), listed[0].served_by), (1, "cut over", None));
    let nobody = Some(webhost_proto::ids::MoveId::generate());
    assert!(operator::settle(&second, nobody, Remedy::Settle).await.is_empty());
    let settled = operator::settle(&second, Some(spec.move_id), Remedy::Settle).await;
    assert_eq!((settled[0].served_by, &settled[0].problem), (Some("target"), &None));
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    // What was switched is neither undone nor abandoned by hand.
    let settled = operator::settle(&second, None, Remedy::Undo).await;
    assert!(settled[0].problem.as_ref().is_some_and(|said| said.contains("was switched")));
    let settled = operator::settle(&second, None, Remedy::Abandon).await;
    assert!(settled[0].problem.as_ref().is_some_and(|said| said.contains("goes forward")));
    well(&second, &spec, K::RollBack).await;
    well(&second, &spec, K::Finish).await;
    // A move that was not switched is undone on request, and forgotten.
    let there = tempfile::tempdir().expect("a directory");
    well(&target_side(&world, &spec, there.path(), None), &spec, K::CleanUp).await;
    spec.move_id = webhost_proto::ids::MoveId::generate();
    spec.epoch = webhost_proto::ids::Epoch(3);
    for step in [K::Guard, K::Copy] {
        well(&second, &spec, step).await;
    }
    let settled = operator::settle(&second, None, Remedy::Undo).await;
    assert_eq!((settled[0].served_by, &settled[0].problem), (Some("source"), &None));
    assert!(operator::list(&second).is_empty());
}
