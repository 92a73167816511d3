//! What the supervisor asks of the hold point, in which order, whatever dies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use webhost_agent::hold::HoldPoint;
use webhost_agent::mover::spec::{Serving, Spec};
use webhost_agent::mover::supervisor::Supervisor;
use webhost_proto::wire::{MoveStepKind as K, command_reply::Outcome};
use webhost_tests::schema;
use webhost_tests::writers::session;

use crate::kills::{answer, setup, well};
use crate::scene::{a_move, number, states, world};

/// Writes down what it is asked for; may refuse to begin or to be ready.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<String>>,
    refuses: Option<&'static str>,
}

impl Recorder {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().expect("no panic").push(what.into());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    fn may(&self, what: &str) -> Result<(), String> {
        self.note(what);
        match self.refuses {
            Some(refused) if refused == what => Err(format!("no {what} today")),
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl HoldPoint for Recorder {
    fn not_in_the_way(&self, _spec: &Spec) -> Option<String> {
        Some("a test".into())
    }
    async fn begin(&self, _spec: &Spec) -> Result<(), String> {
        self.may("begin")
    }
    async fn ready(&self, _spec: &Spec) -> Result<(), String> {
        self.may("ready")
    }
    async fn park(&self, _spec: &Spec) {
        self.note("park");
    }
    fn doubt(&self, _spec: &Spec) {
        self.note("doubt");
    }
    fn release(&self, _spec: &Spec, serving: Serving) {
        self.note(format!("release {serving:?}"));
    }
    async fn finish(&self, _spec: &Spec) {
        self.note("finish");
    }
    async fn end(&self, _spec: &Spec) {
        self.note("end");
    }
}

/// Runs of the same word are one: the fence may be tried again.
fn story(recorder: &Recorder) -> String {
    let mut words = recorder.asked();
    words.dedup();
    words.join(", ")
}

async fn moved(fail_at: Option<&str>) -> String {
    let world = world(schema::WEBHOST, 500).await;
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_move(&world).spec;
    let recorder = Arc::new(Recorder::default());
    let mut setup = setup(&world, &spec, dir.path(), fail_at);
    setup.hold = Arc::clone(&recorder) as Arc<dyn HoldPoint>;
    let supervisor = Supervisor::load(setup).expect("loads");
    for step in [K::Preflight, K::Guard, K::Copy, K::Drain, K::Verify, K::CutOver] {
        well(&supervisor, &spec, step).await;
    }
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    well(&supervisor, &spec, K::Finish).await;
    story(&recorder)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_parked_once_and_released_to_the_new_place() {
    let told = moved(None).await;
    assert_eq!(told, "begin, ready, park, release Target, finish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_dies_parked_is_followed_by_one_that_parks_again() {
    let told = moved(Some("after_take")).await;
    assert_eq!(told, "begin, ready, park, release Target, finish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_dies_past_the_point_is_followed_by_the_release() {
    let told = moved(Some("after_moved")).await;
    assert_eq!(told, "begin, ready, park, release Target, finish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_fence_gives_the_requests_back_each_time() {
    let world = world(schema::WEBHOST, 500).await;
    let dir = tempfile::tempdir().expect("a directory");
    let spec = a_move(&world).spec;
    let recorder = Arc::new(Recorder::default());
    let mut setup = setup(&world, &spec, dir.path(), None);
    setup.hold = Arc::clone(&recorder) as Arc<dyn HoldPoint>;
    let supervisor = Supervisor::load(setup).expect("loads");
    for step in [K::Preflight, K::Guard, K::Copy, K::Drain, K::Verify] {
        well(&supervisor, &spec, step).await;
    }
    // Somebody in a long transaction.
    let (client, _driver) = session(&world.source).await.expect("a session");
    client
        .batch_execute(&format!(
            "begin; update vehicles set name = name where customer_id = '{}'",
            world.tenant
        ))
        .await
        .expect("writes");
    let switching = {
        let (supervisor, spec) = (supervisor.clone(), spec.clone());
        async move { well(&supervisor, &spec, K::CutOver).await }
    };
    let releases = async {
        while recorder.asked().iter().filter(|what| *what == "release Source").count() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        client.batch_execute("rollback").await.expect("ends");
    };
    tokio::join!(switching, releases);
    // The step's outcome says it once more.
    let mut asked = recorder.asked();
    asked.dedup();
    let fence: Vec<&str> =
        asked.iter().map(String::as_str).skip_while(|what| *what != "park").collect();
    for pair in fence.chunks(2) {
        assert_eq!(pair[0], "park", "{fence:?}");
        assert!(pair.get(1).is_none_or(|what| what.starts_with("release")), "{fence:?}");
    }
    assert!(asked.contains(&"release Target".to_owned()), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_point_that_refuses_stops_the_move_before_anything_changed() {
    for (refused, step, before) in
        [("begin", K::Guard, vec![]), ("ready", K::Verify, vec![K::Guard, K::Copy, K::Drain])]
    {
        let world = world(schema::WEBHOST, 100).await;
        let dir = tempfile::tempdir().expect("a directory");
        let spec = a_move(&world).spec;
        let recorder = Recorder { refuses: Some(refused), ..Recorder::default() };
        let mut setup = setup(&world, &spec, dir.path(), None);
        setup.hold = Arc::new(recorder);
        let supervisor = Supervisor::load(setup).expect("loads");
        for step in before {
            well(&supervisor, &spec, step).await;
        }
        let refusal = match answer(&supervisor, &spec, step).await {
            Outcome::Failed(failed) => failed.message,
            other => panic!("{other:?}"),
        };
        assert!(refusal.contains(&format!("no {refused} today")), "{refusal}");
        if step == K::Guard {
            let ours = "select count(*) from pg_namespace where nspname = 'webhost_fleet'";
            assert_eq!(number(&world.source, ours).await, 0, "nothing was changed");
        } else {
            assert_eq!(states(&world).await.0, "active");
        }
    }
}
