//! The agent's view of the tenants' database, on a real one with the WebHost
//! schema, as the role that the agent has there.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use uuid::Uuid;
use webhost_agent::collect::postgres::{PostgresReading, PostgresSource, grants, list};
use webhost_agent::collect::source::{Outcome, Source};
use webhost_agent::config::{Config, Postgres, SecretUrl};
use webhost_coordinator::embedded::Options;
use webhost_proto::ids::TenantId;
use webhost_tests::harness::cluster::Cluster;
use webhost_tests::schema;

const TENANTS: usize = 3;

/// A cluster with tenants t1 to t3; tN has N vehicles and N × 1000 points.
async fn node(dir: &TempDir, sql: &str) -> (Cluster, Postgres) {
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let cluster = start(dir, sql).await;
    let text = format!(
        "[coordinator]\naddress = \"c:1\"\n[postgres]\nurl = \"host={} user={} dbname={}\"\n",
        cluster.socket_dir().display(),
        schema::AGENT,
        schema::DATABASE
    );
    let config = Config::from_parts("agent.toml".as_ref(), &text, []).expect("loads");
    (cluster, config.postgres.expect("a section"))
}

async fn start(dir: &TempDir, sql: &str) -> Cluster {
    Cluster::start(&dir.path().join("pg"), Options::throwaway(), sql).await.expect("a cluster")
}

async fn fill(cluster: &Cluster) -> Vec<Uuid> {
    let app = cluster.session(schema::APP).await.expect("connects");
    app.batch_execute(
        "insert into customers (id, name, slug, email)
         select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
                'Tenant ' || n, 't' || n, 't' || n || '@example.org'
         from generate_series(1, 3) n;
         insert into subscriptions (customer_id, plan_id, status, inserted_at)
         select id, 'hobby', 'cancelled', now() + interval '1 day' from customers
         union all select id, 'starter', 'active', now() from customers;
         insert into vehicles (customer_id, name, plate, device_id)
         select c.id, 'v' || g, 'p' || g, c.slug || g
         from customers c, generate_series(1, right(c.slug, 1)::int) g;
         insert into gps_positions
             (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location)
         select gen_random_uuid(), v.customer_id, v.id, now() - g * interval '1 second',
                1, 2, 'SRID=4326;POINT(2 1)'
         from vehicles v, generate_series(1, 1000) g",
    )
    .await
    .expect("fills");
    let superuser = cluster.inspect().await.expect("connects");
    superuser.batch_execute("analyze").await.expect("analyses");
    let rows = app.query("select id from customers order by id", &[]).await.expect("reads");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn good(source: &mut PostgresSource) -> PostgresReading {
    match source.read().await {
        Outcome::Good(reading) => reading,
        other => panic!("not good: {other:?}"),
    }
}

#[tokio::test]
async fn tenants_storage_vehicles_and_connections() {
    for sql in [schema::WEBHOST, schema::WEBHOST_PARTITIONED] {
        let dir = tempfile::tempdir().expect("a directory");
        let (cluster, config) = node(&dir, sql).await;
        let ids = fill(&cluster).await;

        let mut named = cluster.config(schema::APP);
        named.application_name("tenant:t2");
        let _named = webhost_tests::harness::cluster::connect(&named).await.expect("connects");
        let _shared = cluster.session(schema::APP).await.expect("connects");

        let mut source = PostgresSource::new(config.clone(), false);
        let reading = good(&mut source).await;
        assert_eq!(reading.tenants.len(), TENANTS);
        for (index, id) in ids.iter().enumerate() {
            let tenant = &reading.tenants[&TenantId(*id)];
            let n = index as u64 + 1;
            assert_eq!(tenant.slug, format!("t{n}"));
            assert_eq!(tenant.vehicles, Some(n));
        }
        let storage: Vec<u64> =
            reading.tenants.values().filter_map(|tenant| tenant.storage_bytes).collect();
        assert!(storage[0] > 100_000 && storage[2] > storage[0] * 2, "{storage:?}");
        let inspect = cluster.inspect().await.expect("connects");
        let whole: i64 = inspect
            .query_one(
                "select sum(pg_total_relation_size(oid))::bigint from pg_class
                 where relkind = 'r' and relnamespace = 'public'::regnamespace
                   and (relname in ('customers', 'subscriptions', 'vehicles')
                        or relname like 'gps\\_positions%')",
                &[],
            )
            .await
            .expect("reads")
            .get(0);
        let sum: u64 = storage.iter().sum();
        assert_eq!(sum, u64::try_from(whole).expect("positive"), "the parts add up");
        assert_eq!(reading.connections.named[&TenantId(ids[1])].0, 1);
        assert!(reading.connections.shared.0 >= 1);
        assert!(reading.connections_total >= 3 && reading.connections_max > 10);
        assert!(reading.elsewhere.is_empty());
    }
}

#[tokio::test]
async fn a_fence_that_is_not_active_sends_a_tenant_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, config) = node(&dir, schema::WEBHOST).await;
    let ids = fill(&cluster).await;
    let agent = cluster.session(schema::AGENT).await.expect("connects");
    agent
        .batch_execute(
            "create schema webhost_fleet;
             create table webhost_fleet.fence (customer_id uuid primary key, state text, epoch bigint)",
        )
        .await
        .expect("makes a fence");
    let mut source = PostgresSource::new(config.clone(), false);
    for (state, here) in [("active", 3), ("standby", 2), ("moved", 2), ("active", 3)] {
        agent
            .execute(
                "insert into webhost_fleet.fence values ($1, $2, 1)
                 on conflict (customer_id) do update set state = excluded.state",
                &[&ids[0], &state],
            )
            .await
            .expect("fences");
        let reading = good(&mut source).await;
        assert_eq!(reading.tenants.len(), here, "{state}");
        assert_eq!(reading.elsewhere.contains(&TenantId(ids[0])), here == 2, "{state}");
        let list = list::tenants(&config).await.expect("lists");
        assert_eq!(list.tenants.len(), here, "{state}");
    }
}

