//! A move under load behind a real nginx, with an application that knows
//! nothing of moves.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::time::Duration;

use webhost_coordinator::embedded::Options;
use webhost_tests::held::clients::{Clients, Kind, Seen};
use webhost_tests::held::{DEDICATED, SHARED, Stage};

const PAUSE: Duration = Duration::from_millis(30);

/// One fleet at a time: two cores carry no more.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What the hold point promises is about requests that are answered sooner than
/// it can wait for them. Where the machine itself stood still for longer, and
/// only there, a scene is played again.
const STOOD_STILL: Duration = Duration::from_millis(400);
const TRIES: usize = 3;

/// Plays a scene until it shows something about the hold point; its clients
/// must have seen no error.
async fn no_errors<T>(scene: impl AsyncFn() -> (Stage, Seen, T)) -> (Stage, Seen, T) {
    for left in (0..TRIES).rev() {
        let (stage, seen, more) = scene().await;
        let stood_still =
            !seen.errors.is_empty() && seen.errors.iter().all(|error| error.took >= STOOD_STILL);
        if !stood_still || left == 0 {
            unharmed(&stage, &seen);
            return (stage, seen, more);
        }
        eprintln!("the machine stood still, once more: {:#?}", seen.errors);
    }
    unreachable!("the last try returns")
}

/// However long the machine stood still: what was acknowledged is at `node`.
async fn all_there(stage: &Stage, node: &str, seen: &Seen) {
    let found = stage.found(node, &seen.written).await.expect("rows");
    assert_eq!(found, seen.written.len(), "acknowledged, and found at {node}");
}

fn unharmed(stage: &Stage, seen: &Seen) {
    assert!(
        seen.errors.is_empty(),
        "{}
{:#?}",
        stage.fleet.logs(30),
        seen.errors
    );
}

fn clients(stage: &Stage, pairs: usize, others: bool) -> Clients {
    let front = stage.front().expect("nginx");
    Clients::start(front, stage.host(), stage.tenant.clone(), pairs, PAUSE, others)
}

/// Waits until the clients have got `more` answers.
async fn served(clients: &Clients, more: usize) {
    let before = clients.seen().samples.len();
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while clients.seen().samples.len() < before + more {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("no answers: {:?}", clients.seen().errors));
}

fn count(seen: &Seen, kind: Kind) -> usize {
    seen.samples.iter().filter(|sample| sample.kind == kind).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_under_load_shows_no_client_an_error() {
    let _alone = ALONE.lock().await;
    let (_stage, seen, ()) = no_errors(async || {
        let stage = Stage::start(Options::throwaway(), &[]).await.expect("a stage");
        let clients = clients(&stage, 4, true);
        served(&clients, 100).await;
        let began = clients.now();
        let id = stage.begin().await.expect("a move begins");
        stage.switched(&id).await.expect("is switched");
        let switched = clients.now();
        // Long enough for the downloads that began before to end.
        served(&clients, 400).await;
        let seen = clients.stop().await;
        felt("before", &seen, Duration::ZERO, began);
        felt("move", &seen, began, switched);
        all_there(&stage, DEDICATED, &seen).await;
        (stage, seen, ())
    })
    .await;
    eprintln!(
        "uploads {}, lists {}, downloads {}, messages {}; reopened {}, told {}, cut {}",
        count(&seen, Kind::Upload),
        count(&seen, Kind::List),
        count(&seen, Kind::Download),
        count(&seen, Kind::Message),
        seen.reopened,
        seen.told,
        seen.cut
    );
    assert!(seen.told >= 3, "each WebSocket is told to come again");
    for kind in [Kind::Upload, Kind::List, Kind::Download, Kind::Message] {
        assert!(count(&seen, kind) > 0, "{kind:?}");
    }
}

/// What the clients felt between two moments.
fn felt(what: &str, seen: &Seen, from: Duration, to: Duration) {
    let mut took: Vec<Duration> = seen
        .samples
        .iter()
        .filter(|sample| matches!(sample.kind, Kind::Upload | Kind::List))
        .filter(|sample| sample.began <= to && sample.began + sample.took >= from)
        .map(|sample| sample.took)
        .collect();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).or(took.last()).copied();
    eprintln!(
        "{what}: {} uploads and lists, p50 {:?}, p95 {:?}, longest {:?}",
        took.len(),
        at(50).unwrap_or_default(),
        at(95).unwrap_or_default(),
        took.last().copied().unwrap_or_default()
    );
}

/// There and back under load: clients that never repeat a request see no error
/// either way, and what they wrote at the new place comes home.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_back_under_load_shows_no_client_an_error() {
    let _alone = ALONE.lock().await;
    let (_stage, seen, written_there) = no_errors(async || {
        let stage = Stage::start(Options::throwaway(), &[]).await.expect("a stage");
        let clients = clients(&stage, 4, true);
        served(&clients, 100).await;
        let began = clients.now();
        let id = stage.begin().await.expect("a move begins");
        stage.switched(&id).await.expect("is switched");
        let switched = clients.now();
        served(&clients, 200).await;
        let there = clients.now();
        let written_there = clients.seen().written.len();
        stage.roll_back(&id).await.expect("is rolled back");
        let back = clients.now();
        // Long enough for the downloads that began before to end.
        served(&clients, 400).await;
        let seen = clients.stop().await;
        felt("before", &seen, Duration::ZERO, began);
        felt("move", &seen, began, switched);
        felt("way back open", &seen, switched, there);
        felt("roll back", &seen, there, back);
        all_there(&stage, SHARED, &seen).await;
        (stage, seen, written_there)
    })
    .await;
    assert!(seen.written.len() > written_there, "the clients write on at home");
    assert!(seen.told >= 6, "each WebSocket is told to come again, both ways: {}", seen.told);
}

