//! Moves, their events, and what a move changes in the books: placements and
//! the tenant's epoch.
//!
//! **Invariant:** a move's row changes only by [`save`], which compares state,
//! epoch and revision in the UPDATE itself: of two drivers one wins, and the
//! other's transaction writes nothing at all.
//! **Invariant:** every change of state is one transaction with its event,
//! its audit row, the outgoing command and the placements that it changes.

mod books;
mod commands;
mod history;
mod pace;
mod turns;

pub use books::{
    Copy, Standing, copies, end_kept, keep_again, keep_incoming, may_return, release_incoming,
    reserve_incoming, standing, still_at_source, switch_back, switch_placements,
};
pub use commands::{Open, Sent, of_command, open, settle_commands};
pub use history::{Event, audit, event, events};
pub use pace::{before, copied, ended_from, of_those_on, queue, wake_queue};
pub use turns::{busy, take_turn};

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::{Epoch, MoveId, NodeId, TenantId};

use super::StoreError;
use crate::moves::durable::Durable;
use crate::moves::state::{Ending, State};

/// One row of `moves`.
#[derive(Clone, Debug)]
pub struct Move {
    /// Its id.
    pub id: MoveId,
    /// Whom it moves.
    pub tenant: TenantId,
    /// "upgrade", "downgrade", "lateral" or "dedicated".
    pub kind: String,
    /// From where.
    pub source: NodeId,
    /// To where, once a node is reserved.
    pub target: Option<NodeId>,
    /// The decision that it comes from.
    pub decision_id: Option<Uuid>,
    /// Why, in a sentence.
    pub reason: String,
    /// Who asked for it.
    pub requested_by: String,
    /// Where it is.
    pub state: State,
    /// The tenant's epoch on the source.
    pub epoch: Epoch,
    /// Who said yes.
    pub approved_by: Option<String>,
    /// When.
    pub approved_at: Option<Timestamp>,
    /// What the driver remembers.
    pub durable: Durable,
    /// The newest progress, as JSON.
    pub progress: Value,
    /// What the steps found, by step.
    pub result: Value,
    /// Why it waits, repeats or failed.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its state changed last.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Move {
    /// The same move, one revision later and updated at `now`.
    pub fn revised(&self, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.durable.revision += 1;
        next.updated_at = now;
        next
    }

    /// Which node holds the copy that serves nobody, after the switch.
    pub const fn old_copy(&self) -> Option<NodeId> {
        if self.durable.rolled_back { self.target } else { Some(self.source) }
    }

    /// How it ended.
    pub const fn ending(&self) -> Option<Ending> {
        match self.state {
            State::Ended(ending) => Some(ending),
            _ => None,
        }
    }
}

/// The states in which a move deals with its leftovers only, as SQL; see
/// [`State::is_settled`] and the index `moves_one_per_tenant`.
pub const SETTLED: &str = "('kept', 'clean_up', 'close_tunnel', 'clean_target')";

const COLUMNS: &str = "m.id, m.tenant_id, m.kind, m.source_node_id, m.target_node_id, \
     m.decision_id, m.reason, m.requested_by, m.state, m.epoch, m.approved_by, m.approved_at, \
     m.durable, m.progress, m.result, m.error, m.created_at, m.updated_at, m.ended_at";

