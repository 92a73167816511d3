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
    let stage = Stage::start(Options::throwaway(), &[]).await.expect("a stage");
    let clients = clients(&stage, 4, true);
    served(&clients, 100).await;
    let id = stage.begin().await.expect("a move begins");
    stage.switched(&id).await.expect("is switched");
    // Long enough for the downloads that began before to end.
    served(&clients, 400).await;
    let seen = clients.stop().await;
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
    assert!(seen.errors.is_empty(), "{:#?}\n{}", seen.errors, stage.fleet.logs(30));
    assert!(seen.told >= 3, "each WebSocket is told to come again");
    let found = stage.found(DEDICATED, &seen.written).await.expect("rows");
    assert_eq!(found, seen.written.len(), "everything acknowledged is at the new place");
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
    assert!(seen.errors.is_empty(), "{:#?}\n{}", seen.errors, stage.fleet.logs(30));
    assert!(seen.written.len() > written_there, "the clients write on at home");
    assert!(seen.told >= 6, "each WebSocket is told to come again, both ways: {}", seen.told);
    let found = stage.found(SHARED, &seen.written).await.expect("rows");
    assert_eq!(found, seen.written.len(), "everything acknowledged is at home");
}

/// Dies once with the requests parked: they go on, and nobody sees an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mover_that_dies_with_requests_parked_shows_no_client_an_error() {
    let _alone = ALONE.lock().await;
    for point in ["after_take", "after_moved"] {
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
        if point == "after_take" {
            assert!(seen.errors.is_empty(), "{:#?}\n{}", seen.errors, stage.fleet.logs(30));
        }
        let found = stage.found(DEDICATED, &seen.written).await.expect("rows");
        assert_eq!(found, seen.written.len(), "{point}: nothing acknowledged is lost");
    }
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
    let late: Vec<_> = seen.errors.iter().filter(|(at, _)| *at > settled).collect();
    eprintln!("killed at {killed:?}, {} errors in between", seen.errors.len());
    assert!(late.is_empty(), "{late:#?}\n{}", stage.fleet.logs(30));
    let found = stage.found(DEDICATED, &seen.written).await.expect("rows");
    assert_eq!(found, seen.written.len(), "nothing acknowledged is lost");
}
