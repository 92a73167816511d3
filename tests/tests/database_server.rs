//! What the agent says of the tenants' database server: cache, locks, old
//! transactions, receivers of its write-ahead log, slow statements, archive;
//! and that none of it reads a time series.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use webhost_agent::collect::postgres::PostgresSource;
use webhost_agent::collect::source::{Outcome, Source};
use webhost_agent::config::{Config, Postgres};
use webhost_coordinator::embedded::{Options, binaries};
use webhost_proto::wire::DatabaseSample;
use webhost_tests::harness::cluster::{Cluster, Session};
use webhost_tests::schema;

/// However slow the machine is: what was waited for comes, or never will.
const LIMIT: Duration = Duration::from_secs(60);

async fn node(dir: &TempDir, options: Options) -> (Cluster, Postgres) {
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let cluster =
        Cluster::start(&dir.path().join("pg"), options, schema::WEBHOST).await.expect("a cluster");
    let text = format!(
        "[coordinator]\naddress = \"c:1\"\n[postgres]\nurl = \"host={} user={} dbname={}\"\n",
        cluster.socket_dir().display(),
        schema::AGENT,
        schema::DATABASE
    );
    let config = Config::from_parts("agent.toml".as_ref(), &text, []).expect("loads");
    (cluster, config.postgres.expect("a section"))
}

async fn read(source: &mut PostgresSource) -> DatabaseSample {
    match source.read().await {
        Outcome::Good(reading) => reading.server.expect("the server was read").sample,
        other => panic!("not good: {other:?}"),
    }
}

/// A new source each time, whose first look is now.
async fn until(config: &Postgres, what: &str, wanted: impl Fn(&DatabaseSample) -> bool) {
    let work = async {
        loop {
            let sample = read(&mut PostgresSource::new(config.clone(), false)).await;
            if wanted(&sample) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn who_waits_for_a_lock_and_how_old_the_oldest_transaction_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, config) = node(&dir, Options::throwaway()).await;
    let mut source = PostgresSource::new(config.clone(), false);
    let sample = read(&mut source).await;
    assert_eq!((sample.waiting_locks, sample.slow_statements), (0, None));
    assert_eq!((sample.archiving, sample.standbys.len()), (None, 0));

    let holder = cluster.session(schema::APP).await.expect("connects");
    holder.batch_execute("begin; select pg_advisory_xact_lock(7)").await.expect("locks");
    let waiting = cluster.session(schema::APP).await.expect("connects");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { waiting.batch_execute("select pg_advisory_lock(7)").await });
    until(&config, "a session that waits", |sample| sample.waiting_locks == 1).await;
    // However old it is by now, in a second more it is older than a second.
    let old = |sample: &DatabaseSample| sample.oldest_transaction_us > 1_000_000;
    until(&config, "a transaction of a second", old).await;
    holder.batch_execute("rollback").await.expect("lets go");
    tasks.join_next().await.expect("a task").expect("no panic").expect("gets the lock");
    until(&config, "nobody waits", |sample| sample.waiting_locks == 0).await;
}

#[tokio::test]
async fn the_cache_and_the_archive_are_counted_from_the_first_look() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::throwaway().with("archive_mode", "on");
    let (cluster, config) = node(&dir, options).await;
    let superuser = cluster.inspect().await.expect("connects");
    let archive = async |command: &str| {
        let set = format!("alter system set archive_command = '{command}'");
        superuser.batch_execute(&set).await.expect("is set");
        superuser.batch_execute("select pg_reload_conf()").await.expect("is read");
        // Something to archive.
        superuser.batch_execute("select pg_logical_emit_message(true, '', 'x')").await.expect("w");
        superuser.batch_execute("select pg_switch_wal()").await.expect("switches");
    };
    let mut source = PostgresSource::new(config.clone(), false);
    let first = read(&mut source).await;
    assert_eq!((first.blocks_hit, first.blocks_read), (0, 0), "what was before is not ours");

    archive("true").await;
    until(&config, "an archived segment", |sample| {
        sample.archiving.is_some_and(|a| a.working && a.age_us.is_some())
    })
    .await;
    archive("false").await;
    until(&config, "a failed one", |sample| sample.archiving.is_some_and(|a| !a.working)).await;

    // The same source, ten seconds later by its clock.
    assert_eq!(read(&mut source).await, first, "not yet");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    let then = read(&mut source).await;
    assert!(then.blocks_hit > 0, "{then:?}");
    assert!(then.archiving.is_some_and(|a| !a.working && a.failures > 0), "{then:?}");
}

