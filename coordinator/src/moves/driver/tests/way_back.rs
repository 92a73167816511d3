//! After the switch: the way back, the roll back, the old copy; and a target
//! that was given up before it.

use std::time::Duration;

use webhost_proto::wire::FailureKind;

use crate::moves::driver::world::{World, failed, good, name};
use crate::moves::{self, MoveRefused};
use crate::store::testing;

const FAILURES: [FailureKind; 4] =
    [FailureKind::Retry, FailureKind::Interrupted, FailureKind::Expired, FailureKind::Unspecified];

#[tokio::test]
async fn a_move_is_rolled_back() {
    let mut world = World::new().await;
    let id = world.switched().await;
    let (placements, epoch) = world.books().await;
    assert_eq!((placements[0].1.as_str(), placements[1].1.as_str(), epoch), ("kept", "active", 2));
    moves::roll_back(&world.store, id, "token ops", "it is slow").await.expect("wanted");
    let again = moves::roll_back(&world.store, id, "token ops", "now").await;
    assert!(matches!(again, Err(MoveRefused::TooLate { .. })), "{again:?}");
    let mut asked = Vec::new();
    world
        .play(&mut |command| {
            asked.push(name(command));
            Some(good(command))
        })
        .await;
    assert_eq!(asked, ["way_back", "roll_back", "finish", "clean_up", "close_tunnel"][1..]);
    world.assert_rolled_back(id).await;
    assert_eq!(world.result(id).await["roll_back"]["fence_us"], 5100);
    let audit = world.audit(id).await;
    for action in ["move.roll_back_wanted", "move.roll_back", "move.route_back", "move.rolled_back"]
    {
        assert!(audit.contains(&action.to_owned()), "{action} in {audit:?}");
    }
}

