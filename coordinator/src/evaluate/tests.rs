use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use webhost_proto::ids::{MoveId, TenantId};
use webhost_proto::wire;

use super::*;
use crate::decide::{Catalog, Mode};
use crate::evaluate::run::EvaluateError;
use crate::moves::driver::world::{World, good};
use crate::moves::{self, MoveRefused};
use crate::slots::Slots;
use crate::store::decisions::{self, Outcome, Trigger};
use crate::store::leases::Lease;
use crate::store::{placements, tenants};
use crate::usage::Book;
use crate::usage::sample::{Metric, Sample};

mod overload;
mod retention;

struct Desk {
    world: World,
    slots: Slots,
    evaluator: Evaluator,
}

impl Desk {
    async fn new() -> Self {
        let world = World::new().await;
        let slots = Slots {
            book: Arc::new(Book::new(Duration::from_secs(300))),
            catalog: Arc::new(Catalog::default()),
            silence: SignedDuration::from_mins(1),
        };
        let evaluator = Evaluator::new(world.store.clone(), slots.clone(), Pace::default());
        Self { world, slots, evaluator }
    }

    fn another(&self) -> Evaluator {
        Evaluator::new(self.world.store.clone(), self.slots.clone(), Pace::default())
    }

    /// The node reports that the tenant has so many vehicles, and served that
    /// many requests, with errors among them, in that time together.
    fn report(&self, vehicles: u64, requests: u64, errors: u64, duration_us: u64) {
        let mut sample = Sample::default();
        sample.set(Metric::Vehicles, vehicles, false);
        sample.set(Metric::ApiCalls, requests, false);
        sample.set(Metric::ApiErrors, errors, false);
        sample.set(Metric::RequestDurationUs, duration_us, false);
        let host = wire::HostSample { cpu_count: 16, ..wire::HostSample::default() };
        let report = wire::Report { host: Some(host), ..wire::Report::default() };
        self.slots.book.apply(
            self.world.source,
            &report,
            &[(self.world.tenant, sample)],
            self.world.now.as_microsecond(),
            10_000_000,
        );
    }

    async fn scan(&self) -> usize {
        self.evaluator.scan(self.world.now).await.expect("a scan")
    }

    async fn decisions(&self) -> Vec<(Trigger, Outcome)> {
        let client = self.world.store.client().await.expect("a client");
        let mut rows = decisions::list(&**client, Some(self.world.tenant), None, 100)
            .await
            .expect("decisions");
        rows.reverse();
        rows.into_iter().map(|row| (row.trigger, row.outcome)).collect()
    }

    async fn open(&self) -> Option<(MoveId, &'static str)> {
        let client = self.world.store.client().await.expect("a client");
        let id = crate::store::moves::open_of(&**client, self.world.tenant).await.expect("reads");
        match id {
            Some(open) => Some((open.id, self.world.state(open.id).await)),
            None => None,
        }
    }

    async fn execute(&self, sql: &str) {
        let client = self.world.store.client().await.expect("a client");
        client.batch_execute(sql).await.expect("runs");
    }
}

/// More vehicles than hobby serves: a hard rule, confidence 1. Whether a
/// person is asked hangs on each boundary alone.
#[tokio::test]
async fn the_rules_approve_above_their_boundaries_and_ask_at_them() {
    for (what, requests, errors, duration_us, days, state) in [
        ("nothing measured", 0, 0, 0, 0, "awaiting_approval"),
        ("200 ms", 10, 0, 2_000_000, 0, "awaiting_approval"),
        ("201 ms", 10, 0, 2_010_000, 0, "waiting_for_node"),
        ("5 % errors", 100, 5, 1_000_000, 0, "awaiting_approval"),
        ("6 % errors", 100, 6, 1_000_000, 0, "waiting_for_node"),
        ("30 days", 0, 0, 0, 30, "awaiting_approval"),
        ("31 days", 0, 0, 0, 31, "waiting_for_node"),
    ] {
        let desk = Desk::new().await;
        desk.execute(&format!(
            "update placements set since = now() - interval '{days} days 1 minute'"
        ))
        .await;
        desk.report(15, requests, errors, duration_us);
        assert_eq!(desk.scan().await, 1, "{what}");
        let (id, found) = desk.open().await.expect("a move");
        assert_eq!(found, state, "{what}");
        assert_eq!(desk.decisions().await, [(Trigger::Limit, Outcome::Migrate)], "{what}");
        let row = desk.world.row(id).await;
        assert_eq!(row.approved_by.is_some(), state == "waiting_for_node", "{what}");
        assert_eq!((row.kind.as_str(), row.durable.wanted.plan.as_str()), ("upgrade", "starter"));
        assert!(row.decision_id.is_some());
        assert!(desk.world.audit(id).await.contains(&"move.requested".to_owned()));
    }
}

