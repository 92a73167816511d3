//! One round: what the sources have published becomes one report.
//!
//! Sources publish totals; the assembler keeps what it has reported of each
//! and reports the increase, so a round that is skipped (because the link
//! takes nothing) loses nothing. Gauges are reported while they are fresh: a
//! number of connections from a minute ago is no number of connections.
//!
//! **Which tenants live here.** Those in the database whose fence doesn't send
//! them elsewhere, and those that have a container. A tenant that only the
//! application speaks of is reported while it is active: a series that stands
//! still is left over from one that moved away, a series that moves is a fact
//! that the coordinator must see. Where a database is configured, nobody is
//! named before it has answered once: only the fence knows who moved.

mod health;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;
use webhost_proto::wire;

use super::app::{AppReading, AppTenant};
use super::attribute::{Attributed, Attributor, ProcessShare, Shared, Work};
use super::columns;
use super::container::ContainersReading;
use super::host::HostReading;
use super::postgres::PostgresReading;
use super::shared::SharedReading;
use super::source::Published;
use crate::config::SplitBy;
use crate::link::report::CollectedReport;
use health::{MAX_SLUG_BYTES, healths, shortened};

/// How long an application's tenant without a row is reported after its last
/// activity.
const LINGER: Duration = Duration::from_secs(600);

/// What the sources have published.
pub struct Sources<'a> {
    pub host: &'a Published<HostReading>,
    pub containers: &'a Published<ContainersReading>,
    pub postgres: &'a Published<PostgresReading>,
    pub app: &'a Published<AppReading>,
    pub shared: &'a Published<SharedReading>,
}

/// Where a shared process is read, and how it is split.
#[derive(Clone, Debug)]
pub struct SharedPlan {
    pub name: String,
    pub split_by: SplitBy,
    /// The container's name, where it runs in one.
    pub container: Option<String>,
}

/// What one tenant did and has, in one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRound {
    pub slug: String,
    /// Increases.
    pub app: Option<AppTenant>,
    /// Of its own containers: CPU as an increase; memory while one runs.
    pub own_cpu_us: Option<u64>,
    pub own_memory_bytes: Option<u64>,
    /// Points that the database counted, as an increase.
    pub stored_points: Option<u64>,
    pub storage_bytes: Option<u64>,
    pub vehicles: Option<u64>,
    /// (all, active), by a name that tells the tenant.
    pub named_connections: Option<(u64, u64)>,
    /// Of the shared processes; absent where none is configured.
    pub cpu_us: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// (all, active), of the shared connections.
    pub connections: Option<(u64, u64)>,
}

/// One round, for the link and for the status.
#[derive(Clone, Debug)]
pub struct Round {
    pub report: CollectedReport,
    pub tenants: BTreeMap<TenantId, TenantRound>,
    pub bounds: Vec<u64>,
    pub shared: Vec<ProcessShare>,
    /// True when the storage is one tenant's alone.
    pub storage_measured: bool,
}

/// What was reported of a tenant up to now.
#[derive(Clone, Debug, Default)]
struct Reported {
    app: AppTenant,
    /// By bound, so that an application may change them.
    buckets: BTreeMap<u64, u64>,
    own_cpu_us: u64,
    stored_points: u64,
    active: Option<Instant>,
}

/// The state between rounds.
pub struct Assembler {
    plans: Vec<SharedPlan>,
    has_postgres: bool,
    has_app: bool,
    host: HostReading,
    reported: BTreeMap<TenantId, Reported>,
    attributor: Attributor,
    app_round: u64,
    last: Option<Instant>,
}

impl Assembler {
    /// `has_postgres`, `has_app`: whether they are configured.
    pub fn new(plans: Vec<SharedPlan>, has_postgres: bool, has_app: bool) -> Self {
        Self {
            plans,
            has_postgres,
            has_app,
            host: HostReading::default(),
            reported: BTreeMap::new(),
            attributor: Attributor::default(),
            app_round: 0,
            last: None,
        }
    }

