//! The book: what is known of every tenant and node, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire;

use super::metrics::UsageMetrics;
use super::minute::Minute;
use super::node::{NodeUsage, TrackedNode};
use super::part::{OpenPart, Part, phase};
use super::profile::ROWS;
use super::rollup::Classes;
use super::sample::{Metric, Sample};
use super::series::Values;
use super::tenant::{Restored, TenantUsage, Tracked};
use crate::fleet::Amounts;
use crate::store::usage::{HourKey, Hourly};

/// So many parts of each tenant wait to be written, at most: six hours of them.
const MOST_OVER: usize = 30;
/// So many tenants are looked at before others may write.
const AT_ONCE: usize = 1000;

/// Everything in memory. What a crash takes is in `usage_hourly` but for the
/// rates of the last minutes, which the next reports bring again.
pub struct Book {
    window_us: i64,
    pages: RwLock<Pages>,
}

#[derive(Default)]
struct Pages {
    /// Boxed: a table of this size has as much room again that is empty.
    tenants: HashMap<TenantId, Box<Tracked>>,
    nodes: HashMap<NodeId, TrackedNode>,
    /// Only of those whose agent tells something by the minute.
    minutes: HashMap<TenantId, Minute>,
    /// Parts that are over and not yet written, oldest first. A crash loses
    /// them; their sums are written already.
    over: VecDeque<(TenantId, Part)>,
    /// What tenants of each plan take as a rule.
    classes: Classes,
    /// Every hour before this one has taught the usual days.
    learned: Timestamp,
}

impl Pages {
    fn keep(&mut self, parts: impl IntoIterator<Item = (TenantId, Part)>) {
        self.over.extend(parts);
        let most = self.tenants.len().max(1000) * MOST_OVER;
        if self.over.len() > most {
            let lost = self.over.len() - most;
            self.over.drain(..lost);
            tracing::warn!(
                lost,
                "minutes of usage could not be written for long; only sums remain"
            );
        }
    }
}

impl Book {
    /// An empty book whose rates are taken over `window`.
    pub fn new(window: Duration) -> Self {
        let window_us = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        Self { window_us, pages: RwLock::default() }
    }

    // A panic while the lock was held leaves sums that are valid each for
    // itself, so the book goes on.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a tenant at `now_us`; none when it was never
    /// reported.
    pub fn tenant(&self, tenant: TenantId, now_us: i64) -> Option<TenantUsage> {
        self.read().tenants.get(&tenant).map(|tracked| tracked.usage(tenant, now_us))
    }

