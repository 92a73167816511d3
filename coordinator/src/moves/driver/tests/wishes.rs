//! What people want of a move that is under way.

use jiff::{SignedDuration, Timestamp};
use webhost_proto::wire::{self, command_reply, move_step_done};

use crate::moves::driver::world::{World, failed, good, name};
use crate::moves::proposals::{self, Patience};
use crate::moves::state::Step;
use crate::moves::wishes::Pausing;
use crate::moves::{self, MoveRefused};
use crate::store::testing;

/// The good answer, but that `rows` would stay behind.
fn leaves(kind: &wire::command::Kind, rows: u64) -> command_reply::Outcome {
    let mut answer = good(kind);
    if let command_reply::Outcome::MoveStepDone(done) = &mut answer
        && let Some(move_step_done::Result::Preflight(found)) = &mut done.result
    {
        found.rows_left_behind = rows;
    }
    answer
}

#[tokio::test]
async fn rows_that_stay_behind_are_confirmed_before_anything_is_changed() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut guarded = false;
    world
        .play(&mut |command| {
            guarded |= name(command) == "guard";
            Some(leaves(command, 12))
        })
        .await;
    assert!(!guarded);
    assert_eq!(world.state(id).await, "awaiting_confirmation");
    let error = world.row(id).await.error.expect("is told");
    assert!(error.contains("12 rows"), "{error}");
    let few = moves::confirm(&world.store, id, 11, "token ops").await.expect_err("too few");
    assert!(few.to_string().contains("confirm that number, not 11"), "{few}");
    moves::confirm(&world.store, id, 12, "token ops").await.expect("confirmed");
    let again = moves::confirm(&world.store, id, 12, "token ops").await;
    assert!(matches!(again, Err(MoveRefused::TooLate { .. })), "{again:?}");
    // What is counted anew is still what was confirmed.
    world.play(&mut |command| Some(leaves(command, 12))).await;
    world.assert_moved(id).await;
    // Confirmed with the request.
    let mut world = World::new().await;
    let told = moves::NewMove { confirm_rows: 12, ..world.upgrade() };
    let id = moves::request(&world.store, told).await.expect("a move");
    world.play(&mut |command| Some(leaves(command, 12))).await;
    world.assert_moved(id).await;
    // Never confirmed.
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| Some(leaves(command, 1))).await;
    moves::cancel(&world.store, id, "token ops").await.expect("cancelled");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_stayed(id, "cancelled").await;
}

#[tokio::test]
async fn a_move_is_paused_and_resumed_at_every_step_before_the_switch() {
    let store = testing::database().await;
    for step in ["open_tunnel", "preflight", "guard", "copy", "drain", "verify"] {
        for stop in [false, true] {
            let mut world = World::on(store.clone()).await;
            let id = world.request().await;
            world.play(&mut |command| (name(command) != step).then(|| good(command))).await;
            moves::pause(&world.store, id, "token ops", "a launch").await.expect("wanted");
            let again = moves::pause(&world.store, id, "token ops", "a launch").await;
            assert!(matches!(again, Err(MoveRefused::TooLate { .. })), "{again:?}");
            world.tick().await;
            assert_eq!(world.state(id).await, step, "what runs is let end");
            world.play(&mut |command| Some(good(command))).await;
            assert_eq!(world.state(id).await, "paused");
            let error = world.row(id).await.error.expect("is told");
            assert!(error.contains("paused by token ops: a launch"), "{error}");
            world.pass(world.timing.copy * 3);
            world.play(&mut |command| panic!("asked for {} in a pause", name(command))).await;
            if stop {
                moves::cancel(&world.store, id, "token ops").await.expect("cancelled");
                world.play(&mut |command| Some(good(command))).await;
                world.assert_stayed(id, "cancelled").await;
            } else {
                moves::resume(&world.store, id, "token ops").await.expect("resumed");
                world.tick().await;
                assert!(world.row(id).await.durable.deadline.is_some(), "patience begins anew");
                world.play(&mut |command| Some(good(command))).await;
                world.assert_moved(id).await;
            }
        }
    }
}

