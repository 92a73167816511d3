//! Writers at a steady rate, with the exact model of what was acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Config, Statement};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::town::Sides;
use crate::schema;
use crate::writers::session;

/// What one group of writers does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tenants, each with a vehicle, for which each writer writes in turn; a
    /// vehicle is one writer's alone.
    pub writers: Vec<Vec<(Uuid, Uuid)>>,
    /// Rows per second over all of them.
    pub rate: u32,
    /// Rows of one statement; every fifth statement of one-row writers counts
    /// the vehicle's odometer instead.
    pub rows: u32,
}

/// One acknowledged write.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub began: Instant,
    pub took_us: u64,
}

/// What was acknowledged.
#[derive(Default)]
pub struct Ledger {
    pub writes: Vec<Write>,
    pub rows: u64,
    pub refused: u64,
    /// By tenant: id and value.
    positions: BTreeMap<Uuid, Vec<(Uuid, i32)>>,
    /// By vehicle: what it must read.
    odometers: BTreeMap<Uuid, i64>,
}

/// A running group.
pub struct Load {
    tasks: JoinSet<anyhow::Result<Ledger>>,
    stop: CancellationToken,
}

const INSERT: &str = "insert into gps_positions \
    (id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location) \
    select u, $2, $3, now(), 50, 8, $4::int4, st_setsrid(st_makepoint(8, 50), 4326) \
    from unnest($1::uuid[]) u";
const ODOMETER: &str =
    "update vehicles set odometer_m = odometer_m + 1 where id = $1 and customer_id = $2";

/// Refused everywhere for this long, a write has failed.
const PATIENCE: Duration = Duration::from_secs(60);

impl Load {
    /// Starts the group; each writer believes that its tenant is on the source.
    ///
    /// # Errors
    /// When a database can't be reached.
    pub async fn start(plan: &Plan, sides: &Sides, home: usize) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let count = u32::try_from(plan.writers.len())?.max(1);
        let period = Duration::from_secs(1) * plan.rows * count / plan.rate.max(1);
        for (number, tenants) in plan.writers.iter().enumerate() {
            let mut writer = Writer::connect(sides, home, tenants, plan.rows).await?;
            let stop = stop.clone();
            // Spread evenly over the period.
            let first = Instant::now() + period * u32::try_from(number)? / count;
            tasks.spawn(async move {
                let mut due = first;
                while !stop.is_cancelled() {
                    tokio::time::sleep_until(due).await;
                    writer.write().await?;
                    // What a pause held up comes at once, but no flood.
                    due = (due + period).max(Instant::now() - period * 50);
                }
                Ok(writer.ledger)
            });
        }
        Ok(Self { tasks, stop })
    }

    /// Ends all writers after the write in hand.
    ///
    /// # Errors
    /// The first writer's that gave up.
    pub async fn stop(mut self) -> anyhow::Result<Ledger> {
        self.stop.cancel();
        let mut all = Ledger::default();
        while let Some(ended) = self.tasks.join_next().await {
            let mut one = ended??;
            all.writes.append(&mut one.writes);
            all.rows += one.rows;
            all.refused += one.refused;
            for (tenant, mut positions) in one.positions {
                all.positions.entry(tenant).or_default().append(&mut positions);
            }
            all.odometers.append(&mut one.odometers);
        }
        all.writes.sort_by_key(|write| write.began);
        Ok(all)
    }
}

impl Ledger {
    /// Sorted microseconds of the writes that were under way in a window.
    pub fn between(&self, from: Instant, to: Instant) -> Vec<u64> {
        let mut took: Vec<u64> = self
            .writes
            .iter()
            .filter(|write| {
                write.began <= to && write.began + Duration::from_micros(write.took_us) >= from
            })
            .map(|write| write.took_us)
            .collect();
        took.sort_unstable();
        took
    }

