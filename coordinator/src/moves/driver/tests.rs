mod gone;
mod stays;
mod turns;
mod way_back;
mod wishes;

use std::time::Duration;

use webhost_proto::wire::FailureKind;

use super::world::{World, failed, good, name};
use crate::moves::{self, Approval, MoveRefused};
use crate::store::commands::Answered;
use crate::store::testing;

/// The commands of a move, in order.
const COMMANDS: [&str; 11] = [
    "open_tunnel",
    "preflight",
    "guard",
    "copy",
    "drain",
    "verify",
    "cut_over",
    "way_back",
    "finish",
    "clean_up",
    "close_tunnel",
];

#[tokio::test]
async fn a_move_goes_through_all_its_steps() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut asked = Vec::new();
    world
        .play(&mut |kind| {
            asked.push(name(kind));
            Some(good(kind))
        })
        .await;
    assert_eq!(asked, COMMANDS);
    world.assert_moved(id).await;
    let result = world.result(id).await;
    assert_eq!(result["copy"]["rows"], 200_000);
    assert_eq!(result["cut_over"]["fence_us"], 4900);
    let view = moves::get(&world.store, id).await.expect("reads").expect("the move");
    let states: Vec<&str> = view.events.iter().map(|event| event.state.as_str()).collect();
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
            "close_tunnel",
            "completed"
        ]
    );
    assert_eq!(world.audit(id).await.len(), states.len());
    assert_eq!(view.kind, "upgrade");
    let json = serde_json::to_string(&view).expect("json");
    assert!(!json.contains("ticket"), "{json}");
    assert!(view.ended_at.is_some());
}

/// Each step × fails in each way once, then goes well.
#[tokio::test]
async fn every_step_survives_every_failure() {
    let store = testing::database().await;
    for step in COMMANDS {
        for kind in [FailureKind::Retry, FailureKind::Interrupted, FailureKind::Expired] {
            let mut world = World::on(store.clone()).await;
            let id = world.request().await;
            let mut tries = 0;
            world
                .play(&mut |command| {
                    if name(command) == step {
                        tries += 1;
                        if tries == 1 {
                            return Some(failed(kind));
                        }
                    }
                    Some(good(command))
                })
                .await;
            assert_eq!(tries, 2, "{step} {kind:?}");
            world.assert_moved(id).await;
        }
    }
}

#[tokio::test]
async fn a_refusal_before_the_point_of_no_return_is_undone() {
    let store = testing::database().await;
    for (step, undo) in [
        ("open_tunnel", &["close_tunnel"][..]),
        ("preflight", &["close_tunnel"]),
        ("guard", &["undo", "close_tunnel"]),
        ("copy", &["undo", "close_tunnel"]),
        ("drain", &["undo", "close_tunnel"]),
        ("verify", &["undo", "close_tunnel"]),
        ("cut_over", &["undo", "close_tunnel"]),
    ] {
        let mut world = World::on(store.clone()).await;
        let id = world.request().await;
        let mut after = None::<Vec<&str>>;
        world
            .play(&mut |command| {
                if let Some(after) = &mut after {
                    after.push(name(command));
                } else if name(command) == step {
                    after = Some(Vec::new());
                    return Some(failed(FailureKind::Refused));
                }
                Some(good(command))
            })
            .await;
        assert_eq!(after.expect("refused"), undo, "{step}");
        world.assert_stayed(id, "failed").await;
        assert_eq!(world.row(id).await.error.as_deref(), Some("scripted Refused"), "{step}");
    }
}

#[tokio::test]
async fn a_refusal_after_it_is_tried_again_or_passed_over() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut refusals = 3;
    world
        .play(&mut |command| {
            if name(command) == "finish" && refusals > 0 {
                refusals -= 1;
                return Some(failed(FailureKind::Refused));
            }
            if name(command) == "close_tunnel" {
                return Some(failed(FailureKind::Refused));
            }
            Some(good(command))
        })
        .await;
    assert_eq!(refusals, 0);
    world.assert_moved(id).await;
}

