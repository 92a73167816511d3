//! Statements that write several tenants' rows at once. At the cut-over they
//! fail whole, for everybody in them, so they are looked for while the guards
//! go in: for a while statement triggers look at what each statement wrote.

use std::collections::BTreeMap;

use super::patience::patiently;
use crate::mover::catalog::{Mixed, Table};
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::report::Topic;
use crate::mover::run::Run;
use crate::mover::spec::{Finding, Level, Spec};
use crate::mover::sql;
use crate::mover::statements::TableSql;

/// The tails of the triggers' names, the event, and the rows they look at.
const EVENTS: [(&str, &str, &str); 3] =
    [("wi", "INSERT", "NEW"), ("wu", "UPDATE", "NEW"), ("wd", "DELETE", "OLD")];

/// Watches for as long as the node's configuration says; answers what it saw.
///
/// # Errors
/// [`MoveError::Refused`], naming the tables, where it says that such
/// statements stand against a move.
pub(super) async fn watch(
    run: &Run,
    conn: &Conn,
    tables: &[Table],
) -> Result<Vec<Finding>, MoveError> {
    let (rules, spec) = (&run.rules, &run.spec);
    if rules.mixed_statements == Mixed::Ignore || rules.watch_statements_ms == 0 {
        return Ok(Vec::new());
    }
    if super::alone(conn, spec, tables).await? {
        return Ok(Vec::new());
    }
    let watched: Vec<(usize, &Table)> = tables
        .iter()
        .enumerate()
        // A hypertable with such a trigger could get no new chunk: TimescaleDB
        // refuses those with transition tables.
        .filter(|(_, table)| table.membership.column().is_some() && table.hypertable.is_none())
        .collect();
    conn.batch(&functions(spec, &watched)).await?;
    for (number, table) in &watched {
        patiently(conn, &table.name, &triggers(spec, *number, table)).await?;
    }
    tokio::time::sleep(std::time::Duration::from_millis(rules.watch_statements_ms)).await;
    for (_, table) in &watched {
        patiently(conn, &table.name, &drops(spec, table)).await?;
    }
    let seen = conn
        .query(
            &format!(
                "select what, count(*) from {} group by 1 order by 1",
                sql::mixed_table(spec.move_id)
            ),
            &[],
        )
        .await?;
    let seen: BTreeMap<String, i64> = seen.iter().map(|row| (row.get(0), row.get(1))).collect();
    conn.batch(&format!("DROP TABLE IF EXISTS {}", sql::mixed_table(spec.move_id))).await?;
    let findings: Vec<Finding> = seen
        .iter()
        .map(|(what, count)| Finding {
            level: Level::Warning,
            topic: Topic::Statements,
            text: format!(
                "{count} statements within {} ms wrote rows of this tenant and of others at once ({what}): \
                 at the switch one would fail for all of them",
                rules.watch_statements_ms
            ),
            way_out: "write one tenant a statement, or set moves.mixed_statements = \"warn\"".into(),
        })
        .collect();
    for finding in &findings {
        tracing::warn!(move_id = %spec.move_id, "{}", finding.line());
    }
    if findings.is_empty() || rules.mixed_statements != Mixed::Refuse {
        return Ok(findings);
    }
    Err(MoveError::Refused(findings.iter().map(Finding::line).collect()))
}

fn function_name(spec: &Spec, number: usize) -> String {
    format!("{}_watch", sql::guard_function(spec.tenant, number))
}

/// What a statement wrote is called `w` whatever the event; the table's list
/// takes no lock that anybody else wants.
fn functions(spec: &Spec, watched: &[(usize, &Table)]) -> String {
    let mixed = sql::mixed_table(spec.move_id);
    let mut text = format!(
        "BEGIN; CREATE TABLE IF NOT EXISTS {mixed} (what text NOT NULL); TRUNCATE {mixed};"
    );
    for (number, table) in watched {
        let mine = TableSql::new(table, spec).of_tenant("w");
        text.push_str(&format!(
            "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path = pg_catalog, pg_temp AS $guard$ BEGIN
               IF EXISTS (SELECT 1 FROM w WHERE {mine}) AND EXISTS (SELECT 1 FROM w WHERE ({mine}) IS NOT TRUE) THEN
                 INSERT INTO {mixed}(what) VALUES (TG_OP || ' ' || {});
               END IF; RETURN NULL; END $guard$;",
            function_name(spec, *number),
            sql::literal(&table.name),
        ));
    }
    text.push_str("COMMIT");
    text
}

fn triggers(spec: &Spec, number: usize, table: &Table) -> String {
    let prefix = sql::trigger_prefix(spec.tenant);
    EVENTS
        .iter()
        .map(|(tail, event, rows)| {
            format!(
                "CREATE OR REPLACE TRIGGER {prefix}_{tail} AFTER {event} ON {} REFERENCING {rows} TABLE AS w \
                 FOR EACH STATEMENT EXECUTE FUNCTION {}();",
                table.name,
                function_name(spec, number)
            )
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn drops(spec: &Spec, table: &Table) -> String {
    let prefix = sql::trigger_prefix(spec.tenant);
    EVENTS
        .iter()
        .map(|(tail, ..)| format!("DROP TRIGGER IF EXISTS {prefix}_{tail} ON {};", table.name))
        .collect::<Vec<_>>()
        .join(" ")
}
