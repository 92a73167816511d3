//! The application's statements, and what a refusal of its database means.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use futures_util::SinkExt;
use uuid::Uuid;

use super::wire::{Customer, Point, Vehicle};
use crate::schema;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The customer lives elsewhere.
    #[error("the customer lives at {0:?}")]
    Moved(String),
    /// This node's database doesn't know the customer or the vehicle.
    #[error("unknown here: {0}")]
    Unknown(String),
    /// The same request may succeed later.
    #[error("not now: {0}")]
    Retry(String),
    /// It never will.
    #[error("{0}")]
    Never(String),
}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Retry(error.to_string());
        };
        let message = db.message().to_owned();
        match db.code().code() {
            "MG001" => Self::Moved(db.detail().unwrap_or_default().to_owned()),
            "23503" => Self::Unknown(message),
            // Serialisation, deadlock, lock timeout; shutting down, starting
            // up; too many connections.
            code if ["40", "55", "57", "53", "08"].iter().any(|class| code.starts_with(class)) => {
                Self::Retry(message)
            }
            code => Self::Never(format!("{code}: {message}")),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Refused {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Retry(error.to_string())
    }
}

/// The application's pool. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

const INSERT_POINTS: &str = "
    insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude,
                               speed, heading, accuracy, metadata, location)
    select p.id, $1, p.vehicle_id, p.recorded_at, p.latitude, p.longitude, p.speed, p.heading,
           5, '{\"source\": \"device\"}',
           st_setsrid(st_makepoint(p.longitude, p.latitude), 4326)
    from unnest($2::uuid[], $3::uuid[], $4::timestamptz[], $5::float8[], $6::float8[],
                $7::real[], $8::real[])
         as p (id, vehicle_id, recorded_at, latitude, longitude, speed, heading)
    on conflict do nothing";

const COPY_POINTS: &str = "
    copy gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, speed,
                        heading, metadata, location)
    from stdin (format csv)";

const MILEAGE: &str = "
    with legs as (
        select vehicle_id,
               st_distancesphere(location, lag(location) over track) as metres,
               extract(epoch from recorded_at - lag(recorded_at) over track)::float8 as seconds
        from gps_positions
        where customer_id = $1
        window track as (partition by vehicle_id order by recorded_at)
    )
    select vehicle_id, coalesce(sum(metres), 0)::float8 as metres,
           coalesce(sum(seconds) filter (where metres < 5), 0)::float8 as idle_seconds
    from legs group by vehicle_id order by metres desc";

