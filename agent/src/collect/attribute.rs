//! Shares of what all tenants use together.
//!
//! On a shared server one application and one PostgreSQL serve everybody, so
//! a tenant's CPU and memory can't be read anywhere. What can be read is what
//! each process uses as a whole, and how much of its work was whose. The
//! whole is split by the work:
//!
//! - **CPU** of an interval, by the work done in it. An interval without work
//!   is the cost of being there; it is the machine's, nobody's. While the
//!   source of the work is silent, CPU waits for its next word.
//! - **Memory**, a gauge, by the work of the last half hour or so (it halves
//!   every ten minutes), since caches and heaps outlive the request that made
//!   them. All of it is split; no base is kept back, because nothing measures
//!   one. Without any work it is the machine's.
//! - **Connections** that no name gives to a tenant, as memory.
//!
//! Work is counted in microseconds. For the application it is request time;
//! for the database too, because a query that takes long is what costs it and
//! a request waits for its queries. A point is taken as
//! [`POINT_US`]/[`POINT_DATABASE_US`], a call without a duration as
//! [`CALL_US`]: nominal values, which matter only where both kinds mix.
//!
//! **Invariant:** of each process the tenants' parts and the machine's part
//! add up to what was measured, exactly. Tenants that live elsewhere but left
//! work here (late requests after a move) have a part too, which is not
//! reported, so that nobody else pays for them.

use std::collections::BTreeMap;

use webhost_proto::ids::TenantId;

use super::proc::Use;
use super::split::split;
use crate::config::SplitBy;

/// Work of one GPS point for the application, in microseconds.
pub const POINT_US: u64 = 100;
/// Work of one GPS point for the database, in microseconds.
pub const POINT_DATABASE_US: u64 = 200;
/// Work of a call whose duration nobody measures, in microseconds.
pub const CALL_US: u64 = 1_000;

/// Rounds that CPU waits for word of the work.
const PATIENCE: u32 = 12;

/// In which decayed work halves.
const HALF_LIFE_MS: f64 = 600_000.0;

/// One tenant's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub app: u64,
    pub database: u64,
}

impl Work {
    /// From what was counted in an interval; `duration_us` is `None` where
    /// durations aren't measured.
    pub fn of(points: u64, calls: u64, duration_us: Option<u64>) -> Self {
        let requests = duration_us.unwrap_or(calls.saturating_mul(CALL_US));
        Self {
            app: requests.saturating_add(points.saturating_mul(POINT_US)),
            database: requests.saturating_add(points.saturating_mul(POINT_DATABASE_US)),
        }
    }

    fn by(self, by: SplitBy) -> u64 {
        match by {
            SplitBy::App => self.app,
            SplitBy::Database => self.database,
        }
    }
}

/// A shared process at this round.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub name: &'a str,
    pub split_by: SplitBy,
    /// CPU as a total; `None` when it could not be read.
    pub used: Option<Use>,
}

/// What became of one shared process's use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessShare {
    pub name: String,
    /// Split now; includes what had waited.
    pub cpu_us: u64,
    /// Of an interval without work.
    pub cpu_idle_us: u64,
    pub memory_bytes: u64,
    /// Whether the memory was split; without any work it is not.
    pub memory_split: bool,
}

/// What one tenant gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub cpu_us: u64,
    pub memory_bytes: u64,
    pub connections: u64,
    pub connections_active: u64,
}

/// The result of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributed {
    pub tenants: BTreeMap<TenantId, Part>,
    pub processes: Vec<ProcessShare>,
}

#[derive(Debug, Default)]
struct Account {
    /// The process's total up to here has been dealt with or waits.
    seen: u64,
    waiting: u64,
    rounds: u32,
}

/// What is carried from round to round.
#[derive(Debug, Default)]
pub struct Attributor {
    accounts: BTreeMap<String, Account>,
    decayed: BTreeMap<TenantId, Work>,
}

