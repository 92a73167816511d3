//! What a move refuses before it starts, and what undo leaves.

use std::sync::Arc;
use std::time::Duration;

use webhost_agent::mover::connect::{Dialled, Endpoint, Transport};
use webhost_agent::mover::error::{Kind, MoveError};
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::spec::{Done, Step, VerdictKind};
use webhost_proto::ids::{Epoch, MoveId};
use webhost_tests::schema;
use webhost_tests::writers::{Findings, Writers, check, table_hashes};

use crate::scene::{LEVELS, a_move, cut_over, number, objects, sql, states, steps, world};

#[tokio::test(flavor = "multi_thread")]
async fn preflight_tells_what_it_will_do() {
    let world = world(schema::WEBHOST, 500).await;
    let Done::Preflight(found) = a_move(&world).step(Step::Preflight).await.expect("passes") else {
        panic!("another answer")
    };
    let of = |table: &str| {
        found.tables.iter().find(|v| v.table == format!("public.{table}")).map(|v| v.verdict)
    };
    assert_eq!(of("customers"), Some(VerdictKind::Move));
    assert_eq!(of("gps_positions"), Some(VerdictKind::Move));
    assert_eq!(of("plans"), Some(VerdictKind::Reference));
    assert_eq!(of("schema_migrations"), Some(VerdictKind::Ignore));
    let rows = found.tables.iter().find(|v| v.table == "public.gps_positions").expect("listed");
    assert!((400..600).contains(&rows.rows_estimated), "{rows:?}");
}