fn read(row: &Row) -> Result<Move, StoreError> {
    let corrupt = |what, detail: String| StoreError::Corrupt { what, detail };
    let state: String = row.try_get("state")?;
    Ok(Move {
        id: MoveId(row.try_get("id")?),
        tenant: TenantId(row.try_get("tenant_id")?),
        kind: row.try_get("kind")?,
        source: NodeId(row.try_get("source_node_id")?),
        target: row.try_get::<_, Option<Uuid>>("target_node_id")?.map(NodeId),
        decision_id: row.try_get("decision_id")?,
        reason: row.try_get("reason")?,
        requested_by: row.try_get("requested_by")?,
        state: state.parse().map_err(|error: crate::moves::state::UnknownState| {
            corrupt("moves.state", error.to_string())
        })?,
        epoch: Epoch(row.try_get::<_, i64>("epoch")?.unsigned_abs()),
        approved_by: row.try_get("approved_by")?,
        approved_at: row.try_get("approved_at")?,
        durable: serde_json::from_value(row.try_get("durable")?)
            .map_err(|error| corrupt("moves.durable", error.to_string()))?,
        progress: row.try_get("progress")?,
        result: row.try_get("result")?,
        error: row.try_get("error")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

fn durable_json(durable: &Durable) -> Result<Value, StoreError> {
    serde_json::to_value(durable)
        .map_err(|error| StoreError::Corrupt { what: "moves.durable", detail: error.to_string() })
}

/// Epochs are i64 in SQL; one that is not was never stored.
fn epoch_sql(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

/// Writes a new move; false when the tenant has an open one, and then nothing
/// is written and the transaction is still good.
pub async fn insert(client: &impl GenericClient, new: &Move) -> Result<bool, StoreError> {
    let written = client
        .execute(
            "insert into moves (id, tenant_id, kind, source_node_id, target_node_id, decision_id,
                                reason, requested_by, state, epoch, approved_by, approved_at,
                                durable, error, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)
             on conflict do nothing",
            &[
                &new.id.0,
                &new.tenant.0,
                &new.kind,
                &new.source.0,
                &new.target.map(|id| id.0),
                &new.decision_id,
                &new.reason,
                &new.requested_by,
                &new.state.as_str(),
                &epoch_sql(new.epoch),
                &new.approved_by,
                &new.approved_at,
                &durable_json(&new.durable)?,
                &new.error,
                &new.created_at,
            ],
        )
        .await?;
    Ok(written == 1)
}

/// The ids of every move that has not ended, oldest first; but those that wait
/// for a node, or keep an old copy, until a time after `now`, of which there may
/// be thousands. PostgreSQL rounds times to microseconds: within one of its time
/// a move is due.
pub async fn due_ids(
    client: &impl GenericClient,
    now: Timestamp,
) -> Result<Vec<MoveId>, StoreError> {
    let rows = client
        .query(
            "select id from moves where ended_at is null
               and coalesce(case state
                 when 'waiting_for_node' then (durable->>'not_before')::timestamptz
                 when 'kept' then (durable->>'keep_until')::timestamptz end
                   <= $1::timestamptz + interval '1 microsecond', true)
             order by created_at, id",
            &[&now],
        )
        .await?;
    rows.iter().map(|row| Ok(MoveId(row.try_get(0)?))).collect()
}

/// One move, ended or not.
pub async fn get(client: &impl GenericClient, id: MoveId) -> Result<Option<Move>, StoreError> {
    let sql = format!("select {COLUMNS} from moves m where m.id = $1");
    client.query_opt(&sql, &[&id.0]).await?.as_ref().map(read).transpose()
}

/// The tenant's move that is under way, or whose way back is open: the one
/// that keeps it from having another. There is one at most.
pub async fn open_of(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m
         where m.tenant_id = $1 and m.ended_at is null and m.state not in {SETTLED}"
    );
    client.query_opt(&sql, &[&tenant.0]).await?.as_ref().map(read).transpose()
}

/// The tenant's newest move that has not ended, its leftovers included.
pub async fn newest_open_of(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<MoveId>, StoreError> {
    let row = client
        .query_opt(
            "select id from moves where tenant_id = $1 and ended_at is null
             order by created_at desc, id desc limit 1",
            &[&tenant.0],
        )
        .await?;
    row.map(|row| Ok(MoveId(row.try_get(0)?))).transpose()
}

/// The plan for whose machine the tenant was moved last, if it stayed there.
pub async fn last_plan(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<String>, StoreError> {
    let row = client
        .query_opt(
            "select durable->'wanted'->>'plan' from moves
             where tenant_id = $1 and durable->>'new_epoch' is not null
               and coalesce(durable->>'rolled_back', 'false') = 'false'
             order by created_at desc, id desc limit 1",
            &[&tenant.0],
        )
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
}

/// Which moves to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Which {
    /// Only of this tenant.
    pub tenant: Option<TenantId>,
    /// Only those that have not ended.
    pub open: bool,
    /// Only those before (older than) this one.
    pub before: Option<MoveId>,
}

/// Up to `limit` moves, newest first.
pub async fn list(
    client: &impl GenericClient,
    which: Which,
    limit: i64,
) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m
         where ($1::uuid is null or m.tenant_id = $1) and (not $2 or m.ended_at is null)
           and ($3::uuid is null or m.id < $3)
         order by m.id desc limit $4"
    );
    let (tenant, before) = (which.tenant.map(|id| id.0), which.before.map(|id| id.0));
    let rows = client.query(&sql, &[&tenant, &which.open, &before, &limit]).await?;
    rows.iter().map(read).collect()
}

/// The moves that are in one of `states`, none of them an end, oldest first.
pub async fn open_in(
    client: &impl GenericClient,
    states: &[State],
) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from moves m where m.ended_at is null and m.state = any($1)
         order by m.created_at, m.id"
    );
    let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    client.query(&sql, &[&states]).await?.iter().map(read).collect()
}

