//! Nodes that never come back.

use webhost_proto::wire::{self, FailureKind, MoveStepKind, Serving, command, command_reply};

use crate::moves::driver::world::{Script, World, failed, good, name, recovered};
use crate::moves::{self, MoveRefused};

/// A cut-over was asked for, and its source's agent is silent since.
async fn silent_in_the_cut_over() -> (World, webhost_proto::ids::MoveId) {
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| (name(command) != "cut_over").then(|| good(command))).await;
    assert_eq!(world.state(id).await, "cut_over");
    world.silent(world.source, true).await;
    (world, id)
}

fn says(serving: Serving, epoch: u64, both_read: bool) -> command_reply::Outcome {
    command_reply::Outcome::MoveStepDone(wire::MoveStepDone {
        step: MoveStepKind::Recover.into(),
        result: Some(recovered(serving, epoch, both_read)),
    })
}

/// Nobody takes up what is sent to the source; `target` answers what is sent to
/// the target, until nothing changes for some tries.
async fn tries(world: &mut World, target: Script<'_>) {
    for _ in 0..4 {
        world.pass(world.timing.cut_over_attempt);
        world.tick().await;
        world.pass(world.timing.longest_pause);
        world.tick().await;
        for (node, command, kind) in world.open_commands().await {
            if node == world.target
                && let Some(outcome) = target(&kind)
            {
                world.answer(node, command, outcome).await;
            }
        }
        world.tick().await;
    }
}

#[tokio::test]
async fn a_target_that_serves_settles_a_cut_over_whose_source_is_gone() {
    let (mut world, id) = silent_in_the_cut_over().await;
    let mut asked = Vec::new();
    tries(&mut world, &mut |command| {
        asked.push(name(command));
        (name(command) == "recover").then(|| says(Serving::Target, 2, false))
    })
    .await;
    assert_eq!(asked, ["recover"]);
    assert_eq!(world.state(id).await, "way_back");
    assert_eq!(world.books().await.1, 2, "the books follow");
    let result = world.row(id).await.result;
    assert_eq!(result["cut_over"]["asked_target"], true);
}

/// Whatever else the target's agent says leaves it open, for ever: what is
/// undone or activated without the source's word would be a guess.
#[tokio::test]
async fn nothing_else_that_a_target_says_alone_settles_a_cut_over() {
    for answer in [
        says(Serving::Unspecified, 1, false),
        says(Serving::Source, 1, false),
        // An epoch that no switch of this move gives.
        says(Serving::Target, 1, false),
        failed(FailureKind::Refused),
        failed(FailureKind::Retry),
    ] {
        let (mut world, id) = silent_in_the_cut_over().await;
        world.pass(world.timing.cut_over * 2);
        let mut asked = Vec::new();
        tries(&mut world, &mut |command| {
            asked.push(name(command));
            Some(answer.clone())
        })
        .await;
        assert!(asked.len() > 1 && asked.iter().all(|name| *name == "recover"), "{asked:?}");
        assert_eq!(world.state(id).await, "cut_over", "{answer:?}");
        assert_eq!(world.books().await.1, 1);
        let error = world.row(id).await.error.expect("is told");
        assert!(error.contains("silent"), "{error}");
    }
}

/// Both rows were read under the movers' locks: that is the word of the source.
#[tokio::test]
async fn a_source_that_is_seen_to_serve_is_tried_again_and_then_undone() {
    let (mut world, id) = silent_in_the_cut_over().await;
    tries(&mut world, &mut |_| Some(says(Serving::Source, 1, true))).await;
    assert_eq!(world.state(id).await, "cut_over");
    world.pass(world.timing.cut_over);
    tries(&mut world, &mut |command| {
        (name(command) == "recover").then(|| says(Serving::Source, 1, true))
    })
    .await;
    assert_eq!(world.state(id).await, "undo_source");
}

