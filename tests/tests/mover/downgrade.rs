//! A downgrade: what the target plan does not keep stays behind, is counted
//! before, and archived before it is deleted.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use webhost_agent::archives::{self, Ask};
use webhost_agent::mover::error::{Kind, Side};
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Preflight, Step};
use webhost_agent::mover::{archive, catalog};
use webhost_tests::schema;
use webhost_tests::writers::{World, Writers, session};

use crate::scene::{LEVELS, a_move, cut_over, number, sql, steps, world};

/// Five days before the day on which the writers' positions end.
fn cut(world: &World) -> i64 {
    world.midnight.as_microsecond() - 5 * 86_400_000_000
}

fn a_downgrade(world: &World) -> Run {
    let mut run = a_move(world);
    run.spec.retain_from_us = cut(world);
    run
}

/// The tenant's points are spread over ten days.
async fn spread(world: &World) {
    sql(
        &world.source,
        &format!(
            "with n as (select id, row_number() over () as r from gps_positions where customer_id = '{}') \
             update gps_positions g set recorded_at = timestamptz '{}' - interval '1 minute' * ((n.r * 37) % 14000) \
             from n where n.id = g.id; analyze",
            world.tenant, world.midnight
        ),
    )
    .await;
}

fn counts(world: &World, older: bool) -> String {
    let from = jiff::Timestamp::from_microsecond(cut(world)).expect("a time");
    let sign = if older { "<" } else { ">=" };
    format!(
        "select count(*) from gps_positions where customer_id = '{}' and recorded_at {sign} '{from}'",
        world.tenant
    )
}

