//! Limits, and what a move is begun with.

use webhost_proto::wire::command;

use crate::moves::driver::world::{World, good, name};
use crate::moves::windows;
use crate::moves::{self, NewMove};
use crate::store::testing;
use crate::store::windows::Whose;

#[tokio::test]
async fn what_is_beyond_the_limits_waits_for_its_turn() {
    let store = testing::database().await;
    let mut first = World::on(store.clone()).await;
    let one = first.request().await;
    first.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    assert_eq!(first.state(one).await, "copy");
    // Another tenant of the same node.
    let mut second = World::on(store.clone()).await;
    second.now = first.now;
    second.live_on(first.source).await;
    let two = second.request().await;
    second.tick().await;
    assert_eq!(second.state(two).await, "waiting_for_node");
    let why = second.row(two).await.error.expect("is told");
    assert!(why.contains("max_per_source is 1"), "{why}");
    // A dry run loads nobody, and waits for nobody.
    let third = World::on(store.clone()).await;
    third.live_on(first.source).await;
    let dry = NewMove { dry_run: true, ..third.upgrade() };
    let three = moves::request(&store, dry).await.expect("a dry run");
    third.tick().await;
    assert_eq!(third.state(three).await, "open_tunnel");
    moves::cancel(&store, three, "token ops").await.expect("cancelled");
    // An open way back is no load.
    first.play(&mut |command| (name(command) != "way_back").then(|| good(command))).await;
    assert_eq!(first.state(one).await, "way_back");
    second.now = first.now;
    second.tick().await;
    second.pass(second.timing.longest_pause);
    second.tick().await;
    assert_ne!(second.state(two).await, "waiting_for_node");
}

#[tokio::test]
async fn a_full_target_is_waited_for() {
    let store = testing::database().await;
    let shared = World::on(store.clone()).await.source;
    let lateral = |world: &World| NewMove {
        mode: "multi_tenant".into(),
        plan: "hobby".into(),
        target: Some(shared),
        ..world.upgrade()
    };
    let mut first = World::on(store.clone()).await;
    first.rules.limits.per_target = 1;
    first.target = shared;
    let one = moves::request(&store, lateral(&first)).await.expect("a move");
    first.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    assert_eq!((first.state(one).await, first.row(one).await.kind.as_str()), ("copy", "lateral"));
    let mut second = World::on(store.clone()).await;
    second.rules.limits.per_target = 1;
    second.target = shared;
    second.now = first.now;
    let two = moves::request(&store, lateral(&second)).await.expect("a move");
    second.tick().await;
    let why = second.row(two).await.error.expect("is told");
    assert!(why.contains("max_per_target"), "{why}");
    second.rules.limits.per_target = 2;
    second.pass(second.timing.longest_pause);
    second.tick().await;
    assert_eq!(second.state(two).await, "open_tunnel");
}

/// The days before and after `now`, as a window knows them.
fn days(now: jiff::Timestamp) -> [String; 2] {
    [-1_i64, 2].map(|off| {
        let then = now.as_second().div_euclid(86_400) + off;
        let name = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
        let at = usize::try_from(then.rem_euclid(7)).expect("small");
        format!("{} 00:00-24:00", name[at])
    })
}

#[tokio::test]
async fn a_move_begins_in_the_windows_of_its_tenant_and_nodes_and_goes_on_after_them() {
    let mut world = World::new().await;
    let [_, later] = days(world.now);
    let set = async |world: &World, whose, opens: &[String]| {
        windows::set(&world.store, whose, opens, "token ops").await.expect("sets")
    };
    let whose = [Whose::Tenant(world.tenant), Whose::Node(world.source), Whose::Node(world.target)];
    let id = world.request().await;
    for whose in whose {
        set(&world, whose, std::slice::from_ref(&later)).await;
        world.pass(world.timing.longest_pause);
        world.tick().await;
        assert_eq!(world.state(id).await, "waiting_for_node", "{whose:?}");
        let why = world.row(id).await.error.expect("is told");
        assert!(why.contains("window"), "{whose:?}: {why}");
        set(&world, whose, &[]).await;
    }
    // All of them, and each minute until it opens: it begins then.
    for whose in whose {
        set(&world, whose, std::slice::from_ref(&later)).await;
    }
    let begin = moves::window::all_open(&[&[later.parse().expect("a window")]], world.now);
    let until = begin.expect("opens").duration_since(world.now);
    world.pass(std::time::Duration::try_from(until).expect("later"));
    world.tick().await;
    assert_eq!(world.state(id).await, "open_tunnel");
    // A window that closes stops nothing.
    let [before, _] = days(world.now);
    for whose in whose {
        set(&world, whose, std::slice::from_ref(&before)).await;
    }
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
}

#[tokio::test]
async fn a_person_lets_a_move_begin_outside_its_windows() {
    let mut world = World::new().await;
    let [_, later] = days(world.now);
    windows::set(&world.store, Whose::Tenant(world.tenant), &[later], "token ops")
        .await
        .expect("sets");
    let id = world.request().await;
    world.tick().await;
    assert_eq!(world.state(id).await, "waiting_for_node");
    moves::begin_now(&world.store, id, "token ops", "the customer asks").await.expect("may");
    world.tick().await;
    assert_eq!(world.state(id).await, "open_tunnel");
    let again = moves::begin_now(&world.store, id, "token ops", "again").await;
    assert!(again.expect_err("has begun").to_string().contains("does not wait"));
    world.play(&mut |command| Some(good(command))).await;
    world.assert_moved(id).await;
}

/// What the specification of a move's steps says.
fn spec(kind: &command::Kind) -> Option<(i64, u64)> {
    let command::Kind::MoveStep(step) = kind else { return None };
    step.spec.as_ref().map(|spec| (spec.retain_from_us, spec.max_rows_per_second))
}

#[tokio::test]
async fn a_downgrade_takes_along_what_its_plan_retains_and_is_throttled() {
    let mut world = World::new().await;
    let (home, shared) = (world.target, world.source);
    world.live_on(home).await;
    world.source = home;
    world.target = shared;
    let downgrade = NewMove {
        mode: "multi_tenant".into(),
        plan: "hobby".into(),
        target: Some(shared),
        ..world.upgrade()
    };
    let id = moves::request(&world.store, downgrade).await.expect("a move");
    let mut seen = Vec::new();
    world
        .play(&mut |command| {
            seen.extend(spec(command));
            Some(good(command))
        })
        .await;
    let row = world.row(id).await;
    assert_eq!((row.kind.as_str(), row.state.as_str()), ("downgrade", "completed"));
    let approved = row.approved_at.expect("approved").as_microsecond();
    let month = approved - 30 * 86_400 * 1_000_000;
    assert!(seen.len() > 5);
    assert!(seen.iter().all(|spec| *spec == (month, 20_000)), "{seen:?}");
    // An upgrade takes everything along, at full speed.
    let mut world = World::new().await;
    world.request().await;
    let mut seen = Vec::new();
    world
        .play(&mut |command| {
            seen.extend(spec(command));
            Some(good(command))
        })
        .await;
    assert!(seen.iter().all(|spec| *spec == (0, 0)), "{seen:?}");
}
