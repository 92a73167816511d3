//! Limits, and what a move is begun with.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use webhost_proto::ids::MoveId;
use webhost_proto::wire::command;

use crate::decide::Region;
use crate::fleet::Rules;
use crate::moves::driver::world::{World, good, name};
use crate::moves::windows;
use crate::moves::{self, NewMove};
use crate::store::windows::Whose;
use crate::store::{rules, testing};

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
    let row = second.row(two).await;
    let why = row.error.expect("is told");
    assert!(why.contains("max_per_source is 1") && !row.durable.no_room, "{why}");
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
fn days(now: Timestamp) -> [String; 2] {
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
        let row = world.row(id).await;
        let why = row.error.expect("is told");
        assert!(why.contains("window") && !row.durable.no_room, "{whose:?}: {why}");
        set(&world, whose, &[]).await;
    }
    // All of them, and each minute until it opens: it begins then.
    for whose in whose {
        set(&world, whose, std::slice::from_ref(&later)).await;
    }
    let begin = moves::window::all_open(&[&[later.parse().expect("a window")]], world.now);
    let until = begin.expect("opens").duration_since(world.now);
    world.pass(Duration::try_from(until).expect("later"));
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

/// The first waits for nothing but its turn, and happens to look later.
#[tokio::test]
async fn who_came_first_goes_first_and_before_both_who_must_be_gone_sooner() {
    let store = testing::database().await;
    let mut busy = World::on(store.clone()).await;
    busy.request().await;
    busy.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    let wait = async |node| {
        let mut world = World::on(store.clone()).await;
        world.now = busy.now;
        world.live_on(node).await;
        let id = world.request().await;
        (world, id)
    };
    let (mut first, one) = wait(busy.source).await;
    let (second, two) = wait(busy.source).await;
    second.tick().await;
    for (world, id) in [(&first, one), (&second, two)] {
        assert_eq!(world.state(id).await, "waiting_for_node");
        assert!(world.row(id).await.durable.queued);
    }
    let look = async |id: MoveId, at: Timestamp| {
        let client = store.client().await.expect("a client");
        let sql = "update moves set durable = jsonb_set(durable, '{not_before}', $2) where id = $1";
        client.execute(sql, &[&id.0, &json!(at)]).await.expect("updates");
    };
    let day = Duration::from_secs(86_400);
    for id in [one, two] {
        look(id, moves::timing::later(busy.now, day)).await;
    }
    // The turn is given back, and a driver with other limits has nothing to give.
    busy.rules.limits.in_fleet = 0;
    busy.play(&mut |command| (name(command) != "way_back").then(|| good(command))).await;
    let later = |seconds| moves::timing::later(busy.now, Duration::from_secs(seconds));
    look(one, later(20)).await;
    look(two, busy.now).await;
    first.now = busy.now;
    first.tick().await;
    for id in [one, two] {
        assert_eq!(first.state(id).await, "waiting_for_node", "the other came first");
    }
    let why = first.row(two).await.error.expect("is told");
    assert!(why.contains("comes before"), "{why}");
    // A node that is to be empty soon: its moves come before.
    let sooner = World::on(store.clone()).await;
    let client = store.client().await.expect("a client");
    let sql =
        "update nodes set state = 'draining', drain_by = now() + interval '1 day' where id = $1";
    client.execute(sql, &[&sooner.source.0]).await.expect("drains");
    let three = sooner.request().await;
    first.rules.limits.in_fleet = 1;
    first.rules.limits.per_source = 0;
    first.tick().await;
    assert!(first.row(three).await.durable.queued);
    first.rules = moves::Rules::default();
    first.rules.limits.in_fleet = 1;
    look(three, later(20)).await;
    look(one, busy.now).await;
    first.tick().await;
    assert_eq!(first.state(one).await, "waiting_for_node", "the draining node's goes first");
    first.now = later(21);
    first.tick().await;
    assert_eq!(first.state(three).await, "open_tunnel");
}

/// With thousands of moves in a queue nobody may ask each second.
#[tokio::test]
async fn who_waits_for_a_turn_asks_seldom_and_is_woken_by_it() {
    let store = testing::database().await;
    let mut busy = World::on(store.clone()).await;
    busy.request().await;
    busy.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut world = World::on(store.clone()).await;
        world.now = busy.now;
        world.live_on(busy.source).await;
        let id = world.request().await;
        waiting.push((world, id));
    }
    let ids: Vec<MoveId> = waiting.iter().map(|(_, id)| *id).collect();
    let (mut world, _) = waiting.swap_remove(0);
    for _ in 0..60 {
        world.tick().await;
        world.pass(Duration::from_secs(1));
    }
    let attempts = async |world: &World| {
        let mut all = Vec::new();
        for id in &ids {
            all.push(world.row(*id).await.durable.attempts);
        }
        all
    };
    let asked = attempts(&world).await;
    // Its pauses double up to 30 s, less a half at most: 0.1, 0.2, … 12.8, 15, 15.
    assert!((2..=12).contains(&asked[0]), "{asked:?}");
    assert_eq!(asked[1..], [1, 1], "behind the first they wait for its turn");

    // Left alone they would not ask before tomorrow; the turn wakes them.
    let tomorrow = moves::timing::later(world.now, Duration::from_secs(86_400));
    let client = store.client().await.expect("a client");
    let sql = "update moves set durable = jsonb_set(durable, '{not_before}', $1)
               where state = 'waiting_for_node'";
    client.execute(sql, &[&json!(tomorrow)]).await.expect("updates");
    let due = crate::store::moves::due_ids(&**client, world.now).await.expect("reads");
    assert!(!due.is_empty() && !due.iter().any(|id| ids.contains(id)), "{due:?}");
    busy.now = world.now;
    busy.play(&mut |command| (name(command) != "way_back").then(|| good(command))).await;
    assert_ne!(busy.state(ids[0]).await, "waiting_for_node");
}

#[tokio::test]
async fn a_move_goes_near_where_its_tenant_should_live() {
    for near in ["fra", "sin"] {
        let world = World::new().await;
        let client = world.store.client().await.expect("a client");
        for place in ["iad", "fra", "sin"] {
            let sql = "insert into nodes (id, name, kind, shape, region, state, tunnel_address,
                                          connected_at, last_seen_at)
                       select gen_random_uuid(), $2, kind, shape, $2, state, tunnel_address,
                              connected_at, last_seen_at from nodes where id = $1";
            client.execute(sql, &[&world.source.0, &place]).await.expect("a node");
        }
        let rules = Rules { near: vec![Region(near.to_owned())], ..Rules::default() };
        rules::set(&**client, world.tenant, &rules).await.expect("sets");
        let lateral = NewMove {
            mode: "multi_tenant".into(),
            plan: "hobby".into(),
            target: None,
            ..world.upgrade()
        };
        let id = moves::request(&world.store, lateral).await.expect("a move");
        world.tick().await;
        let row = world.row(id).await;
        assert_eq!((row.state.as_str(), row.durable.target_place.as_str()), ("open_tunnel", near));
    }
}