impl Attributor {
    /// Splits one round. `work` is what was done since the last round in
    /// which it was known, `None` when its source had nothing new to say;
    /// `connections` are (all, active) that no name gives to a tenant.
    pub fn round(
        &mut self,
        elapsed_ms: u64,
        work: Option<&BTreeMap<TenantId, Work>>,
        shared: &[Shared<'_>],
        connections: (u64, u64),
    ) -> Attributed {
        self.age(elapsed_ms, work);
        let mut result = Attributed::default();
        for process in shared {
            let Some(used) = process.used else { continue };
            let account = self.accounts.entry(process.name.to_owned()).or_default();
            account.waiting += used.cpu_us.saturating_sub(account.seen);
            account.seen = used.cpu_us;
            let mut share =
                ProcessShare { name: process.name.to_owned(), ..ProcessShare::default() };
            let done = work.map(|work| weights(work, process.split_by)).unwrap_or_default();
            account.rounds += 1;
            if done.iter().any(|&(_, weight)| weight > 0) {
                share.cpu_us = std::mem::take(&mut account.waiting);
                for (tenant, part) in parts(share.cpu_us, &done) {
                    result.tenants.entry(tenant).or_default().cpu_us += part;
                }
                account.rounds = 0;
            } else if work.is_some() || account.rounds >= PATIENCE {
                share.cpu_idle_us = std::mem::take(&mut account.waiting);
                account.rounds = 0;
            }
            let lasting = weights(&self.decayed, process.split_by);
            share.memory_bytes = used.memory_bytes;
            share.memory_split = lasting.iter().any(|&(_, weight)| weight > 0);
            for (tenant, part) in parts(used.memory_bytes, &lasting) {
                result.tenants.entry(tenant).or_default().memory_bytes += part;
            }
            result.processes.push(share);
        }
        let lasting = weights(&self.decayed, SplitBy::Database);
        for (tenant, part) in parts(connections.0, &lasting) {
            result.tenants.entry(tenant).or_default().connections = part;
        }
        for (tenant, part) in parts(connections.1, &lasting) {
            result.tenants.entry(tenant).or_default().connections_active = part;
        }
        result
    }

    /// Lets the old work fade and adds the new.
    fn age(&mut self, elapsed_ms: u64, work: Option<&BTreeMap<TenantId, Work>>) {
        // A factor of at most one, as 32 bits after the point: a count fades
        // as an integer, and reaches zero.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let factor = (0.5f64.powf(elapsed_ms as f64 / HALF_LIFE_MS) * 4_294_967_296.0) as u64;
        let fade = |value: u64| {
            u64::try_from((u128::from(value) * u128::from(factor)) >> 32).unwrap_or(value)
        };
        self.decayed.retain(|_, old| {
            *old = Work { app: fade(old.app), database: fade(old.database) };
            *old != Work::default()
        });
        for (tenant, new) in work.into_iter().flatten() {
            if *new != Work::default() {
                let sum = self.decayed.entry(*tenant).or_default();
                sum.app = sum.app.saturating_add(new.app);
                sum.database = sum.database.saturating_add(new.database);
            }
        }
    }
}

fn weights(work: &BTreeMap<TenantId, Work>, by: SplitBy) -> Vec<(TenantId, u64)> {
    work.iter().map(|(tenant, work)| (*tenant, work.by(by))).collect()
}

fn parts(amount: u64, weights: &[(TenantId, u64)]) -> impl Iterator<Item = (TenantId, u64)> {
    let list: Vec<u64> = weights.iter().map(|&(_, weight)| weight).collect();
    let tenants: Vec<TenantId> = weights.iter().map(|&(tenant, _)| tenant).collect();
    tenants.into_iter().zip(split(amount, &list)).filter(|&(_, part)| part > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn tenant(n: u128) -> TenantId {
        TenantId(Uuid::from_u128(n))
    }

    fn app(cpu_us: u64, memory_bytes: u64) -> Shared<'static> {
        Shared { name: "app", split_by: SplitBy::App, used: Some(Use { cpu_us, memory_bytes }) }
    }

    fn work(amounts: &[u64]) -> BTreeMap<TenantId, Work> {
        let each = |(n, &app): (usize, &u64)| (tenant(n as u128), Work { app, database: 0 });
        amounts.iter().enumerate().map(each).collect()
    }

    #[test]
    fn work_pays_idleness_does_not_and_silence_waits() {
        let mut attributor = Attributor::default();
        let result = attributor.round(1_000, Some(&work(&[0, 0])), &[app(100, 50)], (0, 0));
        assert_eq!((result.processes[0].cpu_us, result.processes[0].cpu_idle_us), (0, 100));
        assert!(!result.processes[0].memory_split && result.tenants.is_empty());

        let result = attributor.round(1_000, None, &[app(140, 50)], (0, 0));
        assert_eq!((result.processes[0].cpu_us, result.processes[0].cpu_idle_us), (0, 0));

        let result = attributor.round(1_000, Some(&work(&[3, 1])), &[app(200, 80)], (8, 4));
        assert_eq!(result.processes[0].cpu_us, 100, "what waited is split with the rest");
        assert_eq!(result.tenants[&tenant(0)].cpu_us, 75);
        assert_eq!(result.tenants[&tenant(1)].cpu_us, 25);
        assert_eq!(result.tenants[&tenant(0)].memory_bytes, 60);
        assert_eq!(result.tenants[&tenant(0)].connections, 0, "no work for the database");

        // Memory outlives the work that made it.
        let result = attributor.round(1_000, Some(&work(&[0, 0])), &[app(200, 80)], (0, 0));
        assert!(result.processes[0].memory_split);
    }

    #[test]
    fn silence_ends() {
        let mut attributor = Attributor::default();
        let mut idle = 0;
        for _ in 0..PATIENCE {
            idle += attributor.round(1_000, None, &[app(100, 0)], (0, 0)).processes[0].cpu_idle_us;
        }
        assert_eq!(idle, 100);
    }

    #[test]
    fn old_work_fades_away() {
        let mut attributor = Attributor::default();
        attributor.round(0, Some(&work(&[1_000_000])), &[], (0, 0));
        attributor.round(600_000, None, &[], (0, 0));
        assert_eq!(attributor.decayed[&tenant(0)].app, 500_000);
        attributor.round(36_000_000, None, &[], (0, 0));
        assert!(attributor.decayed.is_empty());
    }

    proptest! {
        #[test]
        fn parts_add_up_to_what_was_measured(
            rounds in proptest::collection::vec(
                (0u64..5_000_000, 0u64..1 << 40, proptest::option::of(
                    proptest::collection::vec(0u64..1_000_000, 0..12))),
                1..20,
            )
        ) {
            let mut attributor = Attributor::default();
            let (mut total, mut given, mut idle) = (0, 0, 0);
            for (cpu, memory, amounts) in rounds {
                total += cpu;
                let work = amounts.as_deref().map(work);
                let result = attributor.round(5_000, work.as_ref(), &[app(total, memory)], (9, 3));
                let process = &result.processes[0];
                let parts: u64 = result.tenants.values().map(|part| part.cpu_us).sum();
                prop_assert_eq!(parts, process.cpu_us);
                let memory_parts: u64 = result.tenants.values().map(|part| part.memory_bytes).sum();
                prop_assert_eq!(memory_parts, if process.memory_split { memory } else { 0 });
                given += parts;
                idle += process.cpu_idle_us;
            }
            let waiting = attributor.accounts["app"].waiting;
            prop_assert_eq!(given + idle + waiting, total);
        }
    }
}
