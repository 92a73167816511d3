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
mod host;
mod living;
mod minute;
mod reported;
mod work;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use super::access_log::AccessReading;
use super::app::{AppReading, AppTenant};
use super::attribute::{Attributor, ProcessShare};
use super::checks::{self, ChecksReading};
use super::columns;
use super::container::ContainersReading;
use super::detail::{self, Counts, Detail};
use super::host::HostReading;
use super::postgres::{PostgresReading, ServerReading};
use super::redis::{RedisReading, RedisTenant};
use super::shared::SharedReading;
use super::slices::SlicesReading;
use super::source::Published;
use crate::config::SplitBy;
use crate::link::report::CollectedReport;
use health::{MAX_SLUG_BYTES, healths, shortened};
use minute::Minutes;
use reported::Reported;

/// What the sources have published.
pub struct Sources<'a> {
    pub host: &'a Published<HostReading>,
    pub containers: &'a Published<ContainersReading>,
    pub postgres: &'a Published<PostgresReading>,
    pub app: &'a Published<AppReading>,
    pub shared: &'a Published<SharedReading>,
    pub slices: &'a Published<SlicesReading>,
    pub access: &'a Published<AccessReading>,
    pub redis: &'a Published<RedisReading>,
    pub checks: &'a Published<ChecksReading>,
}

/// Where a shared process is read, and how it is split.
#[derive(Clone, Debug)]
pub struct SharedPlan {
    pub name: String,
    pub split_by: SplitBy,
    /// The container's name, where it runs in one.
    pub container: Option<String>,
}

/// What nginx's log says of one tenant in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontRound {
    pub calls: u64,
    pub errors: u64,
    pub duration_us: u64,
    /// Sent to clients.
    pub bytes: u64,
    /// Different addresses, lately.
    pub clients: u64,
}

/// What one tenant did and has, in one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRound {
    pub slug: String,
    /// Increases.
    pub app: Option<AppTenant>,
    /// Where nginx's log is read.
    pub front: Option<FrontRound>,
    /// Its keys in Redis; estimates.
    pub redis: Option<RedisTenant>,
    /// Of its own containers, control groups or machine: CPU as an increase;
    /// memory while one runs.
    pub own_cpu_us: Option<u64>,
    pub own_memory_bytes: Option<u64>,
    /// What else is known of its containers and groups; counts as increases.
    pub detail: Detail,
    /// The same counts since the agent watches.
    pub counted: Counts,
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
    /// What these sources say beyond the report, while it is fresh.
    pub access: Option<AccessReading>,
    pub redis: Option<RedisReading>,
    pub checks: Option<ChecksReading>,
    /// As it was read last.
    pub server: Option<ServerReading>,
}

/// The state between rounds.
pub struct Assembler {
    plans: Vec<SharedPlan>,
    has_postgres: bool,
    has_app: bool,
    host: HostReading,
    server: ServerReading,
    reported: BTreeMap<TenantId, Reported>,
    minutes: Minutes,
    checks_round: u64,
    attributor: Attributor,
    app_round: u64,
    last: Option<Instant>,
    /// Whose the whole machine is.
    machine: Option<TenantId>,
}

impl Assembler {
    /// `has_postgres`, `has_app`: whether they are configured.
    pub fn new(plans: Vec<SharedPlan>, has_postgres: bool, has_app: bool) -> Self {
        Self {
            plans,
            has_postgres,
            has_app,
            host: HostReading::default(),
            server: ServerReading::default(),
            reported: BTreeMap::new(),
            minutes: Minutes::default(),
            checks_round: 0,
            attributor: Attributor::default(),
            app_round: 0,
            last: None,
            machine: None,
        }
    }