/// Each step after the switch × fails in each way once, then goes well; on the
/// way forward and on the way back.
#[tokio::test]
async fn every_step_after_the_switch_survives_every_failure() {
    let store = testing::database().await;
    for back in [false, true] {
        let steps: &[&str] = if back {
            &["roll_back", "finish", "clean_up", "close_tunnel"]
        } else {
            &["way_back", "finish", "clean_up", "close_tunnel"]
        };
        for step in steps {
            for kind in FAILURES {
                let mut world = World::on(store.clone()).await;
                let id = world.switched().await;
                if back {
                    moves::roll_back(&world.store, id, "token ops", "why").await.expect("wanted");
                }
                let mut tries = 0;
                world
                    .play(&mut |command| {
                        if name(command) == *step {
                            tries += 1;
                            if tries == 1 {
                                return Some(failed(kind));
                            }
                        }
                        Some(good(command))
                    })
                    .await;
                assert_eq!(tries, 2, "{step} {kind:?} {back}");
                if back {
                    world.assert_rolled_back(id).await;
                } else {
                    world.assert_moved(id).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refused_roll_back_leaves_the_way_back_open() {
    let mut world = World::new().await;
    let id = world.switched().await;
    moves::roll_back(&world.store, id, "token ops", "it is slow").await.expect("wanted");
    world
        .play(&mut |command| match name(command) {
            "roll_back" => Some(failed(FailureKind::Refused)),
            "way_back" => None,
            _ => Some(good(command)),
        })
        .await;
    assert_eq!(world.state(id).await, "way_back");
    let error = world.row(id).await.error.expect("is told");
    assert!(error.contains("not rolled back: scripted Refused"), "{error}");
    // A second try may succeed.
    moves::roll_back(&world.store, id, "token ops", "again").await.expect("wanted");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_rolled_back(id).await;
}

/// The switch back was made and its answer lost: it is asked again, however
/// late it is, and nothing else is done meanwhile.
#[tokio::test]
async fn a_roll_back_without_an_answer_is_asked_again() {
    let mut world = World::new().await;
    let id = world.switched().await;
    moves::roll_back(&world.store, id, "token ops", "it is slow").await.expect("wanted");
    world.play(&mut |command| (name(command) != "roll_back").then(|| good(command))).await;
    for _ in 0..60 {
        world.pass(world.timing.cut_over_attempt + world.timing.longest_pause);
        world.tick().await;
        world.pass(world.timing.longest_pause);
        world.tick().await;
        let open = world.open_commands().await;
        let names: Vec<&str> = open.iter().map(|(_, _, kind)| name(kind)).collect();
        assert_eq!(names, ["roll_back"]);
    }
    for refused in [
        moves::cancel(&world.store, id, "token ops").await,
        moves::close_way_back(&world.store, id, "token ops", "why").await,
        moves::clean_up(&world.store, id, "token ops").await,
    ] {
        assert!(matches!(refused, Err(MoveRefused::TooLate { .. })), "{refused:?}");
    }
    world.play(&mut |command| Some(good(command))).await;
    world.assert_rolled_back(id).await;
}

#[tokio::test]
async fn the_way_back_ends_by_a_word_by_its_time_or_by_the_agents() {
    let store = testing::database().await;
    // By a word.
    let mut world = World::on(store.clone()).await;
    let id = world.switched().await;
    let why = moves::request(&world.store, world.upgrade()).await.expect_err("is open");
    assert!(why.to_string().contains(&format!("close-way-back {id}")), "{why}");
    moves::close_way_back(&world.store, id, "token ops", "it is good").await.expect("closed");
    world.play(&mut |command| (name(command) != "way_back").then(|| good(command))).await;
    world.assert_moved(id).await;
    // By its time, with an agent that says nothing: the times are durable, so
    // each look is that of a coordinator that was just started.
    let mut world = World::on(store.clone()).await;
    let id = world.switched().await;
    let until = world.row(id).await.durable.way_back_until.expect("a time");
    world.pass(world.timing.way_back / 2);
    world.tick().await;
    assert_eq!(world.row(id).await.durable.way_back_until, Some(until));
    world.pass(world.timing.way_back / 2 + world.timing.way_back_grace);
    let late = moves::roll_back(&world.store, id, "token ops", "late").await;
    // The clock of the wish is the machine's, where it is still open.
    assert!(late.is_ok(), "{late:?}");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_rolled_back(id).await;
    let mut world = World::on(store.clone()).await;
    let id = world.switched().await;
    world.pass(world.timing.way_back + world.timing.way_back_grace);
    world.play(&mut |command| (name(command) != "way_back").then(|| good(command))).await;
    world.assert_moved(id).await;
    // By an agent that can't hold it open.
    let mut world = World::on(store.clone()).await;
    let id = world.request().await;
    world
        .play(&mut |command| match name(command) {
            "way_back" => Some(failed(FailureKind::Refused)),
            _ => Some(good(command)),
        })
        .await;
    world.assert_moved(id).await;
    // None was wanted.
    let mut world = World::on(store.clone()).await;
    world.timing.way_back = Duration::ZERO;
    let id = world.request().await;
    let mut asked = Vec::new();
    world
        .play(&mut |command| {
            asked.push(name(command));
            Some(good(command))
        })
        .await;
    assert!(!asked.contains(&"way_back"), "{asked:?}");
    world.assert_moved(id).await;
}

#[tokio::test]
async fn an_old_copy_is_kept_and_then_cleaned() {
    let mut world = World::new().await;
    world.timing.keep_old_copy = Duration::from_secs(7 * 86_400);
    let id = world.switched().await;
    let early = moves::clean_up(&world.store, id, "token ops").await.expect_err("open");
    assert!(early.to_string().contains("way back open"), "{early}");
    moves::close_way_back(&world.store, id, "token ops", "it is good").await.expect("closed");
    world.play(&mut |command| Some(good(command))).await;
    assert_eq!(world.state(id).await, "kept");
    let late = moves::roll_back(&world.store, id, "token ops", "late").await.expect_err("closed");
    assert!(late.to_string().contains("no way back open"), "{late}");
    // The tenant may have another move, but not to where its old copy is.
    let lateral = moves::NewMove {
        mode: "multi_tenant".into(),
        target: Some(world.source),
        ..world.upgrade()
    };
    let holds = moves::request(&world.store, lateral).await.expect_err("a copy is there");
    assert!(holds.to_string().contains(&format!("clean-up {id}")), "{holds}");
    moves::clean_up(&world.store, id, "token ops").await.expect("wanted");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
}

#[tokio::test]
async fn a_tenant_whose_old_copy_is_kept_may_have_another_move() {
    let mut world = World::new().await;
    world.timing.way_back = Duration::ZERO;
    world.timing.keep_old_copy = Duration::from_secs(7 * 86_400);
    let first = world.request().await;
    world.play(&mut |command| Some(good(command))).await;
    assert_eq!(world.state(first).await, "kept");
    let third = world.another_dedicated().await;
    let again = moves::NewMove { target: Some(third), ..world.upgrade() };
    let second = moves::request(&world.store, again.clone()).await.expect("another move");
    let third_time = moves::request(&world.store, again).await.expect_err("one at a time");
    assert!(matches!(third_time, MoveRefused::AlreadyMoving { open, .. } if open == second));
    assert_eq!(world.row(second).await.kind, "dedicated");
    world.source = world.target;
    world.target = third;
    world.play(&mut |command| Some(good(command))).await;
    assert_eq!((world.state(first).await, world.state(second).await), ("kept", "kept"));
}

#[tokio::test]
async fn a_target_that_stays_silent_is_abandoned_and_cleaned_when_it_is_back() {
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    moves::cancel(&world.store, id, "token ops").await.expect("cancelled");
    world
        .play(&mut |command| match name(command) {
            "undo" => Some(failed(FailureKind::Retry)),
            "abandon" => Some(good(command)),
            _ => None,
        })
        .await;
    assert_eq!(world.state(id).await, "clean_target");
    let (placements, epoch) = world.books().await;
    assert_eq!((placements[0].1.as_str(), placements[1].1.as_str(), epoch), ("active", "kept", 1));
    // The tenant is free, except to go there.
    let there = moves::request(&world.store, world.upgrade()).await.expect_err("holds a copy");
    assert!(matches!(there, MoveRefused::HoldsCopy { .. }), "{there}");
    let third = world.another_dedicated().await;
    let elsewhere = moves::NewMove { target: Some(third), ..world.upgrade() };
    let next = moves::request(&world.store, elsewhere).await.expect("another move");
    moves::cancel(&world.store, next, "token ops").await.expect("cancelled");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_stayed(id, "cancelled").await;
}

/// An agent that doesn't know the word goes on undoing.
#[tokio::test]
async fn a_refused_abandonment_goes_on_undoing() {
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    moves::cancel(&world.store, id, "token ops").await.expect("cancelled");
    let mut refused = 0;
    world
        .play(&mut |command| match name(command) {
            "undo" if refused == 0 => Some(failed(FailureKind::Interrupted)),
            "abandon" => {
                refused += 1;
                Some(failed(FailureKind::Refused))
            }
            _ => Some(good(command)),
        })
        .await;
    assert_eq!(refused, 1);
    world.assert_stayed(id, "cancelled").await;
}

#[tokio::test]
async fn a_tenant_that_fares_worse_goes_back_by_policy() {
    let mut world = World::new().await;
    world.rules.auto_rollback.enabled = true;
    world.report(world.source, 100, 0);
    let id = world.switched().await;
    world.report(world.target, 100, 20);
    for _ in 0..3 {
        world.tick().await;
        world.pass(Duration::from_secs(60));
        world.report(world.target, 100, 20);
    }
    assert_eq!(world.state(id).await, "way_back", "not yet for long enough");
    world.pass(world.rules.auto_rollback.lasting);
    world.report(world.target, 100, 20);
    world.play(&mut |command| Some(good(command))).await;
    world.assert_rolled_back(id).await;
    assert!(world.audit(id).await.contains(&"move.roll_back_wanted".to_owned()));
}
