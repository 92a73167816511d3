//! One writer, and a group of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::{Client, Config};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use webhost_coordinator::embedded::SUPERUSER;

use super::world::{World, session};
use crate::schema;

/// The isolation level of a writer's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "begin isolation level read committed",
            Self::RepeatableRead => "begin isolation level repeatable read",
            Self::Serializable => "begin isolation level serializable",
        }
    }
}

/// Where a position's last acknowledged write left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The tenant's, with this value.
    Present(i32),
    Deleted,
    /// Given to the neighbour: on the source, with this value.
    GivenAway(i32),
}

/// One acknowledged write: when it began, and how long it took with retries.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub began: Instant,
    pub took: Duration,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    pub positions: BTreeMap<Uuid, Expect>,
    /// Odometers: how much was added per vehicle.
    pub odometers: BTreeMap<Uuid, i64>,
    pub writes: Vec<Write>,
    /// Answers of either side that made a writer try again.
    pub refused: u64,
    pub serialization: u64,
}

impl Ledger {
    fn merge(&mut self, other: Self) {
        self.positions.extend(other.positions);
        for (vehicle, added) in other.odometers {
            *self.odometers.entry(vehicle).or_default() += added;
        }
        self.writes.extend(other.writes);
        self.refused += other.refused;
        self.serialization += other.serialization;
    }
}

/// A group of running writers.
pub struct Writers {
    tasks: JoinSet<anyhow::Result<Ledger>>,
    stop: CancellationToken,
}

impl Writers {
    /// Starts one writer per entry of `levels`; each pauses up to `pause`
    /// between two transactions.
    pub fn start(world: &World, levels: &[Isolation], pause: Duration, seed: u64) -> Self {
        Self::launch(world, levels, pause, seed, schema::APP)
    }

    fn launch(
        world: &World,
        levels: &[Isolation],
        pause: Duration,
        seed: u64,
        role: &'static str,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (number, &level) in levels.iter().enumerate() {
            let world = world.clone();
            let stop = stop.clone();
            tasks.spawn(async move {
                let mut writer = Writer::connect(world, level, seed + number as u64, role).await?;
                while !stop.is_cancelled() {
                    writer.step().await?;
                    let pause = writer.random.random_range(0..=pause.as_micros().max(1));
                    tokio::time::sleep(Duration::from_micros(u64::try_from(pause)?)).await;
                }
                Ok(writer.ledger)
            });
        }
        Self { tasks, stop }
    }

    /// Writers whose statements fire no trigger: what the guards are for.
    pub fn unguarded(world: &World, levels: &[Isolation], pause: Duration, seed: u64) -> Self {
        let mut world = world.clone();
        // Only a superuser may, which is the point.
        world.source.options("-c session_replication_role=replica");
        Self::launch(&world, levels, pause, seed, SUPERUSER)
    }

    /// Ends all writers after their transaction in hand; answers what was
    /// acknowledged.
    ///
    /// # Errors
    /// The first writer's that gave up.
    pub async fn stop(mut self) -> anyhow::Result<Ledger> {
        self.stop.cancel();
        let mut all = Ledger::default();
        while let Some(ended) = self.tasks.join_next().await {
            all.merge(ended??);
        }
        Ok(all)
    }
}

struct Writer {
    world: World,
    level: Isolation,
    random: StdRng,
    sides: [(Client, JoinSet<()>); 2],
    /// Which side it believes in.
    at: usize,
    ledger: Ledger,
    next: i32,
}

/// A move whose writers are refused everywhere for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a write does to the model, once acknowledged.
enum Effect {
    Position(Uuid, Expect),
    Odometer(Uuid, i64),
}

impl Writer {
    async fn connect(
        world: World,
        level: Isolation,
        seed: u64,
        role: &str,
    ) -> anyhow::Result<Self> {
        let open = |config: &Config| {
            let mut config = config.clone();
            config.user(role).application_name("chaos writer");
            async move { session(&config).await }
        };
        let sides = [open(&world.source).await?, open(&world.target).await?];
        Ok(Self {
            world,
            level,
            random: StdRng::seed_from_u64(seed),
            sides,
            at: 0,
            ledger: Ledger::default(),
            next: 1,
        })
    }

    fn some_key(&mut self, wanted: impl Fn(Expect) -> bool) -> Option<(Uuid, Expect)> {
        let fitting: Vec<(Uuid, Expect)> = self
            .ledger
            .positions
            .iter()
            .filter(|(_, expect)| wanted(**expect))
            .map(|(key, expect)| (*key, *expect))
            .collect();
        if fitting.is_empty() {
            return None;
        }
        fitting.get(self.random.random_range(0..fitting.len())).copied()
    }

    /// A key's time never changes, so that a key over both finds it again.
    fn recorded_at(&self, key: Uuid) -> String {
        format!(
            "timestamptz '{}' - interval '1 second' * {}",
            self.world.today,
            key.as_u128() % 864_000
        )
    }

    fn insert(&self, key: Uuid, value: i32, tail: &str) -> String {
        format!(
            "insert into gps_positions (id, customer_id, vehicle_id, recorded_at, latitude, longitude, altitude, location) \
             values ('{key}', '{}', '{}', {}, 50, 8, {value}, \
             st_setsrid(st_makepoint(8, {value} * 1e-6), 4326)) {tail}",
            self.world.tenant,
            self.world.vehicles[value.unsigned_abs() as usize % self.world.vehicles.len()],
            self.recorded_at(key),
        )
    }

