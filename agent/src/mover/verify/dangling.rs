//! Foreign keys of what was copied, which the replica role has not checked.
//!
//! While writers write, a row may be here before the row that it points to: a
//! batch of keys was cut between the two, and the other's key is still in the
//! log. So a row that points to nothing is looked up on the side that it came
//! from: there, in a snapshot in which both sides were found equal, it either
//! points to a row that moves, which then is in the log, or it never will.
//! What points out of the moved tables (plans, say) has nothing to wait for.

use std::collections::BTreeSet;

use super::super::catalog::{ForeignKey, Table};
use super::super::connect::Conn;
use super::super::error::MoveError;
use super::super::leg::Leg;
use super::super::spec::Spec;
use super::super::statements::TableSql;
use super::except;

/// Keys that are looked up at a time.
const PAGE: usize = 5_000;

/// Looks at every foreign key of one table. `logged` are its keys in the log,
/// by column: these rows are looked at when they are applied, the last of them
/// inside the fence.
///
/// # Errors
/// [`MoveError::Refused`], naming the foreign key and a row.
pub(super) async fn check(
    sides: (&Conn, &Conn),
    sql: &TableSql<'_>,
    tables: &[Table],
    (spec, leg): (&Spec, Leg),
    logged: &[Vec<String>],
) -> Result<(), MoveError> {
    let (_, target) = sides;
    let Some(all) = sql.all_dangling() else { return Ok(()) };
    let mut numbers = BTreeSet::new();
    for row in target.query(&all, &[]).await? {
        numbers.insert(usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX));
    }
    for number in numbers {
        if let Some(key) = sql.table.foreign_keys.get(number) {
            let parent = tables.iter().find(|table| table.name == key.parent);
            let parent = parent.map(|table| TableSql::on(table, spec, leg));
            one(sides, sql, key, parent.as_ref(), logged).await?;
        }
    }
    Ok(())
}

/// Looks at the rows that dangle by one foreign key.
async fn one(
    (source, target): (&Conn, &Conn),
    sql: &TableSql<'_>,
    key: &ForeignKey,
    parent: Option<&TableSql<'_>>,
    logged: &[Vec<String>],
) -> Result<(), MoveError> {
    let refused = |row: &str| {
        MoveError::refused(format!(
            "a row of {} on the {} points to a row that is not there: {} to {}, key {row}",
            sql.table.name,
            target.side(),
            key.name,
            key.parent
        ))
    };
    let logged: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        logged.iter().map(|column| column as _).collect();
    for page in 0.. {
        let query = sql.dangling_keys(key, &except(sql, None), (PAGE, page * PAGE));
        let rows = target.query(&query, &logged).await?;
        let keys: Vec<Vec<String>> = rows.iter().map(|row| row.get(0)).collect();
        let Some(first) = keys.first() else { break };
        let Some(parent) = parent else { return Err(refused(&first.join(","))) };
        let columns: Vec<Vec<&str>> = (0..sql.key_width())
            .map(|at| keys.iter().filter_map(|key| key.get(at).map(String::as_str)).collect())
            .collect();
        let columns: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            columns.iter().map(|column| column as _).collect();
        let arg = |at: usize| format!("${}::text[]", at + 1);
        let astray = sql.astray(&arg, key, parent);
        if let Some(row) = source.query(&astray, &columns).await?.first() {
            return Err(refused(row.get(0)));
        }
        if keys.len() < PAGE {
            break;
        }
    }
    Ok(())
}
