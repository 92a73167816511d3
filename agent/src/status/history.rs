//! The last rounds of every tenant, for the status's lines: bounded, and
//! forgotten with the tenant.

use std::collections::{BTreeMap, VecDeque};

use super::document::{Tenant, Trend};

/// Rounds that are kept.
pub const ROUNDS: usize = 24;
/// Tenants whose rounds are kept: the first of a node that has more.
const MAX_TENANTS: usize = 1_000;

/// Of one round, in units that fit: thousandths of a core, KiB, thousandths
/// of a point a second, connections.
type Point = [u32; 4];

/// By the tenant's id.
#[derive(Debug, Default)]
pub struct History(BTreeMap<String, VecDeque<Point>>);

impl History {
    /// Takes a round.
    pub fn round(&mut self, tenants: &[Tenant]) {
        let mut before = std::mem::take(&mut self.0);
        for tenant in tenants.iter().take(MAX_TENANTS) {
            let mut points = before.remove(&tenant.id).unwrap_or_default();
            while points.len() >= ROUNDS {
                points.pop_front();
            }
            points.push_back(point(tenant));
            self.0.insert(tenant.id.clone(), points);
        }
    }

    /// Gives every tenant its trend: when somebody looks, not at every round.
    pub fn show(&self, tenants: &mut [Tenant]) {
        for tenant in tenants {
            let Some(points) = self.0.get(&tenant.id) else { continue };
            let column = |at: usize| points.iter().map(|point| u64::from(point[at])).collect();
            tenant.trend = Trend {
                cpu_milli: column(0),
                memory_kib: column(1),
                gps_points_per_s_milli: column(2),
                db_connections: column(3),
            };
        }
    }
}

fn point(tenant: &Tenant) -> Point {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    [
        small(tenant.cpu_milli.sum().unwrap_or(0)),
        small(tenant.memory_bytes.sum().unwrap_or(0) / 1024),
        small(tenant.gps_points_per_s_milli.sum().unwrap_or(0)),
        small(tenant.db_connections.sum().unwrap_or(0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::document::Figure;
    use super::*;

    #[test]
    fn rounds_are_kept_up_to_a_bound_and_forgotten_with_the_tenant() {
        let mut history = History::default();
        let mut tenants = [Tenant { id: "a".into(), ..Tenant::default() }];
        for round in 0..30 {
            tenants[0].cpu_milli = Figure { measured: Some(round), attributed: None };
            history.round(&tenants);
        }
        history.show(&mut tenants);
        assert_eq!(tenants[0].trend.cpu_milli, (6..30).collect::<Vec<u64>>());
        history.round(&[]);
        history.round(&tenants);
        history.show(&mut tenants);
        assert_eq!(tenants[0].trend.cpu_milli, [29], "one who left begins anew");
    }
}