/// All problems come together, each naming its thing.
#[tokio::test(flavor = "multi_thread")]
async fn preflight_names_every_problem() {
    let world = world(schema::WEBHOST, 100).await;
    sql(&world.source, "create table no_key (customer_id uuid, n int)").await;
    sql(&world.source, "create table wrong_type (id int primary key, customer_id text)").await;
    sql(
        &world.source,
        "create table only_child (id int primary key, vehicle_id uuid references vehicles (id))",
    )
    .await;
    sql(
        &world.source,
        "create table either (id int primary key, vehicle_id uuid references vehicles (id), \
         driver_id uuid references drivers (id))",
    )
    .await;
    sql(&world.source, "alter table vehicles add column extra text; create extension pg_trgm")
        .await;
    sql(
        &world.target,
        "drop table routes; alter table drivers drop constraint drivers_vehicle_id_fkey",
    )
    .await;
    sql(&world.target, "alter table gps_positions add constraint odd check (latitude < 91)").await;
    let error = a_move(&world).step(Step::Preflight).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Refused);
    let MoveError::Preflight(report) = &error else { panic!("{error}") };
    let problems = report.problems();
    for wanted in [
        "no_key can't move: it has no primary key",
        "wrong_type can't move: its column customer_id is text, not uuid",
        "table public.only_child is missing on the target",
        "either can't move: its rows belong to a tenant only through one of driver_id, vehicle_id",
        "columns of public.vehicles differ",
        "public.routes is missing on the target",
        "odd",
        "pg_trgm",
    ] {
        assert!(
            wanted == "odd" && problems.iter().any(|p| p.contains("CHECK ((latitude <"))
                || problems.iter().any(|p| p.contains(wanted)),
            "{wanted:?} is not in {problems:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collisions_on_the_target_are_found_before_the_start() {
    let world = world(schema::WEBHOST, 100).await;
    let (t, f) = (world.tenant, world.foreigner);
    sql(
        &world.target,
        &format!(
            "update customers set slug = 't-{t}' where id = '{f}'; \
             update vehicles set device_id = '{}-1' where customer_id = '{f}' and plate = 'P1'",
            &t.to_string()[..8]
        ),
    )
    .await;
    let error = a_move(&world).step(Step::Preflight).await.expect_err("refused").to_string();
    for wanted in ["slug", "device_id", "another tenant"] {
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    sql(&world.target, &format!("update customers set slug = 'x' where id = '{f}'; update vehicles set device_id = 'x' || id where customer_id = '{f}'")).await;
    steps(&a_move(&world), &[Step::Preflight]).await;
    // Rows of the tenant itself that no move left there.
    sql(
        &world.target,
        &format!("insert into customers (id, name, slug, email) values ('{t}', 'x', 'y', 'z')"),
    )
    .await;
    let error = a_move(&world).step(Step::Preflight).await.expect_err("refused").to_string();
    assert!(error.contains("holds rows of the tenant already"), "{error}");
    // The guard step looks again, behind the guards; and undo deletes nothing.
    let run = a_move(&world);
    let error = run.step(Step::Guard).await.expect_err("refused").to_string();
    assert!(error.contains("did not write"), "{error}");
    steps(&run, &[Step::Undo]).await;
    assert_eq!(
        number(&world.target, &format!("select count(*) from customers where id = '{t}'")).await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_references_prepared_transactions_and_privileges_are_refused() {
    let world = world(schema::WEBHOST, 100).await;
    sql(&world.target, "update plans set price_cents = 1 where id = 'hobby'").await;
    let Done::Preflight(found) = a_move(&world).step(Step::Preflight).await.expect("passes") else {
        panic!("another answer")
    };
    assert!(
        found.warnings().iter().any(|w| w.contains("public.plans hobby")),
        "{:?}",
        found.findings
    );
    sql(&world.target, "delete from subscriptions; delete from plans where id = 'hobby'").await;
    sql(&world.source, "begin; insert into platform_users values (gen_random_uuid(), 'p', 'p'); prepare transaction 'forgotten'").await;
    sql(&world.target, "create role poor login; grant connect on database postgres to poor").await;
    let error = a_move(&world).step(Step::Preflight).await.expect_err("refused").to_string();
    assert!(error.contains("forgotten"), "{error}");
    sql(&world.source, "rollback prepared 'forgotten'").await;
    let error = a_move(&world).step(Step::Preflight).await.expect_err("refused").to_string();
    assert!(error.contains("public.plans hobby"), "{error}");
    let mut run = a_move(&world);
    let mut poor = world.target.clone();
    poor.user("poor");
    run.target = Endpoint::Local(Box::new(poor));
    let error = run.step(Step::Preflight).await.expect_err("refused").to_string();
    for wanted in [
        "GRANT SET ON PARAMETER session_replication_role",
        "schema webhost_fleet",
        "is not a member of the owner of public.api_keys, ",
    ] {
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

/// A target whose agent says how little is free.
struct Cramped {
    config: tokio_postgres::Config,
    free: u64,
}

#[tonic::async_trait]
impl Transport for Cramped {
    async fn dial(&self) -> Result<Dialled, String> {
        let tokio_postgres::config::Host::Unix(dir) = &self.config.get_hosts()[0] else {
            return Err("a unix socket".into());
        };
        let socket =
            dir.join(format!(".s.PGSQL.{}", self.config.get_ports().first().unwrap_or(&5432)));
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| e.to_string())?;
        Ok(Dialled {
            stream: Box::new(stream),
            user: self.config.get_user().expect("a user").into(),
            database: self.config.get_dbname().expect("a database").into(),
            disk_free_bytes: Some(self.free),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_on_the_target_is_found_before_the_start() {
    let world = world(schema::WEBHOST, 500).await;
    let mut run = a_move(&world);
    let cramped = |free| {
        let config = world.mover(&world.target);
        Endpoint::Through(Arc::new(Cramped { config, free }))
    };
    run.target = cramped(1_000);
    let error = run.step(Step::Preflight).await.expect_err("refused").to_string();
    assert!(error.contains("the target's disk has 1 MiB free"), "{error}");
    run.target = cramped(1 << 40);
    let Done::Preflight(found) = run.step(Step::Preflight).await.expect("passes") else {
        panic!("another answer")
    };
    assert!(!found.warnings().iter().any(|warning| warning.contains("disk")), "{found:?}");
    steps(&run, &[Step::Guard]).await;
    // What its own copy has taken does not stand against a move.
    run.target = cramped(1_000);
    steps(&run, &[Step::Preflight]).await;
}

/// Undone at any time before the switch, a move leaves no object and no row.
#[tokio::test(flavor = "multi_thread")]
async fn undo_leaves_everything_as_it_was() {
    let world = world(schema::WEBHOST, 3_000).await;
    let before = (objects(&world.source).await, objects(&world.target).await);
    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let nothing = table_hashes(&world.target, world.tenant).await.expect("hashes");
    let writers = Writers::start(&world, &LEVELS[..3], Duration::from_millis(5), 1);
    for stop in ["after_guard", "mid_copy", "between_parts", "mid_drain", "after_take", "none"] {
        let mut run = a_move(&world);
        run.fail = Fail::stop_at(stop);
        for step in [Step::Guard, Step::Copy, Step::Drain, Step::CutOver] {
            if stop == "none" && step == Step::CutOver || run.step(step).await.is_err() {
                break;
            }
        }
        steps(&run, &[Step::Undo, Step::Undo]).await;
        let now = (objects(&world.source).await, objects(&world.target).await);
        assert_eq!(before, now, "after {stop}");
        assert_eq!(nothing, table_hashes(&world.target, world.tenant).await.expect("hashes"));
    }
    let mut run = a_move(&world);
    run.fail = Fail::stop_at("mid_undo");
    steps(&run, &[Step::Guard, Step::Copy]).await;
    assert!(run.step(Step::Undo).await.is_err());
    steps(&run, &[Step::Undo]).await;
    assert_eq!(before, (objects(&world.source).await, objects(&world.target).await));
    assert_eq!(foreigner, table_hashes(&world.target, world.foreigner).await.expect("hashes"));
    let ledger = writers.stop().await.expect("writers");
    assert_eq!(ledger.refused, 0, "the source was active all the time");
    assert_eq!(check(&world, &ledger, 0).await.expect("check"), Findings::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_row_is_found_and_named() {
    let world = world(schema::WEBHOST, 1_000).await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy, Step::Verify]).await;
    for (damage, table) in [
        (
            "update gps_positions set speed = speed + 1 where id = (select id from gps_positions where customer_id = $ limit 1)",
            "gps_positions",
        ),
        (
            "delete from usage_metrics where id = (select id from usage_metrics where customer_id = $ limit 1)",
            "usage_metrics",
        ),
        (
            "update geofences set boundary = st_translate(boundary, 1e-9, 0) where customer_id = $",
            "geofences",
        ),
    ] {
        let damage = damage.replace('$', &format!("'{}'", world.tenant));
        sql(&world.target, &format!("set session_replication_role = replica; {damage}")).await;
        let error = run.step(Step::Verify).await.expect_err("found");
        assert_eq!(error.kind(), Kind::Refused);
        let said = error.to_string();
        assert!(said.contains(table) && said.contains("key "), "{said}");
        sql(&world.target, &format!("set session_replication_role = replica; delete from {table} where customer_id = '{}'", world.tenant)).await;
        sql(&world.target, &format!("delete from webhost_fleet.copied using generate_series(0, 99) n where tab = n and tab in (select tab from webhost_fleet.copied where part like '%{table}%')")).await;
        steps(&run, &[Step::Copy, Step::Verify]).await;
    }
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));
}

/// Orders out of order, of old epochs, and of a tenant who is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn steps_know_their_place() {
    let world = world(schema::WEBHOST, 200).await;
    let run = a_move(&world);
    for step in [Step::Copy, Step::Drain, Step::Verify, Step::CutOver, Step::Finish] {
        let error = run.step(step).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Refused, "{step}: {error}");
    }
    steps(&run, &[Step::Guard]).await;
    assert!(run.step(Step::CutOver).await.expect_err("refused").to_string().contains("copy"));
    // Another move of the same tenant.
    let error = a_move(&world).step(Step::Preflight).await.expect_err("refused").to_string();
    assert!(error.contains("finish or undo it first"), "{error}");
    steps(&run, &[Step::Copy, Step::Drain]).await;
    // A table that changes under the move.
    sql(&world.source, "alter table drivers add column more int").await;
    sql(&world.target, "alter table drivers add column more int").await;
    assert!(
        run.step(Step::CutOver).await.expect_err("refused").to_string().contains("public.drivers")
    );
    sql(&world.source, "alter table drivers drop column more").await;
    sql(&world.target, "alter table drivers drop column more").await;
    // A stray write on the target is refused.
    let stray = format!(
        "insert into customers (id, name, slug, email) values ('{}', '', '', '')",
        world.tenant
    );
    let (client, _driver) =
        webhost_tests::writers::session(&world.target).await.expect("a session");
    let error = client.batch_execute(&stray).await.expect_err("refused");
    assert_eq!(error.code().map(|code| code.code()), Some("MG001"));
    cut_over(&run).await;
    for step in [Step::Undo, Step::Copy, Step::Guard] {
        let error = run.step(step).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Refused, "{step}: {error}");
    }
    // The writer of the old place is told the new one.
    let (client, _driver) =
        webhost_tests::writers::session(&world.source).await.expect("a session");
    let error = client
        .batch_execute(&format!("delete from drivers where customer_id = '{}'", world.tenant))
        .await
        .expect_err("refused");
    let told = error.as_db_error().expect("an answer");
    assert_eq!((told.code().code(), told.detail()), ("MG001", Some("node-b.example")));
    steps(&run, &[Step::Finish]).await;
    assert!(
        client
            .batch_execute(&format!("delete from drivers where customer_id = '{}'", world.tenant))
            .await
            .is_err()
    );
    // An order with an older epoch, and one of a move that is long over.
    let mut old = a_move(&world);
    old.spec.epoch = Epoch(1);
    let error = old.step(Step::Guard).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    // Both active: nothing is touched.
    sql(&world.source, "update webhost_fleet.fence set state = 'active'").await;
    let mut twice = a_move(&world);
    twice.spec.move_id = MoveId::generate();
    twice.spec.epoch = Epoch(9);
    let error = twice.step(Step::Guard).await.expect_err("refused");
    assert!(matches!(error, MoveError::TwoActive { .. }), "{error}");
}

/// Sequences never fall behind what either side has given out.
#[tokio::test(flavor = "multi_thread")]
async fn sequences_go_on_above_both_sides() {
    let world = world(schema::WEBHOST, 100).await;
    let run = a_move(&world);
    sql(&world.source, "select setval('infrastructure_events_seq_seq', 5000)").await;
    sql(&world.target, "select setval('sync_updates_id_seq', 9000)").await;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    cut_over(&run).await;
    let next = |name: &str| format!("select nextval('{name}')");
    assert!(number(&world.target, &next("infrastructure_events_seq_seq")).await > 5000);
    assert!(number(&world.target, &next("sync_updates_id_seq")).await > 9000);
}
