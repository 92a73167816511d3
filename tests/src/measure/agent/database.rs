//! A tenants' database beside the agent, and what the agent's own connection
//! costs in it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::Context;
use webhost_coordinator::embedded::Options;

use super::processes::{Look, look};
use crate::harness::cluster::Cluster;
use crate::schema;

/// Vehicles of each tenant, and points of each in the past.
const VEHICLES: i32 = 20;
const POINTS: i32 = 100;
/// A point a second of each tenant, from now on: what is counted by window.
const COMING_S: i32 = 600;

/// PostgreSQL with the WebHost schema and some tenants; ends with this value.
pub struct Database {
    cluster: Cluster,
    _dir: tempfile::TempDir,
}

impl Database {
    /// Starts and fills one.
    ///
    /// # Errors
    /// When PostgreSQL can't be started.
    pub async fn start(tenants: usize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("wh").tempdir()?;
        // PostgreSQL runs as another user.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        let place = dir.path().join("pg");
        let cluster = Cluster::start(&place, Options::throwaway(), schema::WEBHOST).await?;
        let app = cluster.session(schema::APP).await?;
        app.batch_execute(&format!(
            "insert into customers (id, name, slug, email)
             select gen_random_uuid(), 'Tenant ' || n, 't' || n, 't' || n || '@example.org'
             from generate_series(1, {tenants}) n;
             insert into vehicles (customer_id, name, plate, device_id)
             select c.id, 'v' || g, 'p' || g, c.slug || '-' || g
             from customers c, generate_series(1, {VEHICLES}) g;
             insert into gps_positions
                 (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location)
             select gen_random_uuid(), v.customer_id, v.id, now() - g * interval '1 minute',
                    1, 2, 'SRID=4326;POINT(2 1)'
             from vehicles v, generate_series(1, {POINTS}) g;
             insert into gps_positions
                 (id, customer_id, vehicle_id, recorded_at, latitude, longitude, location)
             select gen_random_uuid(), v.customer_id, v.id, now() + g * interval '1 second',
                    1, 2, 'SRID=4326;POINT(2 1)'
             from (select distinct on (customer_id) * from vehicles) v,
                  generate_series(1, {COMING_S}) g"
        ))
        .await
        .context("filling the tenants' database")?;
        let superuser = cluster.inspect().await?;
        for statement in ["vacuum analyze", "checkpoint"] {
            superuser.batch_execute(statement).await?;
        }
        Ok(Self { cluster, _dir: dir })
    }

    /// For the agent's `[postgres] url`.
    pub fn url(&self) -> String {
        let socket = self.cluster.socket_dir();
        format!("host={} user={} dbname={}", socket.display(), schema::AGENT, schema::DATABASE)
    }

    /// Looks at the process that serves the agent's connection.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub async fn backend(&self) -> anyhow::Result<Look> {
        let superuser = self.cluster.inspect().await?;
        let query = "select pid from pg_stat_activity where usename = $1";
        let row = superuser.query_one(query, &[&schema::AGENT]).await;
        let pid: i32 = row.context("the agent's one connection")?.get(0);
        look(u32::try_from(pid)?)
    }

    /// Scans of whole tables of points since the cluster began, but for those
    /// that filled it.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub async fn whole_scans(&self) -> anyhow::Result<i64> {
        let superuser = self.cluster.inspect().await?;
        // Backends tell their counts once a second at most.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let query = "select coalesce(sum(seq_scan), 0)::bigint from pg_stat_user_tables
                     where relname like 'gps_positions%'";
        Ok(superuser.query_one(query, &[]).await?.get(0))
    }
}