#[tokio::test]
async fn a_proposal_that_waits_is_approved_when_things_get_worse() {
    let mut desk = Desk::new().await;
    desk.report(15, 10, 0, 100_000);
    desk.scan().await;
    let (id, state) = desk.open().await.expect("a proposal");
    assert_eq!(state, "awaiting_approval");
    desk.world.pass(Duration::from_secs(60));
    assert_eq!(desk.scan().await, 0, "nothing is new");
    desk.report(15, 100, 0, 100_000_000);
    assert_eq!(desk.scan().await, 1);
    assert_eq!(desk.open().await, Some((id, "waiting_for_node")));
    let by = desk.world.row(id).await.approved_by.expect("approved");
    assert!(by.starts_with("rule: "), "{by}");
    desk.world.pass(Duration::from_secs(24 * 3600));
    desk.report(15, 100, 100, 100_000_000);
    assert_eq!(desk.scan().await, 0, "what moves is left alone");
}

#[tokio::test]
async fn a_tenant_that_fits_stays_and_is_seen_again_by_the_clock() {
    let mut desk = Desk::new().await;
    desk.report(3, 100, 0, 1_000_000);
    assert_eq!(desk.scan().await, 1);
    assert_eq!(desk.scan().await, 0);
    desk.world.pass(Duration::from_secs(6 * 3600 - 1));
    assert_eq!(desk.scan().await, 0);
    desk.world.pass(Duration::from_secs(1));
    assert_eq!(desk.scan().await, 1);
    let stay = (Trigger::Schedule, Outcome::Stay);
    assert_eq!(desk.decisions().await, [stay, stay]);
    assert_eq!(desk.open().await, None);

    let client = desk.world.store.client().await.expect("a client");
    tenants::set_plan(&**client, desk.world.tenant, "starter").await.expect("a plan");
    assert_eq!(desk.scan().await, 1);
    assert_eq!(desk.decisions().await.last().map(|row| row.0), Some(Trigger::PlanChange));
}

#[tokio::test]
async fn one_of_two_coordinators_evaluates() {
    let mut desk = Desk::new().await;
    desk.report(15, 0, 0, 0);
    let second = desk.another();
    let now = desk.world.now;
    let (one, two) = tokio::join!(desk.evaluator.scan(now), second.scan(now));
    assert_eq!(one.expect("a scan") + two.expect("a scan"), 1);
    assert_eq!(desk.decisions().await.len(), 1);

    // One that lost its lease without noticing writes nothing.
    let stale = Lease { name: "evaluation".into(), epoch: 0 };
    let tenant = desk.world.tenant;
    let lost = desk.evaluator.evaluate(tenant, Trigger::Schedule, Some(&stale), now).await;
    assert!(matches!(lost, Err(EvaluateError::Overtaken(_))), "{lost:?}");
    assert_eq!(desk.decisions().await.len(), 1);

    // When the holder is gone, the other one takes over.
    desk.world.pass(Duration::from_secs(7 * 3600));
    desk.execute("update moves set ended_at = now(), state = 'failed'").await;
    assert_eq!(desk.another().scan(desk.world.now).await.expect("a scan"), 1);
}

