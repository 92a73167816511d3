//! The mover's process killed at every bad moment, and the agent with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webhost_agent::command::Handler;
use webhost_agent::mover::child::Login;
use webhost_agent::mover::error::Kind;
use webhost_agent::mover::spec::{Spec, Step};
use webhost_agent::mover::sql::Lock;
use webhost_agent::mover::supervisor::{Patience, Setup, Supervisor, Way};
use webhost_agent::mover::tunnel::Tickets;
use webhost_proto::wire::{self, command, command_reply::Outcome};
use webhost_tests::schema;
use webhost_tests::writers::{Findings, World, Writers, check, session, table_hashes};

use crate::scene::{LEVELS, a_move, number, states, steps, world};

pub(crate) fn login(config: &tokio_postgres::Config) -> Login {
    let tokio_postgres::config::Host::Unix(dir) = &config.get_hosts()[0] else {
        panic!("a unix socket")
    };
    Login {
        url: format!(
            "host={} user={} dbname={}",
            dir.display(),
            schema::AGENT,
            config.get_dbname().expect("a database")
        ),
        password: None,
    }
}

pub(crate) fn setup(world: &World, spec: &Spec, dir: &Path, fail_at: Option<&str>) -> Setup {
    Setup {
        node: spec.source_node,
        state_dir: dir.into(),
        program: PathBuf::from(env!("CARGO_BIN_EXE_mover-child")),
        arguments: Vec::new(),
        environment: fail_at
            .map(|point| ("WEBHOST_FAIL_AT".into(), point.into()))
            .into_iter()
            .collect(),
        database: Some(login(&world.source)),
        rules: webhost_agent::mover::catalog::Rules::default(),
        max_rows_per_second: 0,
        way: Way::Direct(login(&world.target)),
        tunnel_address: None,
        hold: Arc::new(webhost_agent::hold::moves::Untouched),
        takes_http: false,
        tickets: Arc::new(Tickets::load(dir).expect("tickets")),
        copy_part_pages: Some(32),
        copy_streams: 0,
        way_back_verify_s: 0,
        patience: Patience::default(),
        sources: std::collections::BTreeMap::new(),
        shutdown: CancellationToken::new(),
    }
}

pub(crate) fn order(spec: &Spec, step: wire::MoveStepKind) -> command::Kind {
    command::Kind::MoveStep(wire::MoveStep {
        spec: Some(wire::MoveSpec {
            move_id: spec.move_id.to_wire(),
            tenant_id: spec.tenant.to_wire(),
            epoch: spec.epoch.0,
            source_node_id: spec.source_node.to_wire(),
            target_node_id: spec.target_node.to_wire(),
            target_tunnel: spec.target_tunnel.clone(),
            ticket: spec.ticket.0.clone(),
            target_place: spec.target_place.clone(),
            max_rows_per_second: spec.max_rows_per_second,
            source_place: spec.source_place.clone(),
            way_back_until_us: spec.way_back_until_us,
            target_dedicated: spec.target_dedicated,
            old_copy_gone: spec.old_copy_gone,
            ..wire::MoveSpec::default()
        }),
        step: step.into(),
    })
}

pub(crate) async fn answer(
    supervisor: &Supervisor,
    spec: &Spec,
    step: wire::MoveStepKind,
) -> Outcome {
    supervisor.handle(order(spec, step), watch::channel(None).0).await
}

pub(crate) async fn well(
    supervisor: &Supervisor,
    spec: &Spec,
    step: wire::MoveStepKind,
) -> wire::MoveStepDone {
    match answer(supervisor, spec, step).await {
        Outcome::MoveStepDone(done) => done,
        other => panic!("{step:?}: {other:?}"),
    }
}

use wire::MoveStepKind as K;

