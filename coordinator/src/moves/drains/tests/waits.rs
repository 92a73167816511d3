//! What ends by itself is waited for, and what takes a person is told.

use serde_json::Value;
use webhost_proto::ids::Epoch;

use super::*;
use crate::moves::durable::{Durable, Wanted};
use crate::moves::proposals;
use crate::moves::state::{State, Step};

impl Scene {
    /// A tenant that came from `to`, whose way back is open until then.
    async fn came(&self, tenant: TenantId, until: Timestamp) -> MoveId {
        let client = self.world.store.client().await.expect("a client");
        let to = nodes::by_name(&**client, "to").await.expect("reads").expect("a node").id;
        let wanted = Wanted {
            mode: "multi_tenant".into(),
            plan: "hobby".into(),
            regions: Vec::new(),
            node: None,
            dry_run: false,
        };
        let id = MoveId::generate();
        let row = Move {
            id,
            tenant,
            kind: "lateral".into(),
            source: to,
            target: Some(self.from),
            decision_id: None,
            reason: String::new(),
            requested_by: ACTOR.into(),
            state: State::Step(Step::WayBack),
            epoch: Epoch(1),
            approved_by: None,
            approved_at: None,
            durable: Durable { way_back_until: Some(until), ..Durable::new(wanted) },
            progress: Value::Null,
            result: json!({}),
            error: None,
            created_at: self.hours(-48),
            updated_at: self.now,
            ended_at: None,
        };
        assert!(moves::insert(&**client, &row).await.expect("writes"));
        self.world
            .execute(&format!(
                "insert into placements (tenant_id, node_id, mode, state, epoch)
                 values ('{tenant}', '{to}', 'multi_tenant', 'kept', 1)"
            ))
            .await;
        id
    }

    fn hours(&self, hours: i64) -> Timestamp {
        self.now + SignedDuration::from_hours(hours)
    }

    /// Drained two minutes ago, so that the watch asks for what is left.
    async fn drained(&self, by: Timestamp) {
        let client = self.world.store.client().await.expect("a client");
        let moves_from = Some(self.now - SignedDuration::from_mins(2));
        let draining = Some(Draining { by: Some(by), moves_from });
        assert!(set(&**client, self.from, draining, ACTOR).await.expect("drains"));
    }

    async fn asked(&self) -> i64 {
        self.world.count("select count(*) from moves where requested_by = 'system'").await
    }

    fn of<'a>(&self, drain: &'a Drain, which: usize) -> &'a Leaving {
        let found = drain.tenants.iter().find(|one| one.tenant == self.tenants[which]);
        found.expect("it lives there")
    }
}

