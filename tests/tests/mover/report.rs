//! What a preflight reports, and what the guard step looks at beside it.

use std::time::Duration;

use webhost_agent::mover::catalog::Mixed;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::error::{Kind, MoveError};
use webhost_agent::mover::report::Topic;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Level, Preflight, Step, VerdictKind};
use webhost_tests::schema;
use webhost_tests::writers::{World, session};

use crate::scene::{a_move, cut_over, number, objects, sql, steps, world};
use crate::under_writers::moves_with_writers;

async fn report(world: &World) -> Preflight {
    report_of(&a_move(world)).await
}

pub(crate) async fn report_of(run: &Run) -> Preflight {
    match run.step(Step::Preflight).await {
        Ok(Done::Preflight(found)) => found,
        Err(MoveError::Preflight(found)) => *found,
        other => panic!("{other:?}"),
    }
}

/// Level, topic, and words of a line.
pub(crate) fn has(found: &Preflight, level: Level, topic: Topic, words: &str) -> bool {
    found.findings.iter().any(|f| f.level == level && f.topic == topic && f.line().contains(words))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_names_everything_with_the_way_out() {
    let world = world(schema::WEBHOST, 200).await;
    let found = report(&world).await;
    assert!(!found.refuses(), "{found:#?}");
    for (topic, words) in [
        (Topic::Servers, "PostgreSQL 15 on both sides"),
        (Topic::Servers, "connections left"),
        (Topic::Tables, "schema_migrations is the same on both sides: 3 migrations"),
        (Topic::Rows, "rows and"),
    ] {
        assert!(has(&found, Level::Fact, topic, words), "{words}: {found:#?}");
    }
    assert!(found.duration_estimated_us > 0 && found.disk_needed_bytes > 0, "{found:?}");

    sql(
        &world.source,
        "insert into schema_migrations (version) values (20260101000000), (20260201000000); \
         create function odd() returns trigger language plpgsql as 'begin return new; end'; \
         create trigger odd before insert on drivers for each row execute function odd(); \
         alter table drivers enable always trigger odd; \
         create unlogged table cache_entries (id int primary key); \
         create table oban_jobs (id bigint primary key, args jsonb)",
    )
    .await;
    // Roles and such grants belong to the whole cluster, which other tests use.
    sql(
        &world.target,
        "insert into schema_migrations (version) values (20260301000000); \
         create role half_granted login in role webhost_app, pg_monitor; \
         do $$ begin execute format('grant create, connect, temporary on database %I \
           to half_granted', current_database()); end $$",
    )
    .await;
    let mut run = a_move(&world);
    let login = world.target.clone().user("half_granted").clone();
    run.target = Endpoint::Local(Box::new(login));
    let found = report_of(&run).await;
    for (topic, words) in [
        (
            Topic::Tables,
            "2 migrations of schema_migrations ran only on the source (20260101000000, 20260201000000): \
             run the application's migrations",
        ),
        (
            Topic::Tables,
            "1 migrations of schema_migrations ran only on the target (20260301000000)",
        ),
        (Topic::Tables, "public.drivers can't move: its trigger odd fires for replicated rows too"),
        (
            Topic::Privileges,
            "there a superuser runs GRANT SET ON PARAMETER session_replication_role TO \"half_granted\";",
        ),
    ] {
        assert!(has(&found, Level::Problem, topic, words), "{words}: {found:#?}");
    }
    let of = |table: &str| found.tables.iter().find(|v| v.table == table).expect("listed");
    for table in ["public.oban_jobs", "public.cache_entries", "public.schema_migrations"] {
        assert_eq!(of(table).verdict, VerdictKind::Ignore, "{table}");
    }
    assert!(of("public.oban_jobs").reason.contains("job queue"));
    assert!(of("public.geofences").reason.contains("computed there: area_m2"));
    assert_eq!(found.findings[0].level, Level::Problem, "problems come first");
}

/// Forced row level security hides rows from a role that is no superuser.
#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_is_told() {
    let world = world(schema::WEBHOST, 100).await;
    sql(&world.source, "alter table drivers enable row level security").await;
    assert!(!report(&world).await.refuses(), "the owner's members see all rows");
    sql(&world.source, "alter table drivers force row level security").await;
    let found = report(&world).await;
    assert!(
        has(&found, Level::Problem, Topic::Tables, "row level security hides rows"),
        "{found:#?}"
    );
}

