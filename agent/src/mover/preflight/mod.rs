//! Everything that could stand against a move, found before it starts, and
//! told together.

mod disk;
mod references;
mod rows;
mod servers;
mod standing;

use std::collections::BTreeSet;

use self::disk::lacking;
use self::references::references;
use self::rows::{absent, collisions, ours, row_bytes, tenant_is_here};
use self::servers::{privileges, transactions, versions};
use self::standing::standing;
use super::catalog::{self, Table};
use super::copy;
use super::error::MoveError;
use super::report::{Preflight, Topic};
use super::run::{Pair, Run, refusals};
use super::statements::TableSql;

/// Reads both sides.
///
/// # Errors
/// [`MoveError::Preflight`] with the whole report.
pub async fn check(run: &Run, pair: &Pair) -> Result<Preflight, MoveError> {
    let (source, target) = (&pair.source, &pair.target);
    let mut problems = Vec::new();
    let mut warnings = Vec::new();

    standing(run, pair, &mut problems).await?;
    versions(pair, &mut problems, &mut warnings).await?;
    let here = catalog::discover(source, &run.rules).await?;
    let there = catalog::discover(target, &run.rules).await?;
    problems.extend(refusals(&here));
    warnings.extend(here.warnings.iter().cloned());
    problems.extend(catalog::differences(&here.tables, &there.tables));
    let known: BTreeSet<&str> = here.tables.iter().map(|table| table.name.as_str()).collect();
    for table in there.tables.iter().filter(|table| !known.contains(table.name.as_str())) {
        warnings.push(format!("table {} exists only on the target", table.name));
    }
    let on_both: Vec<&Table> = here
        .tables
        .iter()
        .filter(|table| there.tables.iter().any(|other| other.name == table.name))
        .collect();
    privileges(source, &here.tables, &mut problems).await?;
    let owned: Vec<Table> = on_both.iter().map(|table| (*table).clone()).collect();
    privileges(target, &owned, &mut problems).await?;
    transactions(pair, &mut problems, &mut warnings).await?;

    // A schema that differs would only fail in other words below.
    let comparable = problems.is_empty();
    let mut rows_estimated = 0;
    let mut bytes_estimated = 0;
    let mut stored = 0_u64;
    // A move that began to copy has had its room already.
    let begun = ours(run, target).await?;
    let mut verdicts = here.verdicts.clone();
    for table in &here.tables {
        let sql = TableSql::new(table, &run.spec);
        let rows = copy::estimate(source, &sql, &table.name, false).await?;
        rows_estimated += rows;
        let bytes = row_bytes(source, &table.name).await?;
        bytes_estimated += rows.saturating_mul(bytes.row);
        stored = stored.saturating_add(rows.saturating_mul(bytes.with_indexes));
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.table == table.name) {
            verdict.rows_estimated = rows;
        }
        if comparable {
            if !begun {
                absent(target, &sql, &mut problems).await?;
            }
            collisions(run, pair, table, rows, &mut problems).await?;
        }
    }
    match target.disk_free_bytes() {
        Some(free) if !begun => problems.extend(lacking(free, stored)),
        Some(_) => {}
        None => warnings.push("how much disk is free on the target is not known".into()),
    }
    if comparable {
        tenant_is_here(run, source, &here, &mut problems).await?;
        references(run, pair, &here, &mut problems, &mut warnings).await?;
    }
    let mut report =
        Preflight { tables: verdicts, rows_estimated, bytes_estimated, ..Preflight::default() };
    for problem in problems {
        report.problem(Topic::Tables, problem, "");
    }
    for warning in warnings {
        report.warn(Topic::Tables, warning, "");
    }
    report.sort();
    if report.refuses() {
        return Err(MoveError::Preflight(Box::new(report)));
    }
    Ok(report)
}