/// Killed once at `point`, restarted by the supervisor: the step still ends
/// well, and nothing is lost.
async fn survives(point: &str) {
    let world = world(schema::WEBHOST, 3_000).await;
    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_move(&world).spec;
    let supervisor =
        Supervisor::load(setup(&world, &spec, dir.path(), Some(point))).expect("loads");
    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(5), 11);
    for step in [K::Preflight, K::Guard, K::Copy, K::Drain, K::Verify, K::CutOver] {
        well(&supervisor, &spec, step).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ledger = writers.stop().await.expect("writers");
    assert_eq!(states(&world).await, ("moved".into(), "active".into()), "{point}");
    well(&supervisor, &spec, K::Finish).await;
    let marker = dir.path().join("moves").join(format!("failed-at-{point}"));
    assert!(marker.exists(), "{point} was never reached");
    assert_eq!(check(&world, &ledger, 1).await.expect("check"), Findings::default(), "{point}");
    assert_eq!(foreigner, table_hashes(&world.target, world.foreigner).await.expect("hashes"));
    assert!(supervisor.status().is_empty(), "an ended move is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_prepares() {
    for point in ["after_guard", "mid_copy", "between_parts"] {
        survives(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_drains() {
    for point in ["mid_drain", "between_commits", "after_verify"] {
        survives(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_cut_over() {
    for point in ["after_take", "after_prepare", "after_moved", "before_place", "mid_finish"] {
        survives(point).await;
    }
}

/// The agent dies with its mover after the point of no return: the next run
/// activates the target by itself. No coordinator says a word.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_finishes_what_was_begun() {
    comes_back(None).await;
}

/// The same when an undo was asked for meanwhile: it came too late.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_in_the_queue_does_not_hide_a_cut_over() {
    comes_back(Some(K::Undo)).await;
}

async fn comes_back(queued: Option<K>) {
    let world = world(schema::WEBHOST, 1_000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_move(&world).spec;
    let first = setup(&world, &spec, dir.path(), Some("after_moved"));
    let dies = first.shutdown.clone();
    let first = Supervisor::load(first).expect("loads");
    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(5), 5);
    for step in [K::Guard, K::Copy, K::Drain] {
        well(&first, &spec, step).await;
    }
    let marker = dir.path().join("moves/failed-at-after_moved");
    let killed = async {
        while !marker.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Before the supervisor can start another child.
        dies.cancel();
    };
    let behind = async {
        match queued {
            Some(step) => Some(answer(&first, &spec, step).await),
            None => None,
        }
    };
    // Polled in this order: the cut-over runs before the other one comes.
    let (outcome, behind, ()) = tokio::join!(answer(&first, &spec, K::CutOver), behind, killed);
    assert!(matches!(behind, None | Some(Outcome::Failed(_))), "{behind:?}");
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    drop(first);
    assert_eq!(states(&world).await, ("moved".into(), "standby".into()));

    let second = Supervisor::load(setup(&world, &spec, dir.path(), None)).expect("loads");
    assert_eq!(second.status().len(), 1);
    second.resume().await;
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ledger = writers.stop().await.expect("writers");
    assert_eq!(check(&world, &ledger, 1).await.expect("check"), Findings::default());
    let done = well(&second, &spec, K::CutOver).await;
    let Some(wire::move_step_done::Result::CutOver(result)) = done.result else {
        panic!("{done:?}")
    };
    assert!(result.recovered && result.epoch == 2);
}

/// An undo does not wait for the hours that a copy may still take.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_ends_the_step_that_runs() {
    let world = world(schema::WEBHOST, 3_000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut spec = a_move(&world).spec;
    // The first pause of this copy is longer than any test.
    spec.max_rows_per_second = 1;
    let mut setup = setup(&world, &spec, dir.path(), None);
    setup.copy_part_pages = None;
    let supervisor = Supervisor::load(setup).expect("loads");
    well(&supervisor, &spec, K::Guard).await;
    let (progress, mut seen) = watch::channel(None);
    let copy = supervisor.handle(order(&spec, K::Copy), progress);
    let undo = async {
        seen.wait_for(Option::is_some).await.expect("a copy that runs");
        well(&supervisor, &spec, K::Undo).await;
    };
    let (copied, ()) = tokio::join!(copy, undo);
    match copied {
        Outcome::Failed(failed) => assert_eq!(failed.kind(), wire::FailureKind::Interrupted),
        other => panic!("{other:?}"),
    }
    let left = format!("select count(*) from customers where id = '{}'", world.tenant);
    assert_eq!(number(&world.target, &left).await, 0);
    assert!(supervisor.status().is_empty());
}

/// What a supervisor refuses without starting anything.
#[tokio::test(flavor = "multi_thread")]
async fn orders_that_are_not_for_us() {
    let world = world(schema::WEBHOST, 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_move(&world).spec;
    let supervisor = Supervisor::load(setup(&world, &spec, dir.path(), None)).expect("loads");
    let refusal = |outcome| match outcome {
        Outcome::Failed(failed) if failed.kind() == wire::FailureKind::Refused => failed.message,
        other => panic!("{other:?}"),
    };
    let mut elsewhere = spec.clone();
    elsewhere.source_node = webhost_proto::ids::NodeId::generate();
    let said = refusal(answer(&supervisor, &elsewhere, K::Guard).await);
    assert!(said.contains("this is node"), "{said}");
    well(&supervisor, &spec, K::Guard).await;
    let mut other = spec.clone();
    other.move_id = webhost_proto::ids::MoveId::generate();
    let said = refusal(answer(&supervisor, &other, K::Guard).await);
    assert!(said.contains("is open here"), "{said}");
    let mut old = spec.clone();
    old.epoch = webhost_proto::ids::Epoch(0);
    let said = refusal(answer(&supervisor, &old, K::Copy).await);
    assert!(said.contains("epoch 1 has been seen"), "{said}");
    let tunnel = command::Kind::OpenTunnel(wire::OpenTunnel::default());
    refusal(supervisor.handle(tunnel, watch::channel(None).0).await);
    well(&supervisor, &spec, K::Undo).await;
    assert!(supervisor.status().is_empty());
}

/// Whoever else holds the mover's lock may be what a killed mover left in the
/// middle of the switch: nobody may read that as "the source serves".
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_reads_no_fence_row_is_in_doubt() {
    let world = world(schema::WEBHOST, 50).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy]).await;
    let (left, _driver) = session(&world.source).await.expect("a session");
    let key = Lock::Mover(run.spec.tenant).key();
    left.query_one("select pg_advisory_lock($1)", &[&key]).await.expect("locks");
    let error = run.step(Step::CutOver).await.expect_err("nobody may pass");
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    // Another step changes nobody's place: it is just asked for again.
    let error = run.step(Step::Drain).await.expect_err("nobody may pass");
    assert_eq!(error.kind(), Kind::Retry, "{error}");
    drop(left);
    steps(&run, &[Step::Undo]).await;
}
