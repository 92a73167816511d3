//! A small fleet with two tenants, one of which will move.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use webhost_coordinator::embedded::{Options, SUPERUSER};
use webhost_tests::chaos::Sides;
use webhost_tests::demo::town::{self, Tenant};
use webhost_tests::demo::watch;
use webhost_tests::harness::api::wait_for;
use webhost_tests::harness::cluster::{Session, connect};
use webhost_tests::harness::fleet::{Fleet, NodeSpec, Spec};
use webhost_tests::load::audit::{fences, reckon};
use webhost_tests::load::client::World;
use webhost_tests::load::device::Load;
use webhost_tests::schema;

pub(crate) const SHARED: &str = "shared-1";
pub(crate) const DEDICATED: &str = "dedicated-1";

const LONG: Duration = Duration::from_secs(120);

/// One fleet at a time: two cores carry no more.
pub(crate) async fn serial() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// A running scene.
pub(crate) struct Scene {
    pub(crate) fleet: Fleet,
    pub(crate) hero: Tenant,
    other: Tenant,
    load: Load,
    sides: Sides,
}

/// An open transaction of the tenant's.
pub(crate) struct Blocker {
    session: Session,
}

impl Blocker {
    /// Ends it; nothing of it was ever committed.
    pub(crate) async fn end(self) {
        self.session.batch_execute("rollback").await.expect("rolls back");
    }
}

impl Scene {
    /// A fleet in which both tenants are active and written to; the one that
    /// will move has `rows` of history, and a copy may reach `max_rate` rows
    /// per second.
    pub(crate) async fn start(rows: usize, max_rate: u64) -> Self {
        let mut shared = NodeSpec::shared(SHARED);
        shared.max_rows_per_second = max_rate;
        let spec = Spec {
            nodes: vec![shared, NodeSpec::dedicated(DEDICATED)],
            postgres: Options::throwaway(),
            report_interval_ms: 500,
            usage_window_s: 10,
            min_gap_s: 1,
            way_back_s: 0,
            keep_old_copy_s: 3600,
            max_customers: 150,
            log: "info",
        };
        let fleet = Fleet::start(spec).await.expect("a fleet");
        let (hero, other) = (Tenant::numbered(0, 3), Tenant::numbered(1, 2));
        for tenant in [&hero, &other] {
            let node = town::move_in(&fleet, tenant, "hobby").await.expect("moves in");
            assert_eq!(node, SHARED, "a small tenant goes to a shared node");
        }
        let load = Load::new(World::new(fleet.api.clone(), fleet.places()).expect("a world"));
        load.import(hero.id, &hero.vehicles, rows).await.expect("imports");
        for tenant in [&hero, &other] {
            load.drive(tenant.id, &tenant.vehicles, Duration::from_millis(50));
        }
        town::all_active(&fleet.api, &[hero.clone(), other.clone()]).await.expect("active");
        let database = |node| fleet.nodes[node].cluster.config(SUPERUSER);
        let sides = Sides::watch([database(SHARED), database(DEDICATED)], hero.id);
        Self { fleet, hero, other, load, sides }
    }

    /// The hero registers vehicles until it has `count`.
    pub(crate) async fn grow(&self, count: usize) {
        let more = self.hero.more_vehicles(count - self.hero.vehicles.len());
        self.load.register(self.hero.id, &more).await.expect("registers");
        self.load.drive(self.hero.id, &more, Duration::from_millis(50));
    }

    /// An administrator forces the move; answers its id.
    pub(crate) async fn begin(&self) -> String {
        let body = json!({ "customer_id": self.hero.id, "target_mode": "single_tenant" });
        let begun = self.fleet.api.post("/api/admin/deployment/migrate", &body).await;
        let begun = begun.expect("a move begins");
        begun["move_id"].as_str().expect("an id").to_owned()
    }

    async fn until(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) {
        let reached = wait_for(what, LONG, async || {
            let row = watch::get(&self.fleet.api, id).await?;
            assert!(!watch::settled(&row), "ended before {what}: {row}");
            Ok(is(&row).then_some(()))
        });
        reached.await.expect("is reached");
    }

