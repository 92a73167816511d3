use super::*;
use crate::decide::Region;
use crate::fleet::{Amounts, Demand, Home, Policy};
use crate::signup::SignupError;
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
    let average = Need::flat(&world.desk.slots.catalog.averages.amounts());
    assert_eq!(state.load.memory, average.memory, "a promise is charged");
    assert_eq!(state.load.peaks(), average.peaks());

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

/// Two coordinators that share nothing but the database, and a thousand
/// signups at once: slots of 150, memory for less, and a node that drains.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_signups_at_two_coordinators_overfill_nothing() {
    const SIGNUPS: usize = 1000;
    let config = crate::store::testing::config().await;
    let mut catalog = catalog(150);
    // 75 % of 128 GB hold 91 of these: memory ends long before the slots do.
    catalog.averages.memory_mb = 1054;
    let coordinators = [0, 1].map(|_| {
        World::over(crate::store::Store::new(config.clone(), 8).expect("a pool"), catalog.clone())
    });
    let world = &coordinators[0];
    for n in 0..4 {
        world.node(&format!("shared-{n}"), NodeKind::Shared).await;
    }
    world.execute("update nodes set state = 'draining' where name = 'shared-3'").await;
    world
        .execute("update nodes set measured_memory_bytes = 14000000000 where name = 'shared-2'")
        .await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..SIGNUPS {
        let desk = coordinators[n % 2].desk.clone();
        tasks.spawn(async move {
            let request = serde_json::from_value(small(&format!("t{n}"))).expect("a request");
            let key = format!("key {n}");
            loop {
                match desk.sign_up(&request, "token test", Some(&key)).await {
                    Ok((_, answer)) => return answer,
                    // The queue is long: as any caller, it comes again.
                    Err(SignupError::Store(StoreError::Pool(_) | StoreError::NoConnection(_))) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let answers = tasks.join_all().await;
    let placed = answers.iter().filter(|answer| answer["state"] == "provisioning").count();
    // 75 % of 128 GB are 91,552 MiB, of 14 GB 10,013; a tenant takes 1,006.
    assert_eq!(placed, 91 + 91 + 9);
    let open = "select count(*) from placements where state = 'reserved'";
    assert_eq!(world.count(open).await, 191);
    let tenants = "select count(distinct tenant_id) from placements where state = 'reserved'";
    assert_eq!(world.count(tenants).await, 191, "no tenant has two");
    for (name, most) in [("shared-0", 91), ("shared-1", 91), ("shared-2", 9), ("shared-3", 0)] {
        let on = format!(
            "select count(*) from placements p join nodes n on n.id = p.node_id
             where n.name = '{name}' and p.state = 'reserved'"
        );
        assert_eq!(world.count(&on).await, most, "{name}");
    }
    let waiting = "select count(*) from tenants where state = 'waiting'";
    assert_eq!(world.count(waiting).await, i64::try_from(SIGNUPS).expect("small") - 191);
}

#[tokio::test]
async fn a_survey_knows_who_may_be_moved_and_where_they_came_from() {
    let world = World::new(catalog(7)).await;
    let first = world.node("shared-1", NodeKind::Shared).await;
    let second = world.node("shared-2", NodeKind::Shared).await;
    world.node("own-1", NodeKind::Dedicated).await;
    let (acme, _) = world.sign_up(small("acme")).await;
    let (other, _) = world.sign_up(small("other")).await;
    let survey = async || {
        let client = world.store.client().await.expect("a client");
        world.desk.slots.survey(&**client, Timestamp::now()).await.expect("reads")
    };
    assert_eq!(survey().await.tenants, [], "a promise is charged, and can't be moved");
    assert_eq!(survey().await.nodes.iter().map(|node| node.load.tenants).sum::<u32>(), 2);

    world
        .execute(&format!(
            "update placements set state = 'ended', expires_at = null, ended_at = now(),
               node_id = '{second}' where tenant_id = '{acme}';
             update placements set state = 'active', expires_at = null where tenant_id = '{other}';
             insert into placements (tenant_id, node_id, mode, state, epoch)
             values ('{acme}', '{first}', 'multi_tenant', 'active', 2)"
        ))
        .await;
    let mut found = survey().await;
    found.tenants.sort_by_key(|tenant| tenant.left.is_none());
    let [moved, stayed] = found.tenants.as_slice() else { panic!("{found:?}") };
    assert_eq!((moved.id, moved.node), (acme, first));
    assert_eq!(moved.left.map(|left| left.node), Some(second));
    assert_eq!((stayed.id, stayed.left), (other, None));

    world
        .execute(&format!(
            "insert into placements (tenant_id, node_id, mode, state, epoch)
             values ('{other}', '{second}', 'multi_tenant', 'incoming', 2)"
        ))
        .await;
    let ids: Vec<TenantId> = survey().await.tenants.iter().map(|tenant| tenant.id).collect();
    assert_eq!(ids, [acme], "who is on the way is not moved again");
}

#[tokio::test]
async fn a_kept_copy_takes_disk_and_a_slot_only() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    world.sign_up(small("acme")).await;
    world.execute("update placements set state = 'kept', expires_at = null").await;
    let state = only(&world).await;
    let average = Need::flat(&world.desk.slots.catalog.averages.amounts());
    assert_eq!((state.load.disk, state.load.tenants), (average.disk, 1));
    assert_eq!((state.load.memory, state.load.peaks()[0]), (0, 0));
}

/// A roll back must not fill the node that the tenant came from.
#[tokio::test]
async fn whoever_may_come_back_has_its_room_kept() {
    let world = World::new(catalog(7)).await;
    let node = world.node("shared-1", NodeKind::Shared).await;
    let (acme, _) = world.sign_up(small("acme")).await;
    world.execute("update placements set state = 'kept', expires_at = null").await;
    world
        .execute(&format!(
            "insert into moves (id, tenant_id, kind, source_node_id, state, epoch, reason, requested_by)
             values (gen_random_uuid(), '{acme}', 'lateral', '{node}', 'way_back', 1, 'why', 'who')"
        ))
        .await;
    let average = Need::flat(&world.desk.slots.catalog.averages.amounts());
    let state = only(&world).await;
    assert_eq!((state.load.memory, state.load.disk), (average.memory, average.disk));
    assert_eq!(state.load.peaks()[0], average.peaks()[0]);
    world.execute("update moves set state = 'kept'").await;
    assert_eq!(only(&world).await.load.memory, 0, "the way back is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_at_once_take_each_slot_once() {
    let world = World::new(catalog(10)).await;
    let mut waiting = Vec::new();
    for n in 0..24 {
        waiting.push(world.sign_up(small(&format!("t{n}"))).await.0);
    }
    let nodes = [
        world.node("shared-1", NodeKind::Shared).await,
        world.node("shared-2", NodeKind::Shared).await,
    ];
    let average = Need::flat(&world.desk.slots.catalog.averages.amounts());
    let mut tasks = tokio::task::JoinSet::new();
    for batch in waiting.chunks(6) {
        let wanted: Vec<take::Wanted> = batch
            .iter()
            .map(|tenant| take::Wanted {
                tenant: *tenant,
                demand: Demand { need: average, home: Home::Shared { near: Vec::new() } },
                epoch: webhost_proto::ids::Epoch(1),
            })
            .collect();
        let (store, slots) = (world.store.clone(), world.desk.slots.clone());
        tasks.spawn(async move {
            let mut client = store.client().await.expect("a client");
            let tx = (**client).transaction().await.expect("begins");
            let now = Timestamp::now();
            let policy = Policy::of(&slots.catalog);
            let chosen = slots.take(&tx, &wanted, &policy, now, None).await.expect("takes");
            tx.commit().await.expect("commits");
            chosen
        });
    }
    let chosen: Vec<Option<NodeId>> = tasks
        .join_all()
        .await
        .into_iter()
        .flatten()
        .map(|placed| placed.ok().map(|placed| placed.node))
        .collect();
    for node in nodes {
        assert_eq!(chosen.iter().filter(|chosen| **chosen == Some(node)).count(), 10);
        let on = format!("select count(*) from placements where node_id = '{node}'");
        assert_eq!(world.count(&on).await, 10);
    }
    assert_eq!(chosen.iter().filter(|chosen| chosen.is_none()).count(), 4);
}

#[tokio::test]
async fn rules_hold_for_new_places_and_in_surveys() {
    let world = World::new(catalog(7)).await;
    let mut waiting = Vec::new();
    for n in 0..3 {
        waiting.push(world.sign_up(small(&format!("t{n}"))).await.0);
    }
    let nodes = [
        world.node("shared-1", NodeKind::Shared).await,
        world.node("shared-2", NodeKind::Shared).await,
    ];
    let (store, catalog) = (&world.store, &world.desk.slots.catalog);
    let set = async |tenant, wish: &rules::Wish| {
        rules::set(store, catalog, tenant, wish, "token test").await
    };
    let apart = || rules::Wish { apart: vec!["rivals".into()], ..rules::Wish::default() };
    let pinned = rules::Wish { pinned: Some("shared-2".into()), ..apart() };
    set(waiting[0], &pinned).await.expect("sets");
    set(waiting[1], &apart()).await.expect("sets");
    set(waiting[2], &apart()).await.expect("sets");
    let now = Timestamp::now();
    assert_eq!(world.desk.reconcile(now).await.expect("looks"), (0, 2), "one batch");
    let client = world.store.client().await.expect("a client");
    let homes = async || {
        let mut homes = Vec::new();
        for tenant in &waiting {
            let home = placements::home(&**client, *tenant).await.expect("reads");
            homes.push(home.map(|home| home.node_id));
        }
        homes
    };
    assert_eq!(homes().await, [Some(nodes[1]), Some(nodes[0]), None]);
    let why = "select count(*) from tenants where state_reason like '%2 by_rule%'";
    assert_eq!(world.count(why).await, 1);
    let elsewhere = rules::Wish { only: vec!["APAC".into()], ..rules::Wish::default() };
    set(waiting[2], &elsewhere).await.expect("sets");
    assert_eq!(world.desk.reconcile(now).await.expect("looks"), (0, 0), "both stand in iad");
    set(waiting[2], &rules::Wish::default()).await.expect("forgets");
    assert_eq!(world.desk.reconcile(now).await.expect("looks"), (0, 1));

    world.execute("update placements set state = 'active', expires_at = null").await;
    let survey = world.desk.slots.survey(&**client, now).await.expect("reads");
    let of = |tenant| survey.tenants.iter().find(|one| one.id == tenant).expect("is there");
    let rules = of(waiting[0]).rules.as_deref().expect("rules");
    assert_eq!(
        (rules.pinned, rules.apart.as_slice()),
        (Some(nodes[1]), &["rivals".to_owned()][..])
    );
    assert_eq!(of(waiting[2]).rules, None);
    for (wish, field) in [
        (rules::Wish { pinned: Some("nowhere".into()), ..rules::Wish::default() }, "pinned"),
        (rules::Wish { only: vec!["Mars".into()], ..rules::Wish::default() }, "only"),
        (rules::Wish { apart: vec!["No Label".into()], ..rules::Wish::default() }, "apart"),
    ] {
        let refused = set(waiting[0], &wish).await.expect_err("refused");
        assert!(matches!(&refused, rules::RulesError::Invalid(why) if why.field == field));
    }
}

/// Its profile says nothing of places, so that it would go to the default one.
#[tokio::test]
async fn a_new_tenant_goes_near_where_its_rules_say() {
    let world = World::new(catalog(7)).await;
    let (acme, _) = world.sign_up(small("acme")).await;
    world
        .execute(&format!(
            "insert into placement_rules (tenant_id, near) values ('{acme}', '{{fra}}')"
        ))
        .await;
    world.node("shared-1", NodeKind::Shared).await;
    let there = world.node("shared-2", NodeKind::Shared).await;
    world.execute(&format!("update nodes set region = 'fra' where id = '{there}'")).await;
    assert_eq!(world.desk.reconcile(Timestamp::now()).await.expect("looks"), (0, 1));
    let client = world.store.client().await.expect("a client");
    let home = placements::home(&**client, acme).await.expect("reads").expect("a home");
    assert_eq!(home.node_id, there);
}

#[test]
fn rules_order_the_places_of_a_dedicated_node_and_add_none() {
    let places = |names: &[&str]| -> Vec<Region> {
        names.iter().map(|name| Region((*name).to_owned())).collect()
    };
    let mut home =
        Home::Dedicated { least: Amounts::default(), regions: places(&["iad", "fra", "sin"]) };
    home.prefer(&places(&["sin", "syd"]));
    let Home::Dedicated { regions, .. } = home else { panic!("it stays dedicated") };
    assert_eq!(regions, places(&["sin", "iad", "fra"]));
}