/// The switch was made and its answer lost: the cut-over is asked again, and
/// never undone, however late it is and whoever wants to stop it.
#[tokio::test]
async fn a_cut_over_without_an_answer_is_asked_again_and_never_undone() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut silent = |command: &_| (name(command) != "cut_over").then(|| good(command));
    world.play(&mut silent).await;
    assert_eq!(world.state(id).await, "cut_over");
    moves::cancel(&world.store, id, "token ops").await.expect("a wish");
    for _ in 0..60 {
        world.pass(world.timing.cut_over_attempt + world.timing.longest_pause);
        world.tick().await;
        world.pass(world.timing.longest_pause);
        world.tick().await;
        let open = world.open_commands().await;
        let names: Vec<&str> = open.iter().map(|(_, _, kind)| name(kind)).collect();
        assert_eq!(names, ["cut_over"]);
    }
    let mut undone = false;
    world
        .play(&mut |command| {
            undone |= name(command) == "undo";
            Some(good(command))
        })
        .await;
    assert!(!undone);
    world.assert_moved(id).await;
}

/// An agent that refuses the cut-over without having looked, after the switch:
/// the source refuses the undo, and the move goes forward.
#[tokio::test]
async fn a_source_that_refuses_to_undo_leads_forward() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut refused = 0;
    world
        .play(&mut |command| match name(command) {
            "cut_over" if refused == 0 => {
                refused = 1;
                Some(failed(FailureKind::Refused))
            }
            "undo" => {
                refused += 1;
                Some(failed(FailureKind::Refused))
            }
            _ => Some(good(command)),
        })
        .await;
    assert_eq!(refused, 2);
    world.assert_moved(id).await;
}

#[tokio::test]
async fn patience_ends_and_a_silent_agent_leaves_the_tenant_where_it_was() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut silent = true;
    world.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    assert_eq!(world.state(id).await, "copy");
    world.pass(world.timing.copy);
    world.tick().await;
    assert_eq!(world.state(id).await, "undo_source");
    // The undo waits for its agents.
    world.pass(world.timing.abandon_after / 2);
    world.tick().await;
    assert_eq!(world.state(id).await, "undo_source");
    world
        .play(&mut |command| {
            silent = false;
            Some(good(command))
        })
        .await;
    assert!(!silent);
    world.assert_stayed(id, "failed").await;
}

#[tokio::test]
async fn answers_that_come_twice_or_late_change_nothing() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut answered = Vec::new();
    for _ in 0..COMMANDS.len() {
        world.tick().await;
        for (node, command, kind) in world.open_commands().await {
            assert_eq!(world.answer(node, command, good(&kind)).await, Answered::Stored);
            let again = world.answer(node, command, failed(FailureKind::Refused)).await;
            assert_eq!(again, Answered::Late);
            let other = if node == world.source { world.target } else { world.source };
            assert_eq!(world.answer(other, command, good(&kind)).await, Answered::Unknown);
            answered.push((node, command, kind));
        }
        world.tick().await;
        for (node, command, _) in &answered {
            let late = world.answer(*node, *command, failed(FailureKind::Refused)).await;
            assert_eq!(late, Answered::Late);
        }
    }
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
}

