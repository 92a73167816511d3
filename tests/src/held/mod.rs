//! One tenant behind nginx and a hold point, and clients that notice every
//! error: for the test of a move that nobody feels, and its benchmark.
//!
//! The application is bare: it never retries and answers 500 where the fence
//! refuses. The clients repeat nothing either, but for what RFC 9110 (9.2.2)
//! and every HTTP library allow: a request on a connection that was used
//! before, and that ended without a byte of an answer, is sent once more on a
//! new one (nginx closes idle connections at each reload), and counted.

pub mod clients;
pub mod wire;

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use webhost_coordinator::embedded::Options;

use crate::demo::town::{self, Tenant};
use crate::demo::watch;
use crate::harness::api::wait_for;
use crate::harness::fleet::{Fleet, NodeSpec, Spec};
use crate::harness::settings::DOMAIN;

pub const SHARED: &str = "shared-1";
pub const DEDICATED: &str = "dedicated-1";
const LONG: Duration = Duration::from_secs(120);

/// A fleet of two nodes and one tenant, its requests behind nginx.
pub struct Stage {
    pub fleet: Fleet,
    pub tenant: Tenant,
}

impl Stage {
    /// Starts it; the tenant is active.
    ///
    /// # Errors
    /// As its parts.
    pub async fn start(postgres: Options, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let environment =
            environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let shared = NodeSpec {
            bare: true,
            hold: true,
            nginx: true,
            environment,
            ..NodeSpec::shared(SHARED)
        };
        let dedicated = NodeSpec { bare: true, hold: true, ..NodeSpec::dedicated(DEDICATED) };
        let fleet = Fleet::start(Spec {
            nodes: vec![shared, dedicated],
            postgres,
            report_interval_ms: 500,
            usage_window_s: 10,
            min_gap_s: 1,
            max_customers: 150,
            // Longer than any test: requests are forwarded until the end.
            way_back_s: 3_600,
            keep_old_copy_s: 3_600,
            log: "info",
        })
        .await?;
        let tenant = Tenant::numbered(0, 4);
        let node = town::move_in(&fleet, &tenant, "hobby").await?;
        anyhow::ensure!(node == SHARED, "a small tenant goes to a shared node, not {node}");
        town::all_active(&fleet.api, std::slice::from_ref(&tenant)).await?;
        Ok(Self { fleet, tenant })
    }

    /// The tenant's host name.
    pub fn host(&self) -> String {
        format!("{}.{DOMAIN}", self.tenant.slug)
    }

    /// Where its clients dial.
    ///
    /// # Errors
    /// Without nginx there.
    pub fn front(&self) -> anyhow::Result<std::net::SocketAddr> {
        let nginx = self.fleet.nodes.get(SHARED).and_then(|node| node.nginx.as_ref());
        Ok(nginx.context("no nginx")?.places.listen)
    }

    /// An administrator moves the tenant to a node of its own.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn begin(&self) -> anyhow::Result<String> {
        // The name follows from the domain, moments after the signup.
        wait_for("the tenant's host name", LONG, async || {
            let places = self.fleet.api.get("/api/places").await?;
            let named = places["places"].to_string().contains(&self.host());
            Ok(named.then_some(()))
        })
        .await?;
        let body = json!({ "customer_id": self.tenant.id, "target_mode": "single_tenant" });
        let begun = self.fleet.api.post("/api/admin/deployment/migrate", &body).await?;
        Ok(begun["move_id"].as_str().context("no move_id")?.to_owned())
    }

    /// Waits until the coordinator knows that the tenant was switched.
    ///
    /// # Errors
    /// With the agents' logs, when it isn't in time.
    pub async fn switched(&self, id: &str) -> anyhow::Result<Value> {
        let after = ["way_back", "finish", "kept", "clean_up", "close_tunnel", "completed"];
        wait_for("the switch", LONG, async || {
            let row = watch::get(&self.fleet.api, id).await?;
            let state = row["state"].as_str().unwrap_or_default();
            anyhow::ensure!(!["failed", "cancelled"].contains(&state), "the move {state}: {row}");
            Ok(after.contains(&state).then_some(row))
        })
        .await
        .with_context(|| self.fleet.logs(30))
    }

    /// An operator rolls a switched move back; waits until the coordinator
    /// knows that the tenant is home.
    ///
    /// # Errors
    /// With the agents' logs, when it doesn't come home in time.
    pub async fn roll_back(&self, id: &str) -> anyhow::Result<()> {
        self.reaches(id, "way_back").await?;
        let why = json!({ "reason": "the clients' test goes back" });
        self.fleet.api.post(&format!("/api/moves/{id}/roll-back"), &why).await?;
        // What is kept then is the copy on the other node.
        self.reaches(id, "kept").await.with_context(|| self.fleet.logs(30))?;
        let place = self.fleet.api.get(&format!("/api/tenants/{}/place", self.tenant.id)).await?;
        anyhow::ensure!(place["node"] == SHARED, "rolled back, the tenant lives at {place}");
        Ok(())
    }

    /// Waits until a move is in `state`.
    ///
    /// # Errors
    /// When it isn't in time.
    pub async fn reaches(&self, id: &str, state: &str) -> anyhow::Result<()> {
        wait_for(state, LONG, async || {
            let row = watch::get(&self.fleet.api, id).await?;
            Ok((row["state"] == state).then_some(()))
        })
        .await
    }

    /// How many of `ids` are found where the tenant lives.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn found(&self, node: &str, ids: &[uuid::Uuid]) -> anyhow::Result<usize> {
        let node = self.fleet.nodes.get(node).context("no such node")?;
        let session = node.cluster.inspect().await?;
        let count: i64 = session
            .query_one("select count(*) from gps_positions where id = any($1)", &[&ids])
            .await?
            .get(0);
        Ok(usize::try_from(count)?)
    }
}