#[tokio::test]
async fn the_list_of_tenants_says_what_adoption_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, config) = node(&dir, schema::WEBHOST).await;
    fill(&cluster).await;
    let list = list::tenants(&config).await.expect("lists");
    let seen: Vec<_> = list
        .tenants
        .iter()
        .map(|t| (t.slug.as_str(), t.name.as_str(), t.email.as_str(), t.plan.as_str(), t.vehicles))
        .collect();
    assert_eq!(
        seen,
        [
            ("t1", "Tenant 1", "t1@example.org", "starter", 1),
            ("t2", "Tenant 2", "t2@example.org", "starter", 2),
            ("t3", "Tenant 3", "t3@example.org", "starter", 3),
        ]
    );
    assert!(list.tenants.iter().all(|tenant| tenant.storage_bytes > 0));
}

#[tokio::test]
async fn a_database_that_goes_away_and_comes_back_is_said_and_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, config) = node(&dir, schema::WEBHOST).await;
    fill(&cluster).await;
    let mut source = PostgresSource::new(config, false);
    good(&mut source).await;
    drop(cluster);
    let Outcome::Failed(why) = source.read().await else { panic!("must fail") };
    assert!(why.contains("user=webhost_agent"), "{why}");
    let _cluster = start(&dir, schema::WEBHOST).await;
    assert_eq!(good(&mut source).await.tenants.len(), TENANTS);
}

#[tokio::test]
async fn a_foreign_database_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_cluster, config) = node(&dir, "select").await;
    let mut source = PostgresSource::new(config, false);
    let Outcome::Failed(why) = source.read().await else { panic!("must fail") };
    assert!(why.contains("no table of tenants"), "{why}");
}

