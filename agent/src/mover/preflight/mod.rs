//! Everything that could stand against a move, found before it starts, and
//! told together: facts, warnings and problems, each with the way out.

mod disk;
mod hypertables;
mod migrations;
mod references;
mod rows;
mod scope;
mod servers;
mod standing;

use std::collections::BTreeSet;

use self::disk::{lacking, needed};
use self::hypertables::hypertables;
use self::migrations::migrations;
use self::references::references;
use self::rows::{absent, collisions, ours, row_bytes, tenant_is_here};
use self::scope::{left_behind, points_outside};
use self::servers::{connections, privileges, transactions, versions};
use self::standing::standing;
use super::catalog::{self, Catalog, Table};
use super::connect::Conn;
use super::copy;
use super::error::MoveError;
use super::jobs;
use super::report::{Preflight, Topic, VerdictKind};
use super::run::{Pair, Run};
use super::statements::TableSql;

/// Rows per second that a copy and the comparison after it reach on a small
/// machine with indexes in place; a guess to plan by, not a promise.
const COPIED_PER_SECOND: u64 = 75_000;
const COMPARED_PER_SECOND: u64 = 600_000;

/// Reads both sides.
///
/// # Errors
/// [`MoveError::Preflight`] with the whole report.
pub async fn check(run: &Run, pair: &Pair) -> Result<Preflight, MoveError> {
    let (source, target) = (&pair.source, &pair.target);
    let mut report = Preflight::default();

    standing(run, pair, &mut report).await?;
    versions(pair, &mut report).await?;
    let here = catalog::discover(source, &run.rules).await?;
    let there = catalog::discover(target, &run.rules).await?;
    schemas(&here, &there, &mut report);
    migrations(run, pair, &mut report).await?;
    hypertables(run, pair, &here.tables, &mut report).await?;
    privileges(source, &here.tables, &mut report).await?;
    let on_both: Vec<Table> = here
        .tables
        .iter()
        .filter(|table| there.tables.iter().any(|other| other.name == table.name))
        .cloned()
        .collect();
    privileges(target, &on_both, &mut report).await?;
    connections(pair, &mut report).await?;
    transactions(pair, &mut report).await?;
    jobs::tell(pair, &mut report).await?;

    // A schema that differs would only fail in other words below.
    let comparable = !report.refuses();
    report.tables.clone_from(&here.verdicts);
    let stored = rows(run, pair, &here, comparable, &mut report).await?;
    room(run, pair, stored, &mut report).await?;
    if comparable {
        tenant_is_here(run, source, &here, &mut report).await?;
        points_outside(run, source, &here.tables, &mut report).await?;
        references(run, pair, &here, &mut report).await?;
    }
    let limit = match run.spec.max_rows_per_second {
        0 => COPIED_PER_SECOND,
        limit => limit.min(COPIED_PER_SECOND),
    };
    let micros = |rate: u64| report.rows_estimated.saturating_mul(1_000_000) / rate.max(1);
    report.duration_estimated_us = micros(limit).saturating_add(micros(COMPARED_PER_SECOND));
    report.fact(
        Topic::Rows,
        format!(
            "about {} rows and {} MiB move, in about {} s",
            report.rows_estimated,
            report.bytes_estimated.div_ceil(1 << 20),
            report.duration_estimated_us.div_ceil(1_000_000)
        ),
    );
    report.sort();
    if report.refuses() {
        return Err(MoveError::Preflight(Box::new(report)));
    }
    Ok(report)
}

/// What the catalogs say: verdicts that refuse, and tables that differ.
fn schemas(here: &Catalog, there: &Catalog, report: &mut Preflight) {
    for verdict in here.verdicts.iter().filter(|v| v.verdict == VerdictKind::Refuse) {
        report.problem(
            Topic::Tables,
            format!("table {} can't move: {}", verdict.table, verdict.reason),
            "",
        );
    }
    for difference in catalog::differences(&here.tables, &there.tables) {
        report.problem(
            Topic::Tables,
            difference,
            "run the same migrations of the application on both sides",
        );
    }
    for problem in here.problems.iter().chain(&there.problems) {
        report.problem(Topic::Tables, problem.clone(), "");
    }
    for warning in &here.warnings {
        report.warn(Topic::Tables, warning.clone(), "");
    }
    let known: BTreeSet<&str> = here.tables.iter().map(|table| table.name.as_str()).collect();
    for table in there.tables.iter().filter(|table| !known.contains(table.name.as_str())) {
        report.warn(Topic::Tables, format!("table {} exists only on the target", table.name), "");
    }
}

/// Counts the rows, and looks for rows in their way; answers how many bytes
/// they take with their indexes.
async fn rows(
    run: &Run,
    pair: &Pair,
    here: &Catalog,
    comparable: bool,
    report: &mut Preflight,
) -> Result<u64, MoveError> {
    let (source, target) = (&pair.source, &pair.target);
    let mut stored = 0_u64;
    // A move that began to copy holds rows of its own there.
    let begun = ours(run, target).await?;
    for table in &here.tables {
        // What may not be read was told with the privileges.
        if !readable(source, &here.tables, table).await? {
            continue;
        }
        let sql = TableSql::new(table, &run.spec);
        let rows = copy::estimate(source, &sql, &table.name, false).await?;
        let bytes = row_bytes(source, table).await?;
        report.rows_estimated += rows;
        report.bytes_estimated += rows.saturating_mul(bytes.row);
        stored = stored.saturating_add(rows.saturating_mul(bytes.with_indexes));
        for verdict in report.tables.iter_mut().filter(|verdict| verdict.table == table.name) {
            verdict.rows_estimated = rows;
        }
        left_behind(source, &sql, report).await?;
        if comparable {
            if !begun {
                absent(target, &sql, report).await?;
            }
            collisions(run, pair, table, rows, report).await?;
        }
    }
    Ok(stored)
}

/// Whether the role may read a table and those that its rows belong through.
async fn readable(conn: &Conn, tables: &[Table], table: &Table) -> Result<bool, MoveError> {
    let above = table.membership.hops().iter().filter_map(|hop| tables.get(hop.parent_number));
    let names: Vec<&str> = above.chain([table]).map(|table| table.name.as_str()).collect();
    Ok(conn
        .one(
            "select bool_and(has_table_privilege(name, 'SELECT')) from unnest($1::text[]) n(name)",
            &[&names],
        )
        .await?
        .get(0))
}

async fn room(
    run: &Run,
    pair: &Pair,
    stored: u64,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    report.disk_needed_bytes = needed(stored);
    report.disk_free_bytes = pair.target.disk_free_bytes().unwrap_or(0);
    match pair.target.disk_free_bytes() {
        // A move that began to copy has had its room already.
        Some(_) if ours(run, &pair.target).await? => {}
        Some(free) => match lacking(free, stored) {
            Some(problem) => report.problem(Topic::Disk, problem, "make room there first"),
            None => report.fact(
                Topic::Disk,
                format!(
                    "{} MiB are free on the target, about {} MiB are needed",
                    free >> 20,
                    needed(stored).div_ceil(1 << 20)
                ),
            ),
        },
        None => report.warn(
            Topic::Disk,
            "how much disk is free on the target is not known",
            "set host.disk there to the file system of its PostgreSQL",
        ),
    }
    Ok(())
}