#[tokio::test]
async fn a_tenant_that_can_not_be_read_keeps_none_of_the_others() {
    let desk = Desk::new().await;
    let other = TenantId::generate();
    desk.execute(&format!(
        "insert into tenants (id, slug, name, email, plan, profile, state)
         values ('{other}', 'odd', 'Odd', 'o@example.com', 'hobby', '{{\"budget\": \"much\"}}',
                 'active');
         insert into placements (tenant_id, node_id, mode, state, epoch)
         values ('{other}', '{node}', 'multi_tenant', 'active', 1)",
        node = desk.world.source,
    ))
    .await;
    desk.report(15, 0, 0, 0);
    assert_eq!(desk.scan().await, 1);
    assert!(desk.open().await.is_some());
    let error = desk
        .evaluator
        .evaluate(other, Trigger::Admin, None, desk.world.now)
        .await
        .expect_err("its profile can't be read");
    assert!(error.to_string().contains(&other.to_string()), "{error}");
}

/// A sequence counts the tries: it stays when what counted is taken back.
#[tokio::test]
async fn an_evaluation_that_fails_is_tried_again_after_the_gap() {
    let mut desk = Desk::new().await;
    desk.execute(
        "create sequence tries;
         create function refuse() returns trigger language plpgsql as
           $$ begin perform nextval('tries'); raise exception 'refused by the test'; end $$;
         create trigger refuses before insert on decisions
           for each row execute function refuse()",
    )
    .await;
    let tries = async |desk: &Desk| -> i64 {
        let client = desk.world.store.client().await.expect("a client");
        let sql = "select case when is_called then last_value else 0 end from tries";
        client.query_one(sql, &[]).await.expect("counts").get(0)
    };
    for _ in 0..3 {
        assert_eq!(desk.scan().await, 0);
    }
    assert_eq!(tries(&desk).await, 1);
    desk.world.pass(Pace::default().gap);
    assert_eq!(desk.scan().await, 0);
    assert_eq!(tries(&desk).await, 2);
    desk.execute("drop trigger refuses on decisions").await;
    desk.world.pass(Pace::default().gap);
    assert_eq!(desk.scan().await, 1);
}

/// Each look at the clock is six seconds after the one before: the lease of
/// fifteen is over long before the last tenant, unless it is extended.
#[tokio::test]
async fn the_lease_of_a_long_scan_is_extended_on_the_way() {
    let desk = Desk::new().await;
    desk.execute(&format!(
        "insert into tenants (id, slug, name, email, plan, state)
         select gen_random_uuid(), 't-' || n, 'T', 'a@example.com', 'hobby', 'active'
         from generate_series(1, 9) n;
         insert into placements (tenant_id, node_id, mode, state, epoch)
         select id, '{node}', 'multi_tenant', 'active', 1 from tenants where slug like 't-%'",
        node = desk.world.source,
    ))
    .await;
    let (began, looks) = (desk.world.now, std::sync::atomic::AtomicI64::new(0));
    let clock = || {
        let looks = looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        began + SignedDuration::from_secs(6 * looks)
    };
    assert_eq!(desk.evaluator.scan_by(&clock).await.expect("a scan"), 10);
    let end = clock();
    assert!(end.duration_since(began) >= SignedDuration::from_secs(60), "{end}");
    assert_eq!(desk.another().scan(end).await.expect("a scan"), 0);
    let client = desk.world.store.client().await.expect("a client");
    let ttl = Duration::from_secs(15);
    let taken = crate::store::leases::hold(&**client, "evaluation", "another", end, ttl).await;
    assert_eq!(taken.expect("reads"), None, "it is held still");
}