#[tokio::test]
async fn who_waits_for_what_ends_in_time_is_no_alarm_and_leaves_then() {
    let scene = Scene::new().await;
    let watch = scene.watch();
    let came = scene.came(scene.tenants[0], scene.hours(2)).await;
    // The way back, then the old copy for a week.
    let free = scene.hours(2 + 7 * 24);
    let (early, steps) = scene.look(Some(scene.hours(24))).await;
    let one = scene.of(&early, 0);
    assert_eq!((early.late, early.waiting, steps.len()), (1, 0, 2));
    assert!(one.late && one.until == Some(free) && one.begins == Some(free), "{one:?}");
    let (late, _) = scene.look(Some(scene.hours(9 * 24))).await;
    let one = scene.of(&late, 0);
    assert_eq!((late.late, late.waiting, one.late, one.until), (0, 1, false, Some(free)));
    let why = one.why.as_deref().expect("what keeps it");
    assert!(why.contains("way back is open until") && why.contains("close-way-back"), "{why}");
    assert!(one.ends > Some(free) && late.ends == one.ends);

    scene.drained(scene.hours(9 * 24)).await;
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 0, "it ends in time");
    assert_eq!(scene.asked().await, 2, "the others were not asked for yet");
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 0);
    assert_eq!(scene.asked().await, 2, "once each");

    // Both have ended: its move is asked for by itself, once.
    scene
        .world
        .execute(&format!(
            "update moves set state = 'completed', ended_at = now() where id = '{came}';
             update placements set state = 'ended', ended_at = now() where state = 'kept'"
        ))
        .await;
    for _ in 0..2 {
        assert_eq!(watch.tick(scene.now).await.expect("looks"), 0);
        assert_eq!(scene.asked().await, 3);
    }

    // It fails: that is told, and left to a person.
    let fail = format!(
        "update moves set state = 'failed', ended_at = now(), error = 'a table has no key'
         where requested_by = 'system' and tenant_id = '{}'",
        scene.tenants[0]
    );
    scene.world.execute(&fail).await;
    scene.world.execute("delete from placements where state = 'incoming'").await;
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 1);
    assert_eq!(scene.asked().await, 3);
    let told = "select count(*) from audit where action = 'node.drain_late'
                and detail->>'late' = '1' and detail->'tenants'->0->>'why' like '%has no key%'";
    assert_eq!(scene.world.count(told).await, 1);
    let (drain, steps) = scene.look(Some(scene.hours(9 * 24))).await;
    assert!(scene.of(&drain, 0).late && scene.of(&drain, 0).until.is_none());
    assert_eq!(steps.len(), 1, "drained again, it is asked for again");
    scene.drain(scene.hours(9 * 24)).await;
    let (again, _) = scene.look(Some(scene.hours(9 * 24))).await;
    assert_eq!((again.late, scene.of(&again, 0).why.as_deref()), (0, None));
}

#[tokio::test]
async fn lack_of_room_is_told_apart_from_what_is_waited_for() {
    let scene = Scene::new().await;
    let watch = scene.watch();
    scene.came(scene.tenants[0], scene.hours(2)).await;
    let by = scene.hours(9 * 24);
    scene.drained(by).await;
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 0);
    scene
        .world
        .execute(&format!(
            "update moves set error = 'no shared node has room: 1 lacks CPU',
                    durable = durable || '{{\"no_room\": true}}'
             where tenant_id = '{}'",
            scene.tenants[1]
        ))
        .await;
    let (drain, _) = scene.look(Some(by)).await;
    let two = scene.of(&drain, 1);
    assert!(two.late && two.until.is_none(), "{two:?}");
    assert_eq!(two.why.as_deref(), Some("no shared node has room: 1 lacks CPU"));
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 1);
    let told = "select count(*) from audit where action = 'node.drain_late'
                and detail->>'late' = '1' and detail->>'waiting' = '1'
                and detail->'tenants'->0->>'tenant' = 'two'
                and detail->'waiting_tenants'->0->>'tenant' = 'one'
                and detail->'waiting_tenants'->0->>'until' is not null";
    assert_eq!(scene.world.count(told).await, 1);
}

#[tokio::test]
async fn a_node_whose_shape_is_gone_is_told_of_and_hides_no_other() {
    let scene = Scene::new().await;
    let watch = scene.watch();
    let to = {
        let client = scene.world.store.client().await.expect("a client");
        nodes::by_name(&**client, "to").await.expect("reads").expect("a node").id
    };
    scene.world.execute("update nodes set shape = 'of-old' where name = 'from'").await;
    scene.drained(scene.hours(24 * 5)).await;
    let (drain, steps) = scene.look(None).await;
    assert_eq!((drain.late, steps.len(), drain.ends), (3, 0, None));
    for one in &drain.tenants {
        let why = one.why.as_deref().expect("what keeps it");
        assert!(why.contains("shape of-old is not in the catalogue"), "{why}");
    }
    // The other one is drained as well, and has nobody left to take its tenant.
    scene
        .world
        .execute(&format!(
            "update placements set node_id = '{to}' where tenant_id = '{}';
             update nodes set state = 'draining', drain_by = now() + interval '1 day'
             where name = 'to'",
            scene.tenants[2]
        ))
        .await;
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 2);
    let told = "select count(*) from audit where action = 'node.drain_late'
                and detail->'tenants'->0->>'why' like";
    assert_eq!(scene.world.count(&format!("{told} '%of-old is not in the%'")).await, 1);
    assert_eq!(scene.world.count(&format!("{told} '%one more shared node%'")).await, 1);
}