    /// Every acknowledged write is in `home`, once and with its value;
    /// answers how many rows were looked at.
    ///
    /// # Errors
    /// When one is lost, stale or doubled.
    pub async fn check(&self, home: &Config) -> anyhow::Result<u64> {
        let (client, _driver) = session(home).await?;
        let mut seen = 0;
        for (tenant, positions) in &self.positions {
            for part in positions.chunks(50_000) {
                let ids: Vec<Uuid> = part.iter().map(|(id, _)| *id).collect();
                let mut found: BTreeMap<Uuid, i32> = BTreeMap::new();
                for row in client
                    .query(
                        "select id, altitude::int4 from gps_positions where customer_id = $1 and id = any($2)",
                        &[tenant, &ids],
                    )
                    .await?
                {
                    ensure!(found.insert(row.get(0), row.get(1)).is_none(), "a doubled row");
                }
                for (id, value) in part {
                    let stored = found.get(id);
                    ensure!(stored == Some(value), "{id} of {tenant}: {value} became {stored:?}");
                }
                seen += part.len() as u64;
            }
        }
        for (vehicle, counted) in &self.odometers {
            let stored = odometer(&client, *vehicle).await?;
            ensure!(stored == *counted, "odometer of {vehicle}: {counted} became {stored}");
            seen += 1;
        }
        Ok(seen)
    }
}

async fn odometer(client: &Client, vehicle: Uuid) -> anyhow::Result<i64> {
    Ok(client.query_one("select odometer_m from vehicles where id = $1", &[&vehicle]).await?.get(0))
}

struct Side {
    client: Client,
    insert: Statement,
    odometer: Statement,
    _driver: JoinSet<()>,
}

struct Writer {
    sides: [Side; 2],
    at: usize,
    tenants: Vec<(Uuid, Uuid)>,
    rows: u32,
    number: usize,
    ledger: Ledger,
}

impl Writer {
    async fn connect(
        sides: &Sides,
        at: usize,
        tenants: &[(Uuid, Uuid)],
        rows: u32,
    ) -> anyhow::Result<Self> {
        let open = |config: &Config| {
            let mut config = config.clone();
            config.user(schema::APP).application_name("load");
            async move {
                let (client, driver) = session(&config).await?;
                let insert = client.prepare(INSERT).await?;
                let odometer = client.prepare(ODOMETER).await?;
                // As an application's pool is warm where it serves anybody.
                client.query("select * from vehicles limit 1", &[]).await?;
                client.query("select * from gps_positions limit 1", &[]).await?;
                anyhow::Ok(Side { client, insert, odometer, _driver: driver })
            }
        };
        let sides = [open(&sides.source).await?, open(&sides.target).await?];
        let mut ledger = Ledger::default();
        for (_, vehicle) in tenants {
            let reads = odometer(&sides[at].client, *vehicle).await?;
            ledger.odometers.insert(*vehicle, reads);
        }
        Ok(Self { sides, at, tenants: tenants.to_vec(), rows, number: 0, ledger })
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        self.number += 1;
        let (tenant, vehicle) = self.tenants[self.number % self.tenants.len()];
        let value = i32::try_from(self.number)?;
        let counts = self.rows == 1 && self.number.is_multiple_of(5);
        let ids: Vec<Uuid> = (0..self.rows).map(|_| Uuid::new_v4()).collect();
        let began = Instant::now();
        loop {
            let Side { client, insert, odometer, .. } = &self.sides[self.at];
            let outcome = if counts {
                client.execute(odometer, &[&vehicle, &tenant]).await
            } else {
                client.execute(insert, &[&ids, &tenant, &vehicle, &value]).await
            };
            match outcome {
                Ok(changed) => {
                    let wanted = if counts { 1 } else { u64::from(self.rows) };
                    ensure!(changed == wanted, "{changed} rows instead of {wanted}");
                    break;
                }
                Err(error) => {
                    self.ledger.refused += 1;
                    let code = error.code().map(|code| code.code().to_owned());
                    if code.as_deref() != Some("MG001") {
                        return Err(error).context("a write");
                    }
                    // The place that it names is the other side; none named is
                    // "try again here".
                    let place = error.as_db_error().and_then(DbError::detail).unwrap_or_default();
                    if place.is_empty() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    } else {
                        self.at = 1 - self.at;
                    }
                    if began.elapsed() > PATIENCE {
                        bail!("a write was refused for {PATIENCE:?}");
                    }
                }
            }
        }
        let took_us = u64::try_from(began.elapsed().as_micros())?;
        self.ledger.writes.push(Write { began, took_us });
        if counts {
            *self.ledger.odometers.entry(vehicle).or_default() += 1;
        } else {
            self.ledger.rows += u64::from(self.rows);
            let kept = self.ledger.positions.entry(tenant).or_default();
            kept.extend(ids.into_iter().map(|id| (id, value)));
        }
        Ok(())
    }
}