#[tokio::test]
async fn an_administrator_forces_a_mode_but_not_against_compliance() {
    let mut desk = Desk::new().await;
    let (store, slots, tenant) = (&desk.world.store, &desk.slots, desk.world.tenant);
    let forced =
        force(store, slots, wanted(tenant, Mode::SingleTenant), "token ops").await.expect("a move");
    let row = desk.world.row(forced.move_id).await;
    assert_eq!(row.approved_by.as_deref(), Some("token ops"));
    assert_eq!(row.state.as_str(), "waiting_for_node");
    let again = force(store, slots, wanted(tenant, Mode::SingleTenant), "token ops").await;
    assert!(matches!(again, Err(ForceError::Move(MoveRefused::AlreadyMoving { .. }))), "{again:?}");
    moves::cancel(store, forced.move_id, "token ops").await.expect("cancelled");
    desk.execute("update tenants set profile = '{\"compliance_requirements\": [\"soc2\"]}'").await;
    let (store, slots) = (&desk.world.store, &desk.slots);
    let refused = force(store, slots, wanted(tenant, Mode::MultiTenant), "token ops").await;
    assert!(matches!(refused, Err(ForceError::Refused(_))), "{refused:?}");

    // What the engine finds by itself: SOC 2 on a shared server moves at once.
    assert_eq!(desk.scan().await, 1);
    assert_eq!(desk.open().await.map(|open| open.1), Some("waiting_for_node"));
    let (id, _) = desk.open().await.expect("a move");
    desk.world.play(&mut |command| Some(good(command))).await;
    desk.world.assert_moved(id).await;
    let client = desk.world.store.client().await.expect("a client");
    let home = placements::home(&**client, tenant).await.expect("reads").expect("a home");
    assert_eq!((home.mode, home.node_id), (Mode::SingleTenant, desk.world.target));
    // There it stays: it is where it belongs.
    let now = Timestamp::now();
    let after =
        desk.evaluator.evaluate(tenant, Trigger::Admin, None, now).await.expect("evaluated");
    assert_eq!(after.move_id, None);
    assert_eq!(after.facts.residence.plan.as_str(), "starter");
}

fn wanted(tenant: TenantId, mode: Mode) -> Wanted {
    Wanted { tenant, mode, kind: None, target: None, reason: None, confirm_rows: 0, dry_run: false }
}

/// Hobby serves 5 vehicles: 4 are 80 % of them.
#[tokio::test]
async fn limits_are_told_once_a_day_over_restarts_and_a_crossed_one_is_evaluated() {
    let mut desk = Desk::new().await;
    let told = async |desk: &Desk| {
        let client = desk.world.store.client().await.expect("a client");
        let tenant = desk.world.tenant.to_string();
        let rows = crate::store::audit::list(&**client, Some("tenant"), Some(&tenant), None, 100);
        let rows = rows.await.expect("reads");
        let of_limits = rows.iter().filter(|row| row.action.starts_with("limit."));
        of_limits.map(|row| row.action.clone()).rev().collect::<Vec<_>>()
    };
    desk.scan().await;
    let before = desk.decisions().await.len();
    desk.report(4, 0, 0, 0);
    desk.scan().await;
    assert_eq!(told(&desk).await, ["limit.near"]);
    assert_eq!(desk.decisions().await.len(), before, "near is no reason to look");
    desk.report(6, 0, 0, 0);
    desk.scan().await;
    assert_eq!(told(&desk).await, ["limit.near", "limit.crossed"]);
    assert_eq!(desk.decisions().await.last().map(|last| last.0), Some(Trigger::Limit));

    desk.execute("delete from leases").await;
    desk.evaluator = desk.another();
    desk.report(4, 0, 0, 0);
    desk.scan().await;
    desk.report(6, 0, 0, 0);
    desk.scan().await;
    assert_eq!(told(&desk).await.len(), 2, "to and fro is told once a day");
    let client = desk.world.store.client().await.expect("a client");
    let list = crate::store::limits::list(&**client, Some(desk.world.tenant)).await.expect("reads");
    let [one] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!((one.limit.as_str(), one.level.as_str()), ("vehicles", "breach"));
    assert_eq!((one.used, one.allowed), (6, 5));
    desk.report(1, 0, 0, 0);
    desk.scan().await;
    assert_eq!(told(&desk).await.last().map(String::as_str), Some("limit.cleared"));
    let list = crate::store::limits::list(&**client, None).await.expect("reads");
    assert_eq!(list, []);
}