#[tokio::test]
async fn a_pause_is_taken_back_and_comes_too_late() {
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    moves::pause(&world.store, id, "token ops", "a launch").await.expect("wanted");
    moves::resume(&world.store, id, "token ops").await.expect("taken back");
    let none = moves::resume(&world.store, id, "token ops").await;
    assert!(matches!(none, Err(MoveRefused::TooLate { .. })), "{none:?}");
    world.play(&mut |command| (name(command) != "cut_over").then(|| good(command))).await;
    let waits = moves::pause(&world.store, id, "token ops", "now").await.expect("wanted");
    assert_eq!(waits, Pausing::Waits(Step::CutOver));
    let shown = moves::get(&world.store, id).await.expect("reads").expect("the move").pausing;
    assert!(shown.expect("is told").contains("can't be interrupted in its cut_over"));
    // The switch was made: there is nothing to pause any more.
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
}

/// A switch is never interrupted; where it did not come about, the move rests.
#[tokio::test]
async fn a_pause_waits_for_the_end_of_a_switch_under_way() {
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| (name(command) != "cut_over").then(|| good(command))).await;
    moves::pause(&world.store, id, "token ops", "a launch").await.expect("wanted");
    let mut asked = Vec::new();
    world
        .play(&mut |command| {
            asked.push(name(command));
            Some(failed(wire::FailureKind::Retry))
        })
        .await;
    assert_eq!(asked, ["cut_over"]);
    assert_eq!(world.state(id).await, "paused");
    moves::resume(&world.store, id, "token ops").await.expect("resumed");
    assert_eq!(
        world.row(id).await.state.as_str(),
        "drain",
        "what was written meanwhile comes first"
    );
    world.play(&mut |command| (name(command) != "way_back").then(|| good(command))).await;
    moves::roll_back(&world.store, id, "token ops", "slow").await.expect("wanted");
    world.play(&mut |command| (name(command) == "finish").then(|| good(command))).await;
    assert_eq!(world.state(id).await, "roll_back");
    let waits = moves::pause(&world.store, id, "token ops", "a launch").await.expect("wanted");
    assert_eq!(waits, Pausing::Waits(Step::RollBack));
    world
        .play(&mut |command| {
            (name(command) == "roll_back").then(|| failed(wire::FailureKind::Retry))
        })
        .await;
    assert_eq!(world.state(id).await, "way_back");
    let error = world.row(id).await.error.expect("is told");
    assert!(error.contains("not rolled back") && error.contains("paused by token ops"), "{error}");
    assert_eq!(world.row(id).await.durable.pause, None);
}

