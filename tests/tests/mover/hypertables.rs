//! Hypertables: on TimescaleDB where it is installed, on a stand-in for its
//! catalog elsewhere. Each test prints which of the two it ran on.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use webhost_agent::mover::error::Side;
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::hypertable::Hypertables;
use webhost_agent::mover::report::Topic;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Level, Preflight, Step, VerdictKind};
use webhost_agent::mover::supervisor::Supervisor;
use webhost_proto::wire::MoveStepKind as K;
use webhost_tests::schema;
use webhost_tests::writers::{Findings, World, Writers, check, session, table_hashes};

use crate::kills::{setup, well};
use crate::legs::{roll_back, same, soon};
use crate::report::{has, report_of};
use crate::scene::{
    LEVELS, a_move, cut_over, number, objects, sql, states, steps, with_timescaledb, world,
};
use crate::way_back::{clean_up, mirrored, up_to_date};

/// What a test runs on.
struct Ground {
    world: World,
    real: bool,
}

/// A world with a hypertable; says of what kind.
async fn ground(points: u32) -> Ground {
    let real = with_timescaledb().await;
    let (schema, name) = if real {
        (schema::WEBHOST_HYPERTABLE, "TimescaleDB")
    } else {
        (schema::WEBHOST_STAND_IN, "the stand-in for TimescaleDB: it is not installed")
    };
    eprintln!("this test runs on {name}");
    Ground { world: world(schema, points).await, real }
}

impl Ground {
    /// A move that a setting lets go ahead: the stand-in has no version.
    fn a_move(&self) -> Run {
        let mut run = a_move(&self.world);
        run.rules.hypertables = Hypertables::Any;
        run
    }

    /// Compresses the chunks of one side that end before so many days ago.
    async fn compress(&self, config: &tokio_postgres::Config, days: u32) {
        let text = if self.real {
            format!(
                "select compress_chunk(c) from show_chunks('gps_positions', older_than => now() - interval '{days} days') c"
            )
        } else {
            format!(
                "insert into _timescaledb_catalog.compressed select chunk_name from timescaledb_information.chunks \
                 where range_end <= now() - interval '{days} days' on conflict do nothing"
            )
        };
        sql(config, &text).await;
    }

    /// The tenant's rows of one day, from so many days ago, on the source.
    async fn rows(&self, days: i32, rows: u32) {
        let tenant = self.world.tenant;
        let vehicle = self.world.vehicles[0];
        if !self.real {
            for config in [&self.world.target, &self.world.source] {
                let day = format!("(now() at time zone 'UTC' - interval '{days} days')::date");
                let text = format!(
                    "select make_chunk({day}) where not exists (select from timescaledb_information.chunks \
                     where range_start = {day}::timestamp at time zone 'UTC')"
                );
                // Native partitions lock more than chunks do, and may meet the
                // writers in a deadlock: somebody tries again.
                let (client, _driver) = session(config).await.expect("a session");
                let mut made = client.batch_execute(&text).await;
                while made
                    .as_ref()
                    .is_err_and(|error| error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED))
                {
                    made = client.batch_execute(&text).await;
                }
                made.expect("a chunk");
            }
        }
        sql(
            &self.world.source,
            &format!(
                "insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location) \
                 select gen_random_uuid(), '{tenant}', '{vehicle}', \
                   date_trunc('day', now(), 'UTC') - interval '{days} days' + n * interval '10 seconds', \
                   1, 1, 0, st_setsrid(st_makepoint(1, 1), 4326) from generate_series(1, {rows}) n"
            ),
        )
        .await;
    }

    /// Drops the chunks that end by so many days ago, as retention does.
    async fn drop_chunks(&self, config: &tokio_postgres::Config, days: u32) {
        sql(
            config,
            &format!(
                "select drop_chunks('gps_positions', \
                 older_than => date_trunc('day', now(), 'UTC') - interval '{days} days')"
            ),
        )
        .await;
    }

    async fn mine(&self, config: &tokio_postgres::Config) -> i64 {
        let tenant = self.world.tenant;
        number(
            config,
            &format!("select count(*) from gps_positions where customer_id = '{tenant}'"),
        )
        .await
    }
}