/// Key and value of every point within the scope.
async fn points(world: &World, config: &tokio_postgres::Config) -> Vec<String> {
    let from = jiff::Timestamp::from_microsecond(cut(world)).expect("a time");
    let (client, _driver) = session(config).await.expect("a session");
    client
        .query(
            &format!(
                "select g::text from gps_positions g where customer_id = '{}' and recorded_at >= '{from}' order by 1",
                world.tenant
            ),
            &[],
        )
        .await
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

async fn preflight(run: &Run) -> Preflight {
    match run.step(Step::Preflight).await.expect("passes") {
        Done::Preflight(found) => found,
        other => panic!("{other:?}"),
    }
}

async fn downgrades_under_writers(schema: &str) {
    let world = world(schema, 6_000).await;
    spread(&world).await;
    let run = a_downgrade(&world);
    let old = number(&world.source, &counts(&world, true)).await;
    assert!(old > 500, "{old}");
    let found = preflight(&run).await;
    assert_eq!(found.rows_left_behind, old.unsigned_abs(), "{found:#?}");
    assert!(found.warnings().iter().any(|w| w.contains("older than what the target keeps")));

    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(5), 31);
    steps(&run, &[Step::Guard, Step::Copy]).await;
    // Out of the scope, and into it, while the log is drained.
    for (by, than) in [("-", ">="), ("+", "<")] {
        let from = jiff::Timestamp::from_microsecond(cut(&world)).expect("a time");
        sql(
            &world.source,
            &format!(
                "update gps_positions set recorded_at = recorded_at {by} interval '9 days' where id in ( \
                   select id from gps_positions where customer_id = '{}' and altitude = 0 \
                   and recorded_at {than} '{from}' limit 50)",
                world.tenant
            ),
        )
        .await;
        steps(&run, &[Step::Drain]).await;
    }
    steps(&run, &[Step::Verify]).await;
    cut_over(&run).await;
    writers.stop().await.expect("writers");
    // The target has only what is in the scope; the source, which takes no
    // write of the tenant any more, says what that is.
    let (here, there) = (points(&world, &world.source).await, points(&world, &world.target).await);
    // Writers that found the new place have gone on there.
    let missing: Vec<_> = here.iter().filter(|row| !there.contains(row)).collect();
    assert!(missing.len() < 50, "{} of {}", missing.len(), here.len());
    assert!(here.len() > 1_000, "{}", here.len());
    assert!(number(&world.source, &counts(&world, true)).await > 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_stay_behind_under_writers() {
    downgrades_under_writers(schema::WEBHOST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_of_partitions_stay_behind_as_well() {
    downgrades_under_writers(schema::WEBHOST_PARTITIONED).await;
}

/// Without writers after the switch both sides are exactly the scope.
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_exact() {
    let world = world(schema::WEBHOST, 2_000).await;
    spread(&world).await;
    let run = a_downgrade(&world);
    let old = number(&world.source, &counts(&world, true)).await;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    // Every second row that moved leaves the scope, some that stayed come in.
    sql(
        &world.source,
        &format!(
            "update gps_positions set recorded_at = recorded_at - interval '20 days' \
             where customer_id = '{t}' and get_byte(uuid_send(id), 0) % 4 = 0; \
             update gps_positions set recorded_at = recorded_at + interval '20 days' \
             where customer_id = '{t}' and get_byte(uuid_send(id), 1) % 4 = 0; \
             delete from gps_positions where customer_id = '{t}' and get_byte(uuid_send(id), 2) % 8 = 0",
            t = world.tenant
        ),
    )
    .await;
    steps(&run, &[Step::Drain, Step::Verify]).await;
    cut_over(&run).await;
    assert_eq!(points(&world, &world.source).await, points(&world, &world.target).await);
    assert_eq!(number(&world.target, &counts(&world, true)).await, 0);
    let left = number(&world.source, &counts(&world, true)).await;
    let state = tempfile::tempdir().expect("a directory");
    let mut run = run;
    run.archives = state.path().join("archives");
    assert_ne!(left, old);
    // The clean-up archives what stays behind before it deletes it.
    steps(&run, &[Step::Finish, Step::CleanUp, Step::CleanUp]).await;
    assert_eq!(number(&world.source, &counts(&world, true)).await, 0);
    let all = archive::list(&run.archives).expect("a list");
    assert!(
        matches!(&all[..], [one] if one.complete && one.rows() == left.unsigned_abs()),
        "{all:?}"
    );
}

/// Rows that move must not point to rows that stay.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_point_to_what_stays_are_named() {
    let marks = "create table marks (id int primary key, customer_id uuid not null references customers (id), \
                 position_id uuid references gps_positions (id));";
    let world = world(&format!("{}{marks}", schema::WEBHOST), 1_000).await;
    spread(&world).await;
    sql(
        &world.source,
        &format!(
            "insert into marks select row_number() over (), customer_id, id from gps_positions where customer_id = '{}'",
            world.tenant
        ),
    )
    .await;
    let error = a_downgrade(&world).step(Step::Preflight).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Refused);
    let said = error.to_string();
    assert!(
        said.contains("rows of public.marks point (marks_position_id_fkey) to rows of public.gps_positions that stay behind"),
        "{said}"
    );
    // All of it moves: nothing stands against that.
    steps(&a_move(&world), &[Step::Preflight]).await;
    // A row of another tenant's is another matter.
    sql(
        &world.source,
        &format!(
            "update marks set position_id = (select id from gps_positions where customer_id = '{}' limit 1) where id < 4",
            world.neighbour
        ),
    )
    .await;
    let said = a_move(&world).step(Step::Preflight).await.expect_err("refused").to_string();
    assert!(
        said.contains("3 rows of public.marks") && said.contains("not this tenant's"),
        "{said}"
    );
}

/// What is archived comes back as it was, and nothing else does.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_round() {
    let world = world(schema::WEBHOST_PARTITIONED, 3_000).await;
    spread(&world).await;
    let state = tempfile::tempdir().expect("a directory");
    let mut run = a_downgrade(&world);
    run.archives = state.path().join("archives");
    let old = number(&world.source, &counts(&world, true)).await;
    let conn = run.connect(Side::Source).await.expect("a session");
    let tables = catalog::discover(&conn, &run.rules).await.expect("tables").tables;
    archive::write(&run, &conn, &tables).await.expect("writes");
    archive::write(&run, &conn, &tables).await.expect("writes once");

    let all = archive::list(&run.archives).expect("a list");
    let [found] = &all[..] else { panic!("{all:?}") };
    assert!(found.complete && found.rows() == old.unsigned_abs(), "{found:?}");
    let dir = archive::directory(&run.archives, run.spec.move_id);
    for entry in std::fs::read_dir(&dir).expect("files") {
        let mode = entry.expect("a file").metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let mut shown = Vec::new();
    archives::run(state.path(), Ask::List { json: false }, &mut shown).expect("lists");
    let shown = String::from_utf8(shown).expect("text");
    assert!(
        shown.contains(&format!("{old} rows")) && shown.contains("public.gps_positions"),
        "{shown}"
    );

    let hash = "select (coalesce(sum(hashtextextended(g::text, 0)), 0) % 1000000007)::int8 from gps_positions g";
    let before = number(&world.source, hash).await;
    let delete = counts(&world, true).replace("select count(*)", "delete");
    sql(&world.source, &delete).await;
    let mut script = Vec::new();
    archives::run(state.path(), Ask::RestoreSql(run.spec.move_id), &mut script).expect("a script");
    psql(&world.source, state.path(), &script).await;
    assert_eq!(number(&world.source, hash).await, before);
    // Twice changes nothing.
    psql(&world.source, state.path(), &script).await;
    assert_eq!(number(&world.source, hash).await, before);

    // A damaged file is not restored.
    let file = dir.join(&found.tables[0].file);
    let mut bytes = std::fs::read(&file).expect("a file");
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).expect("writes");
    let said = archives::run(state.path(), Ask::RestoreSql(run.spec.move_id), &mut Vec::new())
        .expect_err("refused")
        .to_string();
    assert!(said.contains("SHA-256 differs"), "{said}");
    archives::run(state.path(), Ask::Delete(run.spec.move_id), &mut Vec::new()).expect("deletes");
    assert!(archive::list(&run.archives).expect("a list").is_empty());
    let said = archives::run(state.path(), Ask::Delete(run.spec.move_id), &mut Vec::new())
        .expect_err("gone")
        .to_string();
    assert!(said.contains("there is no archive"), "{said}");
}

async fn psql(config: &tokio_postgres::Config, dir: &std::path::Path, script: &[u8]) {
    let tokio_postgres::config::Host::Unix(host) = &config.get_hosts()[0] else {
        panic!("a socket")
    };
    let file = dir.join("restore.sql");
    std::fs::write(&file, script).expect("writes");
    let output = tokio::process::Command::new("psql")
        .args(["-X", "-q", "-h"])
        .arg(host)
        .args(["-p", &config.get_ports().first().copied().unwrap_or(5432).to_string()])
        .args([
            "-U",
            config.get_user().expect("a user"),
            "-d",
            config.get_dbname().expect("a name"),
        ])
        .arg("-f")
        .arg(&file)
        .output()
        .await
        .expect("psql runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
