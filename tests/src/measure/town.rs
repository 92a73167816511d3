//! A town of tenants on two clusters.

use std::path::Path;

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use uuid::Uuid;
use webhost_coordinator::embedded::{Embedded, Options};

use crate::schema;
use crate::writers::{fill, session, table_hashes};

/// Two durable clusters; they end with this value.
pub struct Town {
    dir: tempfile::TempDir,
    /// Databases that exist on the target.
    targets: u32,
    source: Config,
    target: Config,
    /// The tenant that moves.
    pub tenant: Uuid,
    pub vehicles: Vec<Uuid>,
    /// Everybody else on the source: tenant and vehicle.
    pub others: Vec<(Uuid, Uuid)>,
    pub rows: u64,
    _servers: std::sync::Mutex<[Embedded; 2]>,
}

/// The two databases of one series.
#[derive(Clone)]
pub struct Sides {
    pub source: Config,
    pub target: Config,
}

impl Sides {
    /// How the mover logs in: not as a superuser.
    pub fn mover(&self) -> [Config; 2] {
        [&self.source, &self.target].map(|config| config.clone().user(schema::AGENT).clone())
    }

    /// Where the target's socket is.
    ///
    /// # Errors
    /// When it is none.
    pub fn target_socket(&self) -> anyhow::Result<std::path::PathBuf> {
        socket(&self.target)
    }
}

/// The socket of a database.
///
/// # Errors
/// When it has another address.
pub fn socket(config: &Config) -> anyhow::Result<std::path::PathBuf> {
    let Some(Host::Unix(dir)) = config.get_hosts().first() else {
        anyhow::bail!("expected a socket in {:?}", config.get_hosts());
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    Ok(dir.join(format!(".s.PGSQL.{port}")))
}

const SOURCE: &str = "town";

impl Town {
    /// Starts both clusters and settles `tenants` on the source, the first
    /// with `rows` positions.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn build(tenants: u32, rows: u64) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-move").tempdir()?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let path = dir.path().to_path_buf();
        let servers = tokio::task::spawn_blocking(move || {
            let options = Options::durable()
                .with("shared_buffers", "512MB")
                .with("max_wal_size", "2GB")
                .with("max_connections", "100");
            let start = |name: &str| Embedded::start(Path::new(&path.join(name)), &options);
            anyhow::Ok([start("source")?, start("target")?])
        })
        .await??;
        let [source, target] = servers.each_ref().map(|server| server.config("postgres"));
        let mut town = Self {
            dir,
            targets: 0,
            source,
            target,
            tenant: Uuid::new_v4(),
            vehicles: Vec::new(),
            others: Vec::new(),
            rows,
            _servers: std::sync::Mutex::new(servers),
        };
        for cluster in [&town.source, &town.target] {
            database(cluster, SOURCE, None).await?;
        }
        let (client, _driver) = session(&town.on_source()).await?;
        town.vehicles = fill(&client, town.tenant, 5, 0).await?;
        for _ in 1..tenants {
            let tenant = Uuid::new_v4();
            let vehicles = fill(&client, tenant, 1, 20).await?;
            town.others.push((tenant, *vehicles.first().context("a vehicle")?));
        }
        positions(&client, town.tenant, rows).await?;
        settled(&client).await?;
        Ok(town)
    }

    fn on_source(&self) -> Config {
        self.source.clone().dbname(SOURCE).clone()
    }

    /// The source, and a fresh target: empty, or with `strangers` who live
    /// there and have as many positions each.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn sides(&mut self, strangers: u32, points: u32) -> anyhow::Result<Sides> {
        self.targets += 1;
        let name = format!("target_{}", self.targets);
        database(&self.target, &name, Some(SOURCE)).await?;
        let target = self.target.clone().dbname(&name).clone();
        let (client, _driver) = session(&target).await?;
        for _ in 0..strangers {
            fill(&client, Uuid::new_v4(), 1, points).await?;
        }
        settled(&client).await?;
        Ok(Sides { source: self.on_source(), target })
    }

    /// Drops a series' target.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn drop_target(&self, sides: Sides) -> anyhow::Result<()> {
        let name = sides.target.get_dbname().context("a database")?.to_owned();
        let (client, _driver) = session(&self.target).await?;
        client.batch_execute(&format!("drop database {name} with (force)")).await?;
        client.batch_execute("checkpoint").await?;
        Ok(())
    }

    /// Removes what a series' moves left on the source: guards and fence.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn forget(&self, sides: &Sides) -> anyhow::Result<()> {
        let (client, _driver) = session(&sides.source).await?;
        client.batch_execute("drop schema if exists webhost_fleet cascade").await?;
        Ok(())
    }

    /// Where children of this process may leave files.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Both sides hold the same rows of the tenant, table by table.
    ///
    /// # Errors
    /// When they don't.
    pub async fn equal(&self, sides: &Sides) -> anyhow::Result<()> {
        let here = table_hashes(&sides.source, self.tenant).await?;
        let there = table_hashes(&sides.target, self.tenant).await?;
        ensure!(here == there, "the two sides differ: {here:?} {there:?}");
        Ok(())
    }
}