/// A copy of hours is not waited for: its agent is told to end it, once, and
/// the move rests when the copy's own command is answered.
#[tokio::test]
async fn a_pause_ends_a_long_step_that_can_be_resumed() {
    let store = testing::database().await;
    for step in ["copy", "drain", "verify"] {
        let mut world = World::on(store.clone()).await;
        let id = world.request().await;
        world.play(&mut |command| (name(command) != step).then(|| good(command))).await;
        let soon = moves::pause(&world.store, id, "token ops", "a launch").await.expect("wanted");
        assert!(matches!(soon, Pausing::Soon(_)), "{soon:?}");
        let mut asked = 0;
        world
            .play(&mut |command| {
                asked += usize::from(name(command) == "pause");
                // The step's own command is not answered yet.
                (name(command) == "pause").then(|| good(command))
            })
            .await;
        assert_eq!((asked, world.state(id).await), (1, step));
        world.play(&mut |_| Some(failed(wire::FailureKind::Interrupted))).await;
        assert_eq!(world.state(id).await, "paused");
        assert_eq!(world.open_commands().await, []);
        moves::resume(&world.store, id, "token ops").await.expect("resumed");
        assert_eq!(world.state(id).await, step, "it goes on where it was");
        world.play(&mut |command| Some(good(command))).await;
        world.assert_moved(id).await;
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_keeps_its_report() {
    let store = testing::database().await;
    for refused in [false, true] {
        let mut world = World::on(store.clone()).await;
        let dry = moves::NewMove { dry_run: true, ..world.upgrade() };
        let id = moves::request(&world.store, dry).await.expect("a dry run");
        let mut asked = Vec::new();
        world
            .play(&mut |command| {
                asked.push(name(command));
                if refused && name(command) == "preflight" {
                    return Some(failed(wire::FailureKind::Refused));
                }
                Some(leaves(command, 12))
            })
            .await;
        assert_eq!(asked, ["open_tunnel", "preflight", "close_tunnel"]);
        world.assert_stayed(id, if refused { "failed" } else { "checked" }).await;
        let row = world.row(id).await;
        assert_eq!(row.error.is_some(), refused, "{:?}", row.error);
        assert_eq!(row.result["preflight"]["rows_left_behind"].is_null(), refused);
    }
}

#[tokio::test]
async fn the_history_tells_how_long_each_step_took() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut tries = 0;
    world
        .play(&mut |command| {
            tries += usize::from(name(command) == "copy");
            if name(command) == "copy" && tries == 1 {
                return Some(failed(wire::FailureKind::Retry));
            }
            Some(good(command))
        })
        .await;
    let view = moves::get(&world.store, id).await.expect("reads").expect("the move");
    let states: Vec<&str> = view.steps.iter().map(|step| step.state.as_str()).collect();
    assert_eq!(
        states,
        [
            "waiting_for_node",
            "open_tunnel",
            "preflight",
            "guard",
            "copy",
            "drain",
            "verify",
            "cut_over",
            "route",
            "way_back",
            "finish",
            "kept",
            "clean_up",
            "close_tunnel"
        ]
    );
    assert_eq!(view.steps[4].tries, 2);
    // The first began by the machine's clock, the others by the test's.
    let mut rest = view.steps.iter().skip(1);
    assert!(rest.all(|step| step.ended.is_some_and(|end| end >= step.began)));
    assert!(view.steps[4].seconds >= 30, "{:?}", view.steps[4]);
}

/// Looks at what waits for a person, so many days from now, by the driver's
/// clock or by a wish's, whichever is ahead.
async fn look_after(world: &World, days: i64) -> (usize, usize) {
    let client = world.store.client().await.expect("a client");
    let now = world.now.max(Timestamp::now()) + SignedDuration::from_hours(24 * days);
    proposals::look(&**client, &Patience::default(), now).await.expect("looks")
}

#[tokio::test]
async fn a_move_that_nobody_confirms_is_reminded_of_and_taken_back() {
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| Some(leaves(command, 12))).await;
    assert_eq!(world.state(id).await, "awaiting_confirmation");
    assert_eq!(look_after(&world, 0).await, (0, 0));
    assert_eq!(look_after(&world, 1).await, (1, 0));
    assert_eq!(look_after(&world, 1).await, (0, 0), "once a day");
    assert_eq!(look_after(&world, 6).await, (1, 0));
    assert_eq!(look_after(&world, 7).await, (0, 1));
    assert_eq!(world.state(id).await, "undo_tunnel");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_stayed(id, "failed").await;
    let error = world.row(id).await.error.expect("is told");
    assert!(error.starts_with("nobody confirmed the rows"), "{error}");
    let audit = world.audit(id).await;
    let told = audit.iter().filter(|action| *action == "move.confirmation_wanted").count();
    assert_eq!(told, 2, "{audit:?}");
}

#[tokio::test]
async fn a_paused_move_is_reminded_of_and_never_ended_unasked() {
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| (name(command) != "drain").then(|| good(command))).await;
    moves::pause(&world.store, id, "token ops", "a launch").await.expect("wanted");
    world.play(&mut |_| Some(failed(wire::FailureKind::Interrupted))).await;
    assert_eq!(world.state(id).await, "paused");
    for (days, expected) in [(0, 0), (1, 1), (1, 0), (30, 1), (30, 0), (31, 1)] {
        assert_eq!(look_after(&world, days).await, (expected, 0), "after {days} days");
    }
    assert_eq!(world.state(id).await, "paused");
    assert!(world.audit(id).await.contains(&"move.paused_long".to_owned()));
    moves::resume(&world.store, id, "token ops").await.expect("resumed");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
}