fn verdict(found: &Preflight) -> (VerdictKind, String) {
    let verdict = found
        .tables
        .iter()
        .find(|verdict| verdict.table == "public.gps_positions")
        .expect("listed");
    (verdict.verdict, verdict.reason.clone())
}

/// Only on the stand-in: nobody can install every version.
#[tokio::test(flavor = "multi_thread")]
async fn the_preflight_says_what_was_verified_and_what_is_not() {
    let world = world(schema::WEBHOST_STAND_IN, 500).await;
    let mut run = a_move(&world);
    let found = report_of(&run).await;
    let (kind, reason) = verdict(&found);
    assert_eq!(kind, VerdictKind::Refuse, "{reason}");
    assert!(
        reason.contains("2.28.3 on PostgreSQL 15.18")
            && reason.contains("moves.hypertables = \"any\""),
        "{reason}"
    );

    // What the method was verified with, on both sides.
    let version = |version: &str| {
        format!(
            "set allow_system_table_mods = on; delete from pg_extension where extname = 'timescaledb'; \
             insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) \
             values (99999, 'timescaledb', 10, 'public'::regnamespace, false, '{version}')"
        )
    };
    for config in [&world.source, &world.target] {
        sql(config, &version("2.28.3")).await;
    }
    let found = report_of(&run).await;
    assert!(!found.refuses(), "{found:#?}");
    let (kind, reason) = verdict(&found);
    assert_eq!(kind, VerdictKind::Move, "{reason}");
    let words =
        "hypertable by recorded_at, 17 chunks of 1 day, compression by customer_id, vehicle_id";
    assert!(reason.contains(words), "{reason}");
    assert!(!found.tables.iter().any(|v| v.table.contains("_hyper_")), "{found:#?}");
    assert!(has(
        &found,
        Level::Fact,
        Topic::Servers,
        "TimescaleDB 2.28.3 on PostgreSQL 15 on both sides"
    ));
    assert!(found.rows_estimated > 300, "the chunks' rows count: {}", found.rows_estimated);
    run.rules.hypertables = Hypertables::Refuse;
    assert_eq!(verdict(&report_of(&run).await).0, VerdictKind::Refuse);
    run.rules.hypertables = Hypertables::Verified;

    // Everything that an operator should know, with the way out.
    for config in [&world.source, &world.target] {
        sql(
            config,
            "insert into _timescaledb_catalog.aggregate values ('public', 'per_day'); \
             insert into _timescaledb_catalog.compressed select chunk_name from timescaledb_information.chunks \
               order by range_start limit 3; \
             alter database \"{}\" set timescaledb.max_tuples_decompressed_per_dml_transaction = 5"
                .replace("{}", config.get_dbname().expect("a name"))
                .as_str(),
        )
        .await;
    }
    sql(&world.target, "update _timescaledb_catalog.said set time_interval = '7 days'").await;
    let found = report_of(&run).await;
    for (topic, words) in [
        (
            Topic::Tables,
            "chunks of public.gps_positions are of 1 day on the source and of 7 days on the target",
        ),
        (Topic::Tables, "3 chunks of public.gps_positions on the source are compressed"),
        (Topic::Tables, "CALL refresh_continuous_aggregate('public.per_day', NULL, NULL)"),
        (
            Topic::Tables,
            "a DELETE of more than 5 compressed rows of public.gps_positions on the target fails",
        ),
    ] {
        assert!(has(&found, Level::Warning, topic, words), "{words}: {found:#?}");
    }
    assert!(!found.refuses(), "{found:#?}");

    sql(&world.target, &version("2.17.2")).await;
    run.rules.hypertables = Hypertables::Any;
    let found = report_of(&run).await;
    assert!(
        has(
            &found,
            Level::Problem,
            Topic::Servers,
            "the target TimescaleDB 2.17.2 on PostgreSQL 15"
        ),
        "{found:#?}"
    );
    sql(&world.source, &version("2.17.2")).await;
    let found = report_of(&run).await;
    assert!(!found.refuses(), "{found:#?}");
    assert!(
        has(
            &found,
            Level::Warning,
            Topic::Tables,
            "here is TimescaleDB 2.17.2 on PostgreSQL 15, and"
        ),
        "{found:#?}"
    );
    sql(&world.source, "update _timescaledb_catalog.said set num_dimensions = 2").await;
    let found = report_of(&run).await;
    assert!(
        has(
            &found,
            Level::Problem,
            Topic::Tables,
            "2 dimensions: space partitions were not verified"
        ),
        "{found:#?}"
    );
}