/// Creates a database with the WebHost schema, from nothing or from another.
async fn database(cluster: &Config, name: &str, template: Option<&str>) -> anyhow::Result<()> {
    let (admin, _driver) = session(cluster).await?;
    let from = template.map_or_else(String::new, |template| format!(" template {template}"));
    admin.batch_execute(&format!("create database {name}{from}")).await?;
    let mut config = cluster.clone();
    config.dbname(name);
    let (superuser, driver) = session(&config).await?;
    superuser.batch_execute(schema::ROLES).await?;
    ended(superuser, driver).await;
    if template.is_none() {
        let (app, driver) = session(config.user(schema::APP)).await?;
        app.batch_execute(schema::WEBHOST).await?;
        ended(app, driver).await;
    }
    Ok(())
}

/// Statistics as autovacuum would have made them, and nothing left to write.
async fn settled(client: &Client) -> anyhow::Result<()> {
    client.batch_execute("vacuum (analyze)").await?;
    client.batch_execute("checkpoint").await?;
    Ok(())
}

/// A template must have nobody in it.
async fn ended(client: Client, mut driver: JoinSet<()>) {
    drop(client);
    while driver.join_next().await.is_some() {}
}

/// Gives the tenant its positions, without the checks and with the indexes
/// built afterwards.
async fn positions(client: &Client, tenant: Uuid, rows: u64) -> anyhow::Result<()> {
    client
        .batch_execute(&format!(
            "set session_replication_role = replica; set maintenance_work_mem = '512MB'; \
             alter table gps_positions drop constraint gps_positions_pkey; \
             drop index gps_positions_customer_time, gps_positions_vehicle_time; \
             insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, \
                                        speed, altitude, metadata, location) \
               select gen_random_uuid(), '{tenant}', v.ids[1 + n % 5], now() - n * interval '7 seconds', \
                      50 + n % 100000 * 1e-5, 8 + n % 100000 * 1e-5, n % 120, 0, \
                      case when n % 3 = 0 then jsonb_build_object('n', n) end, \
                      st_setsrid(st_makepoint(8 + n % 100000 * 1e-5, 50 + n % 100000 * 1e-5), 4326) \
               from generate_series(1, {rows}::int8) n, \
                    (select array_agg(id) as ids from vehicles where customer_id = '{tenant}') v; \
             alter table gps_positions add primary key (id); \
             create index gps_positions_customer_time on gps_positions (customer_id, recorded_at desc); \
             create index gps_positions_vehicle_time on gps_positions (vehicle_id, recorded_at desc); \
             alter table gps_positions owner to webhost_app; \
             reset session_replication_role; reset maintenance_work_mem"
        ))
        .await
        .context("the tenant's positions")
}
