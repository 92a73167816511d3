use std::time::Duration;

use super::*;
use crate::store::nodes::{self, NodeKind};
use crate::world::{World, catalog, small};

fn asked(slug: &str, key: Option<&str>) -> Asked {
    let request = serde_json::from_value(small(slug)).expect("a request");
    let stated = ProfileOverrides::default();
    Asked { request, stated, actor: String::new(), key: key.map(str::to_owned) }
}

#[test]
fn a_batch_is_who_waits_in_order_with_each_key_once() {
    let queue = Queue::default();
    let mut waiting = Vec::new();
    for (slug, key) in [("a", Some("k")), ("b", None), ("c", Some("k")), ("d", Some("l"))] {
        waiting.push(queue.join(asked(slug, key)));
    }
    drop(waiting.remove(1));
    let next = || -> Vec<String> {
        queue.batch().iter().map(|one| one.asked.request.slug.clone()).collect()
    };
    assert_eq!(next(), ["a", "d"], "b gave up, and c has a's key");
    assert_eq!(next(), ["c"]);
    assert!(next().is_empty());
    let many: Vec<_> = (0..MOST + 3).map(|_| queue.join(asked("x", None))).collect();
    assert_eq!((next().len(), next().len(), many.len()), (MOST, 3, MOST + 3));
}

/// Waits until `count` are in line.
async fn in_line(desk: &Desk, count: usize) {
    let waits = async {
        while desk.queue.line().len() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.expect("they come");
}

/// Waits until a batch waits for the node rows, which the test holds.
async fn began(world: &World) {
    let waiting = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    let waits = async {
        while world.count(waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.expect("a batch begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_a_batch_is_written_is_the_next_batch() {
    let world = World::new(catalog(150)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let mut client = world.store.client().await.expect("a client");
    let held = (**client).transaction().await.expect("begins");
    nodes::lock_all(&held, NodeKind::Shared).await.expect("locks");

    let mut tasks = tokio::task::JoinSet::new();
    let mut come = |slug: &str, key: &str| {
        let (desk, key) = (world.desk.clone(), key.to_owned());
        let request: SignupRequest = serde_json::from_value(small(slug)).expect("a request");
        tasks.spawn(async move {
            let answer = desk.sign_up(&request, "token test", Some(&key)).await;
            (request.slug, answer)
        });
    };
    come("first", "first");
    began(&world).await;
    for n in 0..20 {
        come(&format!("t{n}"), &format!("key {n}"));
    }
    in_line(&world.desk, 20).await;
    come("t7", "another key");
    in_line(&world.desk, 21).await;
    held.rollback().await.expect("lets go");

    let answers = tasks.join_all().await;
    let refused: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_err()).collect();
    let [(slug, Err(SignupError::Taken { field: "slug", .. }))] = refused.as_slice() else {
        panic!("{refused:?}")
    };
    assert_eq!(slug, "t7", "the one that came second");
    let one_by_one = "select count(distinct at) from decisions";
    assert_eq!(world.count(one_by_one).await, 2, "the first alone, the others together");
    assert_eq!(world.count("select count(*) from placements").await, 21);
    let keys = "select count(*) from idempotency_keys where status = 201";
    assert_eq!(world.count(keys).await, 21, "the refused one's key is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_gives_up_takes_no_answer_of_the_others_along() {
    let world = World::new(catalog(150)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let mut client = world.store.client().await.expect("a client");
    let held = (**client).transaction().await.expect("begins");
    nodes::lock_all(&held, NodeKind::Shared).await.expect("locks");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..3 {
        let desk = world.desk.clone();
        let request: SignupRequest =
            serde_json::from_value(small(&format!("t{n}"))).expect("a request");
        let leads = tasks.spawn(async move { desk.sign_up(&request, "t", None).await });
        in_line(&world.desk, n).await;
        if n == 0 {
            began(&world).await;
            leads.abort();
        }
    }
    held.rollback().await.expect("lets go");
    let mut placed = 0;
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(answer) => {
                assert_eq!(answer.expect("signs up").1["state"], "provisioning");
                placed += 1;
            }
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
    }
    assert_eq!(placed, 2);
    assert_eq!(world.count("select count(*) from tenants").await, 3, "it was on its way");
}
