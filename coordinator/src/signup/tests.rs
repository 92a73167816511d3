use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::world::{World, catalog, large, small};

async fn state(world: &World, id: TenantId) -> (TenantState, String) {
    let client = world.store.client().await.expect("a client");
    let tenant = tenants::get(&**client, id).await.expect("reads").expect("is there");
    (tenant.state, tenant.state_reason)
}

const OPEN: &str = "select count(*) from placements where state = 'reserved'";

#[tokio::test(flavor = "multi_thread")]
async fn fifty_signups_at_once_take_exactly_the_seven_free_slots() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let desk = world.desk.clone();
        tasks.spawn(async move {
            let request: SignupRequest =
                serde_json::from_value(small(&format!("t{n}"))).expect("a request");
            desk.sign_up(&request, "token test", None).await.expect("signs up").1
        });
    }
    let answers = tasks.join_all().await;
    let placed = answers.iter().filter(|answer| answer["state"] == "provisioning").count();
    let waiting = answers.iter().filter(|answer| answer["state"] == "waiting").count();
    assert_eq!((placed, waiting), (7, 43));
    assert_eq!(world.count(OPEN).await, 7);
    assert_eq!(world.count("select count(*) from tenants").await, 50);
    assert_eq!(world.count("select count(*) from decisions where outcome = 'placed'").await, 7);
    let refused = answers.iter().find(|answer| answer["state"] == "waiting").expect("one waits");
    assert!(
        refused["state_reason"].as_str().expect("a reason").contains("1 has no slot left"),
        "{refused}"
    );
    assert!(refused["placement"].is_null());
}

#[tokio::test]
async fn a_node_is_filled_to_the_placement_limit_only() {
    let mut catalog = catalog(150);
    // 75 % of 128 GB holds three tenants of 30 GB, not four.
    catalog.averages.memory_mb = 30_000;
    let world = World::new(catalog).await;
    world.node("shared-1", NodeKind::Shared).await;
    for n in 0..5 {
        world.sign_up(small(&format!("t{n}"))).await;
    }
    assert_eq!(world.count(OPEN).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_has_one_answer_however_parallel() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let request: SignupRequest = serde_json::from_value(small("acme")).expect("a request");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (desk, request) = (world.desk.clone(), request.clone());
        tasks.spawn(async move {
            desk.sign_up(&request, "token app", Some("k1")).await.expect("answers")
        });
    }
    let answers: BTreeSet<String> =
        tasks.join_all().await.into_iter().map(|(_, body)| body.to_string()).collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(world.count("select count(*) from tenants").await, 1);

    let other: SignupRequest = serde_json::from_value(small("other")).expect("a request");
    let reused = world.desk.sign_up(&other, "token app", Some("k1")).await;
    assert!(matches!(reused, Err(SignupError::KeyReused)), "{reused:?}");
    // Another bearer's keys are its own.
    world.desk.sign_up(&other, "token two", Some("k1")).await.expect("signs up");
}

#[tokio::test]
async fn what_is_taken_is_refused_and_the_key_is_free_again() {
    let world = World::new(catalog(7)).await;
    world.sign_up(small("acme")).await;
    let again: SignupRequest = serde_json::from_value(small("acme")).expect("a request");
    let taken = world.desk.sign_up(&again, "token app", Some("k")).await;
    assert!(matches!(taken, Err(SignupError::Taken { field: "slug", .. })), "{taken:?}");
    let mut body = small("other");
    let id = Uuid::now_v7();
    body["customer_id"] = json!(id);
    let request: SignupRequest = serde_json::from_value(body).expect("a request");
    world.desk.sign_up(&request, "token app", Some("k")).await.expect("the key was let go");
    let mut body = small("third");
    body["customer_id"] = json!(id);
    let request: SignupRequest = serde_json::from_value(body).expect("a request");
    let taken = world.desk.sign_up(&request, "token app", None).await;
    assert!(matches!(taken, Err(SignupError::Taken { field: "customer_id", .. })), "{taken:?}");
}

