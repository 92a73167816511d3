//! Which tenants live here: see the folder's module.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use super::{Assembler, Sources};

/// How long an application's tenant without a row is reported after its last
/// activity.
pub(super) const LINGER: Duration = Duration::from_secs(600);

impl Assembler {
    pub(super) fn living(
        &self,
        sources: &Sources<'_>,
        now: Instant,
        fallen: impl Iterator<Item = TenantId>,
    ) -> BTreeSet<TenantId> {
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
            // One that was killed and is not back yet: that it was is told.
            living.extend(fallen);
        }
        let slices = sources.slices.value.iter().flatten();
        living.extend(slices.filter(|(_, own)| own.running > 0).map(|(id, _)| *id));
        if let Some(access) = &sources.access.value
            && !self.has_postgres
        {
            living.extend(access.tenants.keys());
        }
        living.extend(self.machine);
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
}
