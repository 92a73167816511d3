//! The stand-in application and its load, on two real databases: what the
//! demo and the end-to-end tests count must be counted right.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use webhost_coordinator::embedded::Options;
use webhost_tests::app;
use webhost_tests::demo::town::{Tenant, set_up};
use webhost_tests::harness::api::{Api, http_client};
use webhost_tests::harness::cluster::Cluster;
use webhost_tests::load::audit::{Reckoning, reckon};
use webhost_tests::load::client::World;
use webhost_tests::load::device::Load;
use webhost_tests::load::ledger::Ledger;
use webhost_tests::schema;

/// What it is, the statement that does it, and the figure that must show it.
type Fault = (&'static str, String, fn(&Reckoning) -> u64);

/// Two nodes with an application each.
struct Pair {
    clusters: BTreeMap<&'static str, Cluster>,
    places: BTreeMap<String, String>,
    stop: CancellationToken,
    apps: TaskTracker,
    _dir: TempDir,
}

impl Pair {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        let (mut clusters, mut places) = (BTreeMap::new(), BTreeMap::new());
        let (stop, apps) = (CancellationToken::new(), TaskTracker::new());
        for name in ["a", "b"] {
            let cluster =
                Cluster::start(&dir.path().join(name), Options::throwaway(), schema::WEBHOST)
                    .await
                    .expect("a cluster");
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            places.insert(
                name.to_owned(),
                format!("http://{}", listener.local_addr().expect("an address")),
            );
            let config = app::Config { socket_dir: cluster.socket_dir(), pool: 4, bare: false };
            let shutdown = stop.clone();
            apps.spawn(async move { app::run(config, listener, shutdown).await });
            clusters.insert(name, cluster);
        }
        apps.close();
        Self { clusters, places, stop, apps, _dir: dir }
    }

    fn load(&self, homes: &[(Uuid, &str)]) -> Load {
        // Homes are set by hand: no coordinator is asked.
        let api = Api::new("http://127.0.0.1:9".into(), String::new()).expect("a client");
        let world = World::new(api, self.places.clone()).expect("a world");
        for (tenant, node) in homes {
            world.set_home(*tenant, node);
        }
        Load::new(world)
    }

    async fn reckon(&self, ledger: &Ledger, homes: &[(Uuid, &str)]) -> Reckoning {
        let homes = homes.iter().map(|(id, node)| (*id, (*node).to_owned())).collect();
        let clusters = self.clusters.iter().map(|(name, c)| ((*name).to_owned(), c)).collect();
        reckon(ledger, &homes, &clusters).await.expect("reckons")
    }

    async fn execute(&self, node: &str, sql: &str) {
        let session = self.clusters[node].inspect().await.expect("connects");
        session.batch_execute(sql).await.expect("executes");
    }

    async fn end(self) {
        self.stop.cancel();
        self.apps.wait().await;
    }
}

