use super::*;
use crate::store::nodes::NodeKind;
use crate::world::{World, catalog, small};

async fn only(world: &World) -> NodeState {
    let mut client = world.store.client().await.expect("a client");
    let tx = (**client).transaction().await.expect("begins");
    let now = Timestamp::now();
    let mut fleet = world.desk.slots.snapshot(&tx, NodeKind::Shared, now).await.expect("reads");
    assert_eq!(fleet.len(), 1);
    fleet.remove(0)
}

#[tokio::test]
async fn a_snapshot_says_what_a_node_may_take() {
    let world = World::new(catalog(7)).await;
    let node = world.node("shared-1", NodeKind::Shared).await;
    world.node("own-1", NodeKind::Dedicated).await;
    world.sign_up(small("acme")).await;
    let state = only(&world).await;
    assert_eq!((state.standing, state.seen), (Standing::Active, true));
    assert_eq!((state.max_tenants, state.load.tenants), (7, 1));
    let average = world.desk.slots.catalog.averages.amounts();
    assert_eq!(state.load.amounts.memory, average.memory, "a promise is charged");

    world
        .execute(&format!(
            "update nodes set measured_memory_bytes = 1000, measured_cpu_millicores = 0,
               last_seen_at = now() - interval '2 minutes'
             where id = '{node}'"
        ))
        .await;
    let state = only(&world).await;
    assert!(!state.seen, "silent for longer than a minute, whatever its session says");
    world.desk.reconcile(Timestamp::now()).await.expect("looks");
    let connected = "select count(*) from nodes where connected_at is not null";
    assert_eq!(world.count(connected).await, 1, "of two, the silent one is not connected");
    assert_eq!(state.capacity().memory, Bytes(1000), "the smaller of shape and measure");
    assert_eq!(state.capacity().cpu, MilliCpu(16_000), "not measured is not zero");
}

#[tokio::test]
async fn a_shape_that_left_the_catalogue_gets_no_tenants() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    world.execute("update nodes set shape = 'gone'").await;
    let (_, body) = world.sign_up(small("acme")).await;
    assert_eq!(body["state"], "waiting");
}