/// The whole of it, with a chunk that comes while it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_hypertable_moves_there_and_back_under_writers() {
    let ground = ground(2_000).await;
    let world = &ground.world;
    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let mut run = ground.a_move();
    run.tuning.last_leg = 1_000;
    // Of chunks that the extension compressed it refuses some of what these
    // writers do; those of the stand-in take everything.
    if !ground.real {
        ground.compress(&world.target, 6).await;
        ground.compress(&world.source, 7).await;
    }
    // Keys below go one by one: slower writers leave a debug build a chance.
    let writers = Writers::start(world, &LEVELS, Duration::from_millis(15), 41);
    steps(&run, &[Step::Preflight, Step::Guard]).await;
    for stop in ["mid_copy", "between_parts"] {
        run.fail = Fail::stop_at(stop);
        run.step(Step::Copy).await.expect_err(stop);
    }
    run.fail = Fail::Off;
    steps(&run, &[Step::Copy, Step::Copy]).await;
    ground.rows(-4, 30).await;
    steps(&run, &[Step::Drain, Step::Verify]).await;
    cut_over(&run).await;
    let new = "select count(*) from gps_positions where recorded_at >= date_trunc('day', now(), 'UTC') + interval '4 days'";
    assert_eq!(number(&world.target, new).await, 30, "the new chunk's rows went over");
    tokio::time::sleep(Duration::from_millis(100)).await;
    roll_back(&run).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    cut_over(&run).await;
    let ledger = writers.stop().await.expect("writers");
    assert!(ledger.refused > 0, "the writers met the fence");
    // The model knows only what its writers wrote.
    sql(&world.target, "delete from gps_positions where recorded_at >= date_trunc('day', now(), 'UTC') + interval '4 days'").await;
    assert_eq!(check(world, &ledger, 1).await.expect("check"), Findings::default());
    roll_back(&run).await;
    same(world).await;
    steps(&run, &[Step::Finish, Step::Finish]).await;
    let after = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    assert_eq!(foreigner, after, "the target's other tenant");
}

/// Rows of chunks that are compressed on the target are brought up to date one
/// by one: changed, deleted, and new ones; in small batches and in bulk.
#[tokio::test(flavor = "multi_thread")]
async fn late_changes_in_compressed_chunks_arrive() {
    let ground = ground(200).await;
    let (world, tenant) = (&ground.world, ground.world.tenant);
    ground.rows(8, 300).await;
    ground.rows(3, 300).await;
    let mut run = ground.a_move();
    steps(&run, &[Step::Guard, Step::Copy]).await;
    ground.compress(&world.target, 6).await;
    let change = |speed: u32, modulus: u32| {
        format!(
            "update gps_positions set speed = {speed} where customer_id = '{tenant}' and extract(epoch from recorded_at)::int8 / 10 % {modulus} = 0; \
             delete from gps_positions where customer_id = '{tenant}' and extract(epoch from recorded_at)::int8 / 10 % {modulus} = 1"
        )
    };
    sql(&world.source, &change(11, 7)).await;
    ground.rows(8, 5).await;
    steps(&run, &[Step::Drain, Step::Verify]).await;
    same(world).await;
    run.tuning.drain_batch = 10;
    run.tuning.drain_bulk = Some(40);
    sql(&world.source, &change(12, 5)).await;
    steps(&run, &[Step::Drain, Step::Verify]).await;
    same(world).await;
    // And inside the fence.
    run.tuning.drain_batch = 2_000;
    sql(&world.source, &change(13, 11)).await;
    cut_over(&run).await;
    same(world).await;
    assert_eq!(states(world).await, ("moved".into(), "active".into()));
}

