//! What the target's agent does when the source's is gone for good, and what
//! becomes of a target that was given up and comes back.

use std::path::Path;

use tokio::sync::watch;
use webhost_agent::command::Handler;
use webhost_agent::mover::error::MoveError;
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::report::{Level, Topic};
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Spec, Step};
use webhost_agent::mover::supervisor::{Setup, Supervisor};
use webhost_proto::wire::command_reply::Outcome;
use webhost_proto::wire::{self, FailureKind, MoveStepKind as K, Serving};
use webhost_tests::schema;
use webhost_tests::writers::{World, session};

use crate::kills::{answer, login, order, setup, well};
use crate::scene::{a_move, number, states, steps, world};

/// The agent beside the target; `reaches` the source's database, or not.
fn at_the_target(world: &World, spec: &Spec, dir: &Path, reaches: bool) -> Supervisor {
    let mut setup = Setup {
        node: spec.target_node,
        database: Some(login(&world.target)),
        ..setup(world, spec, dir, None)
    };
    if reaches {
        setup.sources.insert(spec.source_node, login(&world.source));
    }
    Supervisor::load(setup).expect("loads")
}

/// What it answers to a recovery: who serves, and whether it read both rows.
async fn recovered(supervisor: &Supervisor, spec: &Spec) -> (Serving, bool, u64) {
    let done = well(supervisor, spec, K::Recover).await;
    let Some(wire::move_step_done::Result::Recover(found)) = done.result else {
        panic!("{done:?}")
    };
    (found.serving(), found.both_read, found.epoch)
}

/// The target's own row permits nothing while it stands by, before and after
/// the source's `moved`; with the source's database in reach the switch is
/// finished, and not before it was begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_activates_only_what_the_source_has_let_go_of() {
    let world = world(schema::WEBHOST, 500).await;
    let (dir, other) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let run = a_move(&world);
    let alone = at_the_target(&world, &run.spec, dir.path(), false);
    let both = at_the_target(&world, &run.spec, other.path(), true);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    let standing = || states(&world);
    let standby = ("active".to_owned(), "standby".to_owned());

    assert_eq!(recovered(&alone, &run.spec).await, (Serving::Unspecified, false, 1));
    assert_eq!(recovered(&both, &run.spec).await, (Serving::Source, true, 1));
    assert_eq!(standing().await, standby);

    let stops =
        Run { spec: run.spec.clone(), fail: Fail::stop_at("after_moved"), ..a_move(&world) };
    stops.step(Step::CutOver).await.expect_err("stops");
    drop(stops);
    let moved = ("moved".to_owned(), "standby".to_owned());
    assert_eq!(recovered(&alone, &run.spec).await, (Serving::Unspecified, false, 1));
    assert_eq!(standing().await, moved, "a guess would have activated it");

    assert_eq!(recovered(&both, &run.spec).await, (Serving::Target, true, 2));
    assert_eq!(standing().await, ("moved".to_owned(), "active".to_owned()));
    assert_eq!(recovered(&alone, &run.spec).await, (Serving::Target, false, 2));
    assert_eq!(recovered(&both, &run.spec).await, (Serving::Target, true, 2));

    // It is the coordinator who asks again after a crash: nothing is on record.
    assert!(alone.status().is_empty() && both.status().is_empty());
    assert!(both.on_record().is_empty());
    for step in [K::CutOver, K::RollBack, K::Undo, K::Finish] {
        match answer(&both, &run.spec, step).await {
            Outcome::Failed(failed) => assert_eq!(failed.kind(), FailureKind::Refused),
            other => panic!("{step:?}: {other:?}"),
        }
    }
    steps(&run, &[Step::Finish]).await;
}

