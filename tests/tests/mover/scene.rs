//! The scene that all these tests play in.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use webhost_agent::mover::catalog::Rules;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::error::{MoveError, Side};
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::run::{Run, Tuning};
use webhost_agent::mover::spec::{CutOver, Done, Progress, Secret, Spec, Step};
use webhost_coordinator::embedded::Options;
use webhost_proto::ids::{Epoch, MoveId, NodeId, TenantId};
use webhost_tests::schema;
use webhost_tests::writers::{Clusters, Isolation, World, session};

pub(crate) const LEVELS: [Isolation; 6] = [
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::ReadCommitted,
];

/// One pair of clusters for all tests of this process; the kernel ends them
/// with it.
fn clusters() -> &'static Clusters {
    static CLUSTERS: OnceLock<Clusters> = OnceLock::new();
    CLUSTERS.get_or_init(|| {
        let options = Options::throwaway()
            .with("max_connections", "200")
            .with("max_prepared_transactions", "5")
            .with("deadlock_timeout", "20ms");
        // TimescaleDB works only where the server loads it.
        let options = if schema::timescaledb_is_installed() {
            options.with("shared_preload_libraries", "timescaledb")
        } else {
            options
        };
        Clusters::start(&options).expect("PostgreSQL starts")
    })
}

pub(crate) async fn world(schema: &str, points: u32) -> World {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("move_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let clusters = tokio::task::spawn_blocking(clusters).await.expect("a thread");
    World::create(clusters, &name, schema, points).await.expect("a world")
}

/// Whether the clusters have TimescaleDB, loaded and ready to be created.
pub(crate) async fn with_timescaledb() -> bool {
    let clusters = tokio::task::spawn_blocking(clusters).await.expect("a thread");
    let (client, _driver) = session(clusters.source()).await.expect("a session");
    client
        .query_one(
            "select exists (select from pg_available_extensions where name = 'timescaledb') \
             and current_setting('shared_preload_libraries') like '%timescaledb%'",
            &[],
        )
        .await
        .expect("a row")
        .get(0)
}

pub(crate) fn a_move(world: &World) -> Run {
    Run {
        spec: Spec {
            move_id: MoveId::generate(),
            tenant: TenantId(world.tenant),
            epoch: Epoch(1),
            source_node: NodeId::generate(),
            target_node: NodeId::generate(),
            target_tunnel: String::new(),
            ticket: Secret(Vec::new()),
            target_place: "node-b.example".into(),
            source_place: "node-a.example".into(),
            max_rows_per_second: 0,
            target_http: false,
            tenant_host: String::new(),
            target_dedicated: false,
            retain_from_us: 0,
            way_back_until_us: 0,
            old_copy_gone: false,
        },
        rules: Rules::default(),
        source: Endpoint::Local(Box::new(world.mover(&world.source))),
        target: Endpoint::Local(Box::new(world.mover(&world.target))),
        here: Side::Source,
        alone: false,
        tuning: Tuning { copy_part_pages: 64, ..Tuning::default() },
        archives: std::env::temp_dir().join("webhost-no-archives"),
        fail: Fail::Off,
        requests: std::sync::Arc::new(webhost_agent::mover::requests::Nobody),
        progress: watch::channel(Progress::default()).0,
    }
}

pub(crate) async fn steps(run: &Run, steps: &[Step]) {
    for step in steps {
        run.step(*step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    }
}

/// Switches; where writers were in the way, once more, as the coordinator asks.
pub(crate) async fn cut_over(run: &Run) -> CutOver {
    for _ in 0..10 {
        match run.step(Step::CutOver).await {
            Ok(Done::CutOver(result)) => return result,
            Err(MoveError::Blocked { what, blockers }) => eprintln!("{what}: {blockers}"),
            other => panic!("cut over: {other:?}"),
        }
    }
    panic!("cut over: writers were in the way ten times")
}

pub(crate) async fn states(world: &World) -> (String, String) {
    let mut states = Vec::new();
    for config in [&world.source, &world.target] {
        let (client, _driver) = session(config).await.expect("a session");
        let row = client
            .query_opt(
                "select state from webhost_fleet.fence where customer_id = $1",
                &[&world.tenant],
            )
            .await
            .expect("a fence");
        states.push(row.map_or("none".to_owned(), |row| row.get(0)));
    }
    let target = states.pop().expect("two");
    (states.pop().expect("two"), target)
}

/// Runs a string as a superuser.
pub(crate) async fn sql(config: &tokio_postgres::Config, text: &str) {
    let (client, _driver) = session(config).await.expect("a session");
    client.batch_execute(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
}

/// One number from a superuser's query.
pub(crate) async fn number(config: &tokio_postgres::Config, query: &str) -> i64 {
    let (client, _driver) = session(config).await.expect("a session");
    client.query_one(query, &[]).await.expect("a row").get(0)
}

/// Every object of a database that a move could leave behind.
pub(crate) async fn objects(config: &tokio_postgres::Config) -> Vec<String> {
    let (client, _driver) = session(config).await.expect("a session");
    client
        .query(
            "select 'table ' || oid::regclass::text from pg_class where relnamespace not in \
               (select oid from pg_namespace where nspname like 'pg\\_%') \
             union all select 'trigger ' || tgname || ' ' || tgrelid::regclass from pg_trigger where not tgisinternal \
             union all select 'function ' || oid::regprocedure from pg_proc where oid > 16384 \
             union all select 'schema ' || nspname from pg_namespace where nspname not like 'pg\\_%' order by 1",
            &[],
        )
        .await
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect()
}
