//! What each tenant's work was, and how the shared processes are split by it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use super::{Assembler, Sources, TenantRound};
use crate::collect::attribute::{Attributed, Shared, Work};

impl Assembler {
    pub(super) fn attribute(
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
                None => {
                    let front = increase.front.unwrap_or_default();
                    let duration = increase.front.map(|front| front.duration_us);
                    Work::of(increase.stored_points.unwrap_or(0), front.calls, duration)
                }
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
}