/// A stand-in for the schedulers' catalogs: neither extension is in Debian.
const JOBS: &str = "
create schema cron;
create table cron.job (jobid bigint primary key, command text, database text, active boolean);
create function cron.alter_job(job_id bigint, schedule text default null, command text default null,
    database text default null, username text default null, active boolean default null)
    returns void language sql as 'update cron.job j set active = $6 where j.jobid = $1';
insert into cron.job select 1, 'call retention()', current_database(), true
    union all select 2, 'call report()', current_database(), false
    union all select 3, 'elsewhere', 'another', true;
create schema timescaledb_information;
create table timescaledb_information.jobs (job_id int primary key, proc_schema name, proc_name name,
    hypertable_name name, scheduled boolean);
create function public.alter_job(job_id int, scheduled boolean) returns void language sql
    as 'update timescaledb_information.jobs j set scheduled = $2 where j.job_id = $1';
insert into timescaledb_information.jobs values
    (1000, '_timescaledb_functions', 'policy_retention', 'gps_positions', true),
    (1001, '_timescaledb_functions', 'policy_telemetry', null, true),
    (1002, 'public', 'thin_out', null, true);
grant usage on schema cron, timescaledb_information to public;
grant all on all tables in schema cron, timescaledb_information to public;
";

async fn running(config: &tokio_postgres::Config) -> String {
    let (client, _driver) = session(config).await.expect("a session");
    client
        .query_one(
            "select (select string_agg(jobid::text, ' ' order by jobid) from cron.job where active) || ' ' || \
             (select string_agg(job_id::text, ' ' order by job_id) from timescaledb_information.jobs where scheduled)",
            &[],
        )
        .await
        .expect("a row")
        .get(0)
}

/// Paused by the guards, and running again however the move ends.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_paused_and_surely_resumed() {
    let world = world(schema::WEBHOST, 100).await;
    sql(&world.source, JOBS).await;
    sql(&world.target, JOBS).await;
    let (before, paused) = ("1 3 1000 1001 1002", "3 1001");
    let found = report(&world).await;
    for words in ["job 1 of pg_cron on the source (call retention())", "job 1000 of TimescaleDB"] {
        assert!(has(&found, Level::Fact, Topic::Jobs, words), "{words}: {found:#?}");
    }
    // Twice, as after a crash between the pause and the triggers.
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Guard]).await;
    assert_eq!(running(&world.source).await, paused);
    assert_eq!(running(&world.target).await, paused);
    steps(&run, &[Step::Undo]).await;
    assert_eq!(running(&world.source).await, before);
    assert_eq!(running(&world.target).await, before);

    // Another tenant's move keeps the jobs quiet until it is over too.
    let mut other = a_move(&world);
    other.spec.tenant = webhost_proto::ids::TenantId(world.neighbour);
    let run = a_move(&world);
    steps(&run, &[Step::Guard]).await;
    steps(&other, &[Step::Guard]).await;
    steps(&run, &[Step::Copy]).await;
    cut_over(&run).await;
    steps(&run, &[Step::Finish]).await;
    assert_eq!(running(&world.source).await, paused);
    steps(&other, &[Step::Undo]).await;
    assert_eq!(running(&world.source).await, before);
    assert_eq!(running(&world.target).await, before);
}

/// Two moves that end together don't leave the jobs to each other.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_two_moves_that_end_together_resumes_the_jobs() {
    let world = world(schema::WEBHOST, 100).await;
    sql(&world.target, JOBS).await;
    let before = running(&world.target).await;
    let run = a_move(&world);
    let mut other = a_move(&world);
    other.spec.tenant = webhost_proto::ids::TenantId(world.neighbour);
    steps(&run, &[Step::Guard]).await;
    steps(&other, &[Step::Guard]).await;
    // Neither can write down what it let go of before both want to.
    let (holder, _holds) = session(&world.target).await.expect("a session");
    holder
        .batch_execute("begin; select 1 from webhost_fleet.moves for update")
        .await
        .expect("locks");
    let both = "select count(*) from pg_stat_activity \
         where wait_event_type = 'Lock' and application_name like 'webhost-mover%'";
    let watch = async {
        while number(&world.target, both).await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        holder.batch_execute("commit").await.expect("lets go");
    };
    let ends = futures_util::future::join(run.step(Step::Undo), other.step(Step::Undo));
    let ((one, two), ()) = tokio::join!(ends, watch);
    one.expect("undone");
    two.expect("undone");
    assert_eq!(running(&world.target).await, before);
}