/// Dies once with the requests parked: they go on, and nobody sees an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mover_that_dies_with_requests_parked_shows_no_client_an_error() {
    let _alone = ALONE.lock().await;
    let dies_at = async |point: &'static str| {
        let environment = [("WEBHOST_FAIL_AT", point)];
        let stage = Stage::start(Options::throwaway(), &environment).await.expect("a stage");
        let clients = clients(&stage, 3, false);
        served(&clients, 50).await;
        let id = stage.begin().await.expect("a move begins");
        stage.switched(&id).await.expect("is switched");
        served(&clients, 100).await;
        let seen = clients.stop().await;
        let longest = seen.samples.iter().map(|sample| sample.took).max().unwrap_or_default();
        eprintln!("{point}: longest {longest:?}, errors {:?}", seen.errors);
        all_there(&stage, DEDICATED, &seen).await;
        (stage, seen, ())
    };
    no_errors(async || dies_at("after_take").await).await;
    // Until somebody has read who serves the tenant, the fence refuses.
    dies_at("after_moved").await;
}

/// The agent dies in the cut-over, and the hold point with it: requests in
/// flight are lost to their clients, those that come after go straight to the
/// application, and once the agent is back all is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_leaves_nobody_parked() {
    let _alone = ALONE.lock().await;
    let mut stage = Stage::start(Options::throwaway(), &[]).await.expect("a stage");
    let clients = clients(&stage, 3, false);
    served(&clients, 50).await;
    let id = stage.begin().await.expect("a move begins");
    stage.reaches(&id, "cut_over").await.or_else(|_| Ok::<_, anyhow::Error>(())).expect("looked");
    stage.fleet.kill_agent(SHARED);
    let killed = clients.now();
    // Whoever serves the tenant, the application answers.
    served(&clients, 20).await;
    stage.fleet.start_agent(SHARED).expect("starts");
    stage.switched(&id).await.expect("is switched");
    served(&clients, 100).await;
    let settled = clients.now();
    served(&clients, 100).await;
    let seen = clients.stop().await;
    let late: Vec<_> = seen.errors.iter().filter(|error| error.at > settled).collect();
    eprintln!("killed at {killed:?}, {} errors in between", seen.errors.len());
    assert!(late.is_empty(), "{}\n{late:#?}", stage.fleet.logs(30));
    all_there(&stage, DEDICATED, &seen).await;
}
