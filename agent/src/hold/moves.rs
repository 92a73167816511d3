//! What a move asks of the hold point, from its guards to its clean-up.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use webhost_proto::ids::MoveId;

use super::Hold;
use super::phase::Way;
use super::record::{Record, Records};
use super::tenant::Tenant;
use super::there::There;
use super::upstream::Upstream;
use crate::durable::DurableError;
use crate::mover::spec::{Serving, Spec};
use crate::mover::supervisor::Identify;
use crate::nginx::{self, Nginx};

/// Whoever carries the tenants' requests. Each call may be repeated.
#[tonic::async_trait]
pub trait HoldPoint: Send + Sync + 'static {
    /// Why requests of this move's tenant will not be held; none when they
    /// will be.
    fn not_in_the_way(&self, spec: &Spec) -> Option<String>;

    /// Before the guards: from here on the tenant's requests come through.
    ///
    /// # Errors
    /// In words; nothing has changed then, and the move must not begin.
    async fn begin(&self, spec: &Spec) -> Result<(), String>;

    /// Before the cut-over: returns when all requests come through, and the
    /// new place can be reached.
    ///
    /// # Errors
    /// In words; a later try may succeed.
    async fn ready(&self, spec: &Spec) -> Result<(), String>;

    /// New requests wait; returns when those in flight have ended, or had
    /// their time to.
    async fn park(&self, spec: &Spec);

    /// Who serves the tenant is being found out: requests wait, not longer
    /// than ever.
    fn doubt(&self, spec: &Spec);

    /// Requests go to the side that serves the tenant.
    fn release(&self, spec: &Spec, serving: Serving);

    /// No way leads back any more: one that was rolled back needs it no more.
    async fn finish(&self, spec: &Spec);

    /// The move needs it no more: requests pass as before it.
    async fn end(&self, spec: &Spec);
}

/// No hold point: the fence alone stands between two places.
pub struct Untouched;

#[tonic::async_trait]
impl HoldPoint for Untouched {
    fn not_in_the_way(&self, _spec: &Spec) -> Option<String> {
        Some("this node has no [hold]".into())
    }
    async fn begin(&self, _spec: &Spec) -> Result<(), String> {
        Ok(())
    }
    async fn ready(&self, _spec: &Spec) -> Result<(), String> {
        Ok(())
    }
    async fn park(&self, _spec: &Spec) {}
    fn doubt(&self, _spec: &Spec) {}
    fn release(&self, _spec: &Spec, _serving: Serving) {}
    async fn finish(&self, _spec: &Spec) {}
    async fn end(&self, _spec: &Spec) {}
}

/// How long those in flight may take to end. With the fence's own tries it
/// stays below what a request may wait.
const DRAIN: Duration = Duration::from_millis(400);
/// How long a new place that does not answer is dialled again.
const THERE_PATIENCE: Duration = Duration::from_secs(1);

/// How requests come to the hold point.
pub enum Front {
    /// nginx sends every request; nothing has to be told to it.
    Always,
    /// nginx is told which host names.
    Snippets(Nginx),
    /// Nothing sends requests here.
    Nothing,
}

/// The hold point as moves see it.
pub struct Moves {
    hold: Hold,
    front: Front,
    identify: Identify,
    records: Records,
    known: Mutex<HashMap<MoveId, Record>>,
}

impl Moves {
    /// Reads what an earlier run left in `state_dir`: those tenants' requests
    /// go where they went. A move in doubt is the supervisor's to name
    /// ([`HoldPoint::doubt`]) before the proxy serves.
    ///
    /// # Errors
    /// [`DurableError`], naming the file.
    pub fn load(
        hold: Hold,
        front: Front,
        identify: Identify,
        state_dir: &Path,
    ) -> Result<Self, DurableError> {
        let (records, all) = Records::open(state_dir)?;
        let moves = Self { hold, front, identify, records, known: Mutex::default() };
        for record in all {
            moves.put(&record);
            if let Front::Snippets(nginx) = &moves.front {
                nginx.restore(record.spec.tenant, &record.spec.tenant_host)?;
            }
            moves.known().insert(record.spec.move_id, record);
        }
        Ok(moves)
    }

    fn put(&self, record: &Record) {
        let spec = &record.spec;
        let there = spec.target_http.then(|| {
            let dial = There { spec: spec.clone(), identify: Arc::clone(&self.identify) };
            Upstream::new(Arc::new(dial), THERE_PATIENCE, self.hold.tasks())
        });
        self.hold.put(&spec.tenant_host, way(record.serving), there);
    }