/// What a fence of a move does to the application's writes.
fn fence(tenant: Uuid, state: &str, place: &str) -> String {
    format!(
        "create schema if not exists webhost_fleet;
         create table if not exists webhost_fleet.fence
             (customer_id uuid primary key, state text not null);
         insert into webhost_fleet.fence values ('{tenant}', '{state}')
             on conflict (customer_id) do update set state = excluded.state;
         create or replace function refuse() returns trigger language plpgsql as $$
         begin
             if (select state from webhost_fleet.fence where customer_id = new.customer_id)
                 <> 'active' then
                 raise exception 'not here' using errcode = 'MG001', detail = '{place}';
             end if;
             return new;
         end $$;
         create or replace trigger refuse before insert on gps_positions
             for each row execute function refuse();
         grant usage on schema webhost_fleet to webhost_app;
         grant select on webhost_fleet.fence to webhost_app;"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_follow_a_move_and_every_fault_is_found() {
    let pair = Pair::start().await;
    let (mover, other) = (Tenant::numbered(0, 3), Tenant::numbered(1, 2));
    // The moved tenant's rows without positions are on both sides already.
    for node in ["a", "b"] {
        set_up(&pair.places[node], &mover, "hobby").await.expect("set up");
    }
    set_up(&pair.places["a"], &other, "hobby").await.expect("set up");
    pair.execute("b", &fence(mover.id, "standby", "")).await;
    let load = pair.load(&[(mover.id, "a"), (other.id, "a")]);
    load.import(mover.id, &mover.vehicles, 12_000).await.expect("imports");
    for tenant in [&mover, &other] {
        load.drive(tenant.id, &tenant.vehicles, Duration::from_millis(10));
        load.browse(tenant.id, "s".into(), "reports/mileage", Duration::from_millis(50));
    }
    written(&load, 12_200).await;

    // The switch: rows over, the source closed, the target open.
    pair.execute("a", &fence(mover.id, "moved", "b")).await;
    let source = pair.clusters["a"].inspect().await.expect("connects");
    let mine = format!("select * from gps_positions where customer_id = '{}'", mover.id);
    let rows: String = source
        .query_one(&format!("select coalesce(json_agg(r), '[]')::text from ({mine}) r"), &[])
        .await
        .expect("reads")
        .get(0);
    let target = pair.clusters["b"].inspect().await.expect("connects");
    target.batch_execute("set session_replication_role = replica").await.expect("sets");
    target
        .execute(
            "insert into gps_positions
             select * from json_populate_recordset(null::gps_positions, $1::text::json)",
            &[&rows],
        )
        .await
        .expect("copies");
    pair.execute("b", &fence(mover.id, "active", "")).await;
    written(&load, 12_500).await;

    let pages = pages(&pair).await;
    let ledger = load.stop(Duration::from_secs(10)).await;
    assert!(ledger.refused.is_empty(), "{:?}", ledger.refused);
    let homes = [(mover.id, "b"), (other.id, "a")];
    let clean = pair.reckon(&ledger, &homes).await;
    assert!(clean.clean() && clean.rows_found == clean.rows_acknowledged, "{clean:?}");
    assert!(ledger.uploads.iter().any(|upload| upload.tenant == mover.id && upload.node == "b"));
    assert!(
        pages["a"].contains(&format!(
            "webhost_request_duration_seconds_count{{customer_id=\"{}\"}}",
            other.id
        )),
        "{}",
        pages["a"]
    );
    assert!(
        pages["b"].contains(&format!("webhost_gps_points_total{{customer_id=\"{}\"}}", mover.id)),
        "{}",
        pages["b"]
    );

    // Each fault must be found, else the reckoning above says nothing.
    let faults: [Fault; 5] = [
        (
            "a lost row",
            format!("delete from gps_positions where id = '{}'", ledger.acknowledged[&mover.id][7]),
            |found| found.rows_lost,
        ),
        (
            "a doubled row",
            "insert into gps_positions select (r).* from (select r #= hstore('id', gen_random_uuid()::text) as r
             from gps_positions r limit 1) x".into(),
            |found| found.rows_doubled,
        ),
        (
            "a row that nobody sent",
            format!("insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude,
                     longitude, location) values (gen_random_uuid(), '{}', '{}', now(), 1, 1,
                     'SRID=4326;POINT(1 1)')", mover.id, mover.vehicles[0].id),
            |found| found.rows_unknown,
        ),
        (
            "a row of another tenant",
            format!("update gps_positions set customer_id = '{}' where id = '{}'", other.id,
                    ledger.acknowledged[&mover.id][9]),
            |found| found.foreign_rows,
        ),
        (
            "two active sides",
            format!("insert into customers (id, name, slug, email) values ('{}', 'x', 'x', 'x')", other.id),
            |found| found.tenants_without_one_active_side,
        ),
    ];
    for (fault, sql, figure) in faults {
        pair.execute("b", "create extension if not exists hstore").await;
        pair.execute("b", &format!("set session_replication_role = replica; {sql}")).await;
        let found = pair.reckon(&ledger, &homes).await;
        assert!(figure(&found) > 0 && !found.clean(), "{fault}: {found:?}");
    }
    pair.end().await;
}

async fn written(load: &Load, rows: u64) {
    webhost_tests::harness::api::wait_for("rows", Duration::from_secs(60), async || {
        Ok((load.world().ledger.rows() >= rows).then_some(()))
    })
    .await
    .expect("rows are written");
}

async fn pages(pair: &Pair) -> BTreeMap<String, String> {
    let client = http_client().expect("a client");
    let mut pages = BTreeMap::new();
    for (name, base) in &pair.places {
        let page = client.get(format!("{base}/metrics")).send().await.expect("answers");
        pages.insert(name.clone(), page.text().await.expect("text"));
    }
    pages
}
