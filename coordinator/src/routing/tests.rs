use std::sync::{Arc, Mutex};

use webhost_proto::ids::TenantId;

use super::*;
use crate::decide::plans::NodeKind;
use crate::world::{World, catalog, small};

/// Notes what it is told; fails while `fails`.
#[derive(Clone, Default)]
struct Noting {
    told: Arc<Mutex<Vec<(String, String)>>>,
    fails: Arc<std::sync::atomic::AtomicBool>,
}

#[tonic::async_trait]
impl Dns for Noting {
    async fn set(&self, host: &str, place: &str) -> Result<(), String> {
        if self.fails.load(Ordering::Relaxed) {
            return Err("the vendor is out".into());
        }
        self.told.lock().expect("no panic").push((host.into(), place.into()));
        Ok(())
    }
}

async fn version(world: &World, tenant: TenantId) -> i64 {
    let client = world.store.client().await.expect("a client");
    places::version(&**client, tenant).await.expect("a version")
}

/// As a switch leaves the books: the tenant lives on another node.
async fn switch(world: &World, tenant: TenantId, to: &str) {
    world
        .execute(&format!(
            "begin;
             update placements set state = 'kept' where tenant_id = '{tenant}'
                and state in ('reserved', 'active');
             insert into placements (tenant_id, node_id, mode, state, epoch)
             select '{tenant}', id, 'multi_tenant', 'active', 2 from nodes where name = '{to}';
             commit"
        ))
        .await;
}

#[tokio::test]
async fn every_change_of_a_place_has_a_later_version() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let (acme, _) = world.sign_up(small("acme")).await;
    let (other, _) = world.sign_up(small("other")).await;
    world.node("shared-2", NodeKind::Shared).await;
    let mut last = version(&world, other).await;
    assert!(version(&world, acme).await < last && last > 0);
    for node in ["shared-2", "shared-1", "shared-2"] {
        switch(&world, acme, node).await;
        let now = version(&world, acme).await;
        assert!(now > last, "{node}: {now} after {last}");
        last = now;
    }
    // What does not change the place changes no version.
    world.execute("update placements set since = now(); update tenants set name = 'x'").await;
    assert_eq!(version(&world, acme).await, last);
    world.execute("update tenants set state = 'suspended' where slug = 'acme'").await;
    assert!(version(&world, acme).await > last);
    let client = world.store.client().await.expect("a client");
    let all = places::since(&**client, 0, 10).await.expect("entries");
    assert_eq!(all.len(), 2, "a tenant is named once: {all:?}");
    assert_eq!((all[1].slug.as_str(), all[1].node.as_deref()), ("acme", Some("shared-2")));
    let rest = places::since(&**client, all[0].version, 10).await.expect("entries");
    assert_eq!(rest, all[1..]);
}

#[tokio::test]
async fn versions_are_given_in_the_order_of_commits() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let (first, _) = world.sign_up(small("first")).await;
    let (second, _) = world.sign_up(small("second")).await;
    let begun = world.store.client().await.expect("a client");
    let change = |id: TenantId| format!("update tenants set state = 'suspended' where id = '{id}'");
    begun.batch_execute(&format!("begin; {}", change(first))).await.expect("changes");
    world.execute(&change(second)).await;
    let seen = version(&world, second).await;
    begun.batch_execute("commit").await.expect("commits");
    assert!(version(&world, first).await > seen, "whoever saw {seen} sees it yet");
}

#[tokio::test]
async fn tenants_get_names_and_name_servers_follow_there_and_back() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let mut own = small("own");
    own["host"] = "tracking.own.example".into();
    world.sign_up(own).await;
    let (acme, _) = world.sign_up(small("acme")).await;
    world.node("shared-2", NodeKind::Shared).await;
    let dns = Noting::default();
    let directory = Directory::new(Duration::from_secs(1));
    let domain = Some("fleet.example".to_owned());
    let routing = Routing::new(world.store.clone(), domain, directory, Box::new(dns.clone()));
    let told = |dns: &Noting| {
        let mut told = std::mem::take(&mut *dns.told.lock().expect("no panic"));
        told.sort();
        told
    };
    let pair = |host: &str, place: &str| (host.to_owned(), place.to_owned());
    routing.look().await.expect("looks");
    assert_eq!(
        told(&dns),
        [pair("acme.fleet.example", "shared-1"), pair("tracking.own.example", "shared-1")]
    );
    routing.look().await.expect("looks");
    assert_eq!(told(&dns), [], "nothing changed");
    for node in ["shared-2", "shared-1"] {
        switch(&world, acme, node).await;
        routing.look().await.expect("looks");
        assert_eq!(told(&dns), [pair("acme.fleet.example", node)]);
    }
    // A vendor that is out is on record, fails nobody, and is told again.
    dns.fails.store(true, Ordering::Relaxed);
    switch(&world, acme, "shared-2").await;
    routing.look().await.expect("looks all the same");
    let client = world.store.client().await.expect("a client");
    let records = places::dns_records(&**client, "", 10).await.expect("records");
    assert_eq!(records[0].error, "the vendor is out");
    assert_eq!(records[0].published_at, None);
    dns.fails.store(false, Ordering::Relaxed);
    world.execute("update dns_records set updated_at = now() - interval '1 minute'").await;
    routing.look().await.expect("looks");
    assert_eq!(told(&dns), [pair("acme.fleet.example", "shared-2")]);
}

#[tokio::test]
async fn whoever_waits_is_woken_by_the_change_and_by_no_other() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let (acme, _) = world.sign_up(small("acme")).await;
    let (other, _) = world.sign_up(small("other")).await;
    world.node("shared-2", NodeKind::Shared).await;
    let directory = Directory::new(Duration::from_secs(60));
    let routing = Routing::new(world.store.clone(), None, directory.clone(), Box::new(Recorded));
    routing.look().await.expect("looks");
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(routing.run(stop.clone()));
    let seen = version(&world, other).await;
    let mut of_acme = directory.wait(Duration::from_secs(60)).expect("a place");
    let mut of_all = directory.wait(Duration::from_secs(60)).expect("a place");
    let mut of_other = directory.wait(Duration::from_millis(300)).expect("a place");
    switch(&world, acme, "shared-2").await;
    assert!(of_acme.changed(Some(acme), seen).await);
    assert!(of_all.changed(None, seen).await);
    assert!(!of_other.changed(Some(other), seen).await, "its own place stayed");
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
}

#[tokio::test]
async fn those_who_wait_are_bounded() {
    let directory = Directory::new(Duration::from_secs(1));
    let waiting: Vec<_> = (0..1_024).map(|_| directory.wait(Duration::ZERO)).collect();
    assert!(waiting.iter().all(Result::is_ok));
    assert_eq!(directory.wait(Duration::ZERO).err(), Some(Full));
    drop(waiting);
    assert!(directory.wait(Duration::ZERO).is_ok());
}
