//! Guards on a side's tables: put on, checked, replaced and taken off.

use super::patience::patiently;
use super::triggers::{Kind, Log, checks, function, no_truncate, triggers};
use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::spec::Spec;
use crate::mover::sql::{self, SCHEMA};
use crate::mover::statements::TableSql;

/// Puts the guards on; triggers that are there already stay as they are.
pub(super) async fn install_triggers(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    kind: Kind,
) -> Result<(), MoveError> {
    let mut functions = no_truncate(spec);
    for (number, table) in tables.iter().enumerate() {
        let log = Log::Of(conn.side());
        functions.push_str(&function(spec, &TableSql::new(table, spec), number, log));
        functions.push(';');
    }
    functions.push_str(&checks(spec));
    conn.batch(&format!("BEGIN; {functions} COMMIT")).await?;
    complete(conn, spec, tables, kind).await
}

/// Adds the triggers of `kind` that are missing; their functions are there.
pub(super) async fn complete(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    kind: Kind,
) -> Result<(), MoveError> {
    for (number, table) in tables.iter().enumerate() {
        if lacking(conn, spec, std::slice::from_ref(table), kind).await?.is_empty() {
            continue;
        }
        let sql = TableSql::new(table, spec);
        patiently(conn, &table.name, &triggers(spec, &sql, number, kind)).await?;
    }
    Ok(())
}

/// The tables, leaf partitions and chunks where a trigger of `kind` is missing
/// or disabled.
pub(super) async fn lacking(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    kind: Kind,
) -> Result<Vec<String>, MoveError> {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let prefix = sql::trigger_prefix(spec.tenant);
    let wanted = |tails: &[&str]| -> Vec<String> {
        tails.iter().map(|tail| format!("{prefix}_{tail}")).collect()
    };
    let (root, leaf) = kind.tails();
    let rows = conn
        .query(
            "with leaves as ( \
               select t.relid::oid as oid, t.relid = r.oid as root from unnest($1::text[]) n(name) \
               cross join lateral (select n.name::regclass::oid) r(oid) \
               cross join lateral pg_partition_tree(r.oid) t \
               union select i.inhrelid, false from unnest($1::text[]) n(name) \
               join pg_inherits i on i.inhparent = n.name::regclass \
               union select n.name::regclass::oid, true from unnest($1::text[]) n(name)) \
             select l.oid::regclass::text from leaves l \
             where exists (select 1 from unnest(case when l.root then $2::text[] else $3::text[] end) w(name) \
               where not exists (select 1 from pg_trigger t where t.tgrelid = l.oid \
                 and t.tgenabled = 'O' and t.tgname = w.name))",
            &[&names, &wanted(root), &wanted(leaf)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Refuses unless every trigger of the move fires on every table, leaf
/// partitions included: a write past a missing one would be lost.
///
/// # Errors
/// [`MoveError::Refused`], naming the tables.
pub async fn check(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    kind: Kind,
) -> Result<(), MoveError> {
    let lacking = lacking(conn, spec, tables, kind).await?;
    if lacking.is_empty() {
        return Ok(());
    }
    Err(MoveError::Refused(
        lacking
            .iter()
            .map(|table| {
                format!(
                    "the guard of {table} on the {} was dropped or disabled during the move; undo it and start again",
                    conn.side()
                )
            })
            .collect(),
    ))
}

/// Removes the tenant's triggers and guard functions, wherever they are: the
/// tables may have changed since. Idempotent.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn drop_triggers(conn: &Conn, spec: &Spec) -> Result<(), MoveError> {
    let prefix = sql::trigger_prefix(spec.tenant).replace('_', "\\_");
    // Those of partitions and chunks go with their parents'.
    let rows = conn
        .query(
            &format!(
                "select format('%I.%I', n.nspname, c.relname), \
                 string_agg(format('DROP TRIGGER IF EXISTS %I ON %I.%I;', t.tgname, n.nspname, c.relname), ' ') \
                 from pg_trigger t join pg_class c on c.oid = t.tgrelid \
                 join pg_namespace n on n.oid = c.relnamespace \
                 where t.tgname like {} and t.tgparentid = 0 \
                 and not exists (select 1 from pg_inherits i join pg_trigger p on p.tgrelid = i.inhparent \
                   where i.inhrelid = t.tgrelid and p.tgname = t.tgname) group by 1 order by 1",
                sql::literal(&format!("{prefix}\\_%"))
            ),
            &[],
        )
        .await?;
    for row in &rows {
        let (table, ddl): (String, String) = (row.get(0), row.get(1));
        patiently(conn, &table, &ddl).await?;
    }
    // Functions are found by name, in case the tables changed.
    conn.batch(&format!(
        "DO $$ DECLARE f regprocedure; BEGIN
           IF to_regnamespace('{SCHEMA}') IS NULL THEN RETURN; END IF;
           FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = '{SCHEMA}'::regnamespace
                    AND (p.proname LIKE 'guard\\_{id}\\_%' OR p.proname IN
                      ('refuse_truncate_{id}', 'began_{id}', 'statement_{id}', 'now_{id}')) LOOP
             EXECUTE format('DROP FUNCTION %s', f);
           END LOOP; END $$",
        id = spec.tenant.0.simple()
    ))
    .await
}

/// The tails of the triggers that look at snapshots.
const CHECKS: [&str; 4] = ["xi", "xu", "xd", "s"];

fn drops(spec: &Spec, table: &Table, tails: &[&str]) -> String {
    let prefix = sql::trigger_prefix(spec.tenant);
    let ddl: Vec<String> = tails
        .iter()
        .map(|tail| format!("DROP TRIGGER IF EXISTS {prefix}_{tail} ON {};", table.name))
        .collect();
    ddl.join(" ")
}

/// Takes the statement triggers off a side that is active: other tenants' rows
/// may come there, and the row triggers guard this one's.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub(super) async fn no_statements(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
) -> Result<(), MoveError> {
    without(conn, spec, tables, &["s"]).await
}

/// Takes the triggers that look at snapshots off a side that is active, once
/// no transaction is left that may have begun before its activation: each
/// costs every write of the tenant a function call. Answers whether they are
/// gone. Where other sessions may not be looked at they stay.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn settled(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    after: std::time::Duration,
) -> Result<bool, MoveError> {
    // The row's time is that of the activation's statement: its commit came
    // within the fence's bounds, far below `after`.
    let old: bool = conn
        .one(
            &format!(
                "select f.updated_at + $1 * interval '1 microsecond' > clock_timestamp() or exists ( \
                   select 1 from pg_stat_activity a \
                   where a.datname = current_database() and a.pid <> pg_backend_pid() \
                   and a.backend_type = 'client backend' and (a.state is null \
                     or a.xact_start <= f.updated_at + $1 * interval '1 microsecond')) \
                 from {SCHEMA}.fence f where f.customer_id = {}",
                sql::tenant_literal(spec.tenant)
            ),
            &[&(after.as_micros() as f64)],
        )
        .await?
        .get(0);
    if old {
        return Ok(false);
    }
    without(conn, spec, tables, &CHECKS).await?;
    Ok(true)
}

