//! The evaluator: scans, and writes what came of each evaluation in one
//! transaction.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;
use webhost_proto::ids::{MoveId, TenantId};

use super::judge::{self, Facts, FactsError, Verdict, judge};
use super::overload::Looks;
use super::trigger::{Known, Trouble, due, troubles};
use crate::decide::migrate::{Approval as Ruling, Migration};
use crate::moves::proposals::{self, Patience};
use crate::moves::request::{approve_in, request_in};
use crate::moves::state::State;
use crate::moves::timing::later;
use crate::moves::{Approval, MoveRefused, NewMove};
use crate::slots::Slots;
use crate::store::decisions::{self, Outcome, Trigger};
use crate::store::evaluation::{self, Candidate};
use crate::store::leases::{self, Lease};
use crate::store::tenants::{self, TenantState};
use crate::store::{Store, StoreError};

/// How often things are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Every active tenant, this often.
    pub interval: Duration,
    /// Usage is looked through this often.
    pub scan: Duration,
    /// The same trouble of the same tenant at most this often.
    pub gap: Duration,
    /// How long a proposal waits for a person.
    pub patience: Patience,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(6 * 3600),
            scan: Duration::from_secs(5),
            gap: Duration::from_secs(900),
            patience: Patience::default(),
        }
    }
}

impl From<&crate::config::Evaluation> for Pace {
    fn from(config: &crate::config::Evaluation) -> Self {
        Self {
            interval: Duration::from_secs(config.interval_s),
            scan: Duration::from_secs(config.scan_interval_s),
            gap: Duration::from_secs(config.min_gap_s),
            patience: Patience {
                remind: Duration::from_secs(config.remind_after_s),
                expire: Duration::from_secs(config.expire_after_s),
            },
        }
    }
}

/// Looks at tenants again and again. One of any number of coordinators does.
pub struct Evaluator {
    pub(super) store: Store,
    pub(super) slots: Slots,
    pace: Pace,
    /// Names this process run in the lease.
    holder: String,
    volatile: Mutex<HashMap<TenantId, Known>>,
    looks: Mutex<Looks>,
}

/// What came of one evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluated {
    /// The stored decision.
    pub decision_id: Uuid,
    /// What the engine saw.
    pub facts: Facts,
    /// What it answered.
    pub verdict: Verdict,
    /// The move that was begun or proposed, or the proposal that the rule
    /// approved now.
    pub move_id: Option<MoveId>,
}