/// A source that is back is asked itself.
#[tokio::test]
async fn a_source_that_is_back_is_asked_itself() {
    let (mut world, id) = silent_in_the_cut_over().await;
    tries(&mut world, &mut |_| Some(says(Serving::Unspecified, 0, false))).await;
    world.silent(world.source, false).await;
    let mut asked = Vec::new();
    world.pass(world.timing.cut_over_attempt);
    world
        .play(&mut |command| {
            asked.push(name(command));
            (name(command) != "way_back").then(|| good(command))
        })
        .await;
    assert_eq!(asked.first(), Some(&"cut_over"), "{asked:?}");
    assert_eq!(world.state(id).await, "way_back");
}

/// Of a roll back the target's row alone says nothing that ends it.
#[tokio::test]
async fn a_roll_back_whose_source_is_gone_is_settled_by_both_rows_only() {
    let mut world = World::new().await;
    let id = world.switched().await;
    moves::roll_back(&world.store, id, "token ops", "slow").await.expect("wanted");
    world.play(&mut |_| None).await;
    assert_eq!(world.state(id).await, "roll_back");
    world.silent(world.source, true).await;
    world.pass(world.timing.cut_over * 2);
    for open in [
        says(Serving::Target, 2, false),
        says(Serving::Unspecified, 3, false),
        says(Serving::Source, 3, false),
        failed(FailureKind::Refused),
    ] {
        tries(&mut world, &mut |_| Some(open.clone())).await;
        assert_eq!(world.state(id).await, "roll_back", "{open:?}");
    }
    tries(&mut world, &mut |command| {
        (name(command) == "recover").then(|| says(Serving::Source, 3, true))
    })
    .await;
    assert_eq!(world.books().await.1, 3);
    assert_eq!(world.state(id).await, "finish");
}

/// A move that was abandoned, and whose target does not come back.
async fn abandoned() -> (World, webhost_proto::ids::MoveId) {
    let mut world = World::new().await;
    let id = world.request().await;
    world
        .play(&mut |command| match name(command) {
            "copy" => Some(failed(FailureKind::Refused)),
            "undo" | "clean_up" => None,
            _ => Some(good(command)),
        })
        .await;
    assert_eq!(world.state(id).await, "undo_source");
    let early = moves::forget(&world.store, id, "operator").await.expect_err("its source has it");
    assert!(early.to_string().contains("wait for clean_target"), "{early}");
    world.pass(world.timing.abandon_after);
    world
        .play(&mut |command: &command::Kind| match name(command) {
            "undo" => Some(failed(FailureKind::Interrupted)),
            "abandon" => Some(good(command)),
            _ => None,
        })
        .await;
    assert_eq!(world.state(id).await, "clean_target");
    (world, id)
}

#[tokio::test]
async fn an_abandoned_move_whose_target_never_returns_is_forgotten() {
    let (mut world, id) = abandoned().await;
    let refused = moves::forget(&world.store, id, "operator").await.expect_err("is connected");
    assert!(refused.to_string().contains("is connected"), "{refused}");
    world.silent(world.target, true).await;
    moves::forget(&world.store, id, "token ops").await.expect("forgotten");
    world.assert_stayed(id, "failed").await;
    let forgotten = world.row(id).await.durable.forgotten.expect("who and when");
    assert_eq!(forgotten.by, "token ops");
    let events = moves::get(&world.store, id).await.expect("reads").expect("the move").events;
    let said = &events.last().expect("an event").message;
    assert!(said.contains("gone for good") && said.contains("move clean-up"), "{said}");
    let again = moves::forget(&world.store, id, "token ops").await;
    assert!(matches!(again, Err(MoveRefused::TooLate { .. })), "{again:?}");
    world.play(&mut |command| panic!("asked for {}", name(command))).await;
}

/// It returns after all: what it holds is deleted, and takes room until then.
#[tokio::test]
async fn a_forgotten_target_that_returns_is_cleaned_up() {
    let (mut world, id) = abandoned().await;
    world.silent(world.target, true).await;
    moves::forget(&world.store, id, "token ops").await.expect("forgotten");
    world.silent(world.target, false).await;
    moves::clean_up(&world.store, id, "token ops").await.expect("wanted");
    assert_eq!(world.state(id).await, "clean_target");
    assert_eq!(world.books().await.0[1].1, "kept");
    let mut asked = Vec::new();
    world
        .play(&mut |command| {
            asked.push(name(command));
            Some(good(command))
        })
        .await;
    assert_eq!(asked, ["clean_up", "close_tunnel"]);
    world.assert_stayed(id, "failed").await;
    let none = moves::clean_up(&world.store, id, "token ops").await;
    assert!(matches!(none, Err(MoveRefused::TooLate { .. })), "{none:?}");
}