/// Whatever ends a move leaves nothing, and takes only this tenant's rows.
#[tokio::test(flavor = "multi_thread")]
async fn undo_and_clean_up_delete_by_time() {
    let ground = ground(3_000).await;
    let world = &ground.world;
    ground.rows(8, 2_500).await;
    let before = objects(&world.target).await;
    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let neighbour = table_hashes(&world.source, world.neighbour).await.expect("hashes");
    let run = ground.a_move();
    steps(&run, &[Step::Guard, Step::Copy]).await;
    ground.compress(&world.target, 4).await;
    steps(&run, &[Step::Undo, Step::Undo]).await;
    assert_eq!((ground.mine(&world.target).await, ground.mine(&world.source).await), (0, 5_500));
    if !ground.real {
        assert_eq!(objects(&world.target).await, before, "nothing is left");
    }

    let mut run = ground.a_move();
    steps(&run, &[Step::Guard, Step::Copy]).await;
    ground.compress(&world.source, 4).await;
    cut_over(&run).await;
    steps(&run, &[Step::Finish]).await;
    run.fail = Fail::stop_at("mid_clean_up");
    run.step(Step::CleanUp).await.expect_err("stopped");
    run.fail = Fail::Off;
    assert!(clean_up(&mut run, Side::Source).await.rows > 2_000);
    assert_eq!((ground.mine(&world.target).await, ground.mine(&world.source).await), (5_500, 0));
    assert_eq!(foreigner, table_hashes(&world.target, world.foreigner).await.expect("hashes"));
    assert_eq!(neighbour, table_hashes(&world.source, world.neighbour).await.expect("hashes"));
}

/// Which jobs run, on the stand-in and with the extension alike.
async fn scheduled(config: &tokio_postgres::Config) -> i64 {
    number(
        config,
        "select count(*) from timescaledb_information.jobs where scheduled and (hypertable_name is not null or proc_schema = 'public')",
    )
    .await
}

/// Paused while the move lasts, and running again at its end, though the mover
/// was killed between any two of it.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_again_though_the_mover_was_killed() {
    for point in ["mid_guard", "after_guard", "after_moved", "mid_finish"] {
        let ground = ground(300).await;
        let world = &ground.world;
        let jobs = if ground.real {
            "select add_retention_policy('gps_positions', interval '1 year'); \
             select add_compression_policy('gps_positions', interval '1 year')"
        } else {
            "insert into _timescaledb_catalog.job values \
             (1000, '_timescaledb_functions', 'policy_retention', true, 'public', 'gps_positions'), \
             (1001, '_timescaledb_functions', 'policy_compression', true, 'public', 'gps_positions')"
        };
        for config in [&world.source, &world.target] {
            sql(config, jobs).await;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let spec = ground.a_move().spec;
        let mut setup = setup(world, &spec, dir.path(), Some(point));
        setup.rules.hypertables = Hypertables::Any;
        let supervisor = Supervisor::load(setup).expect("loads");
        well(&supervisor, &spec, K::Guard).await;
        assert_eq!(
            (scheduled(&world.source).await, scheduled(&world.target).await),
            (0, 0),
            "{point}"
        );
        for step in [K::Copy, K::Verify, K::CutOver, K::Finish] {
            well(&supervisor, &spec, step).await;
        }
        assert_eq!(
            (scheduled(&world.source).await, scheduled(&world.target).await),
            (2, 2),
            "{point}"
        );
        let marker = dir.path().join("moves").join(format!("failed-at-{point}"));
        assert!(marker.exists(), "{point} was never reached");
    }
}

/// The target without anybody else's positions.
async fn of_its_own(ground: &Ground) -> Run {
    sql(&ground.world.target, "delete from gps_positions").await;
    let mut run = ground.a_move();
    run.spec.target_dedicated = true;
    run
}

