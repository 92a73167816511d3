//! What a downgrade leaves behind, and what must not point there.

use crate::mover::catalog::{ForeignKey, Table};
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::report::{Preflight, Topic};
use crate::mover::run::Run;
use crate::mover::statements::TableSql;

/// Counts the rows of a table that stay behind; exact.
pub(super) async fn left_behind(
    source: &Conn,
    sql: &TableSql<'_>,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let Some(left) = sql.left_behind("x") else { return Ok(()) };
    let count: i64 = source
        .one(&format!("select count(*) from {} as x where {left}", sql.table.name), &[])
        .await?
        .get(0);
    let count = count.max(0).cast_unsigned();
    if count > 0 {
        report.rows_left_behind += count;
        report.warn(
            Topic::Rows,
            format!("{count} rows of {} are older than what the target keeps", sql.table.name),
            "they stay behind, and are archived on this node before the clean-up",
        );
    }
    Ok(())
}

/// Rows that move and point to rows that don't: to another tenant's, or to one
/// that stays behind. They would point to nothing on the target.
pub(super) async fn points_outside(
    run: &Run,
    source: &Conn,
    tables: &[Table],
    report: &mut Preflight,
) -> Result<(), MoveError> {
    for table in tables {
        for key in &table.foreign_keys {
            let Some(parent) = tables.iter().find(|parent| parent.name == key.parent) else {
                continue;
            };
            if names_the_tenant(table, key, parent) {
                continue;
            }
            one(run, source, table, key, parent, report).await?;
        }
    }
    Ok(())
}

/// A foreign key on what makes the row the tenant's can't leave the tenant.
fn names_the_tenant(table: &Table, key: &ForeignKey, parent: &Table) -> bool {
    let same = |columns: &[String], table: &Table| {
        table.membership.column().is_some_and(|column| columns == [column.to_owned()])
    };
    same(&key.columns, table) && same(&key.parent_columns, parent)
}

async fn one(
    run: &Run,
    source: &Conn,
    table: &Table,
    key: &ForeignKey,
    parent: &Table,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let child = TableSql::new(table, &run.spec);
    let above = TableSql::new(parent, &run.spec);
    let join: Vec<String> = key
        .columns
        .iter()
        .zip(&key.parent_columns)
        .map(|(child, parent)| format!("p.{parent} = x.{child}"))
        .collect();
    let set: Vec<String> =
        key.columns.iter().map(|column| format!("x.{column} is not null")).collect();
    let row = source
        .one(
            &format!(
                "select count(*), count(*) filter (where exists (select 1 from {parent} as p where {join} and {theirs})) \
                 from (select * from {table} as x where {mine} and {set} \
                   and not exists (select 1 from {parent} as p where {join} and {scope}) limit 1000) as x",
                parent = parent.name,
                join = join.join(" and "),
                theirs = above.of_tenant("p"),
                table = table.name,
                mine = child.in_scope("x"),
                set = set.join(" and "),
                scope = above.in_scope("p"),
            ),
            &[],
        )
        .await?;
    let (all, behind): (i64, i64) = (row.get(0), row.get(1));
    let many = |count: i64| if count >= 1000 { "1000 or more".into() } else { count.to_string() };
    if behind > 0 {
        report.problem(
            Topic::Rows,
            format!(
                "{} rows of {} point ({}) to rows of {} that stay behind",
                many(behind),
                table.name,
                key.name,
                parent.name
            ),
            "a plan that keeps them, or clear the column first",
        );
    }
    if all > behind {
        report.problem(
            Topic::Rows,
            format!(
                "{} rows of {} point ({}) to rows of {} that are not this tenant's",
                many(all - behind),
                table.name,
                key.name,
                parent.name
            ),
            "correct them first; on the target they would point to nothing",
        );
    }
    Ok(())
}
