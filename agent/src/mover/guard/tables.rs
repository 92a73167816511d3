//! Guards on a side's tables: put on, checked, replaced and taken off.

use super::patience::patiently;
use super::triggers::{Kind, function, triggers};
use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::{MoveError, Side};
use crate::mover::spec::Spec;
use crate::mover::sql::{self, SCHEMA};
use crate::mover::statements::TableSql;

pub(super) async fn install_triggers(
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