    fn tenant(&self, spec: &Spec) -> Option<Arc<Tenant>> {
        self.known().contains_key(&spec.move_id).then(|| self.hold.tenant(&spec.tenant_host))?
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<MoveId, Record>> {
        // No code panics while it holds the lock; a poisoned map is whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets other moves of the same tenant: this one comes after them.
    fn forget_others(&self, spec: &Spec) -> Result<(), DurableError> {
        let others: Vec<Spec> = self
            .known()
            .values()
            .map(|record| &record.spec)
            .filter(|other| {
                other.move_id != spec.move_id
                    && (other.tenant == spec.tenant || other.tenant_host == spec.tenant_host)
            })
            .cloned()
            .collect();
        for other in others {
            self.records.remove(other.move_id)?;
            self.known().remove(&other.move_id);
            self.hold.remove(&other.tenant_host);
        }
        Ok(())
    }
}

fn way(serving: Serving) -> Way {
    match serving {
        Serving::Source => Way::Here,
        Serving::Target => Way::There,
    }
}

#[tonic::async_trait]
impl HoldPoint for Moves {
    fn not_in_the_way(&self, spec: &Spec) -> Option<String> {
        if spec.tenant_host.is_empty() {
            return Some("the tenant has no host name".into());
        }
        match &self.front {
            Front::Nothing => Some("[hold] has neither `always` nor an [nginx] beside it".into()),
            Front::Always | Front::Snippets(_) if !spec.target_http => {
                Some("the target's node has no [hold], so nothing can be forwarded there".into())
            }
            Front::Always | Front::Snippets(_) => None,
        }
    }

    async fn begin(&self, spec: &Spec) -> Result<(), String> {
        if self.not_in_the_way(spec).is_some() || self.known().contains_key(&spec.move_id) {
            return Ok(());
        }
        nginx::check_host(&spec.tenant_host)?;
        let written = |error: DurableError| format!("the hold point's record: {error}");
        self.forget_others(spec).map_err(written)?;
        let mut record = Record::new(spec.clone());
        self.put(&record);
        if let Front::Snippets(nginx) = &self.front {
            if let Err(refused) = nginx.add(spec.tenant, &spec.tenant_host).await {
                self.hold.remove(&spec.tenant_host);
                return Err(refused);
            }
            record.told_at_us = Timestamp::now().as_microsecond();
        }
        self.records.put(&record).map_err(written)?;
        self.known().insert(spec.move_id, record);
        Ok(())
    }

    async fn ready(&self, spec: &Spec) -> Result<(), String> {
        let Some(tenant) = self.tenant(spec) else { return Ok(()) };
        let told = self.known().get(&spec.move_id).map_or(0, |record| record.told_at_us);
        if let Front::Snippets(nginx) = &self.front {
            // Connections of nginx's old workers don't come through here.
            let due = told.saturating_add(
                i64::try_from(nginx.worker_shutdown().as_micros()).unwrap_or(i64::MAX),
            );
            let left = due.saturating_sub(Timestamp::now().as_microsecond());
            // A clock that was set back makes nobody wait longer.
            let left = Duration::from_micros(left.max(0).unsigned_abs());
            tokio::time::sleep(left.min(nginx.worker_shutdown())).await;
        }
        self.hold.warm(&tenant).await.map_err(|error| {
            format!(
                "the tenant's requests could not be forwarded, so nothing was switched: {error}"
            )
        })
    }

    async fn park(&self, spec: &Spec) {
        let Some(tenant) = self.tenant(spec) else { return };
        tenant.park();
        let left = tenant.drained(DRAIN).await;
        if left > 0 {
            tracing::info!(tenant = %spec.tenant, left, "requests still run: the fence meets them");
        }
    }

    fn doubt(&self, spec: &Spec) {
        if let Some(tenant) = self.tenant(spec) {
            tenant.park();
        }
    }

    fn release(&self, spec: &Spec, serving: Serving) {
        let Some(tenant) = self.tenant(spec) else { return };
        tenant.release(way(serving));
        let changed = self.known().get_mut(&spec.move_id).and_then(|record| {
            (record.serving != serving).then(|| {
                record.serving = serving;
                record.clone()
            })
        });
        if let Some(record) = changed {
            let figures = tenant.figures();
            tracing::info!(tenant = %spec.tenant, host = spec.tenant_host, ?serving,
                waited = figures.waited, longest_wait_us = figures.longest_wait_us,
                "requests go to the side that serves");
            if let Err(error) = self.records.put(&record) {
                // After a restart the fence rows are read anew.
                tracing::warn!(%error, "the hold point's record stays as it was");
            }
        }
    }

    async fn finish(&self, spec: &Spec) {
        let serving = self.known().get(&spec.move_id).map(|record| record.serving);
        if serving == Some(Serving::Source) {
            self.end(spec).await;
        }
    }

    async fn end(&self, spec: &Spec) {
        let Some(record) = self.known().remove(&spec.move_id) else { return };
        self.hold.remove(&record.spec.tenant_host);
        if let Front::Snippets(nginx) = &self.front
            && let Err(error) = nginx.remove(spec.tenant).await
        {
            // Its requests pass through untouched until then.
            tracing::warn!(%error, tenant = %spec.tenant, "nginx still sends a host name here");
        }
        if let Err(error) = self.records.remove(spec.move_id) {
            tracing::warn!(%error, "the hold point's record of an ended move stays");
        }
    }
}
