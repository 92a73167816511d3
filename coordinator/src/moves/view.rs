//! What the API shows of moves. The ticket never leaves the driver.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use webhost_proto::ids::{MoveId, TenantId};

use super::progress::{percent, seconds_left};
use super::state::State;
use super::wishes::Pausing;
use crate::store::moves::{self, Event, Move, Which};
use crate::store::{Store, StoreError};

/// A move, as people see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MoveView {
    /// Its id.
    pub id: Uuid,
    /// Whom it moves.
    pub tenant_id: Uuid,
    /// "upgrade", "downgrade", "lateral" or "dedicated".
    pub kind: String,
    /// The step it is at, or how it ended: see the table of `moves`.
    pub state: String,
    /// From where.
    pub source_node_id: Uuid,
    /// To where, once a node is promised.
    pub target_node_id: Option<Uuid>,
    /// The target's mode.
    pub target_mode: String,
    /// The plan whose machine the target must have.
    pub target_plan: String,
    /// The decision that it comes from.
    pub decision_id: Option<Uuid>,
    /// Why it is made.
    pub reason: String,
    /// Who asked for it.
    pub requested_by: String,
    /// Who said yes.
    pub approved_by: Option<String>,
    /// When.
    #[schema(value_type = Option<String>)]
    pub approved_at: Option<Timestamp>,
    /// The tenant's epoch on the source.
    pub epoch: u64,
    /// How often the current step was begun.
    pub attempts: u32,
    /// The newest figures of the step under way.
    #[schema(value_type = Object)]
    pub progress: Value,
    /// What the finished steps found, by step.
    #[schema(value_type = Object)]
    pub result: Value,
    /// Why it waits, repeats, goes back or failed.
    pub error: Option<String>,
    /// What a pause that was asked for waits for; none where none was, or the
    /// move is paused.
    pub pausing: Option<String>,
    /// When it was asked for.
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// When its state changed last.
    #[schema(value_type = String)]
    pub updated_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>)]
    pub ended_at: Option<Timestamp>,
    /// From asking to the end, or to now, in milliseconds.
    pub duration_ms: i64,
    /// Only the preflight was wanted.
    pub dry_run: bool,
    /// How much of the way to the switch is done, in percent.
    pub percent: Option<u64>,
    /// How long the copy will still take.
    pub seconds_left: Option<u64>,
    /// Rows that are older stay behind.
    #[schema(value_type = Option<String>)]
    pub retain_from: Option<Timestamp>,
    /// How many rows those are.
    pub rows_left_behind: u64,
    /// When patience with the step ends.
    #[schema(value_type = Option<String>)]
    pub deadline: Option<Timestamp>,
    /// Until when it can be rolled back, from its switch on.
    #[schema(value_type = Option<String>)]
    pub way_back_until: Option<Timestamp>,
    /// Until when the old copy is kept.
    #[schema(value_type = Option<String>)]
    pub keep_until: Option<Timestamp>,
    /// The states that it went through and the one that it is in, with their
    /// times.
    pub steps: Vec<StepView>,
    /// Its history, oldest first; only where one move is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// One state of a move, and how long it took.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StepView {
    /// Which.
    pub state: String,
    /// When it was entered.
    #[schema(value_type = String)]
    pub began: Timestamp,
    /// When it was left.
    #[schema(value_type = Option<String>)]
    pub ended: Option<Timestamp>,
    /// How long it took, or has taken until now.
    pub seconds: i64,
    /// The same in milliseconds.
    pub milliseconds: i64,
    /// How often its command was sent.
    pub tries: u32,
}

fn steps(row: &Move, now: Timestamp) -> Vec<StepView> {
    let step = |state: State, began: Timestamp, ended: Option<Timestamp>, tries| {
        let milliseconds = ended.unwrap_or(now).as_millisecond() - began.as_millisecond();
        let seconds = milliseconds / 1000;
        StepView { state: state.into(), began, ended, seconds, milliseconds, tries }
    };
    let passed = &row.durable.passed;
    let mut steps: Vec<StepView> = passed
        .iter()
        .map(|passed| step(passed.state, passed.began, Some(passed.ended), passed.tries))
        .collect();
    if row.ending().is_none() {
        steps.push(step(row.state, row.updated_at, None, row.durable.attempts));
    }
    steps
}

fn view(row: Move, events: Vec<Event>, now: Timestamp) -> MoveView {
    let end = row.ended_at.unwrap_or(now);
    let duration_ms = end.as_millisecond() - row.created_at.as_millisecond();
    let steps = steps(&row, now);
    let (percent, seconds_left) = (percent(&row), seconds_left(&row));
    let paused = row.state == State::Paused || row.ending().is_some();
    let pausing = row.durable.pause.as_ref().filter(|_| !paused);
    MoveView {
        pausing: pausing.map(|_| Pausing::of(row.state).to_string()),
        dry_run: row.durable.wanted.dry_run,
        percent,
        seconds_left,
        retain_from: row.durable.retain_from,
        rows_left_behind: row.durable.rows_left_behind,
        deadline: row.durable.deadline,
        way_back_until: row.durable.way_back_until,
        keep_until: row.durable.keep_until,
        steps,
        id: row.id.0,
        tenant_id: row.tenant.0,
        kind: row.kind,
        state: row.state.as_str().to_owned(),
        source_node_id: row.source.0,
        target_node_id: row.target.map(|id| id.0),
        target_mode: row.durable.wanted.mode,
        target_plan: row.durable.wanted.plan,
        decision_id: row.decision_id,
        reason: row.reason,
        requested_by: row.requested_by,
        approved_by: row.approved_by,
        approved_at: row.approved_at,
        epoch: row.epoch.0,
        attempts: row.durable.attempts,
        progress: row.progress,
        result: row.result,
        error: row.error,
        created_at: row.created_at,
        updated_at: row.updated_at,
        ended_at: row.ended_at,
        duration_ms,
        events,
    }
}

/// Up to `limit` moves, newest first, without their histories.
///
/// # Errors
/// When they can't be read.
pub async fn list(store: &Store, which: Which, limit: i64) -> Result<Vec<MoveView>, StoreError> {
    let now = Timestamp::now();
    let rows = moves::list(&**store.client().await?, which, limit).await?;
    Ok(rows.into_iter().map(|row| view(row, Vec::new(), now)).collect())
}

/// One move with its history.
///
/// # Errors
/// When it can't be read.
pub async fn get(store: &Store, id: MoveId) -> Result<Option<MoveView>, StoreError> {
    let client = store.client().await?;
    let Some(row) = moves::get(&**client, id).await? else { return Ok(None) };
    let events = moves::events(&**client, id).await?;
    Ok(Some(view(row, events, Timestamp::now())))
}

/// The tenant's open move, with its history.
///
/// # Errors
/// When it can't be read.
pub async fn open_of(store: &Store, tenant: TenantId) -> Result<Option<MoveView>, StoreError> {
    let id = moves::newest_open_of(&**store.client().await?, tenant).await?;
    match id {
        Some(id) => get(store, id).await,
        None => Ok(None),
    }
}
