use webhost_proto::ids::NodeId;
use webhost_proto::wire;

use super::*;
use crate::usage::chart::{self, Chart};
use crate::usage::part;
use crate::usage::rollup;
use crate::usage::sample::{Metric, sample};
use crate::usage::series::{CPU, named};
use crate::world::{World, catalog};

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(days * 24)
}

fn retention() -> Retention {
    crate::config::Usage::default().retention()
}

/// So long after Monday, 2026-11-16 00:00 UTC.
fn at(hours: i64, minutes: i64) -> Timestamp {
    let monday: Timestamp = "2026-11-16T00:00:00Z".parse().expect("a time");
    monday + SignedDuration::from_mins(hours * 60 + minutes)
}

/// A recorder, and a tenant that was seen each minute of the first 26 hours and
/// of a bit of the 27th: in hour `h` it took 10 (h + 1) thousandths of a core.
async fn seen() -> (World, Recorder, TenantId) {
    seen_of(TenantId::generate()).await
}

async fn seen_of(tenant: TenantId) -> (World, Recorder, TenantId) {
    let world = World::new(catalog(7)).await;
    let node = NodeId::generate();
    for minute in 0..26 * 60 + 3_i64 {
        let hour = minute / 60 + 1;
        let values = [
            (Metric::CpuUs, 600_000 * hour.unsigned_abs()),
            (Metric::GpsPoints, 30),
            (Metric::DbConnections, 2),
        ];
        let now_us = at(0, minute).as_microsecond();
        let report = wire::Report::default();
        world.book.apply(node, &report, &[(tenant, sample(&values))], now_us, 60_000_000);
    }
    let recorder = Recorder::new(world.store.clone(), world.book.clone(), retention());
    (world, recorder, tenant)
}

async fn read(
    world: &World,
    tenant: TenantId,
    column: &str,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Chart {
    let client = world.store.client().await.expect("a client");
    let column = named(column).expect("a column");
    chart::read(&**client, &world.book, &retention(), tenant, column, (from, to), now)
        .await
        .expect("reads")
}

#[tokio::test]
async fn hours_that_are_over_are_written_once_and_drawn_at_every_grain() {
    let (world, recorder, tenant) = seen().await;
    let now = at(26, 3);
    recorder.look(now).await.expect("writes");
    recorder.look(now).await.expect("has nothing to write");
    // Hour 25 is over, and made when the last part that may have its minutes is.
    for (table, rows) in [("usage_fives", 25), ("usage_hours", 1)] {
        assert_eq!(world.count(&format!("select count(*) from {table}")).await, rows, "{table}");
    }
    let parts = world.count("select count(*) from usage_minutes").await;
    assert!((129..=132).contains(&parts), "{parts}: the first may begin the day before");
    let minutes = read(&world, tenant, "cpu", (at(25, 0), at(26, 0)), now).await;
    assert_eq!((minutes.step_s, minutes.values), (60, vec![Some(260); 60]));
    let running = read(&world, tenant, "gps_points", (at(25, 59), now), now).await;
    assert_eq!(running.values, [Some(30); 4], "the running minutes are the book's");
    let fives = read(&world, tenant, "gps_points", (at(0, 0), at(24, 5)), now).await;
    assert_eq!((fives.step_s, fives.values), (300, vec![Some(150); 24 * 12 + 1]));
    let hours = read(&world, tenant, "cpu", (at(-32 * 24, 0), now), now).await;
    let known: Vec<i32> = hours.values.iter().flatten().copied().collect();
    let expected: Vec<i32> = (1..=27).map(|hour| 10 * hour).collect();
    assert_eq!((hours.step_s, known), (3600, expected));
    assert_eq!(hours.values.len(), 32 * 24 + 27);
    assert!(hours.values[..32 * 24].iter().all(Option::is_none));
    let stranger = read(&world, TenantId::generate(), "cpu", (at(0, 0), at(1, 0)), now).await;
    assert!(stranger.values.iter().all(Option::is_none));
}

#[tokio::test]
async fn a_chart_reads_the_partitions_of_its_time_only() {
    let (world, recorder, tenant) = seen().await;
    recorder.look(at(26, 3)).await.expect("writes");
    let client = world.store.client().await.expect("a client");
    for (grain, day) in
        [(Grain::Minutes, "usage_minutes_p20261117"), (Grain::Fives, "usage_fives_p20261117")]
    {
        let partitions = "select count(*) from pg_inherits where inhparent = '";
        let count = format!("{partitions}{}'::regclass", grain.table());
        let days = world.count(&count).await;
        assert!((2..=3).contains(&days), "{grain:?}: {days}; a part may begin the day before");
        let span = (at(24, 0), at(26, 0));
        let plan = history::plan_of(&**client, grain, tenant, CPU, span.0, span.1).await;
        let plan = plan.expect("explains").join("\n");
        let named: Vec<&str> = plan
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with(&format!("{}_p", grain.table())))
            .filter(|word| !word.contains("_tenant"))
            .collect();
        assert!(!named.is_empty() && named.iter().all(|name| *name == day), "{plan}");
    }
}