#[tokio::test]
async fn who_waits_gets_the_first_free_slot() {
    let world = World::new(catalog(1)).await;
    let (first, body) = world.sign_up(small("first")).await;
    assert_eq!(body["state"], "waiting");
    assert_eq!(body["decision"]["mode"], "multi_tenant");
    let (second, _) = world.sign_up(small("second")).await;
    let now = Timestamp::now();
    assert_eq!(world.desk.reconcile(now).await.expect("looks"), (0, 0));

    world.node("shared-1", NodeKind::Shared).await;
    assert_eq!(world.desk.reconcile(now).await.expect("looks"), (0, 1));
    assert_eq!(state(&world, first).await.0, TenantState::Provisioning);
    assert_eq!(state(&world, second).await.0, TenantState::Waiting);
    assert_eq!(world.desk.reconcile(now).await.expect("looks"), (0, 0), "nothing changed");
    let decisions = "select count(*) from decisions where trigger = 'schedule'";
    assert_eq!(world.count(decisions).await, 1, "a look that places nobody decides nothing");
}

#[tokio::test]
async fn an_unused_reservation_ends_and_its_tenant_waits_again() {
    let world = World::new(catalog(1)).await;
    let node = world.node("shared-1", NodeKind::Shared).await;
    let (tenant, body) = world.sign_up(small("first")).await;
    assert_eq!(body["placement"]["state"], "reserved");
    world.execute(&format!("update nodes set state = 'draining' where id = '{node}'")).await;
    let later = Timestamp::now() + SignedDuration::from_hours(25);
    assert_eq!(world.desk.reconcile(later).await.expect("looks"), (1, 0));
    let (state_now, reason) = state(&world, tenant).await;
    assert_eq!(state_now, TenantState::Waiting);
    assert!(reason.contains("1 is draining or not in use"), "{reason}");
    let audited = "select count(*) from audit where action = 'slot.expired'";
    assert_eq!(world.count(audited).await, 1);
}