/// Writes `to` over the row that `from` was read from; false, and nothing
/// written, when the row is no longer in that state, epoch and revision.
/// `to.durable.revision` must be larger than `from`'s.
pub async fn save(client: &impl GenericClient, from: &Move, to: &Move) -> Result<bool, StoreError> {
    let ended = matches!(to.state, State::Ended(_));
    let revision = i64::try_from(from.durable.revision).unwrap_or(i64::MAX);
    let written = client
        .execute(
            "update moves set state = $5, target_node_id = $6, durable = $7, result = $8,
                    error = $9, approved_by = $10, approved_at = $11, updated_at = $12::timestamptz,
                    ended_at = case when $13 then $12::timestamptz end
             where id = $1 and state = $2 and epoch = $3
               and (durable->>'revision')::bigint = $4 and ended_at is null",
            &[
                &from.id.0,
                &from.state.as_str(),
                &epoch_sql(from.epoch),
                &revision,
                &to.state.as_str(),
                &to.target.map(|id| id.0),
                &durable_json(&to.durable)?,
                &to.result,
                &to.error,
                &to.approved_by,
                &to.approved_at,
                &to.updated_at,
                &ended,
            ],
        )
        .await?;
    Ok(written == 1)
}

/// Opens the row of an ended move again, as `to`; false, and nothing written,
/// when it is no longer in that state and revision.
pub async fn reopen(
    client: &impl GenericClient,
    from: &Move,
    to: &Move,
) -> Result<bool, StoreError> {
    let revision = i64::try_from(from.durable.revision).unwrap_or(i64::MAX);
    let written = client
        .execute(
            "update moves set state = $4, durable = $5, error = $6, updated_at = $7, ended_at = null
             where id = $1 and state = $2 and (durable->>'revision')::bigint = $3
               and ended_at is not null",
            &[
                &from.id.0,
                &from.state.as_str(),
                &revision,
                &to.state.as_str(),
                &durable_json(&to.durable)?,
                &to.error,
                &to.updated_at,
            ],
        )
        .await?;
    Ok(written == 1)
}

/// Keeps the newest progress of an open move. Not part of what [`save`]
/// compares: progress never gets in the way of a transition.
pub async fn progress(
    client: &impl GenericClient,
    id: MoveId,
    progress: &Value,
) -> Result<(), StoreError> {
    client
        .execute(
            "update moves set progress = $2 where id = $1 and ended_at is null",
            &[&id.0, &progress],
        )
        .await?;
    Ok(())
}