#[tokio::test]
async fn a_proposal_is_reminded_of_and_ends_when_nobody_wants_it() {
    let mut desk = Desk::new().await;
    desk.report(15, 0, 0, 0);
    desk.scan().await;
    let (id, state) = desk.open().await.expect("a proposal");
    assert_eq!(state, "awaiting_approval");
    let day = Duration::from_secs(24 * 3600);
    for reminders in 1..7 {
        desk.world.pass(day);
        desk.scan().await;
        desk.scan().await;
        let audit = desk.world.audit(id).await;
        let told = audit.iter().filter(|action| *action == "move.approval_wanted").count();
        assert_eq!(told, reminders, "{audit:?}");
        assert_eq!(desk.world.state(id).await, "awaiting_approval");
    }
    desk.world.pass(day);
    desk.scan().await;
    let row = desk.world.row(id).await;
    assert_eq!(row.state.as_str(), "refused");
    assert!(row.ended_at.is_some());
    assert_eq!(row.error.as_deref(), Some("nobody approved it within 7 days"));
    assert!(desk.world.audit(id).await.contains(&"move.expired".to_owned()));
}

/// The driver's coordinator hears that the vehicles are gone.
#[tokio::test]
async fn what_is_no_longer_wanted_is_not_carried_out() {
    for (what, hears, state) in
        [("it knows better", true, "failed"), ("it knows nothing", false, "open_tunnel")]
    {
        let desk = Desk::new().await;
        desk.report(15, 0, 0, 0);
        desk.scan().await;
        let (id, _) = desk.open().await.expect("a proposal");
        moves::approve(&desk.world.store, id, "token ops").await.expect("approved");
        if hears {
            desk.world.report(desk.world.source, 100, 0);
        }
        desk.world.tick().await;
        let row = desk.world.row(id).await;
        assert_eq!(row.state.as_str(), state, "{what}: {:?}", row.error);
        let again = "select 1 from tenants where id = $1 and evaluated_at is null";
        let client = desk.world.store.client().await.expect("a client");
        let again = client.query_opt(again, &[&desk.world.tenant.0]).await.expect("reads");
        assert_eq!(again.is_some(), hears, "{what}");
    }
}

/// A slow tenant is moved, and is fast; its decisions, and where it lived, say
/// so afterwards.
#[tokio::test]
async fn accuracy_is_computed_from_what_is_stored() {
    let desk = Desk::new().await;
    let (tenant, node) = (desk.world.tenant, desk.world.target);
    desk.execute(&format!(
        "delete from placements where tenant_id = '{tenant}';
         insert into placements (tenant_id, node_id, mode, state, epoch, since, ended_at)
         values ('{tenant}', '{node}', 'multi_tenant', 'ended', 1, now() - interval '20 days',
                 now() - interval '15 days'),
                ('{tenant}', '{node}', 'single_tenant', 'active', 2, now() - interval '15 days', null);
         insert into placements (tenant_id, node_id, mode, state, epoch, since, expires_at, ended_at)
         values ('{tenant}', '{node}', 'multi_tenant', 'ended', 1, now() - interval '40 days',
                 now(), now())"
    ))
    .await;
    let decisions = [
        (21, "placed", "multi_tenant", None),
        (16, "migrate", "single_tenant", Some(300)),
        (14, "stay", "single_tenant", Some(20)),
    ];
    let client = desk.world.store.client().await.expect("a client");
    for (days, outcome, mode, response) in decisions {
        let usage = response.map(|ms| crate::decide::Usage {
            average_response_time_ms: Some(ms),
            ..crate::decide::Usage::default()
        });
        let inputs = serde_json::json!({ "usage": usage });
        let decision = serde_json::json!({ "mode": mode });
        let outcome: Outcome = outcome.parse().expect("an outcome");
        let id =
            decisions::insert(&**client, tenant, Trigger::Schedule, &inputs, &decision, outcome)
                .await
                .expect("inserts");
        desk.execute(&format!(
            "update decisions set at = now() - interval '{days} days' where id = '{id}'"
        ))
        .await;
    }
    let thresholds = &desk.slots.catalog.thresholds;
    let now = Timestamp::now();
    let found = accuracy::of_days(&**client, thresholds, 90, now).await.expect("reads");
    assert_eq!((found.stays, found.stayed), (2, 1), "it left the first after 5 days");
    assert_eq!((found.with_issues, found.issues_ended), (1, 1));
    assert_eq!((found.reconsidered, found.changed_mind), (2, 1));
    let lately = accuracy::of_days(&**client, thresholds, 1, now).await.expect("reads");
    assert_eq!(lately, crate::decide::accuracy::Accuracy::default());
}
