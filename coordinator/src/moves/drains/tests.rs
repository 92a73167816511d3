use jiff::SignedDuration;

use super::watch::Watch;
use super::*;
use crate::decide::plans::NodeKind;
use crate::evaluate::carry;
use crate::link::NodeEvents;
use crate::moves::schedule::Pace;
use crate::moves::windows;
use crate::store::windows::Whose;
use crate::world::{World, catalog, report, small};

mod waits;

const ACTOR: &str = "token ops";

struct Scene {
    world: World,
    from: NodeId,
    tenants: Vec<TenantId>,
    now: Timestamp,
}

impl Scene {
    /// Three tenants on one node, and another node that is empty.
    async fn new() -> Self {
        let world = World::new(catalog(7)).await;
        let from = world.node("from", NodeKind::Shared).await;
        let mut tenants = Vec::new();
        for slug in ["one", "two", "three"] {
            tenants.push(world.sign_up(small(slug)).await.0);
        }
        let rows: Vec<_> = tenants.iter().map(|tenant| (*tenant, 10, 1)).collect();
        world.ingest.report(from, report(1, &rows)).await.expect("applies");
        world.node("to", NodeKind::Shared).await;
        Self { world, from, tenants, now: Timestamp::now() }
    }

    async fn look(&self, by: Option<Timestamp>) -> (Drain, Vec<plan::Move>) {
        let client = self.world.store.client().await.expect("a client");
        let (slots, rules) = (&self.world.desk.slots, Rules::default());
        look(&**client, slots, &rules, self.from, by, self.now).await.expect("a plan")
    }

    async fn drain(&self, by: Timestamp) {
        let client = self.world.store.client().await.expect("a client");
        let draining = Draining { by: Some(by), moves_from: Some(Timestamp::now()) };
        assert!(set(&**client, self.from, Some(draining), ACTOR).await.expect("drains"));
    }

    async fn windows(&self, whose: Whose, opens: &[String]) {
        windows::set(&self.world.store, whose, opens, ACTOR).await.expect("sets");
    }

    fn watch(&self) -> Watch {
        let slots = self.world.desk.slots.clone();
        Watch { store: self.world.store.clone(), slots, rules: Rules::default() }
    }

    async fn told(&self) -> i64 {
        self.world.count("select count(*) from audit where action = 'node.drain_late'").await
    }
}

/// All of the day that comes so many days after `now`.
fn day(now: Timestamp, after: i64) -> String {
    let then = now.as_second().div_euclid(86_400) + after;
    let names = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let at = usize::try_from(then.rem_euclid(7)).expect("small");
    format!("{} 00:00-24:00", names[at])
}

#[tokio::test]
async fn the_plan_says_when_each_leaves_and_who_cannot_by_then() {
    let scene = Scene::new().await;
    let (drain, steps) = scene.look(None).await;
    assert_eq!((drain.tenants.len(), steps.len(), drain.late), (3, 3, 0));
    let mut end = scene.now;
    for (one, step) in drain.tenants.iter().zip(&steps) {
        assert_eq!((one.tenant, one.to, one.window), (step.tenant, Some(step.to), Some(scene.now)));
        assert_eq!(one.begins, Some(end), "one after the other: one move from a node at once");
        assert!(one.ends > one.begins && one.why.is_none() && !one.late);
        end = one.ends.expect("ends");
    }
    assert_eq!(drain.ends, Some(end));

    // Too little time for all of them.
    let (short, _) = scene.look(drain.tenants[1].ends).await;
    assert_eq!(short.late, 1);
    assert!(short.tenants[2].late && !short.tenants[1].late);

    // A window that opens the day after tomorrow, and one that never does.
    scene.windows(Whose::Tenant(scene.tenants[1]), &[day(scene.now, 2)]).await;
    let by = scene.now + SignedDuration::from_hours(12);
    let (closed, _) = scene.look(Some(by)).await;
    let late: Vec<&str> =
        closed.tenants.iter().filter(|one| one.late).map(|one| one.slug.as_str()).collect();
    assert_eq!((late.as_slice(), closed.late), (["two"].as_slice(), 1));
    assert!(closed.ends > Some(by), "{closed:?}");
    scene.windows(Whose::Node(scene.from), &[day(scene.now, 0), day(scene.now, 1)]).await;
    let (never, steps) = scene.look(Some(by)).await;
    let two = never.tenants.last().expect("three");
    assert_eq!((two.slug.as_str(), two.window, two.begins), ("two", None, None));
    assert!(two.why.as_deref().is_some_and(|why| why.contains("never open at once")), "{two:?}");
    assert_eq!((never.ends, never.late, steps.len()), (None, 1, 3));
}

