//! Guards on both sides, and the key log on the source.
//!
//! The fence is the hybrid that was measured: every write of the tenant takes
//! the fence's advisory lock shared (its queue is fair, so the cut-over is not
//! starved), then reads the fence row: plainly under READ COMMITTED, where
//! each query sees the newest state; `FOR SHARE` under the other levels, whose
//! old snapshot then ends in a serialisation failure instead of a lost write.
//!
//! The target's guard is another one. A statement that began there before the
//! activation has a snapshot without the last rows: an UPDATE would find the
//! version that the activation replaced, or nothing at all, change no row, and
//! be acknowledged. So that guard is STABLE, which makes it read the fence row
//! with the snapshot of the very statement that fired it, and refuses whatever
//! began too early; where the target serves nobody else, a statement trigger
//! does the same for statements that find no row.
//!
//! A refusal has SQLSTATE `MG001`. Its DETAIL is the place that serves the
//! tenant now; empty, it means "try again here".

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::catalog::Table;
use super::connect::Conn;
use super::error::{MoveError, Side};
use super::fence;
use super::run::{Pair, Run};
use super::spec::Spec;
use super::sql::{self, Lock, SCHEMA};
use super::statements::TableSql;

/// How long one attempt may hold up the writers that queue behind it.
const LOCK_TIMEOUT: &str = "100ms";
/// How long we try.
const PATIENCE: Duration = Duration::from_secs(60);

/// When this returns, writes of the tenant are guarded on both sides and
/// logged on the source. Idempotent.
///
/// # Errors
/// [`MoveError::Refused`] where the target holds rows of the tenant that this
/// move did not write, [`MoveError::Blocked`] when a table stayed locked.
pub async fn install(run: &Run, pair: &Pair) -> Result<(), MoveError> {
    let tables = run.discover_both(pair).await?;
    target(&run.spec, pair, &tables).await?;
    source(run, &pair.source, &tables).await?;
    run.fail.point("after_guard")
}