#[tokio::test]
async fn a_restart_knows_the_usual_day_again() {
    let (world, recorder, tenant) = seen().await;
    let now = at(26, 3);
    recorder.look(now).await.expect("writes");
    let node = NodeId::generate();
    world
        .execute(&format!(
            "insert into usage_hourly (tenant_id, node_id, hour, cpu_us)
             select '{tenant}', '{node}', hour, 1
             from generate_series('{}'::timestamptz, '{}', interval '1 hour') hour",
            at(0, 0),
            at(25, 0)
        ))
        .await;
    let again = Book::new(Duration::from_secs(300));
    rollup::reload(&world.store, &again, now).await.expect("reloads");
    let of = |book: &Book| book.tenant(tenant, now.as_microsecond()).expect("is known");
    let (before, after) = (of(&world.book), of(&again));
    assert_eq!(before.profile.expect(23), [Some(240), Some(200), Some(50)]);
    assert_eq!(
        before.profile.expect(0),
        [Some(250), Some(200), Some(50)],
        "risen on the second day"
    );
    assert_eq!(
        before.profile.expect(1),
        [Some(20), Some(200), Some(50)],
        "the second day's is not made yet"
    );
    assert_eq!((after.profile, after.history_days), (before.profile, 1));
    let again = Arc::new(again);
    let next = Recorder::new(world.store.clone(), again.clone(), retention());
    next.look(at(26, 17)).await.expect("makes an hour of what the one before wrote");
    assert_eq!(of(&again).profile.expect(1), [Some(260), Some(200), Some(50)]);
}

#[tokio::test]
async fn what_is_too_old_goes_and_hours_stay() {
    let (world, recorder, tenant) = seen().await;
    recorder.look(at(26, 3)).await.expect("writes");
    let now = at(40 * 24, 0);
    recorder.look(now).await.expect("writes, makes a day, drops");
    for table in ["usage_minutes", "usage_fives"] {
        let partitions =
            format!("select count(*) from pg_inherits where inhparent = '{table}'::regclass");
        assert_eq!(world.count(&partitions).await, 0, "{table}");
    }
    let hours = read(&world, tenant, "cpu", (at(25, 0), at(27, 0)), now).await;
    assert_eq!((hours.step_s, hours.values), (3600, vec![Some(260), Some(270)]));
    recorder.look(now + days(730)).await.expect("drops");
    assert_eq!(world.count("select count(*) from usage_hours").await, 0);
}

#[tokio::test]
async fn what_could_not_be_written_is_written_later() {
    let (world, recorder, tenant) = seen().await;
    world.execute("alter table usage_fives rename to elsewhere").await;
    recorder.look(at(26, 3)).await.expect_err("one table is gone");
    let parts = world.count("select count(*) from usage_minutes").await;
    assert!(parts > 100, "parts are written all the same: {parts}");
    world.execute("alter table usage_minutes add constraint no check (false) not valid").await;
    recorder.look(at(26, 40)).await.expect_err("no row is taken");
    world.execute("alter table usage_minutes drop constraint no").await;
    world.execute("alter table elsewhere rename to usage_fives").await;
    recorder.look(at(26, 40)).await.expect("writes");
    let minutes = read(&world, tenant, "gps_points", (at(25, 0), at(26, 40)), at(26, 40)).await;
    let all: i32 = minutes.values.iter().flatten().sum();
    assert_eq!((minutes.step_s, all), (60, 63 * 30));
    assert_eq!(world.count("select count(*) from usage_fives").await, 26);
}