    /// Every tenant that was reported, in no order.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.read().tenants.keys().copied().collect()
    }

    /// Hands what is known of every tenant at `now_us` to `each`, in no order.
    /// Who reports meanwhile waits for some of them, never for all.
    pub fn each(&self, now_us: i64, mut each: impl FnMut(TenantUsage)) {
        for some in self.tenants().chunks(AT_ONCE) {
            let pages = self.read();
            for id in some {
                if let Some(tracked) = pages.tenants.get(id) {
                    each(tracked.usage(*id, now_us));
                }
            }
        }
    }

    /// What is known of a node at `now_us`; none when it never reported to
    /// this process.
    pub fn node(&self, node: NodeId, now_us: i64) -> Option<NodeUsage> {
        self.read().nodes.get(&node).map(|tracked| tracked.usage(node, now_us))
    }

    /// Takes in a report that is applied: the host, and the samples of the
    /// tenants whose active side this node is.
    pub fn apply(
        &self,
        node: NodeId,
        report: &wire::Report,
        samples: &[(TenantId, Sample)],
        at_us: i64,
        interval_us: u64,
    ) {
        let mut pages = self.write();
        let window_us = self.window_us;
        pages.nodes.entry(node).or_insert_with(|| TrackedNode::new(window_us)).apply(
            report,
            at_us,
            interval_us,
        );
        let mut over = Vec::new();
        for (tenant, sample) in samples {
            let tracked = pages
                .tenants
                .entry(*tenant)
                .or_insert_with(|| Box::new(Tracked::new(node, window_us)));
            let ended = tracked.apply(phase(*tenant), node, sample, at_us, interval_us);
            over.extend(ended.map(|part| (*tenant, part)));
        }
        pages.keep(over);
    }

    /// Takes in what a report that is applied tells by the minute, of the
    /// tenants whose active side its node is.
    pub fn apply_minutes<'a>(
        &self,
        told: impl IntoIterator<Item = (TenantId, &'a wire::TenantMinute)>,
        at_us: i64,
    ) {
        let mut pages = self.write();
        for (tenant, told) in told {
            pages.minutes.entry(tenant).or_default().apply(told, at_us);
        }
    }

    /// Adds what is told of a tenant by the minute to its `usage` at `now_us`.
    pub fn show_minute(&self, tenant: TenantId, usage: &mut UsageMetrics, now_us: i64) {
        if let Some(minute) = self.read().minutes.get(&tenant) {
            minute.show(usage, now_us);
        }
    }

    /// Ends every part that is over at `minute` (since the Unix epoch), and
    /// answers all that are: they are the caller's to write.
    pub fn take_over(&self, minute: i64) -> Vec<(TenantId, Part)> {
        for some in self.tenants().chunks(AT_ONCE) {
            let mut pages = self.write();
            for id in some {
                let ended = pages.tenants.get_mut(id).and_then(|tracked| tracked.end_part(minute));
                pages.over.extend(ended.map(|part| (*id, part)));
            }
        }
        let mut pages = self.write();
        pages.keep([]);
        std::mem::take(&mut pages.over).into()
    }

    /// A tenant's minutes that are not written yet: parts that are over, and the
    /// running one.
    pub fn unwritten(&self, tenant: TenantId) -> Vec<Part> {
        let pages = self.read();
        let over = pages.over.iter().filter(|(of, _)| *of == tenant).map(|(_, part)| part.clone());
        let running = pages.tenants.get(&tenant).and_then(|tracked| tracked.open.clone());
        over.chain(running.map(OpenPart::close)).collect()
    }

    /// Takes back parts that could not be written, to be tried again.
    pub fn give_back(&self, parts: Vec<(TenantId, Part)>) {
        let mut pages = self.write();
        let newer = std::mem::take(&mut pages.over);
        pages.keep(parts);
        pages.keep(newer);
    }

    /// Takes in the percentiles of hours that were made: the tenant's first hour
    /// (since the Unix epoch), and one value an hour from there on. An hour that
    /// it learned before and learns `again` frees nothing.
    pub fn teach(&self, tenant: TenantId, hour: i64, rows: &[Values; ROWS], again: bool) {
        if let Some(tracked) = self.write().tenants.get_mut(&tenant) {
            tracked.teach(hour, rows, again);
        }
    }

    /// Every hour before this one has taught the usual days.
    pub(super) fn learned(&self) -> Timestamp {
        self.read().learned
    }

    /// Notes that every hour before this one has.
    pub(super) fn set_learned(&self, before: Timestamp) {
        self.write().learned = before;
    }

    /// What tenants of each plan take as a rule.
    pub fn set_classes(&self, classes: Classes) {
        self.write().classes = classes;
    }

    /// What a tenant of `plan` takes as a rule; none while too few are known.
    pub fn class(&self, plan: &str) -> Option<Amounts> {
        self.read().classes.of_plan(plan)
    }

    /// What a tenant's like take as a rule.
    pub fn class_of(&self, tenant: TenantId) -> Option<Amounts> {
        self.read().classes.of_tenant(tenant)
    }

    /// Takes in stored roll-ups, after a restart.
    pub fn restore(&self, rows: &[(HourKey, Hourly)]) {
        let mut pages = self.write();
        for (key, row) in rows {
            let tracked = pages
                .tenants
                .entry(key.tenant)
                .or_insert_with(|| Box::new(Tracked::new(key.node, self.window_us)));
            tracked.restore_node(key.node, key.hour.as_microsecond());
            tracked.restore(
                key.hour.as_microsecond(),
                &Restored {
                    cpu_us: row.cpu_us,
                    gps_points: row.gps_points,
                    api_calls: row.api_calls,
                    api_errors: row.api_errors,
                    batch_operations: row.batch_operations,
                    realtime_operations: row.realtime_operations,
                    memory_bytes: row.memory_bytes_max,
                    client_connections: row.client_connections_max,
                    vehicles: row.vehicles,
                    storage_bytes: row.storage_bytes,
                },
            );
            tracked.restore_gauge(Metric::Vehicles, row.vehicles, false);
            tracked.restore_gauge(Metric::StorageBytes, row.storage_bytes, false);
            tracked.restore_gauge(Metric::MemoryBytes, row.memory_bytes_max, row.attributed);
        }
    }

    /// Takes in the sums of two months, for the growth.
    pub fn set_months(&self, months: &[(TenantId, u64, u64)]) {
        let mut pages = self.write();
        for (tenant, last, before) in months {
            if let Some(tracked) = pages.tenants.get_mut(tenant) {
                tracked.set_months(*last, *before);
            }
        }
    }

    /// Forgets tenants that nobody reported since `before_us`, so that the
    /// book doesn't grow with those that are gone.
    pub fn forget(&self, before_us: i64) {
        let pages = &mut *self.write();
        pages.tenants.retain(|_, tracked| tracked.at_us() >= before_us);
        pages.minutes.retain(|tenant, _| pages.tenants.contains_key(tenant));
    }
}