/// A switched move whose source's node is silent since, and never returns.
async fn without_its_source() -> (World, webhost_proto::ids::MoveId) {
    let mut world = World::new().await;
    let id = world.switched().await;
    let refused = moves::forget(&world.store, id, "operator").await.expect_err("is connected");
    assert!(refused.to_string().contains("is connected"), "{refused}");
    world.silent(world.source, true).await;
    (world, id)
}

/// The side that serves would keep a log for nobody, for ever.
#[tokio::test]
async fn a_switched_move_whose_source_never_returns_is_finished_by_the_target() {
    let (mut world, id) = without_its_source().await;
    moves::forget(&world.store, id, "token ops").await.expect("forgotten");
    assert_eq!(world.state(id).await, "finish");
    assert_eq!(world.books().await.0[0].1, "kept", "its room is given back at the end");
    world.tick().await;
    let open = world.open_commands().await;
    let [(node, _, kind)] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((*node, name(kind)), (world.target, "finish"));
    let mut asked = Vec::new();
    world
        .play(&mut |command| {
            asked.push(name(command));
            Some(good(command))
        })
        .await;
    assert_eq!(asked, ["finish", "close_tunnel"]);
    world.assert_moved(id).await;
    let again = moves::forget(&world.store, id, "token ops").await;
    assert!(matches!(again, Err(MoveRefused::TooLate { .. })), "{again:?}");
}

/// It returns after all: its copy is deleted, and takes room until then.
#[tokio::test]
async fn a_forgotten_source_that_returns_is_cleaned_up() {
    let (mut world, id) = without_its_source().await;
    moves::forget(&world.store, id, "token ops").await.expect("forgotten");
    world.play(&mut |command| Some(good(command))).await;
    world.silent(world.source, false).await;
    moves::clean_up(&world.store, id, "token ops").await.expect("wanted");
    assert_eq!(world.state(id).await, "clean_up");
    assert_eq!(world.books().await.0[0].1, "kept");
    world.tick().await;
    let open = world.open_commands().await;
    let [(node, _, command::Kind::MoveStep(step))] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((*node, step.step()), (world.source, MoveStepKind::CleanUp));
    assert!(step.spec.as_ref().is_some_and(|spec| spec.old_copy_gone));
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
    let none = moves::clean_up(&world.store, id, "token ops").await;
    assert!(matches!(none, Err(MoveRefused::TooLate { .. })), "cleaned once: {none:?}");
}

#[tokio::test]
async fn a_kept_copy_whose_node_never_returns_is_not_waited_for() {
    let mut world = World::new().await;
    world.timing.keep_old_copy = std::time::Duration::from_secs(86_400);
    let id = world.switched().await;
    moves::close_way_back(&world.store, id, "operator", "it is good").await.expect("closed");
    world.play(&mut |command| Some(good(command))).await;
    assert_eq!(world.state(id).await, "kept");
    world.silent(world.source, true).await;
    moves::forget(&world.store, id, "token ops").await.expect("forgotten");
    assert_eq!(world.books().await.0[0].1, "ended");
    world.play(&mut |command| (name(command) == "close_tunnel").then(|| good(command))).await;
    world.assert_moved(id).await;
}

/// Nothing is forgotten that a database must still decide.
#[tokio::test]
async fn a_switch_under_way_is_not_forgotten() {
    let (world, id) = silent_in_the_cut_over().await;
    world.silent(world.target, true).await;
    let refused = moves::forget(&world.store, id, "operator").await.expect_err("in a switch");
    assert!(refused.to_string().contains("must settle first"), "{refused}");
    let early = World::new().await;
    let id = early.request().await;
    let refused = moves::forget(&early.store, id, "operator").await.expect_err("has not begun");
    assert!(matches!(refused, MoveRefused::TooLate { .. }), "{refused}");
}
