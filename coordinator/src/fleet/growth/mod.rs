//! A year of growth, simulated: what the fleet would look like, and cost, from
//! 40 tenants to 4,000.
//!
//! The tenants are made up: the catalogue's averages, spread log-normally
//! around them, with a day that has its busy hours around 14:00 of a time zone
//! of their own. Each week their number grows by the same factor, 1 % leave,
//! and those that stay use a little more or less. The policy is the real one.

pub mod chart;

#[cfg(test)]
mod tests;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};

use super::need::{HOURS, Need};
use super::node::NodeState;
use super::policy::Policy;
use super::simulate::{Round, Simulation};
use crate::decide::Catalog;
use crate::decide::plans::NodeKind;

/// How the fleet grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// Tenants in the first week.
    pub from: u32,
    /// Tenants in the last week.
    pub to: u32,
    /// How many weeks, at least 2.
    pub weeks: u32,
    /// The same seed gives the same tenants.
    pub seed: u64,
}

impl Default for Growth {
    /// 40 to 4,000 tenants in a year.
    fn default() -> Self {
        Self { from: 40, to: 4000, weeks: 52, seed: 1 }
    }
}

/// One week of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Week {
    /// Counted from 1.
    pub week: u32,
    /// Tenants at its end.
    pub tenants: u32,
    /// Servers that carry them.
    pub servers: u32,
    /// No fewer could, by volume and at the limit of overload.
    pub bound: u32,
    /// What a month costs for each tenant, in dollar cents.
    pub cents_per_tenant: u64,
    /// Tenants that were moved in it.
    pub moves: u32,
    /// Servers that were overloaded in it, until they were relieved.
    pub overloaded: u32,
}

/// Simulates it. None when the catalogue has no shape for shared nodes.
pub fn grow(catalog: &Catalog, policy: &Policy, growth: &Growth) -> Option<Vec<Week>> {
    let shape = catalog.shapes.iter().find(|shape| shape.kind == NodeKind::Shared)?;
    let model = NodeState::new(NodeId(Uuid::nil()), shape, "fra".into());
    let month = u64::try_from(catalog.costs.shared_server_month().0).unwrap_or(0);
    let mut simulation = Simulation::new(&model, policy);
    let mut town = Town::new(catalog, growth.seed);
    let steps = f64::from(growth.weeks.max(2) - 1);
    let factor = (f64::from(growth.to) / f64::from(growth.from.max(1))).powf(1.0 / steps);
    let mut weeks = Vec::new();
    for week in 1..=growth.weeks {
        let wanted = f64::from(growth.from) * factor.powf(f64::from(week - 1));
        let outcome = simulation.step(&town.week(week, wanted.round() as usize));
        weeks.push(Week {
            week,
            tenants: outcome.tenants,
            servers: outcome.servers,
            bound: outcome.bound,
            cents_per_tenant: (month * u64::from(outcome.servers))
                .checked_div(u64::from(outcome.tenants))
                .unwrap_or(0),
            moves: outcome.moved,
            overloaded: outcome.overloaded,
        });
    }
    Some(weeks)
}

/// Tenants that are made up.
struct Town {
    rng: StdRng,
    catalog: Catalog,
    /// Id, what it takes on average, its busy hour, how it stands this week.
    tenants: Vec<(TenantId, [f64; 5], f64, f64)>,
    next: u128,
}

impl Town {
    fn new(catalog: &Catalog, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, catalog: catalog.clone(), tenants: Vec::new(), next: 0 }
    }

    /// A standard normal figure.
    fn normal(&mut self) -> f64 {
        let (a, b): (f64, f64) = (self.rng.random_range(1e-12..1.0), self.rng.random());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    fn week(&mut self, week: u32, wanted: usize) -> Round {
        let mut round = Round { now_h: week * 7 * 24, ..Round::default() };
        for _ in 0..self.tenants.len() / 100 {
            let at = self.rng.random_range(0..self.tenants.len());
            round.gone.push(self.tenants.swap_remove(at).0);
        }
        for at in 0..self.tenants.len() {
            let drift = self.normal() * 0.1;
            let (id, average, busy, level) = &mut self.tenants[at];
            *level = *level * 0.9 + drift;
            round.changed.push((*id, need(average, *busy, *level)));
        }
        while self.tenants.len() < wanted {
            let (id, average, busy) = self.tenant();
            round.come.push((id, need(&average, busy, 0.0)));
            self.tenants.push((id, average, busy, 0.0));
        }
        round
    }

    fn tenant(&mut self) -> (TenantId, [f64; 5], f64) {
        self.next += 1;
        let size = self.normal();
        // How differently tenants take of each, around the averages.
        let spreads = [1.0, 0.5, 1.0, 0.6, 1.0];
        let averages = self.catalog.averages.amounts().to_array();
        let average = std::array::from_fn(|d| {
            let spread: f64 = spreads[d];
            let z = 0.6 * size + 0.8 * self.normal();
            averages[d] as f64 * (spread * z - spread * spread / 2.0).exp()
        });
        let busy = 14.0 + 3.0 * self.normal();
        (TenantId(Uuid::from_u128(self.next)), average, busy)
    }
}

/// What a tenant takes: its averages at this week's level, over its day.
fn need(average: &[f64; 5], busy: f64, level: f64) -> Need {
    let now = |d: usize| average[d] * level.exp();
    let mut need = Need {
        memory: (average[1] / f64::from(1 << 20)).ceil() as u32,
        disk: (average[2] / f64::from(1 << 20)).ceil() as u32,
        ..Need::default()
    };
    for hour in 0..HOURS {
        let turn = (hour as f64 - busy + 6.0) / 24.0 * std::f64::consts::TAU;
        let share = (1.0 + 0.6 * turn.sin()).max(0.2);
        for (row, d) in [0, 3, 4].into_iter().enumerate() {
            need.set_hour(row, hour, (now(d) * share).ceil() as u64);
        }
    }
    need
}
