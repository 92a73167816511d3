//! The whole with real processes: signup, report, decision, move, and what
//! becomes of a move when agent or coordinator are killed in it.
//!
//! In every scenario devices write all the time, a watcher looks at both fence
//! rows again and again, and at the end every acknowledged row is looked for.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what an operator sees is shown with --nocapture")]

#[path = "end_to_end/stage.rs"]
mod stage;

use std::time::Duration;

use serde_json::json;
use stage::{DEDICATED, SHARED, Scene, serial};
use webhost_coordinator::moves::state::Step;
use webhost_tests::chaos::actors::{Actor, Walks, When};
use webhost_tests::demo::{town, watch};
use webhost_tests::harness::api::wait_for;
use webhost_tests::harness::fleet::items;
use webhost_tests::schema;

/// A generous end for what must happen on a busy machine.
const LONG: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_outgrows_its_server_is_moved() {
    let _alone = serial().await;
    let scene = Scene::start(2_000, 0).await;
    let api = &scene.fleet.api;

    // The coordinator learns of the growth from the agent's reports alone.
    scene.grow(8).await;
    let open = watch::appears(api, scene.hero.id, LONG).await.expect("a move is proposed");
    assert_eq!(open["state"], "awaiting_approval", "fast and not settled: {open}");
    let id = open["id"].as_str().expect("an id");
    let decisions =
        api.get(&format!("/api/decisions?tenant={}", scene.hero.id)).await.expect("answers");
    let decision = items(&decisions)
        .iter()
        .find(|decision| decision["id"] == open["decision_id"])
        .expect("the decision is on record");
    assert_eq!(decision["outcome"], "migrate", "{decision}");
    assert!(decision["inputs"].to_string().contains('8'), "the vehicles are among the inputs");

    api.post(&format!("/api/moves/{id}/approve"), &json!({})).await.expect("is approved");
    let ended = scene.ended(id).await;
    assert_eq!(ended["state"], "kept", "{ended}");
    assert!(ended["approved_by"].to_string().contains("harness"), "{ended}");

    // The coordinator's books follow, and the agents report the new home.
    let tenant = api.get(&format!("/api/tenants/{}", scene.hero.id)).await.expect("answers");
    assert_eq!(tenant["placement"]["node"], DEDICATED, "{tenant}");
    assert_eq!(tenant["placement"]["mode"], "single_tenant", "{tenant}");
    assert_eq!(tenant["epoch"], 2, "{tenant}");
    wait_for("a report from the new home", LONG, async || {
        let usage = town::usage(api, scene.hero.id).await?;
        Ok((usage["node"] == tenant["placement"]["node_id"]).then_some(()))
    })
    .await
    .expect("the dedicated node's agent reports the tenant");
    // The old node's agent reads the fence with its next round.
    wait_for("the old node to report the tenant no more", LONG, async || {
        let status = scene.fleet.agent_status(SHARED, &["--json"]).await?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        assert_eq!(status["schema"], 1, "{status}");
        let named = status["tenants"].to_string().contains(&scene.hero.id.to_string());
        Ok((!named).then_some(()))
    })
    .await
    .expect("the kept copy is nobody's home");
    scene.finish(DEDICATED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_in_the_copy() {
    let _alone = serial().await;
    let mut scene = Scene::start(9_000, 2_000).await;
    let id = scene.begin().await;
    scene.copying(&id).await;
    scene.fleet.kill_agent(SHARED);
    // Its writers don't notice: the source serves on.
    scene.still_writes().await;
    scene.fleet.start_agent(SHARED).expect("starts");
    let ended = scene.ended(&id).await;
    assert_eq!(ended["state"], "kept", "{ended}");
    scene.finish(DEDICATED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_killed_in_the_copy() {
    let _alone = serial().await;
    let mut scene = Scene::start(9_000, 2_000).await;
    let id = scene.begin().await;
    scene.copying(&id).await;
    scene.fleet.kill_coordinator();
    scene.still_writes().await;
    scene.fleet.start_coordinator().await.expect("starts again");
    let ended = scene.ended(&id).await;
    assert_eq!(ended["state"], "kept", "{ended}");
    scene.finish(DEDICATED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_in_the_cut_over() {
    let _alone = serial().await;
    let mut scene = Scene::start(3_000, 1_000).await;
    let id = scene.begin().await;
    // A transaction of the tenant's that stays open keeps the fence from
    // closing: the move stands in its cut-over until it ends.
    let blocker = scene.block(&id).await;
    scene.cutting_over(&id).await;
    scene.fleet.kill_agent(SHARED);
    scene.still_writes().await;
    scene.fleet.start_agent(SHARED).expect("starts");
    blocker.end().await;
    let ended = scene.ended(&id).await;
    assert_eq!(ended["state"], "kept", "{ended}");
    scene.finish(DEDICATED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_between_moved_and_active() {
    let _alone = serial().await;
    let mut scene = Scene::start(3_000, 0).await;
    // The mover dies right after the point of no return, and the agent with
    // it, as when the machine's memory ran out.
    scene.restart_agent_with(&[("WEBHOST_FAIL_AT", "after_moved")]).await;
    let id = scene.begin().await;
    scene.moved().await;
    scene.fleet.kill_agent(SHARED);
    scene.fleet.start_agent(SHARED).expect("starts");
    let ended = scene.ended(&id).await;
    assert_eq!(ended["state"], "kept", "{ended}");
    scene.finish(DEDICATED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_killed_in_the_cut_over() {
    let _alone = serial().await;
    let mut scene = Scene::start(3_000, 1_000).await;
    let id = scene.begin().await;
    let blocker = scene.block(&id).await;
    scene.cutting_over(&id).await;
    scene.fleet.kill_coordinator();
    // The agents finish what has begun without anybody's help.
    blocker.end().await;
    scene.moved().await;
    scene.active_on_target().await;
    scene.fleet.start_coordinator().await.expect("starts again");
    let ended = scene.ended(&id).await;
    assert_eq!(ended["state"], "kept", "{ended}");
    scene.finish(DEDICATED).await;
}

/// What an operator sees of a move that would be refused: the table by its
/// name, why, and what to do; and nothing is left of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_that_fails_says_what_to_do() {
    let _alone = serial().await;
    let scene = Scene::start(500, 0).await;
    let owner = scene.fleet.nodes[SHARED].cluster.session(schema::APP).await.expect("connects");
    owner
        .batch_execute("create table notes (customer_id uuid not null, note text)")
        .await
        .expect("creates a table without a primary key");
    let asked = ["move", "preflight", &scene.hero.slug, "--kind", "upgrade"];
    let told = scene.fleet.coordinator_cli(&asked).await.expect_err("it fails").to_string();
    println!("{told}");
    for part in ["public.notes", "what to do: ", "refused: ", "a move would be refused"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    owner.batch_execute("drop table notes").await.expect("drops it");
    let told = scene.fleet.coordinator_cli(&asked).await.expect("it passes");
    println!("{told}");
    assert!(told.contains("the preflight passes; nothing was changed"), "{told}");
    scene.finish(SHARED).await;
}

/// Agent and mover are gone, nobody serves the tenant, and the agent doesn't
/// come back: the operator's command ends the switch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_settles_a_switch_without_an_agent() {
    let _alone = serial().await;
    let mut scene = Scene::start(3_000, 0).await;
    scene.restart_agent_with(&[("WEBHOST_FAIL_AT", "hold:after_moved")]).await;
    let id = scene.begin().await;
    scene.moved().await;
    let moves = async |scene: &Scene, arguments: &[&str], code: i32| {
        let all = [&["moves"], arguments].concat();
        scene.fleet.agent_cli(SHARED, &all, &[code]).await.expect("that exit code")
    };
    let listed = moves(&scene, &["list"], 0).await;
    assert!(listed.starts_with(&format!("move {id} of tenant {}", scene.hero.id)), "{listed}");
    assert!(listed.trim_end().ends_with("last step cut over"), "{listed}");
    // Two of them would work on one move.
    assert_eq!(moves(&scene, &["recover"], 2).await, "", "refused while the agent runs");
    scene.fleet.kill_agent(SHARED);
    let nobody = "00000000-0000-0000-0000-000000000000";
    assert_eq!(moves(&scene, &["recover", nobody], 2).await, "", "there is no such move");
    let settled = moves(&scene, &["recover", &id], 0).await;
    assert!(settled.trim_end().ends_with(": served by the target"), "{settled}");
    scene.active_on_target().await;
    scene.still_writes().await;
    // What is switched can't be undone, by nobody.
    let undone = moves(&scene, &["recover", &id, "--undo"], 1).await;
    assert!(undone.contains("it was switched and can't be undone"), "{undone}");
    scene.fleet.start_agent(SHARED).expect("starts");
    let ended = scene.ended(&id).await;
    assert_eq!(ended["state"], "kept", "{ended}");
    scene.finish(DEDICATED).await;
}

/// Coordinator, source's agent and target's agent in turn, before each step
/// of a move there and back; `make chaos` kills each of them before, in and
/// after each step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_killed_before_each_step_there_and_back() {
    let _alone = serial().await;
    let mut walks = Walks::start().await.expect("a fleet");
    let turn = |number| Actor::ALL[number % Actor::ALL.len()];
    let deaths = walks.walk(When::Before, turn).await.expect("there and back");
    assert!(deaths.iter().map(|death| death.step).eq(Step::ALL), "{deaths:?}");
    for actor in Actor::ALL {
        assert!(deaths.iter().any(|death| death.actor == actor), "{actor:?}");
    }
    let found = walks.finish().await.expect("nothing is lost");
    assert!(found.rows_found > 0, "{found:?}");
}
