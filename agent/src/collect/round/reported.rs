//! What was reported of each tenant, and what is new since.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::FrontRound;
use crate::collect::access_log::AccessTenant;
use crate::collect::app::AppTenant;
use crate::collect::detail::Counts;

/// What was reported of a tenant up to now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reported {
    pub(super) app: AppTenant,
    /// By bound, so that an application may change them.
    pub(super) buckets: BTreeMap<u64, u64>,
    pub(super) own_cpu_us: u64,
    pub(super) slice_cpu_us: u64,
    pub(super) own_counts: Counts,
    pub(super) slice_counts: Counts,
    pub(super) front: FrontRound,
    pub(super) stored_points: u64,
    pub(super) active: Option<Instant>,
}

impl Reported {
    /// The increases since the last call, gauges as they stand, and whether
    /// anything was done at all.
    pub(super) fn app_increase(&mut self, totals: &AppTenant, bounds: &[u64]) -> (AppTenant, bool) {
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
            queries: increase(totals.queries, &mut self.app.queries),
            client_connections: totals.client_connections,
            vehicles: totals.vehicles,
            oldest_point: totals.oldest_point,
            buckets: Vec::with_capacity(totals.buckets.len()),
        };
        for (bound, total) in bounds.iter().zip(&totals.buckets) {
            let before = self.buckets.insert(*bound, *total).unwrap_or(0);
            result.buckets.push(total.saturating_sub(before));
        }
        (result, active)
    }

    /// What nginx's log says more than at the last call, and its gauges.
    pub(super) fn front_increase(&mut self, totals: &AccessTenant) -> FrontRound {
        let now = FrontRound {
            calls: totals.calls,
            errors: totals.errors,
            duration_us: totals.duration_us,
            bytes: totals.bytes,
            clients: totals.clients,
        };
        let before = std::mem::replace(&mut self.front, now);
        FrontRound {
            calls: now.calls.saturating_sub(before.calls),
            errors: now.errors.saturating_sub(before.errors),
            duration_us: now.duration_us.saturating_sub(before.duration_us),
            bytes: now.bytes.saturating_sub(before.bytes),
            clients: now.clients,
        }
    }
}
