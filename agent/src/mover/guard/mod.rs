//! Guards on both sides, and the key log on the source.
//!
//! The fence is the hybrid that was measured: every write of the tenant takes
//! the fence's advisory lock shared (its queue is fair, so the cut-over is not
//! starved), then reads the fence row: plainly under READ COMMITTED, where
//! each query sees the newest state; `FOR SHARE` under the other levels, whose
//! old snapshot then ends in a serialisation failure instead of a lost write.
//!
//! A side that becomes active needs more. A statement that began there before
//! the activation has a snapshot without the last rows: an UPDATE would find
//! the version that the activation replaced, or nothing at all, change no row,
//! and be acknowledged. So each row that is written there meets a second
//! trigger whose function is STABLE, which makes it read the fence row with the
//! snapshot of the very statement that fired it, and refuses whatever began
//! too early; where that side serves nobody else, a statement trigger does the
//! same for statements that find no row. The target has both kinds from the
//! guard step on, and logs from its first own write; the source gets the second
//! kind when the way back is armed. Where every transaction has ended that was
//! there before the activation, nobody needs the second kind any more, and a
//! way back takes it off the side that serves. Rows that the mover applies are written in
//! the replica role, and fire nothing.
//!
//! Deletes by retention are not carried back. A session that has
//! `SET webhost_fleet.retention = 'on'` (the application's retention job sets
//! it) leaves its DELETEs on the new side out of the log: their keys go to a
//! list of their own, the old copy keeps those rows, a verification leaves them
//! out on both sides, and a roll back brings them back. Before the switch the
//! setting changes nothing: what is deleted on the source is deleted on the
//! target. Retention by dropping partitions fires no trigger: the next
//! verification finds it and closes the way back.
//!
//! A refusal has SQLSTATE `MG001`. Its DETAIL is the place that serves the
//! tenant now; empty, it means "try again here".

mod mixed;
mod patience;
mod tables;
mod through;
mod triggers;

pub(super) use patience::{Held, blockers, patiently};
pub use tables::{check, drop_triggers, only_refuse, settled};
pub use triggers::{Kind, RETENTION};

use self::tables::{complete, install_triggers, lacking, no_statements};
use super::catalog::Table;
use super::connect::Conn;
use super::error::{MoveError, Side};
use super::fence;
use super::jobs;
use super::leg::Leg;
use super::run::{Pair, Run};
use super::spec::{Finding, Spec};
use super::sql::{self, SCHEMA};
use super::statements::TableSql;

/// When this returns, writes of the tenant are guarded on both sides and
/// logged on the source. Answers what a person should know. Idempotent.
///
/// # Errors
/// [`MoveError::Refused`] where the target holds rows of the tenant that this
/// move did not write, [`MoveError::Blocked`] when a table stayed locked.
pub async fn install(run: &Run, pair: &Pair) -> Result<Vec<Finding>, MoveError> {
    let tables = run.discover_both(pair).await?;
    target(&run.spec, pair, &tables).await?;
    run.fail.point("mid_guard")?;
    source(run, &pair.source, &tables).await?;
    let findings = mixed::watch(run, &pair.source, &tables).await?;
    run.fail.point("after_guard")?;
    Ok(findings)
}

/// What the leg needs beside its log, before it drains: on the side that it
/// goes to, guards that refuse what began before an activation there, and an
/// empty log. Idempotent; cheap where all of it is there.
///
/// **Invariant:** the log that is emptied is the one whose keys the activation
/// of the other side has applied: that activation was read off its fence row,
/// so it is durable.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn arm(run: &Run, pair: &Pair, leg: Leg, tables: &[Table]) -> Result<(), MoveError> {
    if leg == Leg::FORTH {
        return Ok(());
    }
    let (spec, from, to) = (&run.spec, leg.from(pair), leg.to(pair));
    no_statements(from, spec, tables).await?;
    let alone = alone(to, spec, tables).await?;
    let kind = Kind::Coming { alone };
    if !lacking(to, spec, tables, kind).await?.is_empty() {
        complete(to, spec, tables, kind).await?;
    }
    let log = sql::log_table(spec.move_id);
    // The fence row's lock: nothing activates this side meanwhile.
    to.batch("BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '1s'").await?;
    let emptied = async {
        fence::waits(spec, leg, to, "FOR UPDATE").await?;
        let some: bool = to.one(&format!("select exists (select 1 from {log})"), &[]).await?.get(0);
        if some {
            to.batch(&format!("TRUNCATE {log}")).await?;
        }
        to.batch("COMMIT").await
    }
    .await;
    if emptied.is_err()
        && let Err(error) = to.batch("ROLLBACK").await
    {
        tracing::debug!(%error, "rollback of an emptied log");
    }
    emptied?;
    run.fail.on("after_arm", leg)
}

/// The key log of a side. No index, and no autovacuum that would come at a bad
/// moment: the mover vacuums it itself. The list of what the old copy keeps is
/// looked up by key.
async fn create_log(conn: &Conn, spec: &Spec) -> Result<(), MoveError> {
    conn.batch(&format!(
        "CREATE TABLE IF NOT EXISTS {} (tab smallint NOT NULL, k text[] NOT NULL) \
         WITH (autovacuum_enabled = false)",
        sql::log_table(spec.move_id)
    ))
    .await?;
    if conn.side() == Side::Target {
        conn.batch(&format!(
            "CREATE TABLE IF NOT EXISTS {} (tab smallint NOT NULL, k text[] NOT NULL, PRIMARY KEY (tab, k))",
            sql::kept_table(spec.move_id)
        ))
        .await?;
    }
    Ok(())
}