/// A receiver that only keeps the log, as one for backups does.
struct Receiver(Child);

impl Receiver {
    fn start(cluster: &Cluster, dir: &Path) -> Self {
        std::fs::create_dir(dir).expect("a directory");
        let child = Command::new(binaries().expect("PostgreSQL").join("pg_receivewal"))
            .arg("-D")
            .arg(dir)
            .arg("-d")
            .arg(format!(
                "host={} user=postgres application_name=backup-1",
                cluster.socket_dir().display()
            ))
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        Self(child)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Gone already, or killed and reaped.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test]
async fn a_receiver_of_the_log_and_a_slow_statement_are_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::throwaway().with("shared_preload_libraries", "pg_stat_statements");
    let (cluster, config) = node(&dir, options).await;
    let superuser = cluster.inspect().await.expect("connects");
    superuser
        .batch_execute(
            "create schema tools; grant usage on schema tools to public;
             create extension pg_stat_statements schema tools",
        )
        .await
        .expect("the extension");
    let app = cluster.session(schema::APP).await.expect("connects");
    app.batch_execute("select pg_sleep(1.1)").await.expect("sleeps");
    until(&config, "a slow statement", |sample| sample.slow_statements >= Some(1)).await;

    let receiver = Receiver::start(&cluster, &dir.path().join("wal"));
    until(&config, "a receiver", |sample| {
        sample.standbys.iter().any(|s| s.name == "backup-1" && s.state == "streaming")
    })
    .await;
    drop(receiver);
    until(&config, "no receiver", |sample| sample.standbys.is_empty()).await;
}

/// Sequential scans of each table of the tenants, once nobody of ours is left
/// whose scans are not told yet.
async fn scans(superuser: &Session) -> Vec<(String, i64)> {
    let ours = "select count(*) from pg_stat_activity where application_name = 'webhost-agent'";
    let work = async {
        loop {
            let left: i64 = superuser.query_one(ours, &[]).await.expect("reads").get(0);
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, work).await.expect("the agent's connection ends");
    superuser.batch_execute("select pg_stat_force_next_flush()").await.expect("flushes");
    let tables = "select relname::text, seq_scan from pg_stat_user_tables order by relname";
    let rows = superuser.query(tables, &[]).await.expect("reads");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn rounds_and_surveys_scan_no_time_series() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, config) = node(&dir, Options::throwaway()).await;
    let app = cluster.session(schema::APP).await.expect("connects");
    app.batch_execute(
        "insert into customers (id, name, slug, email)
         select gen_random_uuid(), 'T' || n, 't' || n, 't' || n || '@example.org'
         from generate_series(1, 3) n;
         insert into vehicles (customer_id, name, plate, device_id)
         select c.id, 'v', 'p' || c.slug, c.slug from customers c;
         insert into gps_positions
             (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location)
         select gen_random_uuid(), v.customer_id, v.id, now() - g * interval '1 second',
                1, 2, 'SRID=4326;POINT(2 1)'
         from vehicles v, generate_series(1, 40000) g",
    )
    .await
    .expect("fills");
    let superuser = cluster.inspect().await.expect("connects");
    superuser.batch_execute("analyze").await.expect("analyses");
    let before = scans(&superuser).await;
    // Each source surveys, counts points and looks at the server.
    for _ in 0..3 {
        let mut source = PostgresSource::new(config.clone(), true);
        for _ in 0..3 {
            read(&mut source).await;
        }
    }
    let after = scans(&superuser).await;
    let of = |scans: &[(String, i64)], name: &str| {
        scans.iter().find(|(table, _)| table == name).map(|(_, scans)| *scans)
    };
    assert_eq!(of(&after, "gps_positions"), of(&before, "gps_positions"), "{before:?} {after:?}");
    assert!(of(&after, "gps_positions").is_some(), "the time series is there");
    // That the measure sees our scans at all: the tenants' own table is read
    // whole in every round.
    assert!(of(&after, "customers") > of(&before, "customers"), "{before:?} {after:?}");
}