    /// Makes the round that ends now. `interval` is the configured length:
    /// gauges older than three of them are left out.
    pub fn assemble(
        &mut self,
        sources: &Sources<'_>,
        now: Instant,
        collected_at_us: i64,
        interval: Duration,
    ) -> Round {
        let elapsed = self.last.map_or(interval, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let limit = interval * 3 + Duration::from_secs(2);

        let mut increases = self.increases(sources, now);
        let living = self.living(sources, now);
        let attributed = self.attribute(sources, &increases, elapsed_ms, now, limit);

        let postgres = sources.postgres.value.as_ref();
        let fresh = sources.postgres.fresh(now, limit);
        let containers = sources.containers.fresh(now, limit);
        let mut tenants = BTreeMap::new();
        for id in living {
            let increase = increases.remove(&id).unwrap_or_default();
            let mut tenant = TenantRound {
                app: increase.app,
                own_cpu_us: increase.own_cpu_us,
                stored_points: increase.stored_points,
                ..TenantRound::default()
            };
            if let Some(own) = containers.and_then(|reading| reading.tenants.get(&id)) {
                tenant.own_memory_bytes = (own.running > 0).then_some(own.memory_bytes);
            }
            // What the survey found stays true for a while; its age is in the
            // source's health.
            if let Some(row) = postgres.and_then(|reading| reading.tenants.get(&id)) {
                tenant.slug.clone_from(&row.slug);
                tenant.storage_bytes = row.storage_bytes;
                tenant.vehicles = row.vehicles;
            }
            if let Some(reading) = fresh {
                tenant.named_connections = reading.connections.named.get(&id).copied();
            }
            let part = attributed.tenants.get(&id).copied().unwrap_or_default();
            if !attributed.processes.is_empty() {
                tenant.cpu_us = Some(part.cpu_us);
                if attributed.processes.iter().any(|process| process.memory_split) {
                    tenant.memory_bytes = Some(part.memory_bytes);
                }
            }
            if fresh.is_some() {
                tenant.connections = Some((part.connections, part.connections_active));
            }
            tenants.insert(id, tenant);
        }
        let all_here = postgres.is_some_and(|p| p.tenants.len() == 1 && p.elsewhere.is_empty());
        let app_bounds = sources.app.value.as_ref().map_or(&[][..], |app| &app.bounds);
        let mut report = CollectedReport {
            collected_at_us,
            interval_ms: u32::try_from(elapsed_ms).unwrap_or(u32::MAX).max(1),
            tenants: tenants
                .iter()
                .map(|(id, tenant)| (*id, shortened(&tenant.slug, MAX_SLUG_BYTES)))
                .collect(),
            host: self.host_sample(sources, now, limit),
            columns: Vec::new(),
            sources: healths(sources),
        };
        report.columns = columns::columns(&tenants, app_bounds, all_here);
        Round {
            report,
            tenants,
            bounds: app_bounds.to_vec(),
            shared: attributed.processes,
            storage_measured: all_here,
        }
    }

    /// The increases of every tenant that any source knows. Those of tenants
    /// that will not be reported are consumed as well: what a tenant does
    /// here while it lives elsewhere is not usage.
    fn increases(
        &mut self,
        sources: &Sources<'_>,
        now: Instant,
    ) -> BTreeMap<TenantId, TenantRound> {
        let mut increases: BTreeMap<TenantId, TenantRound> = BTreeMap::new();
        if self.has_postgres && sources.postgres.value.is_none() {
            return increases;
        }
        if let Some(app) = &sources.app.value {
            for (id, totals) in &app.tenants {
                let reported = self.reported.entry(*id).or_default();
                let (increase, active) = reported.app_increase(totals, &app.bounds);
                if active {
                    reported.active = Some(now);
                }
                increases.entry(*id).or_default().app = Some(increase);
            }
        }
        if let Some(containers) = &sources.containers.value {
            for (id, own) in &containers.tenants {
                let reported = self.reported.entry(*id).or_default();
                let increase = own.cpu_us.saturating_sub(reported.own_cpu_us);
                reported.own_cpu_us = own.cpu_us;
                if own.running > 0 || increase > 0 {
                    increases.entry(*id).or_default().own_cpu_us = Some(increase);
                }
            }
        }
        if let Some(postgres) = &sources.postgres.value {
            for (id, row) in &postgres.tenants {
                if let Some(total) = row.gps_points {
                    let reported = self.reported.entry(*id).or_default();
                    let increase = total.saturating_sub(reported.stored_points);
                    reported.stored_points = total;
                    increases.entry(*id).or_default().stored_points = Some(increase);
                }
            }
        }
        increases
    }

    fn living(&self, sources: &Sources<'_>, now: Instant) -> BTreeSet<TenantId> {
        let mut living = BTreeSet::new();
        let postgres = sources.postgres.value.as_ref();
        if self.has_postgres && postgres.is_none() {
            return living;
        }
        if let Some(postgres) = postgres {
            living.extend(postgres.tenants.keys());
        }
        if let Some(containers) = &sources.containers.value {
            living.extend(
                containers.tenants.iter().filter(|(_, own)| own.running > 0).map(|(id, _)| *id),
            );
        }
        if let Some(app) = &sources.app.value {
            living.extend(app.tenants.keys().filter(|id| {
                !self.has_postgres
                    || self
                        .reported
                        .get(id)
                        .and_then(|reported| reported.active)
                        .is_some_and(|at| now.saturating_duration_since(at) < LINGER)
            }));
        }
        if let Some(postgres) = postgres {
            living.retain(|id| !postgres.elsewhere.contains(id));
        }
        living
    }

    fn attribute(
        &mut self,
        sources: &Sources<'_>,
        increases: &BTreeMap<TenantId, TenantRound>,
        elapsed_ms: u64,
        now: Instant,
        limit: Duration,
    ) -> Attributed {
        let mut work: BTreeMap<TenantId, Work> = BTreeMap::new();
        for (id, increase) in increases {
            let done = match &increase.app {
                Some(app) => Work::of(
                    app.gps_points.unwrap_or(0),
                    app.api_calls.unwrap_or(0),
                    app.request_duration_us,
                ),
                None => Work::of(increase.stored_points.unwrap_or(0), 0, None),
            };
            work.insert(*id, done);
        }
        // The application has spoken since the last round; the database's
        // points come in windows, so only points say that a window closed.
        let news = if self.has_app {
            sources.app.value_round > self.app_round
        } else {
            work.values().any(|done| done.database > 0)
        };
        self.app_round = sources.app.value_round;
        let containers = sources.containers.fresh(now, limit);
        let shared = sources.shared.fresh(now, limit);
        let processes: Vec<Shared<'_>> = self
            .plans
            .iter()
            .map(|plan| Shared {
                name: &plan.name,
                split_by: plan.split_by,
                used: match &plan.container {
                    Some(container) => containers.and_then(|r| r.shared.get(container)).copied(),
                    None => shared.and_then(|reading| reading.get(&plan.name)).copied(),
                },
            })
            .collect();
        let connections =
            sources.postgres.fresh(now, limit).map_or((0, 0), |p| p.connections.shared);
        self.attributor.round(elapsed_ms, news.then_some(&work), &processes, connections)
    }

    fn host_sample(
        &mut self,
        sources: &Sources<'_>,
        now: Instant,
        limit: Duration,
    ) -> wire::HostSample {
        let mut sample = wire::HostSample {
            db_connections: sources.postgres.fresh(now, limit).map_or(0, |p| p.connections_total),
            ..wire::HostSample::default()
        };
        if let Some(host) = &sources.host.value {
            sample.cpu_busy_us = host.cpu_busy_us.saturating_sub(self.host.cpu_busy_us);
            sample.network_rx_bytes =
                host.network_rx_bytes.saturating_sub(self.host.network_rx_bytes);
            sample.network_tx_bytes =
                host.network_tx_bytes.saturating_sub(self.host.network_tx_bytes);
            sample.cpu_count = host.cpu_count;
            sample.load_1m_milli = host.load_1m_milli;
            sample.memory_total_bytes = host.memory_total_bytes;
            sample.memory_used_bytes = host.memory_used_bytes;
            sample.swap_used_bytes = host.swap_used_bytes;
            sample.disk_total_bytes = host.disk_total_bytes;
            sample.disk_used_bytes = host.disk_used_bytes;
            sample.uptime_s = host.uptime_s;
            self.host = *host;
        }
        sample
    }
}

impl Reported {
    /// The increases since the last call, gauges as they stand, and whether
    /// anything was done at all.
    fn app_increase(&mut self, totals: &AppTenant, bounds: &[u64]) -> (AppTenant, bool) {
        let mut active = false;
        let mut increase = |now: Option<u64>, before: &mut Option<u64>| {
            let value = now.map(|now| now.saturating_sub(before.unwrap_or(0)));
            if now.is_some() {
                *before = now;
            }
            active |= value.is_some_and(|value| value > 0);
            value
        };
        let mut result = AppTenant {
            gps_points: increase(totals.gps_points, &mut self.app.gps_points),
            api_calls: increase(totals.api_calls, &mut self.app.api_calls),
            api_errors: increase(totals.api_errors, &mut self.app.api_errors),
            batch_operations: increase(totals.batch_operations, &mut self.app.batch_operations),
            realtime_operations: increase(
                totals.realtime_operations,
                &mut self.app.realtime_operations,
            ),
            request_duration_us: increase(
                totals.request_duration_us,
                &mut self.app.request_duration_us,
            ),
            client_connections: totals.client_connections,
            vehicles: totals.vehicles,
            buckets: Vec::with_capacity(totals.buckets.len()),
        };
        for (bound, total) in bounds.iter().zip(&totals.buckets) {
            let before = self.buckets.insert(*bound, *total).unwrap_or(0);
            result.buckets.push(total.saturating_sub(before));
        }
        (result, active)
    }
}
