//! A long key log, drained in bulk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::requests::Requests;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Serving, Step};
use webhost_tests::schema;
use webhost_tests::writers::{World, table_hashes};

use crate::scene::{a_move, cut_over, number, sql, states, steps, world};

/// Everything that can happen to rows, thousands of times.
async fn upheaval(world: &World) {
    let (t, n, v) = (world.tenant, world.neighbour, world.neighbour_vehicle);
    let changes = format!(
        "update gps_positions set speed = speed + 1, metadata = '{{\"changed\": true}}' \
           where customer_id = '{t}' and heading is null and (extract(epoch from recorded_at)::int8 / 7) % 3 = 0; \
         delete from gps_positions \
           where customer_id = '{t}' and (extract(epoch from recorded_at)::int8 / 7) % 10 = 1; \
         update gps_positions set id = gen_random_uuid() \
           where customer_id = '{t}' and (extract(epoch from recorded_at)::int8 / 7) % 10 = 2; \
         update gps_positions set customer_id = '{n}', vehicle_id = '{v}' \
           where customer_id = '{t}' and (extract(epoch from recorded_at)::int8 / 7) % 10 = 4; \
         insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location) \
           select gen_random_uuid(), '{t}', (select id from vehicles where customer_id = '{t}' order by id limit 1), \
                  now() - n * interval '1 second', 1, 2, st_setsrid(st_makepoint(1, 2), 4326) \
           from generate_series(1, 700) n; \
         insert into sync_updates (customer_id, document, update) \
           select '{t}', 'bulk', decode(md5(n::text), 'hex') from generate_series(1, 300) n; \
         update geofences set boundary = st_translate(boundary, 0.5, 0.5) where customer_id = '{t}'; \
         update usage_metrics set value = value / 7 where customer_id = '{t}'; \
         update vehicles set device_id = device_id || '~' where customer_id = '{t}';",
    );
    sql(&world.source, &changes).await;
    // Two rows change places in a unique column: no order of single updates
    // brings the target there.
    let swap = format!(
        "begin; \
         update vehicles set plate = 'between' where customer_id = '{t}' and plate = 'P1'; \
         update vehicles set plate = 'P1' where customer_id = '{t}' and plate = 'P2'; \
         update vehicles set plate = 'P2' where customer_id = '{t}' and plate = 'between'; commit"
    );
    sql(&world.source, &swap).await;
}

async fn drained(run: &Run) -> u64 {
    match run.step(Step::Drain).await {
        Ok(Done::Drain(drained)) => {
            assert_eq!(drained.remaining, 0);
            drained.keys
        }
        other => panic!("drain: {other:?}"),
    }
}

async fn same(world: &World) {
    let here = table_hashes(&world.source, world.tenant).await.expect("hashes");
    let there = table_hashes(&world.target, world.tenant).await.expect("hashes");
    assert_eq!(here, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_in_bulk_ends_as_in_small_batches() {
    for (schema, bulk) in [
        (schema::WEBHOST, Some(900)),
        (schema::WEBHOST_PARTITIONED, Some(20_000)),
        (schema::WEBHOST, None),
    ] {
        let world = world(schema, 6_000).await;
        let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
        let mut run = a_move(&world);
        run.tuning.drain_batch = if bulk.is_some() { 100 } else { 2_000 };
        run.tuning.drain_bulk = bulk;
        steps(&run, &[Step::Guard, Step::Copy]).await;
        for _ in 0..2 {
            upheaval(&world).await;
            assert!(drained(&run).await > 2_000);
            same(&world).await;
        }
        steps(&run, &[Step::Verify]).await;
        let after = table_hashes(&world.target, world.foreigner).await.expect("hashes");
        assert_eq!(foreigner, after, "the target's other tenant");
    }
}

/// The target's commit is known and the source's is not: the same keys again.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_in_bulk_may_come_twice() {
    let world = world(schema::WEBHOST, 6_000).await;
    let mut run = a_move(&world);
    run.tuning.drain_batch = 100;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    for stop in ["mid_drain", "between_commits"] {
        upheaval(&world).await;
        let log = format!("select count(*) from webhost_fleet.log_{}", run.spec.move_id.0.simple());
        let before = number(&world.source, &log).await;
        run.fail = Fail::stop_at(stop);
        assert!(run.step(Step::Drain).await.is_err(), "{stop}");
        assert_eq!(before, number(&world.source, &log).await, "{stop}: no key is forgotten");
        drained(&run).await;
        same(&world).await;
    }
}

/// A batch that was cut between a row and the row it points to: the comparison
/// tells it from a row that points to what never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_came_before_its_parent_is_no_error_and_a_neighbours_parent_is() {
    let world = world(schema::WEBHOST, 200).await;
    let (t, v) = (world.tenant, world.neighbour_vehicle);
    let mut run = a_move(&world);
    // One key at a time, and no time for a second one.
    (run.tuning.drain_batch, run.tuning.drain_bulk) = (1, None);
    run.tuning.drain_patience = Duration::ZERO;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    let route = format!("(select id from routes where customer_id = '{t}' order by id limit 1)");
    sql(
        &world.source,
        &format!(
            "update routes set name = 'first' where id = {route}; \
             update vehicles set odometer_m = odometer_m + 1 where customer_id = '{t}'; \
             insert into vehicles (id, customer_id, name, plate, device_id) \
               values ('00000000-0000-4000-8000-00000000000a', '{t}', 'late', 'LATE', 'late'); \
             update routes set vehicle_id = '00000000-0000-4000-8000-00000000000a' where id = {route}"
        ),
    )
    .await;
    steps(&run, &[Step::Drain]).await;
    let orphans = "select count(*) from routes r where not exists \
                   (select 1 from vehicles v where v.id = r.vehicle_id)";
    assert_eq!(number(&world.target, orphans).await, 1, "the scene");
    steps(&run, &[Step::Verify]).await;
    assert_eq!(number(&world.target, orphans).await, 1, "looked at while it was so");

    sql(&world.source, &format!("update routes set vehicle_id = '{v}' where id = {route}")).await;
    run.tuning = a_move(&world).tuning;
    let said = run.step(Step::Verify).await.expect_err("found").to_string();
    assert!(said.contains("routes") && said.contains("not there"), "{said}");
    assert_eq!(states(&world).await.0, "active", "the source serves");
}

