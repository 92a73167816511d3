//! Made-up tenants, and what they do in a minute.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;
use webhost_coordinator::usage::sample::{Metric, Sample};
use webhost_proto::ids::{NodeId, TenantId};

/// Tenants of a shared node.
const ON_A_NODE: u32 = 150;
const MIB: u64 = 1 << 20;

/// What one node says of its tenants.
pub type Reported = (NodeId, Vec<(TenantId, Sample)>);

/// Tenants that are busy by day, each at hours of its own, with noise.
pub struct Tenants {
    count: u32,
    rng: StdRng,
}

impl Tenants {
    /// So many, the same in every run.
    pub fn new(count: u32) -> Self {
        Self { count, rng: StdRng::seed_from_u64(5) }
    }

    /// The id of one of them.
    pub fn id(n: u32) -> TenantId {
        TenantId(Uuid::from_u128((0x0190 << 112) | (u128::from(n) + 1)))
    }

    /// What all of them do in the minute that ends at `minute` (since the Unix
    /// epoch), node by node.
    pub fn minute(&mut self, minute: i64) -> Vec<Reported> {
        let hour = minute.div_euclid(60).rem_euclid(24);
        let nodes = (0..self.count).step_by(ON_A_NODE as usize);
        nodes
            .map(|first| {
                let node = NodeId(Uuid::from_u128(u128::from(first) + 1));
                let last = self.count.min(first + ON_A_NODE);
                let of_one = |n| (Self::id(n), sample(&mut self.rng, n, hour));
                (node, (first..last).map(of_one).collect())
            })
            .collect()
    }
}

/// One minute of tenant `n` in a UTC hour of the day.
fn sample(rng: &mut StdRng, n: u32, hour: i64) -> Sample {
    // Ten busy hours, which begin at an hour of its own.
    let busy = (hour + i64::from(n % 24)).rem_euclid(24) < 10;
    let vehicles = u64::from(1 + n % 40);
    let work = if busy { vehicles } else { 1 };
    let points = rng.random_range(work * 5..=work * 7);
    let calls = rng.random_range(work..=work * 3);
    let mut sample = Sample::default();
    let mut set = |metric, value| sample.set(metric, value, false);
    set(Metric::CpuUs, points * 4000 + calls * 20_000 + rng.random_range(0..100_000));
    set(Metric::GpsPoints, points);
    set(Metric::ApiCalls, calls);
    set(Metric::ApiErrors, u64::from(rng.random_range(0..50) == 0));
    set(Metric::RequestDurationUs, calls * rng.random_range(5000..60_000));
    set(Metric::BatchOperations, calls / 4);
    set(Metric::RealtimeOperations, points);
    set(Metric::MemoryBytes, (200 + vehicles * 20) * MIB + rng.random_range(0..20) * MIB);
    set(Metric::StorageBytes, vehicles * 150 * MIB);
    set(Metric::DbConnections, 1 + rng.random_range(0..=work / 8));
    set(Metric::DbConnectionsActive, rng.random_range(0..=1));
    set(Metric::ClientConnections, rng.random_range(work / 2..=work));
    set(Metric::Vehicles, vehicles);
    sample
}
