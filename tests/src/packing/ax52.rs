//! A synthetic fleet of AX52 servers: tenants whose demands are spread
//! log-normally and correlated, so that slots, CPU and connections end at
//! about 150 tenants a server all three.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;
use webhost_coordinator::decide::plans::{NodeKind, NodeShape};
use webhost_coordinator::fleet::need::HOURS;
use webhost_coordinator::fleet::{Need, NodeState};
use webhost_proto::ids::NodeId;

/// Mean and spread (sigma of the logarithm) of each dimension, and half of
/// what a server may be filled to, which no tenant exceeds: CPU in cores, RAM
/// and disk in GB, connections, GPS points a second.
const DEMAND: [(f64, f64, f64); 5] = [
    (0.080, 1.0, 6.4),
    (0.575, 0.8, 51.2),
    (3.9, 1.3, 400.0),
    (0.505, 0.6, 40.0),
    (2.3, 1.0, 200.0),
];

/// Tenants one after another.
pub struct Tenants {
    rng: StdRng,
}

/// One tenant: what it takes on average in each dimension, its busy time of
/// day in hours, and how far it has drifted.
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    average: [f64; 5],
    busy: Option<f64>,
    level: [f64; 5],
    /// The variance of the levels so far, which would raise the mean.
    variance: f64,
}

impl Tenants {
    /// The same seed gives the same tenants.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// A standard normal figure.
    pub fn normal(&mut self) -> f64 {
        let (a, b): (f64, f64) = (self.rng.random_range(1e-12..1.0), self.rng.random());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// A position below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }

    /// One more; with a day, or the same at all hours.
    pub fn next(&mut self, with_day: bool) -> Tenant {
        let size = self.normal();
        let average = DEMAND.map(|(mean, sigma, most)| {
            let z = 0.6 * size + 0.8 * self.normal();
            (mean * (sigma * z - sigma * sigma / 2.0).exp()).min(most)
        });
        let busy = with_day.then(|| 14.0 + 3.0 * self.normal());
        Tenant { average, busy, level: [0.0; 5], variance: 0.0 }
    }

    /// One round of drift: the logarithm of each dimension's level goes a tenth
    /// of the way back, and anywhere by `by`; the mean of all tenants stays.
    pub fn drift(&mut self, tenant: &mut Tenant, by: f64) {
        tenant.variance = 0.81 * tenant.variance + by * by;
        for level in &mut tenant.level {
            *level = 0.9 * *level + by * self.normal();
        }
    }

    /// Noise around the average, without memory.
    pub fn jitter(&mut self, tenant: &mut Tenant, by: f64) {
        for level in &mut tenant.level {
            *level = (1.0 + by * self.normal()).max(0.1).ln();
        }
    }
}

impl Tenant {
    /// What it takes now.
    pub fn need(&self) -> Need {
        let now: [f64; 5] = std::array::from_fn(|d| {
            let level = (self.level[d] - self.variance / 2.0).exp();
            (self.average[d] * level).min(DEMAND[d].2)
        });
        let [cpu, memory, disk, connections, gps] = now;
        let mib = |gb: f64| (gb * 1e9 / f64::from(1 << 20)).ceil() as u32;
        let mut need = Need { memory: mib(memory), disk: mib(disk), ..Need::default() };
        for hour in 0..HOURS {
            let share = self.busy.map_or(1.0, |busy| {
                let turn = (hour as f64 - busy) / 24.0 * std::f64::consts::TAU;
                (1.0 + 0.6 * turn.sin()).max(0.2)
            });
            let figures = [cpu * 1000.0, connections * 100.0, gps * 100.0];
            for (row, figure) in figures.into_iter().enumerate() {
                need.hourly[row][hour] = (figure * share).ceil() as u16;
            }
        }
        need
    }
}

/// Server number `n`, empty: 16 cores, 128 GB, 1 TB, 100 connections, 500 GPS
/// points a second, 150 tenants.
pub fn server(n: u32) -> NodeState {
    let shape = NodeShape {
        name: "ax52".to_owned(),
        kind: NodeKind::Shared,
        cpu_millicores: 16_000,
        memory_mb: 128_000,
        disk_gb: 1000,
        db_connections: 100,
        gps_points_per_second: 500,
        max_tenants: 150,
    };
    NodeState::new(NodeId(Uuid::from_u128(u128::from(n))), &shape, "fra".into())
}

/// `count` empty servers.
pub fn servers(count: u32) -> Vec<NodeState> {
    let model = server(0);
    let numbered =
        |n: u32| NodeState { id: NodeId(Uuid::from_u128(u128::from(n))), ..model.clone() };
    (1..=count).map(numbered).collect()
}

/// No fewer servers could carry these, by volume hour by hour, at `percent`.
pub fn bound<'a>(needs: impl IntoIterator<Item = &'a Need>, percent: u32) -> u32 {
    let mut sums = [[0_u64; HOURS]; 3];
    let mut scalars = [0_u64; 3];
    for need in needs {
        for (sums, day) in sums.iter_mut().zip(&need.hourly) {
            for (sum, hour) in sums.iter_mut().zip(day) {
                *sum += u64::from(*hour);
            }
        }
        scalars[0] += u64::from(need.memory);
        scalars[1] += u64::from(need.disk);
        scalars[2] += 1;
    }
    let [cpu, connections, gps] = sums.map(|day| day.into_iter().max().unwrap_or(0));
    let most = [cpu, scalars[0], scalars[1], connections, gps, scalars[2]];
    let limits = server(0).allowed(percent);
    let servers = most.iter().zip(limits).map(|(sum, limit)| sum.div_ceil(u64::from(limit).max(1)));
    servers.max().unwrap_or(0) as u32
}