/// Statements over several tenants are found while the guards go in.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_mix_tenants_are_found() {
    let world = world(schema::WEBHOST, 100).await;
    let before = objects(&world.source).await;
    let mut writer = world.source.clone();
    writer.user(schema::APP);
    let (client, _driver) = session(&writer).await.expect("a session");
    let mut run = a_move(&world);
    run.rules.watch_statements_ms = 1_500;
    run.rules.mixed_statements = Mixed::Refuse;
    let write = async {
        loop {
            client
                .batch_execute("update vehicles set odometer_m = odometer_m + 1")
                .await
                .expect("writes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let error = tokio::select! {
        outcome = run.step(Step::Guard) => outcome.expect_err("refused"),
        () = write => panic!("never ends"),
    };
    assert_eq!(error.kind(), Kind::Refused);
    let said = error.to_string();
    assert!(
        said.contains("UPDATE public.vehicles") && said.contains("of others at once"),
        "{said}"
    );
    steps(&run, &[Step::Undo]).await;
    assert_eq!(before, objects(&world.source).await);

    // One tenant a statement is nothing to say about; and a warning lets pass.
    let mut run = a_move(&world);
    run.rules.watch_statements_ms = 300;
    run.rules.mixed_statements = Mixed::Refuse;
    steps(&run, &[Step::Guard, Step::Undo]).await;
    assert_eq!(before, objects(&world.source).await);

    // What lets pass is told all the same, to whoever asked for the step.
    let mut run = a_move(&world);
    run.rules.watch_statements_ms = 1_500;
    run.rules.mixed_statements = Mixed::Warn;
    let write = async {
        loop {
            client
                .batch_execute("update vehicles set odometer_m = odometer_m + 1")
                .await
                .expect("writes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        outcome = run.step(Step::Guard) => outcome.expect("passes"),
        () = write => panic!("never ends"),
    };
    let Done::Guard(findings) = &done else { panic!("{done:?}") };
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.level, finding.topic), (Level::Warning, Topic::Statements));
    assert!(finding.text.contains("UPDATE public.vehicles"), "{}", finding.text);
    let told = done.to_wire(Step::Guard).result;
    let Some(webhost_proto::wire::move_step_done::Result::Guard(told)) = told else {
        panic!("{told:?}")
    };
    assert_eq!(told.findings.len(), 1);
    steps(&run, &[Step::Undo]).await;
}

/// By range, then by hash.
const TWO_LEVELS: &str = "
alter table gps_positions rename to gps_positions_plain;
create table gps_positions (
    like gps_positions_plain including defaults,
    primary key (id, recorded_at),
    foreign key (customer_id) references customers (id),
    foreign key (vehicle_id) references vehicles (id)
) partition by range (recorded_at);
drop table gps_positions_plain;
create table gps_old partition of gps_positions for values from (minvalue) to (now() - interval '4 days')
    partition by hash (id);
create table gps_new partition of gps_positions default partition by hash (id);
create table gps_old_0 partition of gps_old for values with (modulus 2, remainder 0);
create table gps_old_1 partition of gps_old for values with (modulus 2, remainder 1);
create table gps_new_0 partition of gps_new for values with (modulus 2, remainder 0);
create table gps_new_1 partition of gps_new for values with (modulus 2, remainder 1);
create index on gps_positions (customer_id, recorded_at desc);
";

#[tokio::test(flavor = "multi_thread")]
async fn partitions_at_two_levels_move_under_writers() {
    let schema = format!("{}{TWO_LEVELS}", schema::WEBHOST);
    let world = world(&schema, 10).await;
    let found = report(&world).await;
    let verdict =
        found.tables.iter().find(|v| v.table == "public.gps_positions").expect("listed").clone();
    assert!(verdict.reason.contains("4 partitions at 2 levels"), "{verdict:?}");
    moves_with_writers(&schema).await;
}
