//! Devices that send positions, people who look at pages, and the import of a
//! customer's history.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::client::{Ended, Request, World};
use super::ledger::{Ledger, Upload};
use crate::app::wire::{self, Point, Vehicle};

/// Rows of one import request.
const IMPORT_BATCH: usize = 10_000;

/// The running load.
pub struct Load {
    world: Arc<World>,
    tasks: TaskTracker,
    stop: CancellationToken,
    give_up: CancellationToken,
}

impl Load {
    /// A load without clients yet.
    pub fn new(world: World) -> Self {
        Self {
            world: Arc::new(world),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
        }
    }

    /// What the clients share.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// One device per vehicle, each sending a position every `period`.
    pub fn drive(&self, tenant: Uuid, vehicles: &[Vehicle], period: Duration) {
        for vehicle in vehicles {
            let device = Device { tenant, vehicle: vehicle.id, period };
            let (world, stop, give_up) =
                (Arc::clone(&self.world), self.stop.clone(), self.give_up.clone());
            self.tasks.spawn(async move { device.run(&world, &stop, &give_up).await });
        }
    }

    /// A person who loads `page` ("vehicles", "reports/mileage"), reads for
    /// `think`, and loads it again.
    pub fn browse(&self, tenant: Uuid, session: String, page: &'static str, think: Duration) {
        let (world, stop, give_up) =
            (Arc::clone(&self.world), self.stop.clone(), self.give_up.clone());
        self.tasks.spawn(async move {
            let path = format!("/api/customers/{tenant}/{page}");
            let request = Request {
                method: reqwest::Method::GET,
                path: &path,
                session: Some(&session),
                content_type: "application/json",
                body: Vec::new(),
            };
            let early = jitter(think);
            let mut wait = early;
            while !pause(&stop, wait).await {
                if let Ended::Refused(why) = world.send(tenant, &request, &give_up).await {
                    world.ledger.refused(tenant, &[], why);
                }
                wait = think;
            }
        });
    }

    /// Imports `rows` positions of the past for `vehicles`, in batches that
    /// are written whole or not at all. Answers the rows acknowledged.
    ///
    /// # Errors
    /// When a batch is refused for good.
    pub async fn import(
        &self,
        tenant: Uuid,
        vehicles: &[Vehicle],
        rows: usize,
    ) -> anyhow::Result<usize> {
        let mut track = Track::new();
        let start = Timestamp::now() - SignedDuration::from_hours(24 * 20);
        let mut done = 0;
        while done < rows {
            let count = IMPORT_BATCH.min(rows - done);
            let mut ids = Vec::with_capacity(count);
            let mut csv = String::with_capacity(count * 140);
            for index in done..done + count {
                let at = start + SignedDuration::from_secs(i64::try_from(index)? * 5);
                let vehicle = &vehicles[index % vehicles.len()];
                let point = track.next(vehicle.id, at);
                ids.push(point.id);
                csv.push_str(&format!(
                    "{},{},{},{},{},{},{}\n",
                    point.id,
                    point.vehicle_id,
                    point.recorded_at,
                    point.latitude,
                    point.longitude,
                    point.speed,
                    point.heading
                ));
            }
            self.world.ledger.sending(tenant, &ids);
            let path = format!("/ingest/{tenant}/import");
            let request = Request {
                method: reqwest::Method::POST,
                path: &path,
                session: None,
                content_type: "text/csv",
                body: csv.into_bytes(),
            };
            match self.world.send(tenant, &request, &self.give_up).await {
                Ended::Served { .. } => self.world.ledger.acknowledged(tenant, &ids, None),
                Ended::Refused(why) => anyhow::bail!("the import was refused: {why}"),
                Ended::Abandoned => anyhow::bail!("the import was given up"),
            }
            done += count;
        }
        Ok(done)
    }

