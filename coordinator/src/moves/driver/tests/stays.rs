//! What of a move is a stay of the tenant's history, and what is none.

use jiff::Timestamp;
use webhost_proto::ids::NodeId;
use webhost_proto::wire::FailureKind;

use crate::decide::Mode;
use crate::moves::driver::world::{World, failed, good, name};
use crate::moves::{self, NewMove};
use crate::store::{accuracy, decisions, placements};

/// The tenant has lived where it is for 40 days, by a decision.
async fn settled() -> World {
    let world = World::new().await;
    let client = world.store.client().await.expect("a client");
    client
        .execute("update placements set since = now() - interval '40 days'", &[])
        .await
        .expect("lives there");
    let (nothing, trigger) = (serde_json::json!({}), decisions::Trigger::Signup);
    let outcome = decisions::Outcome::Placed;
    decisions::insert(&**client, world.tenant, trigger, &nothing, &nothing, outcome)
        .await
        .expect("decided");
    client
        .execute("update decisions set at = now() - interval '41 days'", &[])
        .await
        .expect("decided then");
    drop(client);
    world
}

async fn days_in(world: &World, mode: Mode) -> Option<i64> {
    let client = world.store.client().await.expect("a client");
    let since = placements::in_mode_since(&**client, world.tenant, mode).await.expect("reads");
    since.map(|since| Timestamp::now().duration_since(since).as_hours() / 24)
}

async fn home_before(world: &World) -> Option<NodeId> {
    let client = world.store.client().await.expect("a client");
    placements::homes_before(&**client).await.expect("reads").remove(&world.tenant)
}

/// For each stay whether it is over.
async fn stays(world: &World) -> Vec<bool> {
    let client = world.store.client().await.expect("a client");
    let stays = accuracy::stays(&**client, Timestamp::UNIX_EPOCH).await.expect("reads");
    for stay in &stays {
        assert!(stay.left.is_none_or(|left| left >= stay.began), "{stay:?}");
    }
    stays.iter().map(|stay| stay.left.is_some()).collect()
}

async fn assert_nothing_happened(world: &World, what: &str) {
    assert_eq!(days_in(world, Mode::MultiTenant).await, Some(40), "{what}");
    assert_eq!(days_in(world, Mode::SingleTenant).await, None, "{what}");
    assert_eq!(home_before(world).await, None, "{what}");
    assert_eq!(stays(world).await, [false], "{what}");
}

async fn ended(world: &mut World, ending: &str, wanted: NewMove) {
    let id = moves::request(&world.store, wanted).await.expect("a move");
    match ending {
        "failed" => {
            world
                .play(&mut |command| match name(command) {
                    "copy" => Some(failed(FailureKind::Refused)),
                    _ => Some(good(command)),
                })
                .await;
        }
        "cancelled" => {
            world.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
            moves::cancel(&world.store, id, "token ops").await.expect("cancelled");
            world.play(&mut |command| Some(good(command))).await;
        }
        "clean_target" => {
            world.play(&mut |command| (name(command) != "copy").then(|| good(command))).await;
            moves::cancel(&world.store, id, "token ops").await.expect("cancelled");
            world
                .play(&mut |command| match name(command) {
                    "undo" => Some(failed(FailureKind::Retry)),
                    "abandon" => Some(good(command)),
                    _ => None,
                })
                .await;
        }
        _ => world.play(&mut |command| Some(good(command))).await,
    }
    assert_eq!(world.state(id).await, ending);
}

#[tokio::test]
async fn a_target_that_was_promised_and_never_used_is_no_stay() {
    for ending in ["failed", "cancelled", "checked", "clean_target"] {
        let mut world = settled().await;
        let wanted = NewMove { dry_run: ending == "checked", ..world.upgrade() };
        ended(&mut world, ending, wanted).await;
        assert_eq!(world.books().await.0.len(), 2, "{ending}: the target was promised");
        assert_nothing_happened(&world, ending).await;
    }
}

#[tokio::test]
async fn a_reservation_that_expired_is_no_stay() {
    let world = settled().await;
    let client = world.store.client().await.expect("a client");
    client
        .execute(
            "insert into placements (tenant_id, node_id, mode, state, epoch, since, expires_at,
                                     ended_at)
             values ($1, $2, 'multi_tenant', 'ended', 1, now() - interval '90 days',
                     now() - interval '89 days', now() - interval '89 days')",
            &[&world.tenant.0, &world.target.0],
        )
        .await
        .expect("expired");
    assert_nothing_happened(&world, "expired").await;
}

#[tokio::test]
async fn a_roll_back_begins_the_stay_anew() {
    let mut world = settled().await;
    let id = world.switched().await;
    assert_eq!(days_in(&world, Mode::SingleTenant).await, Some(0));
    assert_eq!(home_before(&world).await, Some(world.source));
    moves::roll_back(&world.store, id, "token ops", "it is slow").await.expect("wanted");
    world.play(&mut |command| Some(good(command))).await;
    world.assert_rolled_back(id).await;
    assert_eq!(days_in(&world, Mode::MultiTenant).await, Some(0));
    assert_eq!(days_in(&world, Mode::SingleTenant).await, None);
    assert_eq!(home_before(&world).await, Some(world.target));
    assert_eq!(stays(&world).await, [true, false], "it left the target, and stays at its source");
}