/// Chunks that retention drops on the source during the move are dropped on a
/// target of the tenant's own.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_dropped_during_the_move_are_dropped_there_too() {
    let ground = ground(300).await;
    let world = &ground.world;
    ground.rows(12, 40).await;
    ground.rows(10, 40).await;
    ground.rows(5, 40).await;
    let run = of_its_own(&ground).await;
    steps(&run, &[Step::Guard, Step::Copy, Step::Verify]).await;
    assert_eq!(ground.mine(&world.target).await, 420);
    ground.drop_chunks(&world.source, 8).await;
    // New rows go on, and come by the log.
    ground.rows(5, 7).await;
    steps(&run, &[Step::Verify, Step::Verify]).await;
    cut_over(&run).await;
    same(world).await;
    assert_eq!(ground.mine(&world.target).await, 347);
}

/// On a shared target, or where it was not the oldest, the move stops with the
/// table and the range named, and the source goes on.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_cannot_be_dropped_there_stop_the_move() {
    for case in ["shared", "others", "between"] {
        let ground = ground(300).await;
        let world = &ground.world;
        ground.rows(12, 40).await;
        ground.rows(10, 40).await;
        ground.rows(5, 40).await;
        let mut run = of_its_own(&ground).await;
        run.spec.target_dedicated = case != "shared";
        steps(&run, &[Step::Guard, Step::Copy, Step::Verify]).await;
        if case == "between" {
            let chunk = "select format('%I.%I', chunk_schema, chunk_name) from timescaledb_information.chunks \
                 where range_start = date_trunc('day', now(), 'UTC') - interval '10 days'";
            let drop = format!("do $$ begin execute format('drop table %s', ({chunk})); end $$");
            sql(&world.source, &drop).await;
        } else {
            ground.drop_chunks(&world.source, 8).await;
        }
        if case == "others" {
            sql(
                &world.target,
                &format!(
                    "insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location) \
                     select gen_random_uuid(), customer_id, id, now() - interval '10 days', 1, 1, st_setsrid(st_makepoint(1, 1), 4326) \
                     from vehicles where customer_id = '{}'",
                    world.foreigner
                ),
            )
            .await;
        }
        let kept = ground.mine(&world.target).await;
        let error = run.step(Step::Verify).await.expect_err(case).to_string();
        let words = match case {
            "shared" => "on a target that other tenants share they are not",
            "others" => "the target has rows of other tenants there",
            _ => " to ",
        };
        assert!(error.contains(words) && error.contains("public.gps_positions"), "{case}: {error}");
        assert!(
            error.contains("chunks were dropped on the source during the move"),
            "{case}: {error}"
        );
        assert_eq!(ground.mine(&world.target).await, kept, "{case}: nothing was dropped");
        assert_eq!(states(world).await, ("active".into(), "standby".into()), "{case}");
    }
}

/// Retention that drops chunks where the tenant is served now does not close
/// the way back: the old copy keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_dropped_after_the_switch_stay_on_the_old_copy() {
    let ground = ground(300).await;
    let world = &ground.world;
    ground.rows(12, 40).await;
    ground.rows(5, 40).await;
    let mut run = ground.a_move();
    run.spec.way_back_until_us = soon(3600);
    run.tuning.way_back_pause = Duration::from_millis(20);
    steps(&run, &[Step::Guard, Step::Copy, Step::Verify]).await;
    cut_over(&run).await;
    ground.drop_chunks(&world.target, 8).await;
    mirrored(&run, up_to_date(&run)).await;
    assert_eq!((ground.mine(&world.source).await, ground.mine(&world.target).await), (380, 340));
    match run.step(Step::RollBack).await {
        Ok(Done::RollBack(_)) => {}
        other => panic!("roll back: {other:?}"),
    }
    assert_eq!(ground.mine(&world.source).await, 380, "they came back with it");
    assert_eq!(states(world).await, ("active".into(), "moved".into()));
}