impl Database {
    /// A pool over the node's PostgreSQL; connects lazily.
    ///
    /// # Errors
    /// When the pool can't be built.
    pub fn new(socket_dir: &Path, connections: usize) -> anyhow::Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(socket_dir).user(schema::APP).dbname(schema::DATABASE);
        config.application_name("webhost");
        let manager = Manager::from_config(
            config,
            tokio_postgres::NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let wait = Some(Duration::from_secs(10));
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait, create: wait, recycle: wait })
            .build()?;
        Ok(Self { pool })
    }

    /// Opens every connection of the pool and has it run each frequent
    /// statement once, as a pool that connects at the start does: a node that
    /// waits for its tenant is not to begin with cold connections.
    ///
    /// # Errors
    /// When the database doesn't take them.
    pub async fn warm(&self) -> Result<(), Refused> {
        let mut open = Vec::new();
        for _ in 0..self.pool.status().max_size {
            let client = self.pool.get().await?;
            client.batch_execute("select st_setsrid(st_makepoint(0, 0), 4326)").await?;
            let statement = client.prepare_cached(INSERT_POINTS).await?;
            let (ids, times) = (Vec::<Uuid>::new(), Vec::<jiff::Timestamp>::new());
            let (floats, reals) = (Vec::<f64>::new(), Vec::<f32>::new());
            client
                .execute(
                    &statement,
                    &[&Uuid::nil(), &ids, &ids, &times, &floats, &floats, &reals, &reals],
                )
                .await?;
            open.push(client);
        }
        Ok(())
    }

    /// When it returns, every one of `points` is durable, by this call or by
    /// an earlier one with the same ids.
    ///
    /// # Errors
    /// [`Refused`]; nothing of the upload was written then.
    pub async fn insert_points(&self, customer: Uuid, points: &[Point]) -> Result<(), Refused> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(INSERT_POINTS).await?;
        let column = |of: fn(&Point) -> Uuid| points.iter().map(of).collect::<Vec<_>>();
        let times: Vec<_> = points.iter().map(|point| point.recorded_at).collect();
        let float = |of: fn(&Point) -> f64| points.iter().map(of).collect::<Vec<_>>();
        let real = |of: fn(&Point) -> f32| points.iter().map(of).collect::<Vec<_>>();
        client
            .execute(
                &statement,
                &[
                    &customer,
                    &column(|point| point.id),
                    &column(|point| point.vehicle_id),
                    &times,
                    &float(|point| point.latitude),
                    &float(|point| point.longitude),
                    &real(|point| point.speed),
                    &real(|point| point.heading),
                ],
            )
            .await?;
        Ok(())
    }

    /// Imports history: lines of `id,vehicle_id,recorded_at,latitude,
    /// longitude,speed,heading`, all or none. Answers the number of rows.
    ///
    /// # Errors
    /// [`Refused::Never`] names the line that can't be read.
    pub async fn import_points(&self, customer: Uuid, csv: &str) -> Result<u64, Refused> {
        let mut rows = String::with_capacity(csv.len() * 2);
        for (number, line) in csv.lines().enumerate() {
            let fields: Vec<&str> = line.split(',').collect();
            let [id, vehicle, at, latitude, longitude, speed, heading] = fields.as_slice() else {
                return Err(Refused::Never(format!(
                    "line {}: seven fields expected, got {}",
                    number + 1,
                    fields.len()
                )));
            };
            rows.push_str(&format!(
                "{id},{customer},{vehicle},{at},{latitude},{longitude},{speed},{heading},\
                 \"{{\"\"source\"\": \"\"import\"\"}}\",\
                 SRID=4326;POINT({longitude} {latitude})\n"
            ));
        }
        let client = self.pool.get().await?;
        let mut sink = Box::pin(client.copy_in::<_, Bytes>(COPY_POINTS).await?);
        sink.send(Bytes::from(rows)).await?;
        Ok(sink.as_mut().finish().await?)
    }

    /// Sets a customer up with a little of everything; may run again.
    ///
    /// # Errors
    /// [`Refused`]; nothing was written then.
    pub async fn create_customer(&self, customer: &Customer) -> Result<(), Refused> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let created = transaction
            .execute(
                "insert into customers (id, name, slug, email, company_name, billing_email,
                                        account_manager_id)
                 values ($1, $2, $3, $4, $2, $4, '00000000-0000-4000-8000-000000000001')
                 on conflict (id) do nothing",
                &[&customer.id, &customer.name, &customer.slug, &customer.email],
            )
            .await?;
        if created == 1 {
            for statement in SET_UP {
                transaction.execute(*statement, &[&customer.id]).await?;
            }
            transaction
                .execute(
                    "insert into subscriptions (customer_id, plan_id, amount)
                     select $1, id, price_cents / 100.0 from plans where id = $2",
                    &[&customer.id, &customer.plan],
                )
                .await?;
        }
        insert_vehicles(&transaction, customer.id, &customer.vehicles).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Registers vehicles; those that are known already stay as they are.
    ///
    /// # Errors
    /// [`Refused`]; nothing was written then.
    pub async fn add_vehicles(&self, customer: Uuid, vehicles: &[Vehicle]) -> Result<(), Refused> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        insert_vehicles(&transaction, customer, vehicles).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The names of the customer's vehicles.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn vehicles(&self, customer: Uuid) -> Result<Vec<String>, Refused> {
        let client = self.pool.get().await?;
        let statement = client
            .prepare_cached("select name from vehicles where customer_id = $1 order by name")
            .await?;
        let rows = client.query(&statement, &[&customer]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The mileage report: how far each vehicle drove in all its history, by
    /// the geodesic distance from point to point. Its cost grows with the
    /// history; that is what makes a big customer's requests slow.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn mileage(&self, customer: Uuid) -> Result<Vec<(Uuid, f64)>, Refused> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(MILEAGE).await?;
        let rows = client.query(&statement, &[&customer]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

/// Everything that a customer has besides vehicles and a subscription.
const SET_UP: &[&str] = &[
    "insert into customer_users (customer_id, email, hashed_password, role)
     select $1, role || '@' || left($1::uuid::text, 8) || '.example', 'x', role
     from unnest(array['owner', 'dispatcher']) role",
    "insert into api_keys (customer_id, name, key_hash)
     values ($1, 'devices', decode(md5($1::uuid::text), 'hex'))",
    "insert into geofences (customer_id, name, boundary)
     values ($1, 'depot', st_makeenvelope(13.3, 52.4, 13.5, 52.6, 4326))",
    "insert into deployments (customer_id, mode) values ($1, 'multi_tenant')",
    "insert into infrastructure_events (customer_id, kind) values ($1, 'provisioned')",
    "insert into sync_updates (customer_id, document, update)
     values ($1, 'board', '\\x0102ff00')",
    "insert into usage_metrics (customer_id, metric, value, recorded_at)
     values ($1, 'logins', 1, date_trunc('hour', now()))",
];

async fn insert_vehicles(
    transaction: &deadpool_postgres::Transaction<'_>,
    customer: Uuid,
    vehicles: &[Vehicle],
) -> Result<(), Refused> {
    let ids: Vec<Uuid> = vehicles.iter().map(|vehicle| vehicle.id).collect();
    let names: Vec<&str> = vehicles.iter().map(|vehicle| vehicle.name.as_str()).collect();
    transaction
        .execute(
            "insert into vehicles (id, customer_id, name, plate, device_id)
             select v.id, $1, v.name, left(v.id::text, 13), v.id::text
             from unnest($2::uuid[], $3::text[]) as v (id, name)
             on conflict do nothing",
            &[&customer, &ids, &names],
        )
        .await?;
    transaction
        .execute(
            "insert into drivers (customer_id, vehicle_id, name, phones)
             select $1, v.id, 'Driver of ' || v.name, array['+49 30 1234']
             from unnest($2::uuid[], $3::text[]) as v (id, name)
             where not exists (select from drivers d where d.vehicle_id = v.id)",
            &[&customer, &ids, &names],
        )
        .await?;
    Ok(())
}