#[tokio::test]
async fn a_deadline_is_kept_and_that_it_is_missed_is_told_before_and_when_it_has_come() {
    let scene = Scene::new().await;
    let watch = scene.watch();
    let hours = |hours: i64| scene.now + SignedDuration::from_hours(hours);
    let (_, steps) = scene.look(Some(hours(12))).await;
    scene.drain(hours(12)).await;
    let slots = &scene.world.desk.slots;
    for (_, begun) in carry(&scene.world.store, slots, &steps, ACTOR).await {
        begun.expect("is asked for");
    }
    let (drain, again) = scene.look(Some(hours(12))).await;
    assert!(again.is_empty(), "asked for once");
    assert!(drain.tenants.iter().all(|one| one.move_id.is_some() && one.begins.is_some()));
    let order: Vec<TenantId> = drain.tenants.iter().map(|one| one.tenant).collect();
    assert_eq!(order, steps.iter().map(|step| step.tenant).collect::<Vec<_>>());
    assert_eq!((watch.tick(scene.now).await.expect("looks"), scene.told().await), (0, 0));

    // Somebody closes a window: it is told once, with who is late.
    scene.windows(Whose::Tenant(scene.tenants[0]), &[day(scene.now, 2)]).await;
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 1);
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 0);
    let named = "select count(*) from audit where action = 'node.drain_late'
                 and detail->'tenants'->0->>'tenant' = 'one' and detail->>'late' = '1'";
    assert_eq!((scene.told().await, scene.world.count(named).await), (1, 1));
    // What was told may have been mended since: that the time has come is news.
    assert_eq!(watch.tick(hours(12)).await.expect("looks"), 1);
    assert_eq!(watch.tick(hours(13)).await.expect("looks"), 0);
    assert_eq!(scene.told().await, 2);

    // Of another deadline nobody was told; it is met, until time runs out.
    scene.drain(hours(24 * 5)).await;
    assert_eq!(watch.tick(scene.now).await.expect("looks"), 0);
    assert_eq!(watch.tick(hours(24 * 5) + SignedDuration::from_secs(1)).await.expect("looks"), 1);
    assert_eq!(scene.told().await, 3);
    // In use again, it has no deadline.
    let client = scene.world.store.client().await.expect("a client");
    assert!(set(&**client, scene.from, None, ACTOR).await.expect("in use"));
    let node = nodes::get(&**client, scene.from).await.expect("reads").expect("a node");
    assert_eq!((node.drain_by, node.drain_moves_from), (None, None));
}

#[test]
fn a_deadline_is_within_the_year_to_come() {
    let now: Timestamp = "2026-11-16T12:00:00Z".parse().expect("a time");
    for (by, good) in [
        ("2026-11-16T12:00:01Z", true),
        ("2027-11-16T12:00:00Z", true),
        ("2026-11-16T12:00:00Z", false),
        ("2026-11-16T11:00:00Z", false),
        ("2029-01-01T00:00:00Z", false),
    ] {
        assert_eq!(deadline(by.parse().expect("a time"), now).is_ok(), good, "{by}");
    }
}

#[test]
fn without_a_move_to_go_by_the_pace_is_what_the_configuration_allows() {
    let rules = Rules { max_rows_per_second_to_shared: 20_000, ..Rules::default() };
    let held = ahead::pace(&[], &rules);
    assert_eq!(held, Pace { bytes_per_second: 2_560_000, beside_s: 60 });
    let free = Rules { max_rows_per_second_to_shared: 0, ..rules };
    assert!(ahead::pace(&[], &free).bytes_per_second > held.bytes_per_second);
}
