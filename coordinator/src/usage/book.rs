//! The book: what is known of every tenant and node, in memory.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire;

use super::node::{NodeUsage, TrackedNode};
use super::sample::{Metric, Sample};
use super::tenant::{Restored, TenantUsage, Tracked};
use crate::store::usage::{HourKey, Hourly};

/// Everything in memory. What a crash takes is in `usage_hourly` but for the
/// rates of the last minutes, which the next reports bring again.
pub struct Book {
    window_us: i64,
    pages: RwLock<Pages>,
}

#[derive(Default)]
struct Pages {
    tenants: HashMap<TenantId, Tracked>,
    nodes: HashMap<NodeId, TrackedNode>,
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

    /// What is known of every tenant at `now_us`, in no order.
    pub fn all(&self, now_us: i64) -> Vec<TenantUsage> {
        self.read().tenants.iter().map(|(id, tracked)| tracked.usage(*id, now_us)).collect()
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
        for (tenant, sample) in samples {
            pages.tenants.entry(*tenant).or_insert_with(|| Tracked::new(node, window_us)).apply(
                node,
                sample,
                at_us,
                interval_us,
            );
        }
    }

    /// Takes in stored roll-ups, after a restart.
    pub fn restore(&self, rows: &[(HourKey, Hourly)]) {
        let mut pages = self.write();
        for (key, row) in rows {
            let tracked = pages
                .tenants
                .entry(key.tenant)
                .or_insert_with(|| Tracked::new(key.node, self.window_us));
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
        self.write().tenants.retain(|_, tracked| tracked.at_us() >= before_us);
    }
}