async fn target(spec: &Spec, pair: &Pair, tables: &[Table]) -> Result<(), MoveError> {
    let conn = &pair.target;
    let ours = sql::move_literal(spec.move_id);
    fence::create_schema(conn).await?;
    let alone = alone(conn, spec, tables).await?;
    let set = claim(conn, spec, tables, "standby", "f.state <> 'active'").await?;
    if !set {
        return Err(MoveError::refused(format!(
            "the target's fence row of tenant {} is active or of a later epoch than {}",
            spec.tenant, spec.epoch
        )));
    }
    install_triggers(conn, spec, tables, Kind::Target { alone }).await?;

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

/// Whether the target serves no other tenant.
async fn alone(conn: &Conn, spec: &Spec, tables: &[Table]) -> Result<bool, MoveError> {
    for table in tables {
        let others: bool = conn
            .one(
                &format!(
                    "select exists (select 1 from {} x where x.{} <> {})",
                    table.name,
                    table.tenant,
                    sql::tenant_literal(spec.tenant)
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
    // No index, and no autovacuum that would come at a bad moment: the mover
    // vacuums it itself.
    conn.batch(&format!(
        "CREATE TABLE IF NOT EXISTS {} (tab smallint NOT NULL, k text[] NOT NULL) \
         WITH (autovacuum_enabled = false)",
        sql::log_table(spec.move_id)
    ))
    .await?;
    if !claim(conn, spec, tables, "active", "f.state = 'active'").await? {
        return Err(MoveError::refused(format!(
            "the source's fence row of tenant {} is not active, or of a later epoch than {}",
            spec.tenant, spec.epoch
        )));
    }
    install_triggers(conn, spec, tables, Kind::Source).await
}

/// Which guard a side gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Refuses unless active, and logs keys.
    Source,
    /// Refuses what began before the activation.
    Target { alone: bool },
    /// What stays on the source: refuses unless active.
    Left,
}

/// A guard function.
fn function(spec: &Spec, sql: &TableSql<'_>, number: usize, kind: Kind) -> String {
    let tenant = sql::tenant_literal(spec.tenant);
    let lock = Lock::Fence(spec.tenant).key();
    // Types whose text depends on settings are pinned as in our sessions.
    let settings = if sql.table.key_columns().all(|column| stable_text(&column.cast)) {
        ""
    } else {
        "SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' \
         SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C'"
    };
    let append = |row: &str| {
        format!(
            "INSERT INTO {}(tab, k) VALUES ({number}, {});",
            sql::log_table(spec.move_id),
            sql.logged_key(row)
        )
    };
    let body = if kind == Kind::Source {
        format!(
            "IF TG_OP = 'INSERT' THEN {new} RETURN NEW; \
             ELSIF TG_OP = 'DELETE' THEN {old} RETURN OLD; \
             ELSE {old} IF {new_key} IS DISTINCT FROM {old_key} THEN {new} END IF; RETURN NEW; END IF;",
            new = append("NEW"),
            old = append("OLD"),
            new_key = sql.logged_key("NEW"),
            old_key = sql.logged_key("OLD"),
        )
    } else {
        "IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;".to_owned()
    };
    let volatility = if matches!(kind, Kind::Target { .. }) { "STABLE" } else { "VOLATILE" };
    let read = if matches!(kind, Kind::Target { .. }) {
        format!(
            "SELECT f.state, f.place INTO s, p FROM {SCHEMA}.fence f WHERE f.customer_id = {tenant};"
        )
    } else {
        format!(
            "IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
               SELECT f.state, f.place INTO s, p FROM {SCHEMA}.fence f WHERE f.customer_id = {tenant};
             ELSE
               SELECT f.state, f.place INTO s, p FROM {SCHEMA}.fence f WHERE f.customer_id = {tenant} FOR SHARE;
             END IF;"
        )
    };
    format!(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql {volatility} SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp {settings} AS $guard$
         DECLARE s text; p text;
         BEGIN
           PERFORM pg_catalog.pg_advisory_xact_lock_shared({lock});
           {read}
           IF s IS DISTINCT FROM 'active' THEN
             RAISE EXCEPTION 'tenant {id} is not served here (%)', coalesce(s, 'no fence row')
               USING ERRCODE = 'MG001', DETAIL = coalesce(p, '');
           END IF;
           {body}
         END $guard$",
        name = sql::guard_function(spec.tenant, number),
        id = spec.tenant,
    )
}

/// Whether a type prints the same under every setting.
fn stable_text(cast: &str) -> bool {
    matches!(
        cast,
        "uuid"
            | "smallint"
            | "integer"
            | "bigint"
            | "text"
            | "character varying"
            | "bpchar"
            | "boolean"
            | "numeric"
    )
}

/// The triggers of one table, in one transaction: one wait for its lock.
fn triggers(spec: &Spec, sql: &TableSql<'_>, number: usize, kind: Kind) -> String {
    let prefix = sql::trigger_prefix(spec.tenant);
    let function = sql::guard_function(spec.tenant, number);
    let name = &sql.table.name;
    let (old, new) = (sql.of_tenant("OLD"), sql.of_tenant("NEW"));
    let row = |tail: &str, event: &str, when: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER {prefix}_{tail} BEFORE {event} ON {name} FOR EACH ROW WHEN ({when}) \
             EXECUTE FUNCTION {function}();"
        )
    };
    let statement = if (kind == Kind::Target { alone: true }) {
        format!(
            "CREATE OR REPLACE TRIGGER {prefix}_s BEFORE UPDATE OR DELETE ON {name} FOR EACH STATEMENT \
             EXECUTE FUNCTION {function}();"
        )
    } else {
        String::new()
    };
    format!(
        "{} {} {} {statement} CREATE OR REPLACE TRIGGER {prefix}_t BEFORE TRUNCATE ON {name} FOR EACH STATEMENT \
         EXECUTE FUNCTION {SCHEMA}.refuse_truncate_{}();",
        row("i", "INSERT", &new),
        row("u", "UPDATE", &format!("{old} OR {new}")),
        row("d", "DELETE", &old),
        spec.tenant.0.simple(),
    )
}

async fn install_triggers(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    kind: Kind,
) -> Result<(), MoveError> {
    let mut functions = format!(
        "CREATE OR REPLACE FUNCTION {SCHEMA}.refuse_truncate_{}() RETURNS trigger LANGUAGE plpgsql \
         SET search_path = pg_catalog, pg_temp AS $guard$ BEGIN
           RAISE EXCEPTION 'TRUNCATE of % while tenant {} moves', TG_RELID::regclass USING ERRCODE = 'MG002';
         END $guard$;",
        spec.tenant.0.simple(),
        spec.tenant,
    );
    for (number, table) in tables.iter().enumerate() {
        functions.push_str(&function(spec, &TableSql::new(table, spec), number, kind));
        functions.push(';');
    }
    conn.batch(&format!("BEGIN; {functions} COMMIT")).await?;
    for (number, table) in tables.iter().enumerate() {
        let wanted = if (kind == Kind::Target { alone: true }) { 5 } else { 4 };
        if count_of(conn, spec, &table.name).await? == wanted {
            continue;
        }
        let sql = TableSql::new(table, spec);
        patiently(conn, &table.name, &triggers(spec, &sql, number, kind)).await?;
    }
    Ok(())
}

/// How many of the tenant's triggers fire on a table.
async fn count_of(conn: &Conn, spec: &Spec, table: &str) -> Result<i64, MoveError> {
    Ok(conn
        .one(
            &format!(
                "select count(*) from pg_trigger where tgrelid = {}::regclass and tgenabled = 'O' \
                 and tgname like {}",
                sql::literal(table),
                sql::literal(&format!("{}%", sql::trigger_prefix(spec.tenant).replace('_', "\\_")))
            ),
            &[],
        )
        .await?
        .get(0))
}

/// Runs DDL on one table with a short lock timeout, again and again.
async fn patiently(conn: &Conn, table: &str, ddl: &str) -> Result<(), MoveError> {
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(20);
    loop {
        let attempt = conn
            .batch(&format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {ddl} COMMIT"))
            .await;
        let Err(error) = attempt else { return Ok(()) };
        conn.batch("ROLLBACK").await?;
        let again = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
            || error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED);
        if !again {
            return Err(error);
        }
        if Instant::now() >= until {
            return Err(MoveError::Blocked {
                what: format!("a trigger on {table} of the {}", conn.side()),
                blockers: blockers(conn, Held::Table(table)).await?,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// What somebody else holds.
pub(super) enum Held<'a> {
    /// Any lock on a table (quoted).
    Table(&'a str),
    Lock(Lock),
}

/// Who is in the way, with pid, name and age.
pub(super) async fn blockers(conn: &Conn, held: Held<'_>) -> Result<String, MoveError> {
    let filter = match held {
        Held::Table(table) => format!("l.relation = {}::regclass", sql::literal(table)),
        Held::Lock(lock) => format!(
            "l.locktype = 'advisory' and l.objsubid = 1 \
             and ((l.classid::int8 << 32) | l.objid::int8) = {}",
            lock.key()
        ),
    };
    let rows = conn
        .query(
            &format!(
                "select distinct format('pid %s (%s, open for %s s)', a.pid, \
                   coalesce(nullif(a.application_name, ''), a.usename), \
                   extract(epoch from clock_timestamp() - a.xact_start)::int) \
                 from pg_locks l join pg_stat_activity a on a.pid = l.pid \
                 where {filter} and l.granted and a.pid <> pg_backend_pid() and a.xact_start is not null \
                 union all select format('prepared transaction %s', gid) from pg_prepared_xacts \
                 where database = current_database() limit 5"
            ),
            &[],
        )
        .await?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(if names.is_empty() {
        "a transaction that ended meanwhile".into()
    } else {
        names.join(", ")
    })
}

/// Refuses unless every trigger of the move fires on every table, leaf
/// partitions included: a write past a missing one would be lost.
///
/// # Errors
/// [`MoveError::Refused`], naming the tables.
pub async fn check(conn: &Conn, spec: &Spec, tables: &[Table]) -> Result<(), MoveError> {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rows = conn
        .query(
            &format!(
                "with leaves as ( \
                   select t.relid::oid as oid, t.relid = r.oid as root from unnest($1::text[]) n(name) \
                   cross join lateral (select n.name::regclass::oid) r(oid) \
                   cross join lateral pg_partition_tree(r.oid) t \
                   union select n.name::regclass::oid, true from unnest($1::text[]) n(name)) \
                 select l.oid::regclass::text from leaves l \
                 where (select count(*) from pg_trigger t where t.tgrelid = l.oid and t.tgenabled = 'O' \
                        and t.tgname like {}) < case when l.root then 4 else 3 end",
                sql::literal(&format!("{}%", sql::trigger_prefix(spec.tenant).replace('_', "\\_")))
            ),
            &[&names],
        )
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    Err(MoveError::Refused(
        rows.iter()
            .map(|row| {
                let table: String = row.get(0);
                format!(
                    "the guard of {table} on the {} was dropped or disabled during the move; undo it and start again",
                    conn.side()
                )
            })
            .collect(),
    ))
}

/// Removes the tenant's triggers and guard functions. Idempotent.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn drop_triggers(conn: &Conn, spec: &Spec, tables: &[Table]) -> Result<(), MoveError> {
    let prefix = sql::trigger_prefix(spec.tenant);
    for table in tables {
        let exists: bool = conn
            .one(&format!("select to_regclass({}) is not null", sql::literal(&table.name)), &[])
            .await?
            .get(0);
        if !exists {
            continue;
        }
        let present: i64 = conn
            .one(
                &format!(
                    "select count(*) from pg_trigger where tgrelid = {}::regclass and tgname like {}",
                    sql::literal(&table.name),
                    sql::literal(&format!("{}%", prefix.replace('_', "\\_")))
                ),
                &[],
            )
            .await?
            .get(0);
        if present > 0 {
            let ddl: Vec<String> = ["i", "u", "d", "s", "t"]
                .iter()
                .map(|tail| format!("DROP TRIGGER IF EXISTS {prefix}_{tail} ON {};", table.name))
                .collect();
            patiently(conn, &table.name, &ddl.join(" ")).await?;
        }
    }
    // Functions are found by name, in case the tables changed.
    conn.batch(&format!(
        "DO $$ DECLARE f regprocedure; BEGIN
           IF to_regnamespace('{SCHEMA}') IS NULL THEN RETURN; END IF;
           FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = '{SCHEMA}'::regnamespace
                    AND (p.proname LIKE 'guard\\_{id}\\_%' OR p.proname = 'refuse_truncate_{id}') LOOP
             EXECUTE format('DROP FUNCTION %s', f);
           END LOOP; END $$",
        id = spec.tenant.0.simple()
    ))
    .await
}

/// Replaces the guards by ones that don't log: what the source keeps once the
/// tenant has moved.
///
/// # Errors
/// What the database said.
pub async fn stop_logging(conn: &Conn, spec: &Spec, tables: &[Table]) -> Result<(), MoveError> {
    debug_assert_eq!(conn.side(), Side::Source, "the target never logs");
    let mut functions = String::new();
    for (number, table) in tables.iter().enumerate() {
        functions.push_str(&function(spec, &TableSql::new(table, spec), number, Kind::Left));
        functions.push(';');
    }
    conn.batch(&format!("BEGIN; {functions} COMMIT")).await
}