#[tokio::test]
async fn two_drivers_at_once_do_everything_once() {
    let mut world = World::new().await;
    let id = world.request().await;
    let mut asked = Vec::new();
    for _ in 0..60 {
        let (one, two, three) = (world.driver(), world.driver(), world.driver());
        let ticks = tokio::join!(one.tick(world.now), two.tick(world.now), three.tick(world.now));
        for tick in [ticks.0, ticks.1, ticks.2] {
            tick.expect("a tick");
        }
        let open = world.open_commands().await;
        assert!(open.len() <= 1, "{open:?}");
        for (node, command, kind) in open {
            asked.push(name(&kind));
            world.answer(node, command, good(&kind)).await;
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(asked, COMMANDS);
    world.assert_moved(id).await;
    let view = moves::get(&world.store, id).await.expect("reads").expect("the move");
    assert_eq!(view.events.len(), 15, "{:?}", view.events);
}

#[tokio::test]
async fn approval_and_refusal() {
    let mut world = World::new().await;
    let mut wanted = world.upgrade();
    wanted.approval = Approval::Wanted { why: "confidence 0.80".into() };
    let id = moves::request(&world.store, wanted.clone()).await.expect("a move");
    world.play(&mut |command| Some(good(command))).await;
    assert_eq!(world.state(id).await, "awaiting_approval");
    let again = moves::request(&world.store, world.upgrade()).await;
    assert!(matches!(again, Err(MoveRefused::AlreadyMoving { open, .. }) if open == id));
    moves::refuse(&world.store, id, "token ops", "not this week").await.expect("refused");
    assert_eq!(world.state(id).await, "refused");
    let late = moves::approve(&world.store, id, "token ops").await;
    assert!(matches!(late, Err(MoveRefused::TooLate { .. })), "{late:?}");

    let id = moves::request(&world.store, wanted).await.expect("another move");
    moves::approve(&world.store, id, "token ops").await.expect("approved");
    assert_eq!(world.row(id).await.approved_by.as_deref(), Some("token ops"));
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
    assert!(world.audit(id).await.contains(&"move.approved".to_owned()));
}

#[tokio::test]
async fn a_move_is_stopped_at_every_step_before_the_switch() {
    let store = testing::database().await;
    for step in ["open_tunnel", "preflight", "guard", "copy", "drain", "verify"] {
        let mut world = World::on(store.clone()).await;
        let id = world.request().await;
        world.play(&mut |command| (name(command) != step).then(|| good(command))).await;
        assert_eq!(world.state(id).await, step);
        moves::cancel(&world.store, id, "token ops").await.expect("cancelled");
        world.play(&mut |command| Some(good(command))).await;
        world.assert_stayed(id, "cancelled").await;
    }
    let mut world = World::new().await;
    let id = world.request().await;
    world.play(&mut |command| (name(command) != "finish").then(|| good(command))).await;
    let late = moves::cancel(&world.store, id, "token ops").await;
    assert!(matches!(late, Err(MoveRefused::TooLate { .. })), "{late:?}");
}

#[tokio::test]
async fn a_move_waits_for_a_node() {
    let mut world = World::new().await;
    let client = world.store.client().await.expect("a client");
    let set = "update nodes set state = $1 where kind = 'dedicated'";
    client.execute(set, &[&"draining"]).await.expect("drains");
    let id = world.request().await;
    world.play(&mut |command| Some(good(command))).await;
    assert_eq!(world.state(id).await, "waiting_for_node");
    let view = moves::get(&world.store, id).await.expect("reads").expect("the move");
    assert!(view.error.is_some());
    assert!(world.row(id).await.durable.no_room, "a drain tells of it");
    assert_eq!(view.events.len(), 2, "a reason is told once: {:?}", view.events);
    client.execute(set, &[&"active"]).await.expect("is back");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_by_name() {
    let world = World::new().await;
    let check = async |new, expected: &str| {
        let error = moves::request(&world.store, new).await.expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    };
    let unknown = webhost_proto::ids::TenantId::generate();
    check(moves::NewMove { tenant: unknown, ..world.upgrade() }, "there is no tenant").await;
    check(moves::NewMove { mode: "both".into(), ..world.upgrade() }, "\"both\" is no mode").await;
    let home = Some(world.source);
    check(moves::NewMove { target: home, ..world.upgrade() }, "lives on that node").await;
    let client = world.store.client().await.expect("a client");
    client.execute("update tenants set state = 'suspended'", &[]).await.expect("suspends");
    check(world.upgrade(), "is suspended, not active").await;
    let nobody = webhost_proto::ids::MoveId::generate();
    let error = moves::approve(&world.store, nobody, "x").await.expect_err("unknown");
    assert!(matches!(error, MoveRefused::UnknownMove(_)));
}