/// Of a roll back, the target's row says nothing alone once it let go.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_is_finished_with_the_sources_database_in_reach() {
    let world = world(schema::WEBHOST, 500).await;
    let (dir, other) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let mut run = a_move(&world);
    run.spec.way_back_until_us = jiff::Timestamp::now().as_microsecond() + 600_000_000;
    let alone = at_the_target(&world, &run.spec, dir.path(), false);
    let both = at_the_target(&world, &run.spec, other.path(), true);
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain, Step::CutOver]).await;
    let stops =
        Run { spec: run.spec.clone(), fail: Fail::stop_at("back_after_moved"), ..a_move(&world) };
    stops.step(Step::RollBack).await.expect_err("stops");
    drop(stops);
    assert_eq!(recovered(&alone, &run.spec).await, (Serving::Unspecified, false, 3));
    assert_eq!(states(&world).await, ("moved".into(), "moved".into()));
    assert_eq!(recovered(&both, &run.spec).await, (Serving::Source, true, 3));
    assert_eq!(states(&world).await, ("active".into(), "moved".into()));
    steps(&run, &[Step::Finish]).await;
}

/// Another mover that is alive keeps the recovery out, whatever its
/// coordinator believes.
#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_lives_is_not_overtaken_by_the_target() {
    let world = world(schema::WEBHOST, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let run = a_move(&world);
    steps(&run, &[Step::Guard]).await;
    let (mover, _driver) = session(&world.source).await.expect("a session");
    let key = webhost_agent::mover::sql::Lock::Mover(run.spec.tenant).key();
    mover.execute("select pg_advisory_lock($1)", &[&key]).await.expect("locks");
    let both = at_the_target(&world, &run.spec, dir.path(), true);
    match answer(&both, &run.spec, K::Recover).await {
        Outcome::Failed(failed) => {
            assert_eq!(failed.kind(), FailureKind::Retry);
            assert!(failed.message.contains("another mover"), "{}", failed.message);
        }
        other => panic!("{other:?}"),
    }
    mover.execute("select pg_advisory_unlock($1)", &[&key]).await.expect("unlocks");
    steps(&run, &[Step::Undo]).await;
}

/// A target that was given up for good comes back: its guards are closed, the
/// next move that would go there names the old one and the command, and that
/// command's step makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_returns_after_it_was_forgotten_is_named_and_cleaned() {
    let world = world(schema::WEBHOST, 500).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Abandon]).await;

    let mut app = world.target.clone();
    app.user(schema::APP);
    let (client, _driver) = session(&app).await.expect("a session");
    let write = format!("update customers set name = 'x' where id = '{}'", world.tenant);
    let refused = client.batch_execute(&write).await.expect_err("the guard is closed");
    assert_eq!(refused.code().map(|code| code.code().to_owned()), Some("MG001".to_owned()));

    let mut next = a_move(&world);
    next.spec.epoch = run.spec.epoch.next();
    let report = match next.step(Step::Preflight).await {
        Err(MoveError::Preflight(report)) => report,
        other => panic!("{other:?}"),
    };
    let finding = report
        .findings
        .iter()
        .find(|finding| finding.level == Level::Problem && finding.topic == Topic::Standing)
        .expect("a problem");
    let old = run.spec.move_id.to_string();
    assert!(finding.text.contains(&old), "{}", finding.text);
    assert!(finding.way_out.contains(&format!("move clean-up {old}")), "{}", finding.way_out);

    let dir = tempfile::tempdir().expect("a directory");
    let there = at_the_target(&world, &run.spec, dir.path(), false);
    well(&there, &run.spec, K::CleanUp).await;
    let left = format!("select count(*) from customers where id = '{}'", world.tenant);
    assert_eq!(number(&world.target, &left).await, 0);
    match next.step(Step::Preflight).await {
        Ok(Done::Preflight(report)) => assert_eq!(report.problems(), Vec::<String>::new()),
        other => panic!("{other:?}"),
    }
}