/// A part that could not be written for hours, or that came out of a spool.
#[tokio::test]
async fn a_part_that_comes_after_its_hour_was_made_is_in_its_five_minutes() {
    let (world, recorder, tenant) = seen().await;
    recorder.look(at(26, 3)).await.expect("writes");
    let absent = TenantId::generate();
    let (node, report) = (NodeId::generate(), wire::Report::default());
    for minute in 5 * 60 + 20..6 * 60 + 10 {
        let samples = [(absent, sample(&[(Metric::GpsPoints, 7)]))];
        let at_us = at(0, minute).as_microsecond();
        world.book.apply(node, &report, &samples, at_us, 60_000_000);
    }
    recorder.look(at(26, 4)).await.expect("writes");
    let week = (at(-48, 0), at(26, 0));
    let fives = read(&world, absent, "gps_points", week, at(26, 4)).await;
    let known: Vec<i32> = fives.values.iter().flatten().copied().collect();
    assert_eq!((fives.step_s, known), (300, vec![35; 10]));
    let before = read(&world, tenant, "gps_points", week, at(26, 4)).await;
    let all: i32 = before.values.iter().flatten().sum();
    assert_eq!(all, 26 * 60 * 30, "who was in time is as before");
}

/// Nobody made hours for longer than minutes are kept: another coordinator has
/// the lock, or the clock was set forward.
#[tokio::test]
async fn what_hours_and_days_are_still_to_be_made_of_is_not_dropped() {
    let (world, recorder, tenant) = seen().await;
    let mut client = world.store.client().await.expect("a client");
    let other = (**client).transaction().await.expect("begins");
    assert!(history::lock_days(&other).await.expect("locks"));
    recorder.look(at(26, 3)).await.expect("writes parts");
    recorder.look(at(40 * 24, 0)).await.expect("drops nothing");
    assert_eq!(world.count("select count(*) from usage_fives").await, 0);
    other.rollback().await.expect("ends");
    recorder.look(at(40 * 24, 1)).await.expect("makes hours and days");
    let hours = read(&world, tenant, "gps_points", (at(0, 0), at(27, 0)), at(40 * 24, 1)).await;
    let all: i32 = hours.values.iter().flatten().sum();
    assert_eq!((hours.step_s, all), (3600, (26 * 60 + 3) * 30));
}

/// A part comes while another coordinator makes its hour.
#[tokio::test]
async fn who_writes_a_part_while_its_hour_is_made_is_late() {
    // Its last part begins at 25:54.
    let mut tenants = std::iter::repeat_with(TenantId::generate);
    let tenant = tenants.find(|tenant| part::phase(*tenant) == 6).expect("there are many");
    let (world, recorder, _) = seen_of(tenant).await;
    recorder.look(at(26, 3)).await.expect("writes, and makes hour 24");
    let mut client = world.store.client().await.expect("a client");
    let other = (**client).transaction().await.expect("begins");
    assert!(history::lock_days(&other).await.expect("locks"));
    parts::hours_are_made(&other, at(26, 0)).await.expect("makes hour 25");
    let writes = recorder.look(at(26, 14));
    tokio::pin!(writes);
    tokio::select! {
        biased;
        ended = &mut writes => panic!("it is to wait for who makes the hour: {ended:?}"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    other.commit().await.expect("commits");
    writes.await.expect("writes");
    let fives = "select count(*) from usage_fives where at = '2026-11-17 01:00Z'";
    assert_eq!(world.count(fives).await, 1);
}

#[test]
fn what_two_saw_of_an_hour_is_one_hour() {
    let mut one: Values = vec![Some(1), None, Some(3)];
    join(&mut one, &[None, Some(2), Some(4)]);
    assert_eq!(one, [Some(1), Some(2), Some(4)]);
}
