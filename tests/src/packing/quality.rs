//! How well servers are filled, and how calm they stay: a static fleet, one
//! whose tenants drift and change, and a month of noise around the same.

use anyhow::ensure;
use uuid::Uuid;
use webhost_coordinator::fleet::Policy;
use webhost_coordinator::fleet::rooms::{Ask, Rooms};
use webhost_coordinator::fleet::simulate::{Outcome, Round, Simulation};
use webhost_proto::ids::TenantId;

use super::ax52::{self, Tenant, Tenants};
use super::plain::Plain;
use crate::measure::figures::Figures;

/// 150,000 tenants, the same at all hours, one after another.
///
/// # Errors
/// When a tenant finds no place.
pub fn fixed(figures: &mut Figures) -> anyhow::Result<()> {
    let mut tenants = Tenants::new(11);
    let needs: Vec<_> = (0..150_000).map(|_| tenants.next(false).need()).collect();
    let bound = ax52::bound(&needs, 80);
    let over = |used: u32| (f64::from(used) / f64::from(bound) - 1.0) * 100.0;
    let mut rooms = Rooms::new(&ax52::servers(1200), 80);
    for need in &needs {
        let at = rooms.choose(&Ask::of(need));
        ensure!(at.is_some(), "no room for a tenant");
        at.into_iter().for_each(|at| rooms.charge(at, need));
    }
    let used = rooms.rooms().iter().filter(|room| room.load.tenants > 0).count() as u32;
    figures.less("static AX52 fleet: servers over the bound", over(used), "%", Some(1.5));
    for (what, best) in [("first fit", false), ("best fit", true)] {
        let mut plain = Plain::new(1200, ax52::server(0).allowed(80));
        for need in &needs {
            let at = if best { plain.best_fit(need) } else { plain.first_fit(need) };
            ensure!(at.is_some(), "no room for a tenant");
        }
        figures.less(&format!("  baseline, {what}"), over(plain.used()), "%", None);
    }
    Ok(())
}

/// Tenants by number, as they are now.
struct Crowd {
    made: Tenants,
    tenants: Vec<(TenantId, Tenant)>,
    next: u128,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        Self { made: Tenants::new(seed), tenants: Vec::new(), next: 0 }
    }

    fn come(&mut self, count: usize, with_day: bool, round: &mut Round) {
        for _ in 0..count {
            self.next += 1;
            let (id, tenant) = (TenantId(Uuid::from_u128(self.next)), self.made.next(with_day));
            round.come.push((id, tenant.need()));
            self.tenants.push((id, tenant));
        }
    }

    fn go(&mut self, count: usize, round: &mut Round) {
        for _ in 0..count {
            let at = self.made.below(self.tenants.len());
            round.gone.push(self.tenants.swap_remove(at).0);
        }
    }

    fn change(&mut self, change: impl Fn(&mut Tenants, &mut Tenant), round: &mut Round) {
        for (id, tenant) in &mut self.tenants {
            change(&mut self.made, tenant);
            round.changed.push((*id, tenant.need()));
        }
    }
}

fn mean(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64
}

/// 30,000 tenants, 60 rounds, a week each; in each, every tenant drifts and 3 %
/// are replaced.
pub fn churn(figures: &mut Figures) {
    let mut crowd = Crowd::new(13);
    let mut simulation = Simulation::new(&ax52::server(0), &Policy::default());
    let mut outcomes = Vec::new();
    for week in 0..61 {
        let mut round = Round { now_h: week * 168, ..Round::default() };
        if week == 0 {
            crowd.come(30_000, false, &mut round);
            simulation.step(&round);
            continue;
        }
        crowd.go(900, &mut round);
        crowd.change(|made, tenant| made.drift(tenant, 0.25), &mut round);
        crowd.come(900, false, &mut round);
        outcomes.push(simulation.step(&round));
    }
    let over = |o: &Outcome| (f64::from(o.servers) / f64::from(o.bound) - 1.0) * 100.0;
    let share = |o: &Outcome| f64::from(o.moved) / f64::from(o.tenants) * 100.0;
    figures.less("churn: servers over the bound, mean", mean(&outcomes, over), "%", Some(5.0));
    let overloaded = mean(&outcomes, |o| f64::from(o.overloaded));
    figures.less("churn: overloaded servers a round", overloaded, "", Some(5.0));
    let unrelieved = mean(&outcomes, |o| f64::from(o.unrelieved));
    figures.less("churn: still overloaded after it", unrelieved, "", Some(0.0));
    figures.less("churn: tenants moved a round", mean(&outcomes, share), "%", Some(0.5));
    figures.less("churn: servers, mean", mean(&outcomes, |o| f64::from(o.servers)), "", None);
    figures.less("churn: bound, mean", mean(&outcomes, |o| f64::from(o.bound)), "", None);
}

/// 15,000 tenants with days, a month, 10 % noise every day around the same.
pub fn month(figures: &mut Figures) {
    let mut crowd = Crowd::new(17);
    let mut simulation = Simulation::new(&ax52::server(0), &Policy::default());
    let mut outcomes = Vec::new();
    for day in 0..31 {
        let mut round = Round { now_h: 10_000 + day * 24, ..Round::default() };
        if day == 0 {
            crowd.come(15_000, true, &mut round);
            simulation.step(&round);
            continue;
        }
        crowd.change(|made, tenant| made.jitter(tenant, 0.1), &mut round);
        outcomes.push(simulation.step(&round));
    }
    let returned = outcomes.iter().map(|o| f64::from(o.returned)).sum();
    figures.less("a month of noise: tenants moved there and back", returned, "", Some(0.0));
    let share = |o: &Outcome| f64::from(o.moved) / f64::from(o.tenants) * 100.0;
    let name = "a month of noise: tenants moved a day, mean";
    figures.less(name, mean(&outcomes, share), "%", Some(0.1));
    let most = outcomes.iter().map(share).fold(0.0, f64::max);
    figures.less("  on the worst day, when a server was given up", most, "%", None);
    let overloaded = outcomes.iter().map(|o| f64::from(o.overloaded)).sum();
    figures.less("  overloaded servers in all", overloaded, "", None);
}
