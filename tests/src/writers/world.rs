//! Two nodes' databases with the WebHost schema and a few tenants.

use std::path::Path;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;
use webhost_coordinator::embedded::{Embedded, Options};

use super::check::tenant_tables;
use crate::schema;

/// Two private clusters; they end with this value, or with the process.
pub struct Clusters {
    /// As the socket's owner sees it: what connections start from.
    source: Config,
    target: Config,
    /// The templates that exist. Roles belong to the whole cluster, so one
    /// world at a time is made.
    making: tokio::sync::Mutex<std::collections::BTreeSet<String>>,
    servers: std::sync::Mutex<[Option<Embedded>; 2]>,
    options: Options,
    dir: tempfile::TempDir,
}

/// How a server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// `pg_ctl stop -m immediate`: no checkpoint, sessions are told.
    Immediate,
    /// kill -9 of the postmaster; its children notice.
    Killed,
}

const NAMES: [&str; 2] = ["source", "target"];

impl Clusters {
    /// Starts both. Blocks.
    ///
    /// # Errors
    /// When PostgreSQL is missing or doesn't start.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("move").tempdir()?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let start = |name: &str| Embedded::start(Path::new(&dir.path().join(name)), options);
        let servers = [start(NAMES[0])?, start(NAMES[1])?];
        let [source, target] = servers.each_ref().map(|server| server.config("postgres"));
        Ok(Self {
            source,
            target,
            making: tokio::sync::Mutex::default(),
            servers: std::sync::Mutex::new(servers.map(Some)),
            options: options.clone(),
            dir,
        })
    }

    /// How a superuser connects to the source's cluster.
    pub fn source(&self) -> &Config {
        &self.source
    }

    /// Where a side's socket lies; 0 is the source.
    pub fn socket_dir(&self, side: usize) -> std::path::PathBuf {
        self.dir.path().join(NAMES[side]).join("socket")
    }

    /// Lets a side's server die and starts it again; it has recovered and
    /// answers when this returns. Blocks.
    ///
    /// # Errors
    /// When it doesn't come back.
    pub fn crash(&self, side: usize, how: Crash) -> anyhow::Result<()> {
        let mut servers = self.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let server = servers[side].take().context("the server runs")?;
        let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).context("a pid")?;
        rustix::process::kill_process(
            pid,
            match how {
                Crash::Immediate => rustix::process::Signal::QUIT,
                Crash::Killed => rustix::process::Signal::KILL,
            },
        )?;
        // Waits for its end.
        drop(server);
        let dir = self.dir.path().join(NAMES[side]);
        // After a kill -9 its children may still hold the shared memory.
        let mut tries = 0;
        servers[side] = Some(loop {
            match Embedded::start(&dir, &self.options) {
                Ok(server) => break server,
                Err(error) if tries == 100 => return Err(error.into()),
                Err(_) => tries += 1,
            }
        });
        Ok(())
    }
}

/// One database on each cluster, and who lives there.
#[derive(Clone)]
pub struct World {
    pub source: Config,
    pub target: Config,
    /// The tenant that moves: on the source.
    pub tenant: Uuid,
    /// Lives on the source, and stays.
    pub neighbour: Uuid,
    /// Lives on the target, and stays.
    pub foreigner: Uuid,
    /// The moving tenant's vehicles.
    pub vehicles: Vec<Uuid>,
    /// The neighbour's one vehicle.
    pub neighbour_vehicle: Uuid,
    /// The columns of the primary key of `gps_positions`.
    pub position_key: String,
    /// Where the writers' positions end, ten days in all.
    pub midnight: jiff::Timestamp,
    /// How many positions the moving tenant began with.
    pub points: u32,
}

/// A session that lives as long as the two values.
pub async fn session(config: &Config) -> anyhow::Result<(Client, JoinSet<()>)> {
    let (client, connection) =
        config.connect(NoTls).await.context("connects to a test database")?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // The client's next call reports what went wrong.
        let _ended = connection.await;
    });
    Ok((client, driver))
}