    /// Registers more vehicles of a tenant, as a person would.
    ///
    /// # Errors
    /// When the application refuses.
    pub async fn register(&self, tenant: Uuid, vehicles: &[Vehicle]) -> anyhow::Result<()> {
        let path = format!("/api/customers/{tenant}/vehicles");
        let request = Request {
            method: reqwest::Method::POST,
            path: &path,
            session: Some("office"),
            content_type: "application/json",
            body: serde_json::to_vec(vehicles)?,
        };
        match self.world.send(tenant, &request, &self.give_up).await {
            Ended::Served { .. } => Ok(()),
            Ended::Refused(why) => anyhow::bail!("the vehicles were refused: {why}"),
            Ended::Abandoned => anyhow::bail!("the load had ended"),
        }
    }

    /// Ends the load: nothing new is sent, what is under way gets `grace` to
    /// be acknowledged. Answers the ledger.
    pub async fn stop(self, grace: Duration) -> Ledger {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            self.give_up.cancel();
            self.tasks.wait().await;
        }
        self.world.ledger.snapshot()
    }
}

struct Device {
    tenant: Uuid,
    vehicle: Uuid,
    period: Duration,
}

impl Device {
    async fn run(&self, world: &World, stop: &CancellationToken, give_up: &CancellationToken) {
        let mut track = Track::new();
        if pause(stop, jitter(self.period)).await {
            return;
        }
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let point = track.next(self.vehicle, Timestamp::now());
            self.upload(world, point, give_up).await;
        }
    }

    async fn upload(&self, world: &World, point: Point, give_up: &CancellationToken) {
        let ids = [point.id];
        let path = format!("/ingest/{}/positions", self.tenant);
        let body = match serde_json::to_vec(&wire::Upload { points: vec![point] }) {
            Ok(body) => body,
            Err(error) => return world.ledger.refused(self.tenant, &[], error.to_string()),
        };
        let request = Request {
            method: reqwest::Method::POST,
            path: &path,
            session: None,
            content_type: "application/json",
            body,
        };
        world.ledger.sending(self.tenant, &ids);
        let started = world.now();
        match world.send(self.tenant, &request, give_up).await {
            Ended::Served { node, attempts, .. } => {
                let upload = Upload {
                    tenant: self.tenant,
                    vehicle: self.vehicle,
                    started,
                    took: world.now() - started,
                    attempts,
                    node,
                    rows: 1,
                };
                world.ledger.acknowledged(self.tenant, &ids, Some(upload));
            }
            Ended::Refused(why) => world.ledger.refused(self.tenant, &ids, why),
            Ended::Abandoned => {}
        }
    }
}

/// A vehicle's way through a city.
struct Track {
    latitude: f64,
    longitude: f64,
    heading: f64,
}

impl Track {
    fn new() -> Self {
        let mut random = rand::rng();
        Self {
            latitude: random.random_range(52.3..52.7),
            longitude: random.random_range(13.0..13.8),
            heading: random.random_range(0.0..360.0),
        }
    }

    fn next(&mut self, vehicle_id: Uuid, at: Timestamp) -> Point {
        let mut random = rand::rng();
        self.heading = (self.heading + random.random_range(-20.0..20.0)).rem_euclid(360.0);
        let degrees = random.random_range(0.0..0.0008);
        self.latitude =
            (self.latitude + degrees * self.heading.to_radians().cos()).clamp(-80.0, 80.0);
        self.longitude += degrees * self.heading.to_radians().sin();
        if self.longitude > 180.0 {
            self.longitude -= 360.0;
        }
        // PostgreSQL keeps microseconds.
        let recorded_at = Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
        Point {
            id: Uuid::new_v4(),
            vehicle_id,
            recorded_at,
            latitude: self.latitude,
            longitude: self.longitude,
            speed: (degrees * 100_000.0) as f32,
            heading: self.heading as f32,
        }
    }
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// Waits; true when the load ended meanwhile.
async fn pause(stop: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = tokio::time::sleep(time) => false,
    }
}
