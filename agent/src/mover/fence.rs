//! The fence: one row a tenant in each database, saying whether it is served
//! here, and the tables that the mover keeps beside it.

use uuid::Uuid;
use webhost_proto::ids::{Epoch, MoveId, TenantId};

use super::connect::Conn;
use super::error::MoveError;
use super::leg::Leg;
use super::spec::Spec;
use super::sql::{self, Lock, SCHEMA};

/// A fence row's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Writes of the tenant commit here.
    Active,
    /// The target of a move that has not been cut over.
    Standby,
    /// The tenant lives elsewhere now.
    Moved,
}

impl State {
    /// As SQL spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Moved => "moved",
        }
    }
}

/// One fence row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub state: State,
    pub epoch: Epoch,
    pub move_id: Option<MoveId>,
}

/// Reads the tenant's fence row; none where there is no row or no schema.
/// With `lock` the row is locked until the transaction's end: a cut-over whose
/// outcome is in doubt is then over, one way or the other.
///
/// # Errors
/// What the database said; a state that we don't know.
pub async fn read(conn: &Conn, tenant: TenantId, lock: bool) -> Result<Option<Fence>, MoveError> {
    let exists: bool =
        conn.one(&format!("select to_regclass('{SCHEMA}.fence') is not null"), &[]).await?.get(0);
    if !exists {
        return Ok(None);
    }
    let tail = if lock { " for update" } else { "" };
    let rows = conn
        .query(
            &format!(
                "select state, epoch, move_id from {SCHEMA}.fence where customer_id = {}{tail}",
                sql::tenant_literal(tenant)
            ),
            &[],
        )
        .await?;
    rows.first()
        .map(|row| {
            let state: &str = row.get(0);
            let state = match state {
                "active" => State::Active,
                "standby" => State::Standby,
                "moved" => State::Moved,
                other => {
                    return Err(MoveError::refused(format!(
                        "the {} fence row of {tenant} has the unknown state {other}",
                        conn.side()
                    )));
                }
            };
            Ok(Fence {
                state,
                epoch: Epoch(row.get::<_, i64>(1).max(0).cast_unsigned()),
                move_id: row.get::<_, Option<Uuid>>(2).map(MoveId),
            })
        })
        .transpose()
}

/// Locks the target's fence row, in the transaction that is about to write
/// rows there, and refuses unless it stands by for this very move.
///
/// # Errors
/// [`MoveError::Refused`].
pub(super) async fn standby(spec: &Spec, target: &Conn, lock: &str) -> Result<(), MoveError> {
    waits(spec, Leg::FORTH, target, lock).await
}

/// [`standby`] for the side that any leg goes to.
pub(super) async fn waits(spec: &Spec, leg: Leg, conn: &Conn, lock: &str) -> Result<(), MoveError> {
    let rows = conn.query(&waits_query(spec, leg, lock), &[]).await?;
    if rows.len() == 1 { Ok(()) } else { Err(not_waiting(spec, leg)) }
}

pub(super) fn waits_query(spec: &Spec, leg: Leg, lock: &str) -> String {
    format!(
        "SELECT epoch FROM {SCHEMA}.fence WHERE customer_id = {} AND move_id = {} \
         AND state = '{}' AND epoch = {} {lock}",
        sql::tenant_literal(spec.tenant),
        sql::move_literal(spec.move_id),
        leg.waits_as().as_str(),
        leg.epoch_sql(spec)
    )
}

pub(super) fn not_waiting(spec: &Spec, leg: Leg) -> MoveError {
    MoveError::refused(format!(
        "the {} is not '{}' for move {} of tenant {} at epoch {}; nothing was written there",
        leg.to_side(),
        leg.waits_as().as_str(),
        spec.move_id,
        spec.tenant,
        leg.epoch(spec)
    ))
}

/// When this returns, our schema and its tables exist.
///
/// # Errors
/// What the database said.
pub async fn create_schema(conn: &Conn) -> Result<(), MoveError> {
    conn.batch(&format!(
        "BEGIN;
         SELECT pg_advisory_xact_lock({lock});
         CREATE SCHEMA IF NOT EXISTS {SCHEMA};
         -- New partitions clone the triggers as the application's role.
         GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC;
         CREATE TABLE IF NOT EXISTS {SCHEMA}.fence (
             customer_id uuid PRIMARY KEY,
             state text NOT NULL CHECK (state IN ('active', 'standby', 'moved')),
             epoch bigint NOT NULL,
             place text NOT NULL DEFAULT '',
             move_id uuid,
             updated_at timestamptz NOT NULL DEFAULT now());
         -- One row a move and database, from guard to finish or undo.
         CREATE TABLE IF NOT EXISTS {SCHEMA}.moves (
             move_id uuid PRIMARY KEY,
             customer_id uuid NOT NULL UNIQUE,
             epoch bigint NOT NULL,
             -- The tables as they were when the guards went in; their order
             -- numbers them in the key log.
             tables text NOT NULL,
             -- Whether a fence row was there before this move.
             had_fence boolean NOT NULL,
             -- On the target: whether it was seen, behind the guards, to hold
             -- no row of the tenant. What is there since came by this move.
             was_empty boolean NOT NULL DEFAULT false,
             -- Background jobs that are switched off until this row goes.
             paused_jobs text NOT NULL DEFAULT '[]',
             -- On the target: the indexes that are away while the copy runs.
             set_aside text NOT NULL DEFAULT '[]',
             created_at timestamptz NOT NULL DEFAULT now());
         -- On the target: what the copy has committed.
         CREATE TABLE IF NOT EXISTS {SCHEMA}.copied (
             move_id uuid NOT NULL,
             tab int NOT NULL,
             part text NOT NULL,
             rows bigint NOT NULL,
             bytes bigint NOT NULL,
             PRIMARY KEY (move_id, tab, part));
         COMMIT",
        lock = Lock::Schema.key()
    ))
    .await
}

/// Drops our schema when nothing in it is needed any more; leaves it alone
/// otherwise.
///
/// # Errors
/// What the database said.
pub async fn drop_schema_if_unused(conn: &Conn) -> Result<(), MoveError> {
    // Without CASCADE: an object that we don't expect keeps the schema.
    conn.batch(&format!(
        "DO $$ BEGIN
           PERFORM pg_advisory_xact_lock({lock});
           -- Under the lock: another move that ended may have dropped it just now.
           -- By a query, because to_regclass may answer from before that.
           IF NOT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                          WHERE n.nspname = '{SCHEMA}' AND c.relname = 'fence') THEN
             RETURN;
           END IF;
           IF NOT EXISTS (SELECT 1 FROM {SCHEMA}.fence) AND NOT EXISTS (SELECT 1 FROM {SCHEMA}.moves)
              AND NOT EXISTS (SELECT 1 FROM {SCHEMA}.copied)
              AND (SELECT count(*) FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = '{SCHEMA}'::regnamespace) = 3
              AND NOT EXISTS (SELECT 1 FROM pg_proc p WHERE p.pronamespace = '{SCHEMA}'::regnamespace) THEN
             DROP TABLE {SCHEMA}.copied; DROP TABLE {SCHEMA}.moves; DROP TABLE {SCHEMA}.fence;
             DROP SCHEMA {SCHEMA};
           END IF;
         END $$",
        lock = Lock::Schema.key()
    ))
    .await
}