/// The source's node is gone for good after the switch: the target's agent frees
/// its side of a log that nobody reads, and only where it serves. When the node
/// returns, its copy is deleted, and nobody has to finish the move there first.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_finishes_alone_and_a_source_that_returns_is_cleaned() {
    let world = world(schema::WEBHOST, 500).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = a_move(&world);
    run.spec.way_back_until_us = jiff::Timestamp::now().as_microsecond() + 600_000_000;
    let spec = Spec { old_copy_gone: true, ..run.spec.clone() };
    let there = at_the_target(&world, &spec, dir.path(), false);
    let triggers = "select count(*) from pg_trigger where tgname like '%webhost_fleet%'";
    let refused = |outcome| match outcome {
        Outcome::Failed(wire::Failed { kind, message, .. }) => {
            assert_eq!(kind, i32::from(FailureKind::Refused), "{message}");
            message
        }
        other => panic!("{other:?}"),
    };

    steps(&run, &[Step::Guard, Step::Copy, Step::Drain]).await;
    let why = refused(answer(&there, &spec, K::Finish).await);
    assert!(why.contains("does not serve"), "{why}");
    let stops =
        Run { spec: run.spec.clone(), fail: Fail::stop_at("after_moved"), ..a_move(&world) };
    stops.step(Step::CutOver).await.expect_err("stops");
    drop(stops);
    let why = refused(answer(&there, &spec, K::Finish).await);
    assert!(why.contains("does not serve"), "nobody serves: {why}");
    assert!(number(&world.target, triggers).await > 0, "a refusal changes nothing");
    assert!(there.on_record().is_empty(), "nor does it stand in a later move's way");
    steps(&run, &[Step::CutOver]).await;

    // The source's own order, and one without the person's word, stay refused.
    refused(answer(&there, &run.spec, K::Finish).await);
    let killed = Run {
        spec: spec.clone(),
        here: webhost_agent::mover::error::Side::Target,
        alone: true,
        fail: Fail::stop_at("mid_finish"),
        ..a_move(&world)
    };
    killed.step(Step::Finish).await.expect_err("stops");
    drop(killed);
    for _ in 0..2 {
        well(&there, &spec, K::Finish).await;
        assert_eq!(number(&world.target, triggers).await, 0);
    }
    assert_eq!(
        number(
            &world.target,
            "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = 'webhost_fleet' and c.relname like 'log%'"
        )
        .await,
        0,
        "no log is kept for nobody"
    );
    assert!(there.on_record().is_empty());
    let standing = ("moved".to_owned(), "active".to_owned());
    assert_eq!(states(&world).await, standing);
    let rows = format!("select count(*) from gps_positions where customer_id = '{}'", world.tenant);
    let served = number(&world.target, &rows).await;
    assert!(served > 0);

    // The source is back: its way back can't be, and its agent is told.
    let back = tempfile::tempdir().expect("a directory");
    let source = Supervisor::load(setup(&world, &run.spec, back.path(), None)).expect("loads");
    let why = refused(answer(&source, &run.spec, K::CleanUp).await);
    assert!(why.contains("way back is open"), "{why}");
    well(&source, &spec, K::CleanUp).await;
    assert_eq!(number(&world.source, &rows).await, 0);
    assert_eq!(number(&world.source, triggers).await, 0);
    assert_eq!(number(&world.target, &rows).await, served);
    assert_eq!(states(&world).await, standing, "a tombstone stays");
}

/// A pause does not wait for the hours that a copy may still take; what was
/// copied is not copied again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_the_copy_that_runs_and_it_goes_on_later() {
    let world = world(schema::WEBHOST, 3_000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut spec = a_move(&world).spec;
    // The first pause of this copy is longer than any test.
    spec.max_rows_per_second = 1;
    let mut setup = setup(&world, &spec, dir.path(), None);
    setup.copy_part_pages = None;
    let supervisor = Supervisor::load(setup).expect("loads");
    well(&supervisor, &spec, K::Guard).await;
    // Where nothing runs that can be resumed, it changes nothing.
    well(&supervisor, &spec, K::Pause).await;
    let (progress, mut seen) = watch::channel(None);
    let copy = supervisor.handle(order(&spec, K::Copy), progress);
    let pause = async {
        seen.wait_for(Option::is_some).await.expect("a copy that runs");
        well(&supervisor, &spec, K::Pause).await;
    };
    let (copied, ()) = tokio::join!(copy, pause);
    match copied {
        Outcome::Failed(failed) => assert_eq!(failed.kind(), FailureKind::Interrupted),
        other => panic!("{other:?}"),
    }
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));
    spec.max_rows_per_second = 0;
    for step in [K::Copy, K::Drain, K::Verify, K::CutOver, K::Finish] {
        well(&supervisor, &spec, step).await;
    }
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
}