/// A target that keeps something else than it was given is found out before
/// it commits, and the keys are named.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_target_changes_is_named() {
    let world = world(schema::WEBHOST, 3_000).await;
    let mut run = a_move(&world);
    run.tuning.drain_batch = 100;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    sql(
        &world.target,
        "create function meddle() returns trigger language plpgsql as \
           $$ begin new.altitude := 8848; return new; end $$; \
         create trigger meddle before insert or update on gps_positions \
           for each row when (new.speed = 77) execute function meddle(); \
         alter table gps_positions enable always trigger meddle",
    )
    .await;
    sql(
        &world.source,
        &format!(
            "update gps_positions set speed = speed + 1 where customer_id = '{}'",
            world.tenant
        ),
    )
    .await;
    let said = run.step(Step::Drain).await.expect_err("found").to_string();
    assert!(said.contains("gps_positions") && said.contains("key "), "{said}");
    let log = format!("select count(*) from webhost_fleet.log_{}", run.spec.move_id.0.simple());
    assert!(number(&world.source, &log).await >= 3_000, "no key is forgotten");
    assert_eq!(
        number(&world.target, "select count(*) from gps_positions where altitude = 8848").await,
        0
    );
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));
    sql(&world.target, "drop function meddle() cascade").await;
    drained(&run).await;
    same(&world).await;
}

/// Counts how often writers and requests were kept waiting.
#[derive(Default)]
struct Kept(AtomicU32);

#[tonic::async_trait]
impl Requests for Kept {
    async fn park(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn release(&self, _serving: Serving) {}
    fn at_fence(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Nobody waits at a fence for a log that takes long to read: the switch is
/// given back, and says that the tenant's own writers are in the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_writers_keep_long_is_not_read_inside_the_fence() {
    let world = world(schema::WEBHOST, 500).await;
    let mut run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy]).await;
    let touch = format!(
        "update gps_positions set speed = speed + 1 where customer_id = '{}'",
        world.tenant
    );
    sql(&world.source, &[touch.as_str(); 30].join("; ")).await;

    // A drain that gets one key done while writers write thousands.
    let usual = run.tuning.clone();
    run.tuning.drain_batch = 1;
    run.tuning.drain_bulk = Some(1);
    run.tuning.drain_patience = Duration::ZERO;
    let kept = Arc::new(Kept::default());
    run.requests = kept.clone();
    let error = run.step(Step::CutOver).await.expect_err("the log is too long");
    assert_eq!(error.kind(), webhost_agent::mover::error::Kind::Retry, "{error}");
    assert!(error.to_string().contains("its own writers"), "{error}");
    assert_eq!(kept.0.load(Ordering::Relaxed), 0, "nobody was kept waiting");
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));

    run.tuning = usual;
    assert!(!cut_over(&run).await.recovered);
    assert_eq!(kept.0.load(Ordering::Relaxed), 2, "once, at the switch");
    same(&world).await;
}