impl World {
    /// Creates the database `name` on both sides with `schema`, and its
    /// tenants; the moving one with `points` positions.
    ///
    /// # Errors
    /// What the databases say.
    pub async fn create(
        clusters: &Clusters,
        name: &str,
        schema: &str,
        points: u32,
    ) -> anyhow::Result<Self> {
        let mut world = Self {
            source: clusters.source.clone().dbname(name).clone(),
            target: clusters.target.clone().dbname(name).clone(),
            tenant: Uuid::new_v4(),
            neighbour: Uuid::new_v4(),
            foreigner: Uuid::new_v4(),
            vehicles: Vec::new(),
            neighbour_vehicle: Uuid::nil(),
            position_key: String::new(),
            midnight: jiff::Timestamp::UNIX_EPOCH,
            points,
        };
        // Each schema is built once per cluster; a world is a copy of it.
        let template = format!("template_{:x}", schema.len());
        let mut making = clusters.making.lock().await;
        for cluster in [&clusters.source, &clusters.target] {
            let (admin, _driver) = session(cluster).await?;
            if !making.contains(&template) {
                admin.batch_execute(&format!("create database {template}")).await?;
                let mut config = cluster.clone();
                config.dbname(&template);
                let (superuser, mut driver) = session(&config).await?;
                superuser.batch_execute(schema::ROLES).await?;
                if schema == schema::WEBHOST_HYPERTABLE {
                    superuser.batch_execute("create extension timescaledb").await?;
                }
                drop(superuser);
                driver.join_next().await;
                let (app, mut driver) = session(config.user(schema::APP)).await?;
                app.batch_execute(schema).await?;
                app.batch_execute(schema::CHAOS).await?;
                drop(app);
                driver.join_next().await;
            }
            admin.batch_execute(&format!("create database {name} template {template}")).await?;
            admin
                .batch_execute(&format!(
                    "grant create, connect, temporary on database {name} to webhost_app, webhost_agent"
                ))
                .await?;
        }
        making.insert(template);
        drop(making);
        let (source, _driver) = session(&world.source).await?;
        let (target, _driver2) = session(&world.target).await?;
        world.vehicles = fill(&source, world.tenant, 5, points).await?;
        world.neighbour_vehicle =
            *fill(&source, world.neighbour, 1, points / 4).await?.first().context("a vehicle")?;
        let row = source
            .query_one(
                "select string_agg(a.attname, ', ' order by k.o), extract(epoch from date_trunc('day', now(), 'UTC'))::int8 \
                 from pg_constraint c cross join lateral unnest(c.conkey) with ordinality k(n, o) \
                 join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.n \
                 where c.conrelid = 'gps_positions'::regclass and c.contype = 'p'",
                &[],
            )
            .await?;
        world.position_key = row.get(0);
        world.midnight = jiff::Timestamp::from_second(row.get(1))?;
        fill(&target, world.foreigner, 2, points / 4).await?;
        // So that both sides' identities have been used before.
        for client in [&source, &target] {
            client.batch_execute("analyze").await?;
        }
        Ok(world)
    }

    /// The same databases for another move: whatever earlier ones left goes,
    /// and a new tenant comes. Making new databases takes far longer.
    ///
    /// # Errors
    /// What the databases say.
    pub async fn renew(&self) -> anyhow::Result<Self> {
        let mut world = self.clone();
        world.tenant = Uuid::new_v4();
        for config in [&self.source, &self.target] {
            let (client, _driver) = session(config).await?;
            client
                .batch_execute(
                    "drop schema if exists webhost_fleet cascade; \
                     set session_replication_role = replica",
                )
                .await?;
            for (table, column) in tenant_tables(&client).await? {
                client
                    .execute(
                        &format!("delete from {table} where {column} <> $1 and {column} <> $2"),
                        &[&self.neighbour, &self.foreigner],
                    )
                    .await?;
            }
            // What the writers gave to the neighbour.
            client
                .execute(
                    "delete from gps_positions where customer_id = $1 and altitude <> 0",
                    &[&self.neighbour],
                )
                .await?;
        }
        let (source, _driver) = session(&world.source).await?;
        world.vehicles = fill(&source, world.tenant, 5, world.points).await?;
        source.batch_execute("analyze").await?;
        Ok(world)
    }

