//! Rows outside the tenant's that its rows point to.

use crate::mover::catalog::Catalog;
use crate::mover::error::MoveError;
use crate::mover::report::{Preflight, Topic};
use crate::mover::run::{Pair, Run};
use crate::mover::statements::TableSql;

/// The rows outside the tenant's that its rows point to: missing ones are a
/// problem, other contents a warning (ages and prices may differ per node).
pub(super) async fn references(
    run: &Run,
    pair: &Pair,
    here: &Catalog,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    for table in &here.tables {
        let sql = TableSql::new(table, &run.spec);
        for key in table.foreign_keys.iter().filter(|key| here.references.contains(&key.parent)) {
            let exists: bool =
                pair.target.one("select to_regclass($1) is not null", &[&key.parent]).await?.get(0);
            if !exists {
                report.problem(
                    Topic::References,
                    format!("reference table {} is missing on the target", key.parent),
                    "run the application's migrations there",
                );
                continue;
            }
            let join: Vec<String> = key
                .columns
                .iter()
                .zip(&key.parent_columns)
                .map(|(child, parent)| format!("p.{parent} = x.{child}"))
                .collect();
            let shown: Vec<String> =
                key.parent_columns.iter().map(|column| format!("p.{column}::text")).collect();
            let rows = pair
                .source
                .query(
                    &format!(
                        "select distinct concat_ws(',', {}), p::text from {} as x join {} as p on {} \
                         where {} order by 1 limit 1001",
                        shown.join(", "),
                        table.name,
                        key.parent,
                        join.join(" and "),
                        sql.of_tenant("x"),
                    ),
                    &[],
                )
                .await?;
            let wanted: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let found = pair
                .target
                .query(
                    &format!(
                        "select concat_ws(',', {shown}), p::text from {} as p where concat_ws(',', {shown}) = any($1)",
                        key.parent,
                        shown = shown.join(", "),
                    ),
                    &[&wanted],
                )
                .await?;
            for row in &rows {
                let (id, text): (String, String) = (row.get(0), row.get(1));
                match found.iter().find(|other| other.get::<_, &str>(0) == id) {
                    None => report.problem(
                        Topic::References,
                        format!(
                            "{} {id}, which rows of {} point to, is missing on the target",
                            key.parent, table.name
                        ),
                        "insert it there, as it is on the source",
                    ),
                    Some(other) if other.get::<_, &str>(1) != text => report.warn(
                        Topic::References,
                        format!(
                            "{} {id}, which rows of {} point to, is not the same on the target",
                            key.parent, table.name
                        ),
                        "make sure that the difference is meant",
                    ),
                    Some(_) => {}
                }
            }
        }
    }
    Ok(())
}