#[tokio::test]
async fn nothing_is_asked_for_once_the_drain_is_withdrawn_or_the_node_is_gone() {
    let scene = Scene::new().await;
    let watch = scene.watch();
    let by = scene.hours(9 * 24);
    scene.drained(by).await;
    let client = scene.world.store.client().await.expect("a client");
    let seen = nodes::get(&**client, scene.from).await.expect("reads").expect("a node");
    let (drain, steps) = scene.look(Some(by)).await;
    assert_eq!(steps.len(), 3);
    // Withdrawn between the look and the asking.
    assert!(set(&**client, scene.from, None, ACTOR).await.expect("in use"));
    watch.ask(&seen, &drain, &steps, scene.now).await.expect("asks");
    assert_eq!((scene.asked().await, watch.tick(scene.now).await.expect("looks")), (0, 0));
    // Drained without its tenants' moves: a person asks for each.
    let draining = Some(Draining { by: Some(by), moves_from: None });
    assert!(set(&**client, scene.from, draining, ACTOR).await.expect("drains"));
    assert_eq!((watch.tick(scene.now).await.expect("looks"), scene.asked().await), (0, 0));
    // Whoever drains it has a minute for it.
    scene.drain(by).await;
    assert_eq!((watch.tick(scene.now).await.expect("looks"), scene.asked().await), (0, 0));
    scene.world.execute("update nodes set state = 'revoked' where name = 'from'").await;
    scene.world.execute("update nodes set drain_moves_from = now() - interval '1 hour'").await;
    assert_eq!((watch.tick(by).await.expect("looks"), scene.asked().await), (0, 0));
}

/// The engine would have a tenant of a shared node stay.
#[tokio::test]
async fn what_a_drain_asks_for_is_not_the_engines_to_take_back() {
    let scene = Scene::new().await;
    scene.drained(scene.hours(9 * 24)).await;
    scene.watch().tick(scene.now).await.expect("asks");
    let client = scene.world.store.client().await.expect("a client");
    let slots = &scene.world.desk.slots;
    for tenant in &scene.tenants {
        let open = moves::open_of(&**client, *tenant).await.expect("reads");
        let mut row = open.expect("is asked for");
        assert_eq!((row.requested_by.as_str(), row.target), ("system", None));
        let why = proposals::outdated(&**client, slots, &row, scene.now).await.expect("judges");
        assert_eq!(why, None);
        row.durable.wanted.node = None;
        let why = proposals::outdated(&**client, slots, &row, scene.now).await.expect("judges");
        assert!(why.is_some_and(|why| why.contains("should stay")), "were it the engine's");
    }
}

#[tokio::test]
async fn a_move_that_a_person_ends_while_its_node_is_drained_is_not_asked_for_again() {
    let scene = Scene::new().await;
    let (_, steps) = scene.look(None).await;
    carry(&scene.world.store, &scene.world.desk.slots, &steps[..1], ACTOR).await;
    scene.world.execute("update moves set created_at = now() - interval '1 day'").await;
    scene.drained(scene.hours(9 * 24)).await;
    let ended = "update moves set state = 'cancelled', ended_at = now()";
    scene.world.execute(ended).await;
    scene.watch().tick(scene.now).await.expect("asks");
    assert_eq!(scene.asked().await, 2, "for the two others");
    // A dry run is no move.
    scene
        .world
        .execute(
            "update moves set durable = jsonb_set(durable, '{wanted,dry_run}', 'true')
                         where state = 'cancelled'",
        )
        .await;
    scene.watch().tick(scene.now).await.expect("asks");
    assert_eq!(scene.asked().await, 3);
}
