//! Limits that are near or crossed: looked for in every scan, remembered in the
//! state database, and told in the audit trail once a day. A crossed one is also
//! a trouble ([`super::trigger`]), so the same scan evaluates its tenant.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use tracing::{info, warn};
use webhost_proto::ids::TenantId;

use super::Evaluator;
use crate::decide::limits::{Bound, Change, Level, Limit, look};
use crate::store::audit::{self, Entry};
use crate::store::evaluation::Candidate;
use crate::store::{StoreError, limits};
use crate::usage::TenantUsage;
use crate::usage::sample::Metric;

/// What a tenant uses of what is limited; none: not known, and no reason to
/// tell anything.
pub fn used(usage: &TenantUsage, limit: Limit) -> Option<u64> {
    let gps = usage.seen.contains(Metric::GpsPoints);
    match limit {
        Limit::Vehicles => usage.vehicles,
        Limit::GpsPointsPerDay => gps.then_some(usage.gps_points_today),
        Limit::GpsPointsPerSecond => (gps && usage.window_covered_ms > 0)
            .then(|| usage.gps_points_per_kilosecond.div_ceil(1000)),
        Limit::Storage => usage.storage_bytes.map(|bytes| bytes / 1_000_000),
        Limit::Users => usage.peak_clients_24h,
        Limit::Retention => usage.retained_days,
        Limit::QueriesPerSecond => usage.queries_per_second,
    }
}

/// The metric that a limit's figure comes from.
pub const fn metric(limit: Limit) -> Metric {
    match limit {
        Limit::Vehicles => Metric::Vehicles,
        Limit::GpsPointsPerDay | Limit::GpsPointsPerSecond => Metric::GpsPoints,
        Limit::Storage => Metric::StorageBytes,
        Limit::Users => Metric::ClientConnections,
        Limit::Retention => Metric::OldestPoint,
        Limit::QueriesPerSecond => Metric::Queries,
    }
}

struct Found {
    tenant: TenantId,
    limit: Limit,
    figures: (u64, u64),
    bound: Bound,
    change: Change,
}

impl Evaluator {
    /// Looks at the limits of every candidate at `now`; answers how many
    /// changes were told. The caller holds the lease.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is written then.
    pub(super) async fn look_at_limits(
        &self,
        candidates: &[Candidate],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let today = TimeZone::UTC.to_datetime(now).date();
        let mut client = self.store.client().await?;
        let known = limits::known(&**client).await?;
        let mut found = Vec::new();
        for candidate in candidates {
            let Some(plan) = self.slots.catalog.plan(&candidate.plan) else { continue };
            let tenant = candidate.tenant;
            let usage = self.slots.book.tenant(tenant, now.as_microsecond());
            // Reported by another machine, before a move: it says nothing of here.
            let Some(usage) = usage.filter(|usage| usage.node == candidate.home.node_id) else {
                continue;
            };
            for limit in Limit::ALL {
                let Some(used) = used(&usage, limit) else { continue };
                let bound = limit.bound(plan, &self.slots.catalog.thresholds);
                let before = known.get(&(tenant, limit)).copied().unwrap_or_default();
                if let Some(change) = look(used, bound, before, today) {
                    let figures = (used, limit.of(plan));
                    found.push(Found { tenant, limit, figures, bound, change });
                }
            }
        }
        if found.is_empty() {
            return Ok(0);
        }
        let tx = (**client).transaction().await?;
        let mut told = 0;
        for one in &found {
            let Found { tenant, limit, figures, change, .. } = one;
            limits::set(&tx, *tenant, *limit, &change.known, *figures, now).await?;
            let Some(level) = change.told else { continue };
            audit::record(&tx, &notice(one, level)).await?;
            told += 1;
        }
        tx.commit().await?;
        for Found { tenant, limit, figures: (used, allowed), change, .. } in &found {
            let limit = limit.as_str();
            match change.told {
                Some(Level::Breach) => warn!(%tenant, limit, used, allowed, "a limit is crossed"),
                Some(Level::Warning) => info!(%tenant, limit, used, allowed, "a limit is near"),
                Some(Level::Clear) => info!(%tenant, limit, used, allowed, "well below a limit"),
                None => {}
            }
        }
        Ok(told)
    }
}

fn notice(one: &Found, level: Level) -> Entry<'static> {
    let (used, allowed) = one.figures;
    Entry {
        actor: "system",
        action: match level {
            Level::Clear => "limit.cleared",
            Level::Warning => "limit.near",
            Level::Breach => "limit.crossed",
        },
        subject: "tenant",
        subject_id: one.tenant.to_string(),
        detail: json!({
            "limit": one.limit,
            "unit": one.limit.unit(),
            "used": used,
            "allowed": allowed,
            "crossed_above": one.bound.most(),
        }),
    }
}
