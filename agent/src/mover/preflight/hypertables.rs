//! What an operator should know about a tenant's hypertables.

use crate::mover::catalog::{Mixed, Table};
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::hypertable::VERIFIED;
use crate::mover::hypertable::read::{self, Found};
use crate::mover::report::{Preflight, Topic};
use crate::mover::run::{Pair, Run};
use crate::mover::sql::{self, SCHEMA};

/// Other tenants' deletes in compressed chunks stop at this many rows while a
/// table has row triggers, because TimescaleDB then takes rows one by one.
const LIMIT: &str = "timescaledb.max_tuples_decompressed_per_dml_transaction";

pub(super) async fn hypertables(
    run: &Run,
    pair: &Pair,
    tables: &[Table],
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let mine: Vec<&Table> = tables.iter().filter(|table| table.hypertable.is_some()).collect();
    if mine.is_empty() {
        return Ok(());
    }
    versions(pair, report).await?;
    let here = read::hypertables(&pair.source).await?;
    let there = read::hypertables(&pair.target).await?;
    for table in &mine {
        let (here, there) = (here.get(&table.name), there.get(&table.name));
        if let (Some(here), Some(there)) = (here, there) {
            settings(&table.name, here, there, report);
        }
        for (conn, found) in [(&pair.source, here), (&pair.target, there)] {
            if let Some(found) = found.filter(|found| found.compressed > 0) {
                compressed(conn, &table.name, found, report).await?;
            }
        }
        aggregates(pair, &table.name, report).await?;
        for conn in [&pair.source, &pair.target] {
            owner(conn, &table.name, report).await?;
        }
    }
    if run.rules.mixed_statements != Mixed::Ignore && run.rules.watch_statements_ms > 0 {
        let names: Vec<&str> = mine.iter().map(|table| table.name.as_str()).collect();
        report.fact(
            Topic::Statements,
            format!(
                "statements that write several tenants' rows of {} at once are not looked for: a hypertable \
                 takes no triggers with transition tables",
                names.join(", ")
            ),
        );
    }
    Ok(())
}

/// Both sides run the same, or rows that one prints the other might not read.
async fn versions(pair: &Pair, report: &mut Preflight) -> Result<(), MoveError> {
    let here = read::version(&pair.source).await?;
    let there = read::version(&pair.target).await?;
    if here.extension == there.extension {
        report.fact(Topic::Servers, format!("{here} on both sides; {VERIFIED}"));
    } else {
        report.problem(
            Topic::Servers,
            format!("the source has {here}, the target {there}"),
            "ALTER EXTENSION timescaledb UPDATE on the older one",
        );
    }
    Ok(())
}

/// What may differ, since rows are the same under it. Where chunks are cut
/// otherwise, dropped ones can't be dropped alike.
fn settings(name: &str, here: &Found, there: &Found, report: &mut Preflight) {
    if here.interval != there.interval {
        report.warn(
            Topic::Tables,
            format!(
                "chunks of {name} are of {} on the source and of {} on the target: chunks that are dropped during \
                 the move may stop it",
                here.interval, there.interval
            ),
            "set_chunk_time_interval on one of them",
        );
    }
    if here.order_by != there.order_by {
        report.warn(
            Topic::Tables,
            format!(
                "compressed rows of {name} are ordered by {} on the source and by {} on the target",
                here.order_by.join(", "),
                there.order_by.join(", ")
            ),
            "",
        );
    }
}

async fn compressed(
    conn: &Conn,
    name: &str,
    found: &Found,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let side = conn.side();
    let chunks = found.compressed;
    report.warn(
        Topic::Tables,
        format!(
            "{chunks} chunks of {name} on the {side} are compressed: what moves arrives open, and an UPDATE of a \
             compressed row's key is refused by TimescaleDB itself (0A000), now as before"
        ),
        "the target's policy compresses it once the move is over",
    );
    let limit: Option<String> =
        conn.one("select current_setting($1, true)", &[&LIMIT]).await?.get(0);
    let Some(limit) = limit else { return Ok(()) };
    if limit != "0" {
        let database: String = conn.one("select current_database()::text", &[]).await?.get(0);
        report.warn(
            Topic::Tables,
            format!(
                "while the move lasts a DELETE of more than {limit} compressed rows of {name} on the {side} fails \
                 for every tenant (53400): its triggers switch off TimescaleDB's deletes of whole batches"
            ),
            format!(
                "postpone such deletes, or ALTER DATABASE {} SET {LIMIT} = 0 for the while",
                sql::ident(&database)
            ),
        );
    }
    Ok(())
}

/// Continuous aggregates hold what was computed from the rows; it is computed
/// anew where the rows go, and again where they leave.
async fn aggregates(pair: &Pair, name: &str, report: &mut Preflight) -> Result<(), MoveError> {
    let here = of(&pair.source, name).await?;
    let there = of(&pair.target, name).await?;
    for view in &here {
        if there.contains(view) {
            let call =
                format!("CALL refresh_continuous_aggregate({}, NULL, NULL)", sql::literal(view));
            report.warn(
                Topic::Tables,
                format!("the content of the continuous aggregate {view} of {name} is not copied"),
                format!(
                    "run {call} on the target after the switch, and on the source after the clean-up"
                ),
            );
        } else {
            report.warn(
                Topic::Tables,
                format!("the continuous aggregate {view} of {name} exists only on the source"),
                "create it on the target, or the application will miss it",
            );
        }
    }
    Ok(())
}

async fn of(conn: &Conn, name: &str) -> Result<Vec<String>, MoveError> {
    if !read::exists(conn, "timescaledb_information.continuous_aggregates").await? {
        return Ok(Vec::new());
    }
    let rows = conn
        .query(
            "select format('%I.%I', view_schema, view_name) from timescaledb_information.continuous_aggregates \
             where format('%I.%I', hypertable_schema, hypertable_name) = $1 order by 1",
            &[&name],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// TimescaleDB gives a new chunk its triggers as the hypertable's owner, who
/// must be allowed to use the schema of their functions. Where the schema is
/// ours the guard step grants that by itself.
async fn owner(conn: &Conn, name: &str, report: &mut Preflight) -> Result<(), MoveError> {
    let rows = conn
        .query(
            &format!(
                "select c.relowner::regrole::text from pg_class c join pg_namespace n on n.nspname = '{SCHEMA}' \
                 where c.oid = to_regclass($1::text) and not pg_has_role(n.nspowner, 'USAGE') \
                 and not has_schema_privilege(c.relowner, n.oid, 'USAGE')"
            ),
            &[&name],
        )
        .await?;
    for row in &rows {
        let role: String = row.get(0);
        report.problem(
            Topic::Privileges,
            format!(
                "role {role} on the {}, which owns {name}, may not use the schema {SCHEMA}: new chunks get their \
                 triggers as that role",
                conn.side()
            ),
            format!("there GRANT USAGE ON SCHEMA {SCHEMA} TO {role};"),
        );
    }
    Ok(())
}