    /// All that the machine uses is this tenant's.
    pub fn of_machine(mut self, tenant: Option<TenantId>) -> Self {
        self.machine = tenant;
        self
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
        let fallen = increases.iter().filter(|(_, done)| done.detail.fell()).map(|(id, _)| *id);
        let living = self.living(sources, now, fallen);
        let attributed = self.attribute(sources, &increases, elapsed_ms, now, limit);

        let postgres = sources.postgres.value.as_ref();
        let fresh = sources.postgres.fresh(now, limit);
        let host = self.host_sample(sources, now, limit);
        let containers = sources.containers.fresh(now, limit);
        let slices = sources.slices.fresh(now, limit);
        let redis = sources.redis.fresh(now, limit);
        let mut tenants = BTreeMap::new();
        for id in living {
            let increase = increases.remove(&id).unwrap_or_default();
            let mut tenant = TenantRound {
                app: increase.app,
                front: increase.front,
                redis: redis.and_then(|reading| reading.tenants.get(&id)).copied(),
                own_cpu_us: increase.own_cpu_us,
                detail: increase.detail,
                stored_points: increase.stored_points,
                ..TenantRound::default()
            };
            let groups = [
                containers.and_then(|reading| reading.tenants.get(&id)),
                slices.and_then(|reading| reading.get(&id)),
            ];
            for own in groups.into_iter().flatten().filter(|own| own.running > 0) {
                let sum = tenant.own_memory_bytes.get_or_insert(0);
                *sum = sum.saturating_add(own.memory_bytes);
                detail::add(&mut tenant.detail.tasks, own.detail.tasks);
                detail::add(&mut tenant.detail.unhealthy, own.detail.unhealthy);
            }
            if let Some(reported) = self.reported.get(&id) {
                tenant.counted = reported.own_counts;
                detail::add_counts(&mut tenant.counted, &reported.slice_counts);
            }
            if self.machine == Some(id) && sources.host.value.is_some() {
                // Its containers are in it already.
                tenant.own_cpu_us = Some(host.cpu_busy_us);
                tenant.own_memory_bytes = Some(host.memory_used_bytes);
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
            if let Some(keys) = tenant.redis {
                let sum = tenant.memory_bytes.get_or_insert(0);
                *sum = sum.saturating_add(keys.bytes);
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
            host,
            columns: Vec::new(),
            sources: healths(sources),
            mounts: sources.host.value.as_ref().map_or_else(Vec::new, |host| host.mounts.clone()),
            database: self.database(sources),
            minutes: Vec::new(),
            checks: None,
        };
        report.columns = columns::columns(&tenants, app_bounds, all_here);
        let access = sources.access.fresh(now, limit);
        let read = sources.access.value.as_ref().map(|read| (read, access.is_some()));
        if !self.has_postgres || postgres.is_some() {
            report.minutes = self.minutes.tell(&tenants, app_bounds, read, now);
        }
        let checks = sources.checks.fresh(now, limit + checks::LIMIT);
        if let Some(made) = checks.filter(|made| made.round != self.checks_round) {
            self.checks_round = made.round;
            report.checks = Some(health::checks(made));
        }
        Round {
            report,
            tenants,
            bounds: app_bounds.to_vec(),
            shared: attributed.processes,
            storage_measured: all_here,
            access: access.cloned(),
            redis: redis.cloned(),
            checks: checks.cloned(),
            server: fresh.and_then(|reading| reading.server.clone()),
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
            // Who is forgotten there begins at zero when he comes back.
            self.reported.retain(|id, reported| {
                if !containers.tenants.contains_key(id) {
                    reported.own_cpu_us = 0;
                    reported.own_counts = Default::default();
                }
                *reported != Reported::default()
            });
            for (id, own) in &containers.tenants {
                let reported = self.reported.entry(*id).or_default();
                let increase = own.cpu_us.saturating_sub(reported.own_cpu_us);
                reported.own_cpu_us = own.cpu_us;
                let counts = detail::increases(&own.detail.counts, &mut reported.own_counts);
                if own.running > 0 || increase > 0 {
                    increases.entry(*id).or_default().own_cpu_us = Some(increase);
                }
                if own.running > 0 || counts.iter().flatten().any(|more| *more > 0) {
                    increases.entry(*id).or_default().detail.counts = counts;
                }
            }
        }
        for (id, own) in sources.slices.value.iter().flatten() {
            let reported = self.reported.entry(*id).or_default();
            let increase = own.cpu_us.saturating_sub(reported.slice_cpu_us);
            reported.slice_cpu_us = own.cpu_us;
            let counts = detail::increases(&own.detail.counts, &mut reported.slice_counts);
            let known = &mut increases.entry(*id).or_default().detail.counts;
            detail::add_counts(known, &counts);
            if own.running > 0 || increase > 0 {
                *increases.entry(*id).or_default().own_cpu_us.get_or_insert(0) += increase;
            }
        }
        if let Some(access) = &sources.access.value {
            for (id, totals) in &access.tenants {
                let increase = self.reported.entry(*id).or_default().front_increase(totals);
                increases.entry(*id).or_default().front = Some(increase);
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
}