#[tokio::test]
async fn large_tables_are_split_by_statistics_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, config) = node(&dir, schema::WEBHOST).await;
    let ids = fill(&cluster).await;
    let app = cluster.session(schema::APP).await.expect("connects");
    app.batch_execute(
        "insert into gps_positions
             (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location)
         select gen_random_uuid(), v.customer_id, v.id, now() - g * interval '1 second',
                1, 2, 'SRID=4326;POINT(2 1)'
         from vehicles v, generate_series(1001, 20000) g",
    )
    .await
    .expect("fills");
    let superuser = cluster.inspect().await.expect("connects");
    superuser.batch_execute("analyze").await.expect("analyses");
    let scans = async || -> i64 {
        // A backend's counters are told when its transaction ends, and late.
        superuser.batch_execute("select pg_stat_force_next_flush()").await.expect("flushes");
        let statement = "select seq_scan from pg_stat_user_tables where relname = 'gps_positions'";
        superuser.query_one(statement, &[]).await.expect("reads").get(0)
    };
    let before = scans().await;
    let mut source = PostgresSource::new(config, false);
    let reading = good(&mut source).await;
    drop(source);
    assert_eq!(scans().await, before, "no scan of the time series");
    let storage: BTreeMap<_, _> = reading
        .tenants
        .iter()
        .map(|(id, tenant)| (*id, tenant.storage_bytes.unwrap_or(0)))
        .collect();
    let (one, three) = (storage[&TenantId(ids[0])], storage[&TenantId(ids[2])]);
    assert!(three > one * 5 / 2 && three < one * 7 / 2, "{one} and {three} are 1 to 3");
}

#[tokio::test]
async fn the_printed_grants_are_what_measuring_needs() {
    for read_only in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let (cluster, config) = node(&dir, schema::WEBHOST).await;
        fill(&cluster).await;
        let role = "measuring-agent";
        let place = config.url.expose().replace(schema::AGENT, role);
        let config = Postgres { url: SecretUrl::new(place), ..config };
        let mut source = PostgresSource::new(config.clone(), false);
        assert!(matches!(source.read().await, Outcome::Failed(_)), "there is no such role yet");

        let sql = grants::sql(role, schema::APP, read_only).expect("prints");
        let superuser = cluster.inspect().await.expect("connects");
        for _ in 0..2 {
            superuser.batch_execute(&sql).await.expect("may be run again");
        }
        let reading = good(&mut source).await;
        assert_eq!(reading.tenants.len(), TENANTS);
        assert!(reading.tenants.values().all(|tenant| tenant.vehicles.is_some_and(|n| n > 0)));
        // Others' connections are seen, which takes pg_monitor.
        let _shared = cluster.session(schema::APP).await.expect("connects");
        assert!(good(&mut source).await.connections.shared.0 >= 1);

        let agent = cluster.session(role).await.expect("connects");
        let written = agent.execute("update customers set name = name", &[]).await;
        assert_eq!(written.is_ok(), !read_only, "{written:?}");
        let replica = agent.batch_execute("set session_replication_role = replica").await;
        assert_eq!(replica.is_ok(), !read_only, "{replica:?}");
    }
}

#[tokio::test]
async fn points_that_tenants_write_are_counted_exactly_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, config) = node(&dir, schema::WEBHOST).await;
    let ids = fill(&cluster).await;
    let app = cluster.session(schema::APP).await.expect("connects");
    app.batch_execute("delete from gps_positions").await.expect("empties");
    let mut source = PostgresSource::new(config, true);
    // The first look sets the mark from which is counted.
    let points = |reading: &PostgresReading| -> Vec<u64> {
        ids.iter().filter_map(|id| reading.tenants[&TenantId(*id)].gps_points).collect()
    };
    assert_eq!(points(&good(&mut source).await), [0, 0, 0]);
    // Tenant 1 writes 41 points, tenant 2 writes 82, tenant 3 none.
    app.batch_execute(
        "insert into gps_positions
             (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location)
         select gen_random_uuid(), v.customer_id, v.id, now() - g * interval '100 milliseconds',
                1, 2, 'SRID=4326;POINT(2 1)'
         from vehicles v join customers c on c.id = v.customer_id, generate_series(1, 41) g
         where c.slug <> 't3'",
    )
    .await
    .expect("writes");
    // A window is counted once, some time after it has closed.
    let truth = [41, 82, 0];
    loop {
        let counted = points(&good(&mut source).await);
        assert!(counted.iter().zip(truth).all(|(seen, all)| *seen <= all), "{counted:?}");
        if counted == truth {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    for _ in 0..3 {
        assert_eq!(points(&good(&mut source).await), truth, "nothing counts twice");
    }
}