/// Drops a side's log. Idempotent; nothing may log there any more.
///
/// # Errors
/// What the database said.
pub async fn drop_log(conn: &Conn, spec: &Spec) -> Result<(), MoveError> {
    conn.batch(&format!(
        "DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {}",
        sql::log_table(spec.move_id),
        sql::kept_table(spec.move_id),
        sql::mixed_table(spec.move_id)
    ))
    .await
}

async fn target(spec: &Spec, pair: &Pair, tables: &[Table]) -> Result<(), MoveError> {
    let conn = &pair.target;
    let ours = sql::move_literal(spec.move_id);
    fence::create_schema(conn).await?;
    // A shared node is nobody's for long: who comes next must not meet a guard
    // that looks at statements, whoever's rows they are about.
    let alone = spec.target_dedicated && alone(conn, spec, tables).await?;
    let set = claim(conn, spec, tables, "standby", "f.state <> 'active'").await?;
    if !set {
        return Err(MoveError::refused(format!(
            "the target's fence row of tenant {} is active or of a later epoch than {}",
            spec.tenant, spec.epoch
        )));
    }
    jobs::pause(conn, spec).await?;
    create_log(conn, spec).await?;
    install_triggers(conn, spec, tables, Kind::Coming { alone }).await?;

    // From here on nobody but a move can write rows of the tenant there. What
    // is there already must come from this move.
    let known: bool = conn
        .one(
            &format!(
                "select exists (select 1 from {SCHEMA}.moves where move_id = {ours} and was_empty)"
            ),
            &[],
        )
        .await?
        .get(0);
    if known {
        return Ok(());
    }
    let mut strangers = Vec::new();
    for table in tables {
        let sql = TableSql::new(table, spec);
        let found: bool = conn
            .one(
                &format!(
                    "select exists (select 1 from {} x where {})",
                    table.name,
                    sql.of_tenant("x")
                ),
                &[],
            )
            .await?
            .get(0);
        if found {
            strangers.push(format!(
                "table {} on the target holds rows of tenant {} that this move did not write",
                table.name, spec.tenant
            ));
        }
    }
    if !strangers.is_empty() {
        return Err(MoveError::Refused(strangers));
    }
    conn.batch(&format!("UPDATE {SCHEMA}.moves SET was_empty = true WHERE move_id = {ours}")).await
}

/// Whether a side serves no other tenant.
async fn alone(conn: &Conn, spec: &Spec, tables: &[Table]) -> Result<bool, MoveError> {
    for table in tables {
        let others: bool = conn
            .one(
                &format!(
                    "select exists (select 1 from {} x where ({}) is not true)",
                    table.name,
                    TableSql::new(table, spec).of_tenant("x"),
                ),
                &[],
            )
            .await?
            .get(0);
        if others {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets the fence row and writes the move down, in one transaction; false
/// where a row is there that `unless` and the epoch don't let us take.
async fn claim(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    state: &str,
    takeable: &str,
) -> Result<bool, MoveError> {
    let json = serde_json::to_string(tables)
        .map_err(|error| MoveError::Interrupted(format!("the list of tables: {error}")))?;
    let (tenant, ours) = (sql::tenant_literal(spec.tenant), sql::move_literal(spec.move_id));
    let rows = conn
        .query(
            &format!(
                "WITH before AS (SELECT 1 FROM {SCHEMA}.fence WHERE customer_id = {tenant}), \
                 f AS (INSERT INTO {SCHEMA}.fence AS f (customer_id, state, epoch, move_id) \
                   VALUES ({tenant}, '{state}', $1, {ours}) \
                   ON CONFLICT (customer_id) DO UPDATE \
                   SET state = '{state}', epoch = $1, move_id = {ours}, updated_at = now() \
                   WHERE {takeable} AND f.epoch <= $1 RETURNING 1), \
                 m AS (INSERT INTO {SCHEMA}.moves (move_id, customer_id, epoch, tables, had_fence) \
                   SELECT {ours}, {tenant}, $1, $2, EXISTS (SELECT 1 FROM before) FROM f \
                   ON CONFLICT (move_id) DO NOTHING) \
                 SELECT 1 FROM f"
            ),
            &[&spec.epoch_sql(), &json],
        )
        .await?;
    Ok(rows.len() == 1)
}

async fn source(run: &Run, conn: &Conn, tables: &[Table]) -> Result<(), MoveError> {
    let spec = &run.spec;
    fence::create_schema(conn).await?;
    create_log(conn, spec).await?;
    if !claim(conn, spec, tables, "active", "f.state = 'active'").await? {
        return Err(MoveError::refused(format!(
            "the source's fence row of tenant {} is not active, or of a later epoch than {}",
            spec.tenant, spec.epoch
        )));
    }
    jobs::pause(conn, spec).await?;
    install_triggers(conn, spec, tables, Kind::Serving).await
}