/// The place is given back all the same.
#[tokio::test]
async fn a_tenant_that_was_suspended_stays_so_when_its_reservation_ends() {
    let world = World::new(catalog(1)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let (tenant, _) = world.sign_up(small("first")).await;
    let suspended = (TenantState::Suspended, "unpaid".to_owned());
    let client = world.store.client().await.expect("a client");
    tenants::set_state(&**client, tenant, suspended.0, &suspended.1).await.expect("suspended");
    let later = Timestamp::now() + SignedDuration::from_hours(25);
    assert_eq!(world.desk.reconcile(later).await.expect("looks"), (1, 0));
    assert_eq!(state(&world, tenant).await, suspended);
    assert_eq!(world.count(OPEN).await, 0);
}

/// More of those who want a machine of their own, which nobody has, than are
/// read at a time; all before the one who fits.
#[tokio::test]
async fn many_who_fit_nowhere_keep_nobody_waiting() {
    let world = World::new(catalog(7)).await;
    let (stuck, _) = world.sign_up(large("stuck")).await;
    let (fits, _) = world.sign_up(small("fits")).await;
    world
        .execute(&format!(
            "insert into tenants (id, slug, name, email, plan, profile, state, created_at)
             select gen_random_uuid(), 'stuck-' || n, name, email, plan, profile, state,
                    created_at + n * interval '1 microsecond'
             from tenants, generate_series(1, 1200) n where id = '{stuck}';
             update tenants set created_at = now() + interval '1 hour' where id = '{fits}'"
        ))
        .await;
    world.node("shared-1", NodeKind::Shared).await;
    assert_eq!(world.desk.reconcile(Timestamp::now()).await.expect("looks"), (0, 1));
    assert_eq!(state(&world, fits).await.0, TenantState::Provisioning);
    assert_eq!(state(&world, stuck).await.0, TenantState::Waiting);
}

/// The database refuses one of them; the others of its batch get their places.
#[tokio::test]
async fn one_who_can_not_be_written_keeps_nobody_waiting() {
    let world = World::new(catalog(7)).await;
    let (broken, _) = world.sign_up(small("broken")).await;
    let (fits, _) = world.sign_up(small("fits")).await;
    world
        .execute(&format!(
            "create function refuse() returns trigger language plpgsql as
               $$ begin raise exception 'refused by the test'; end $$;
             create trigger refuses before insert on placements for each row
               when (new.tenant_id = '{broken}') execute function refuse()"
        ))
        .await;
    world.node("shared-1", NodeKind::Shared).await;
    assert_eq!(world.desk.reconcile(Timestamp::now()).await.expect("looks"), (0, 1));
    assert_eq!(state(&world, fits).await.0, TenantState::Provisioning);
    assert_eq!(state(&world, broken).await.0, TenantState::Waiting);
}

#[tokio::test]
async fn who_let_a_reservation_expire_comes_after_those_who_wait() {
    let world = World::new(catalog(1)).await;
    world.node("shared-1", NodeKind::Shared).await;
    let (idle, _) = world.sign_up(small("idle")).await;
    let (second, _) = world.sign_up(small("second")).await;
    let later = Timestamp::now() + SignedDuration::from_hours(25);
    assert_eq!(world.desk.reconcile(later).await.expect("looks"), (1, 1));
    assert_eq!(state(&world, second).await.0, TenantState::Provisioning);
    assert_eq!(state(&world, idle).await.0, TenantState::Waiting);
}

#[tokio::test]
async fn a_dedicated_node_takes_one_tenant() {
    let world = World::new(catalog(7)).await;
    world.node("shared-1", NodeKind::Shared).await;
    world.node("own-1", NodeKind::Dedicated).await;
    let (_, first) = world.sign_up(large("first")).await;
    assert_eq!(first["placement"]["node"], "own-1");
    assert_eq!(first["placement"]["mode"], "single_tenant");
    assert_eq!(first["decision"]["confidence"], 1.0);
    let (_, second) = world.sign_up(large("second")).await;
    assert_eq!(second["state"], "waiting", "never on a shared node instead");
}

#[tokio::test]
async fn only_the_offered_mode_is_placed() {
    let mut world = World::new(catalog(7)).await;
    world.desk.mode = Some(Mode::MultiTenant);
    world.node("own-1", NodeKind::Dedicated).await;
    let (_, body) = world.sign_up(large("first")).await;
    assert_eq!(body["state"], "waiting");
    assert!(body["state_reason"].as_str().expect("a reason").contains("single_tenant"));
}

#[tokio::test]
async fn an_unmet_need_waits_for_an_administrator() {
    let world = World::new(catalog(7)).await;
    world.node("own-1", NodeKind::Dedicated).await;
    let mut body = large("huge");
    body["profile_overrides"]["vehicle_count"] = json!(501);
    let (_, body) = world.sign_up(body).await;
    assert_eq!(body["state"], "waiting");
    assert!(body["state_reason"].as_str().expect("a reason").contains("administrator"), "{body}");
}

#[tokio::test]
async fn an_administrator_allows_what_stays_unmet_and_no_more() {
    let world = World::new(catalog(7)).await;
    let mut body = large("huge");
    body["profile_overrides"]["vehicle_count"] = json!(501);
    let (tenant, _) = world.sign_up(body.clone()).await;
    let (other, _) = world.sign_up(large("other")).await;
    let now = Timestamp::now();
    let approve = |tenant| world.desk.approve(tenant, "token ops", "they pay for it", now);
    let refused = approve(other).await.expect_err("it waits for a node").to_string();
    assert!(refused.contains("other is waiting") && refused.contains("no unmet need"), "{refused}");
    let unsaid = world.desk.approve(tenant, "token ops", " ", now).await.expect_err("why?");
    assert!(unsaid.to_string().contains("say why"), "{unsaid}");
    let approved = approve(tenant).await.expect("approved");
    assert_eq!(approved.unmet.len(), 1);
    // Nobody need ask again, and it is not forgotten while no node is there.
    world.desk.reconcile(now).await.expect("looks");
    let waits = "select count(*) from tenants where slug = 'huge' and state = 'waiting'
                 and state_reason like 'no dedicated node%'";
    assert_eq!(world.count(waits).await, 1);
    // It asks for more: that was not approved.
    let more = |vehicles: u32| {
        format!(
            "update tenants set profile = jsonb_set(profile, '{{vehicle_count}}', '{vehicles}')
             where slug = 'huge'"
        )
    };
    world.execute(&more(900)).await;
    world.node("own-1", NodeKind::Dedicated).await;
    world.desk.reconcile(now).await.expect("looks");
    let again = "select count(*) from tenants where slug = 'huge' and state = 'waiting'
                 and state_reason like 'an administrator must look%'";
    assert_eq!(world.count(again).await, 1);
    world.execute("update tenants set state = 'suspended' where slug = 'other'").await;
    world.execute("update placements set state = 'ended', ended_at = now()").await;
    world.execute(&more(501)).await;
    world.desk.reconcile(now).await.expect("looks");
    let placed = "select count(*) from tenants where slug = 'huge' and state = 'provisioning'";
    assert_eq!(world.count(placed).await, 1);
    let audited = "select count(*) from audit where action = 'tenant.needs_approved'
                   and actor = 'token ops' and detail->>'reason' = 'they pay for it'";
    assert_eq!(world.count(audited).await, 1);
    approve(tenant).await.expect_err("it has its place");
}