    /// Waits until rows are being copied.
    pub(crate) async fn copying(&self, id: &str) {
        self.until(id, "rows being copied", |row| {
            row["state"] == "copy" && row["progress"]["rows_done"].as_u64().is_some_and(|n| n > 0)
        })
        .await;
    }

    /// Waits until the move is in its cut-over.
    pub(crate) async fn cutting_over(&self, id: &str) {
        self.until(id, "the cut-over", |row| row["state"] == "cut_over").await;
    }

    /// Waits until the source's fence row says moved.
    pub(crate) async fn moved(&self) {
        self.side(SHARED, "moved").await;
    }

    /// Waits until the target's fence row says active.
    pub(crate) async fn active_on_target(&self) {
        self.side(DEDICATED, "active").await;
    }

    async fn side(&self, node: &str, state: &str) {
        let session = self.fleet.nodes[node].cluster.inspect().await.expect("connects");
        let reached = wait_for(&format!("{state} on {node}"), LONG, async || {
            let fences = fences(&session).await?;
            Ok((fences.get(&self.hero.id).is_some_and(|found| found == state)).then_some(()))
        })
        .await;
        reached.expect("is reached");
    }

    /// Waits until the hero's devices have written some more.
    pub(crate) async fn still_writes(&self) {
        let count = || {
            let ledger = self.load.world().ledger.snapshot();
            ledger.acknowledged.get(&self.hero.id).map_or(0, Vec::len)
        };
        let before = count();
        let wrote = wait_for("more rows", LONG, async || Ok((count() > before + 20).then_some(())));
        wrote.await.expect("the tenant's devices write on");
    }

    /// Once the move `id` is copying, opens a transaction in which a vehicle of
    /// the hero counts its odometer, and leaves it open: it holds the guard's
    /// lock, so the fence can't close.
    pub(crate) async fn block(&self, id: &str) -> Blocker {
        self.copying(id).await;
        let config = self.fleet.nodes[SHARED].cluster.config(schema::APP);
        let session = connect(&config).await.expect("connects");
        session
            .batch_execute(&format!(
                "begin; update vehicles set odometer_m = odometer_m + 1 where id = '{}'",
                self.hero.vehicles[0].id
            ))
            .await
            .expect("writes");
        Blocker { session }
    }

    /// Restarts the shared node's agent with more in its environment.
    pub(crate) async fn restart_agent_with(&mut self, environment: &[(&str, &str)]) {
        self.fleet.kill_agent(SHARED);
        let node = self.fleet.nodes.get_mut(SHARED).expect("the node");
        node.spec.environment =
            environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.fleet.start_agent(SHARED).expect("starts");
        self.fleet.wait_connected(SHARED).await.expect("connects");
    }

    /// Waits until the move is over, or keeps its old copy only.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let ended = wait_for("the move's end", LONG, async || {
            let row = watch::get(&self.fleet.api, id).await?;
            Ok(watch::settled(&row).then_some(row))
        });
        ended.await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.fleet.logs(40)))
    }

    /// Ends the load and reckons: everything acknowledged is found, the hero
    /// at `home`, and never were two sides active.
    pub(crate) async fn finish(self, home: &str) {
        self.still_writes().await;
        let ledger = self.load.stop(Duration::from_secs(20)).await;
        assert!(ledger.refused.is_empty(), "{:?}", ledger.refused);
        let tenants = [self.hero.clone(), self.other.clone()];
        let homes = town::homes(&self.fleet.api, &tenants).await.expect("homes");
        assert_eq!(homes[&self.hero.id], home);
        assert_eq!(homes[&self.other.id], SHARED, "nobody else was moved");
        let found = reckon(&ledger, &homes, &self.fleet.clusters()).await.expect("reckons");
        assert!(found.clean(), "{found:?}\n{}", self.fleet.logs(40));
        assert_eq!(found.rows_found, found.rows_acknowledged);
        let (looks, both) = self.sides.end().await;
        assert!(looks > 20, "the watcher looked only {looks} times");
        assert_eq!(both, 0, "two active sides were seen");
    }
}