async fn without(
    conn: &Conn,
    spec: &Spec,
    tables: &[Table],
    tails: &[&str],
) -> Result<(), MoveError> {
    let prefix = sql::trigger_prefix(spec.tenant);
    let unwanted: Vec<String> = tails.iter().map(|tail| format!("{prefix}_{tail}")).collect();
    for table in tables {
        let present: bool = conn
            .one(
                "select exists (select 1 from pg_trigger where tgrelid = to_regclass($1) \
                 and tgname = any($2::text[]))",
                &[&table.name, &unwanted],
            )
            .await?
            .get(0);
        if present {
            patiently(conn, &table.name, &drops(spec, table, tails)).await?;
        }
    }
    Ok(())
}

/// Replaces the guards by ones that only refuse: what the side keeps that the
/// tenant has left. The log may go afterwards.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn only_refuse(conn: &Conn, spec: &Spec, tables: &[Table]) -> Result<(), MoveError> {
    let mut functions = String::new();
    for (number, table) in tables.iter().enumerate() {
        functions.push_str(&function(spec, &TableSql::new(table, spec), number, Log::No));
        functions.push(';');
    }
    conn.batch(&format!("BEGIN; {functions} COMMIT")).await?;
    without(conn, spec, tables, &CHECKS).await?;
    let drops: Vec<String> = ["began", "statement", "now"]
        .iter()
        .map(|what| {
            format!("DROP FUNCTION IF EXISTS {}();", sql::fence_function(spec.tenant, what))
        })
        .collect();
    conn.batch(&format!("BEGIN; {} COMMIT", drops.join(" "))).await
}