/// Why a tenant was not evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// No such tenant.
    #[error("there is no tenant {0}")]
    Unknown(TenantId),
    /// Only active tenants are evaluated.
    #[error("tenant {tenant} is {state}: only active tenants are evaluated")]
    NotActive {
        /// Which tenant.
        tenant: TenantId,
        /// Its state.
        state: TenantState,
    },
    /// Another evaluation of it was faster, or the lease is another's now.
    #[error("tenant {0} was evaluated by somebody else at the same moment")]
    Overtaken(TenantId),
    /// Its facts can't be had.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The move can't be written.
    #[error(transparent)]
    Move(#[from] MoveRefused),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for EvaluateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

const LEASE: &str = "evaluation";

impl Evaluator {
    /// An evaluator; [`Evaluator::run`] makes it look.
    pub fn new(store: Store, slots: Slots, pace: Pace) -> Self {
        let holder = Uuid::now_v7().to_string();
        Self { store, slots, pace, holder, volatile: Mutex::default(), looks: Mutex::default() }
    }

    /// Scans until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.scan_by(&Timestamp::now).await {
                warn!(%error, "tenants can't be evaluated at the moment");
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(self.pace.scan) => {}
            }
        }
        if let Err(error) = self.release().await {
            warn!(%error, "the lease of the evaluation could not be given back; it ends by itself");
        }
    }

    async fn release(&self) -> Result<(), StoreError> {
        let client = self.store.client().await?;
        leases::release(&**client, LEASE, &self.holder, Timestamp::now()).await
    }

    /// As [`Evaluator::scan_by`], with a clock that stands at `now`.
    ///
    /// # Errors
    /// As there.
    pub async fn scan(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.scan_by(&|| now).await
    }

    /// Evaluates every tenant that is due when `clock` is read; answers how
    /// many were. None are where another coordinator holds the lease, and no
    /// more once one does: a scan may take longer than the lease lasts, so it
    /// is extended on the way. What goes wrong with one tenant is logged and
    /// keeps none of the others.
    ///
    /// # Errors
    /// When the lease or the tenants can't be read.
    pub async fn scan_by(
        &self,
        clock: &(dyn Fn() -> Timestamp + Sync),
    ) -> Result<usize, StoreError> {
        let ttl = self.pace.scan.saturating_mul(3).max(Duration::from_secs(15));
        let mut held_at = clock();
        let Some(lease) = self.hold(held_at, ttl).await? else { return Ok(0) };
        let candidates = evaluation::candidates(&**self.store.client().await?).await?;
        if let Err(error) = self.look_at_proposals(held_at).await {
            warn!(%error, "proposals were not looked at; the next scan does");
        }
        if let Err(error) = self.look_at_limits(&candidates, held_at).await {
            warn!(%error, "limits were not looked at; the next scan does");
        }
        if let Err(error) = self.look_at_nodes(held_at).await {
            warn!(%error, "the shared nodes were not looked at; in five minutes they are");
        }
        let there: HashSet<TenantId> = candidates.iter().map(|c| c.tenant).collect();
        self.volatile().retain(|tenant, _| there.contains(tenant));
        let mut evaluated = 0;
        for candidate in &candidates {
            let now = clock();
            let troubles = self.troubles(candidate, now);
            let Some(trigger) = self.due(candidate, &troubles, now) else { continue };
            if now >= later(held_at, ttl / 3) {
                if self.hold(now, ttl).await?.as_ref() != Some(&lease) {
                    warn!(evaluated, "another coordinator evaluates by now; it goes on");
                    break;
                }
                held_at = now;
            }
            match self.evaluate(candidate.tenant, trigger, Some(&lease), now).await {
                Ok(_) => {
                    evaluated += 1;
                    self.remember(candidate.tenant, |known| known.evaluated(&troubles, now));
                }
                // The other one's evaluation counts; the next scan reads it.
                Err(EvaluateError::Overtaken(_)) => {}
                Err(error) => {
                    self.remember(candidate.tenant, |known| known.failed(now));
                    warn!(tenant = %candidate.tenant, %error, "a tenant can't be evaluated");
                }
            }
        }
        Ok(evaluated)
    }

    async fn hold(&self, now: Timestamp, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let client = self.store.client().await?;
        leases::hold(&**client, LEASE, &self.holder, now, ttl).await
    }

    async fn look_at_proposals(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let (reminded, ended) = proposals::look(&tx, &self.pace.patience, now).await?;
        if reminded + ended > 0 {
            tx.commit().await?;
            info!(reminded, ended, "proposals that wait for a person");
        }
        Ok(())
    }

    fn volatile(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Known>> {
        // Losing a memory of troubles costs one more evaluation.
        self.volatile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn looks(&self) -> std::sync::MutexGuard<'_, Looks> {
        // What a panic left is at worst a look more or less.
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn troubles(&self, candidate: &Candidate, now: Timestamp) -> Vec<Trouble> {
        let catalog = &self.slots.catalog;
        let Some(plan) = catalog.plan(&candidate.plan) else { return Vec::new() };
        let usage =
            judge::measured(&self.slots, &candidate.home, Some(candidate.tenants_on_node), now);
        troubles(&usage, plan, &catalog.thresholds)
    }

    fn due(&self, candidate: &Candidate, there: &[Trouble], now: Timestamp) -> Option<Trigger> {
        let mut volatile = self.volatile();
        let known = volatile.entry(candidate.tenant).or_default();
        known.observe(there);
        match candidate.open_move {
            // A proposal that waits is looked at again when things get worse.
            Some(State::AwaitingApproval) | None => {}
            Some(_) => return None,
        }
        if known.rests(self.pace.gap, now) {
            return None;
        }
        let begun = known.begun(there, self.pace.gap, now);
        let plan_changed = candidate.decided_plan.as_ref().is_some_and(|p| *p != candidate.plan);
        due(candidate.evaluated_at, plan_changed, &begun, self.pace.interval, now)
    }

    fn remember(&self, tenant: TenantId, what: impl FnOnce(&mut Known)) {
        what(self.volatile().entry(tenant).or_default());
    }

    /// Evaluates one tenant now, whatever was before: decision, time of
    /// evaluation and move are one transaction. `lease`: only as long as it is
    /// held; an administrator's wish needs none.
    ///
    /// # Errors
    /// [`EvaluateError`]; nothing is written then.
    pub async fn evaluate(
        &self,
        tenant: TenantId,
        trigger: Trigger,
        lease: Option<&Lease>,
        now: Timestamp,
    ) -> Result<Evaluated, EvaluateError> {
        let mut client = self.store.client().await?;
        let tx = (**client).transaction().await?;
        let row = tenants::lock(&tx, tenant).await?.ok_or(EvaluateError::Unknown(tenant))?;
        if row.state != TenantState::Active {
            return Err(EvaluateError::NotActive { tenant, state: row.state });
        }
        let facts = judge::facts(&tx, &self.slots, &row, now).await?;
        let verdict = judge(&facts, &self.slots.catalog);
        if !evaluation::mark(&tx, &row, lease, now).await? {
            return Err(EvaluateError::Overtaken(tenant));
        }
        let outcome = match verdict.migration {
            Migration::Migrate { .. } => Outcome::Migrate,
            Migration::Stay { .. } => Outcome::Stay,
        };
        let inputs = json!({
            "profile": facts.profile,
            "usage": facts.usage,
            "residence": facts.residence,
            "week": facts.week,
            "migration": verdict.migration,
            "approval": verdict.approval,
            "advice": verdict.advice,
        });
        let decision = json!(verdict.decision);
        let decision_id =
            decisions::insert(&tx, tenant, trigger, &inputs, &decision, outcome).await?;
        let move_id = match &verdict.approval {
            None => None,
            Some(ruling) => {
                self.begin(&tx, tenant, decision_id, &facts, &verdict, ruling, now).await?
            }
        };
        tx.commit().await?;
        info!(%tenant, trigger = trigger.as_str(), outcome = outcome.as_str(),
            mode = %verdict.decision.mode, confidence = %verdict.decision.confidence,
            reason = %verdict.decision.reason, move_id = ?move_id, "tenant evaluated");
        Ok(Evaluated { decision_id, facts, verdict, move_id })
    }

    /// Begins or proposes the move; approves the proposal that waits already,
    /// where the rule holds by now.
    #[allow(clippy::too_many_arguments, reason = "the parts of one evaluation, used here alone")]
    async fn begin(
        &self,
        tx: &tokio_postgres::Transaction<'_>,
        tenant: TenantId,
        decision_id: Uuid,
        facts: &Facts,
        verdict: &Verdict,
        ruling: &Ruling,
        now: Timestamp,
    ) -> Result<Option<MoveId>, EvaluateError> {
        let decision = &verdict.decision;
        let approval = match ruling {
            Ruling::Auto { because, .. } => Approval::Given { by: format!("rule: {because}") },
            Ruling::Admin { why } => Approval::Wanted { why: why.join("; ") },
        };
        // What is put in place is never less than what was bought.
        let plan = decision.granted.as_ref().map_or(&decision.plan, |granted| &granted.plan);
        let new = NewMove {
            tenant,
            mode: decision.mode.as_str().to_owned(),
            plan: plan.to_string(),
            regions: facts.profile.regions.iter().map(|region| region.0.clone()).collect(),
            target: None,
            requested_by: "system".to_owned(),
            reason: decision.reason.clone(),
            decision_id: Some(decision_id),
            approval: approval.clone(),
            dry_run: false,
            confirm_rows: 0,
        };
        match request_in(tx, new, now).await {
            Ok(id) => Ok(Some(id)),
            Err(MoveRefused::AlreadyMoving { open, .. }) => match approval {
                Approval::Given { by } => {
                    let waited = approve_in(tx, open, &by, decision.mode.as_str(), now).await?;
                    Ok(waited.then_some(open))
                }
                Approval::Wanted { .. } => Ok(None),
            },
            // It was moved a moment ago; what is wrong there is for the way back.
            Err(MoveRefused::WayBackOpen { .. }) => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }
}