    /// How the mover logs in: not as a superuser.
    pub fn mover(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.user(schema::AGENT);
        config
    }
}

/// Gives one tenant rows in every table; answers its vehicles.
pub async fn fill(
    client: &Client,
    tenant: Uuid,
    vehicles: u32,
    points: u32,
) -> anyhow::Result<Vec<Uuid>> {
    let t = tenant.to_string();
    let short = &t[..8];
    client
        .batch_execute(&format!(
            "insert into customers (id, name, slug, email, settings, account_manager_id)
               values ('{t}', 'O''Neil \\ \"{short}\"', 't-{t}', '{short}@example.com', '{{\"a\": [1, null]}}',
                       '00000000-0000-4000-8000-000000000001');
             insert into customer_users (customer_id, email, hashed_password)
               select '{t}', 'user' || n || '@example.com', 'x' from generate_series(1, 3) n;
             insert into api_keys (customer_id, created_by, name, key_hash)
               select '{t}', id, 'key', decode(md5(id::text), 'hex') from customer_users where customer_id = '{t}';
             insert into subscriptions (customer_id, plan_id, amount) values ('{t}', 'hobby', 15.00);
             insert into vehicles (customer_id, name, plate, device_id)
               select '{t}', 'Vehicle ' || n, 'P' || n, '{short}-' || n from generate_series(1, {vehicles}) n;
             insert into drivers (customer_id, vehicle_id, name, phones)
               select '{t}', id, E'name, \\t\"quoted\"', array['+1', null, 'a,b'] from vehicles where customer_id = '{t}';
             insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, speed, altitude, metadata, location)
               select gen_random_uuid(), '{t}', v.id, now() - n * interval '7 seconds', 50 + n * 1e-5, 8 + n * 1e-5,
                      n % 120, 0, case when n % 3 = 0 then jsonb_build_object('n', n) end,
                      st_setsrid(st_makepoint(8 + n * 1e-5, 50 + n * 1e-5), 4326)
               from generate_series(1, {points}) n
               join (select id, row_number() over (order by id) as r from vehicles where customer_id = '{t}') v
                 on v.r = 1 + n % {vehicles};
             insert into usage_metrics (customer_id, metric, value, recorded_at)
               select '{t}', 'points', n / 3.0, now() - n * interval '1 hour' from generate_series(1, 50) n;
             insert into geofences (customer_id, name, boundary)
               values ('{t}', 'yard', st_geomfromtext('POLYGON((8 50, 8.1 50, 8.1 50.1, 8 50.1, 8 50))', 4326));
             insert into routes (customer_id, vehicle_id, geofence_id, name, path)
               select '{t}', v.id, g.id, 'r', st_geomfromtext('LINESTRING(8 50, 8.1 50.1)', 4326)
               from vehicles v, geofences g where v.customer_id = '{t}' and g.customer_id = '{t}';
             insert into deployments (customer_id, mode) values ('{t}', 'multi_tenant');
             insert into infrastructure_events (customer_id, deployment_id, kind)
               select '{t}', d.id, 'k' || n from deployments d, generate_series(1, 20) n where d.customer_id = '{t}';
             insert into sync_updates (customer_id, document, update)
               select '{t}', 'doc', decode(md5(n::text), 'hex') from generate_series(1, 20) n;"
        ))
        .await?;
    let rows = client
        .query("select id from vehicles where customer_id = $1 order by id", &[&tenant])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