    /// One transaction, repeated until it is acknowledged.
    async fn step(&mut self) -> anyhow::Result<()> {
        let value = self.next;
        self.next += 1;
        let present = |expect| matches!(expect, Expect::Present(_));
        let mut sql = Vec::new();
        let mut effects = Vec::new();
        let statements =
            if self.random.random_bool(0.3) { self.random.random_range(2..5) } else { 1 };
        for _ in 0..statements {
            let choice = self.random.random_range(0..100);
            let known = self.some_key(present);
            // One key once per transaction keeps the model simple.
            let touched = |key: &Uuid, effects: &[Effect]| {
                effects.iter().any(|effect| matches!(effect, Effect::Position(k, _) if k == key))
            };
            let known = known.filter(|(key, _)| !touched(key, &effects));
            match (choice, known) {
                (0..20, Some((key, _))) => {
                    sql.push(format!("update gps_positions set altitude = {value} where id = '{key}'"));
                    effects.push(Effect::Position(key, Expect::Present(value)));
                }
                (20..30, Some((key, _))) => {
                    sql.push(format!("delete from gps_positions where id = '{key}'"));
                    effects.push(Effect::Position(key, Expect::Deleted));
                }
                (30..38, _) => {
                    // Comes back under the same key.
                    let Some((key, _)) = self.some_key(|expect| expect == Expect::Deleted) else {
                        continue;
                    };
                    if touched(&key, &effects) {
                        continue;
                    }
                    sql.push(self.insert(key, value, ""));
                    effects.push(Effect::Position(key, Expect::Present(value)));
                }
                (38..46, Some((key, _))) => {
                    let tail = format!(
                        "on conflict ({}) do update set altitude = excluded.altitude",
                        self.world.position_key
                    );
                    sql.push(self.insert(key, value, &tail));
                    effects.push(Effect::Position(key, Expect::Present(value)));
                }
                (46..54, Some((key, Expect::Present(old)))) => {
                    let fresh = Uuid::new_v4();
                    sql.push(format!(
                        "update gps_positions set id = '{fresh}', recorded_at = {} where id = '{key}'",
                        self.recorded_at(fresh)
                    ));
                    effects.push(Effect::Position(key, Expect::Deleted));
                    effects.push(Effect::Position(fresh, Expect::Present(old)));
                }
                // Giving away and taking back works only while both live in
                // one database.
                (54..60, Some((key, Expect::Present(old)))) if self.at == 0 => {
                    sql.push(format!(
                        "update gps_positions set customer_id = '{}', vehicle_id = '{}' where id = '{key}'",
                        self.world.neighbour, self.world.neighbour_vehicle
                    ));
                    effects.push(Effect::Position(key, Expect::GivenAway(old)));
                }
                (60..65, _) if self.at == 0 => {
                    let Some((key, Expect::GivenAway(old))) =
                        self.some_key(|expect| matches!(expect, Expect::GivenAway(_)))
                    else {
                        continue;
                    };
                    if touched(&key, &effects) {
                        continue;
                    }
                    sql.push(format!(
                        "update gps_positions set customer_id = '{}', vehicle_id = '{}' where id = '{key}'",
                        self.world.tenant, self.world.vehicles[0]
                    ));
                    effects.push(Effect::Position(key, Expect::Present(old)));
                }
                (65..75, _) => {
                    let at = self.random.random_range(0..self.world.vehicles.len());
                    let vehicle = self.world.vehicles[at];
                    sql.push(format!(
                        "update vehicles set odometer_m = odometer_m + 1 where id = '{vehicle}'"
                    ));
                    effects.push(Effect::Odometer(vehicle, 1));
                }
                (75..80, _) => sql.push(format!(
                    "insert into infrastructure_events (customer_id, kind) values ('{t}', 'w'); \
                     insert into sync_updates (customer_id, document, update) values ('{t}', 'doc{value}', '\\x00ff')",
                    t = self.world.tenant
                )),
                _ => {
                    let key = Uuid::new_v4();
                    sql.push(self.insert(key, value, ""));
                    effects.push(Effect::Position(key, Expect::Present(value)));
                }
            }
        }
        if sql.is_empty() {
            return Ok(());
        }
        if self.acknowledged(&sql).await? {
            for effect in effects {
                match effect {
                    Effect::Position(key, expect) => {
                        self.ledger.positions.insert(key, expect);
                    }
                    Effect::Odometer(vehicle, added) => {
                        *self.ledger.odometers.entry(vehicle).or_default() += added;
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs the statements as one transaction until it commits. False when it
    /// makes no sense on the side where the tenant lives now.
    async fn acknowledged(&mut self, statements: &[String]) -> anyhow::Result<bool> {
        let began = Instant::now();
        let crosses = statements.iter().any(|sql| sql.contains("set customer_id"));
        loop {
            let client = &self.sides[self.at].0;
            let outcome = async {
                client.batch_execute(self.level.begin()).await?;
                for sql in statements {
                    client.batch_execute(sql).await?;
                }
                client.batch_execute("commit").await
            }
            .await;
            let Err(error) = outcome else {
                self.ledger.writes.push(Write { began, took: began.elapsed() });
                return Ok(true);
            };
            client.batch_execute("rollback").await?;
            let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
            match code.as_str() {
                "MG001" => {
                    self.ledger.refused += 1;
                    // No place named: try again here.
                    let moved = error
                        .as_db_error()
                        .and_then(tokio_postgres::error::DbError::detail)
                        .is_some_and(|place| !place.is_empty());
                    if moved {
                        self.at = 1 - self.at;
                    }
                    if moved && crosses {
                        return Ok(false);
                    }
                }
                "40001" | "40P01" => self.ledger.serialization += 1,
                _ => {
                    let said = error.as_db_error().map(ToString::to_string);
                    return Err(error).with_context(|| format!("{said:?} on {statements:?}"));
                }
            }
            if began.elapsed() > PATIENCE {
                bail!("a write was refused for {PATIENCE:?}, last with {code}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
