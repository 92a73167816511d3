//! The application's own list of its migrations, as Ecto's schema_migrations:
//! the same on both sides. The move never makes or changes a schema.

use std::collections::BTreeSet;

use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::report::{Preflight, Topic};
use crate::mover::run::{Pair, Run};
use crate::mover::sql;

/// At most so many are named.
const NAMED: usize = 5;

pub(super) async fn migrations(
    run: &Run,
    pair: &Pair,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    for name in &run.rules.migrations {
        let here = versions(&pair.source, name, report).await?;
        let there = versions(&pair.target, name, report).await?;
        let (Found::Read(here), Found::Read(there)) = (here, there) else { continue };
        let way_out = "run the application's migrations on both sides first";
        match (here, there) {
            (None, None) => {}
            (Some(_), None) => {
                report.problem(Topic::Tables, format!("{name} is missing on the target"), way_out);
            }
            (None, Some(_)) => {
                report.problem(Topic::Tables, format!("{name} is missing on the source"), way_out);
            }
            (Some(here), Some(there)) => {
                for (side, only) in [
                    ("source", here.difference(&there).collect::<Vec<_>>()),
                    ("target", there.difference(&here).collect()),
                ] {
                    if only.is_empty() {
                        continue;
                    }
                    let named: Vec<&str> =
                        only.iter().take(NAMED).map(|version| version.as_str()).collect();
                    report.problem(
                        Topic::Tables,
                        format!(
                            "{} migrations of {name} ran only on the {side} ({}{})",
                            only.len(),
                            named.join(", "),
                            if only.len() > NAMED { ", …" } else { "" }
                        ),
                        way_out,
                    );
                }
                if here == there {
                    report.fact(
                        Topic::Tables,
                        format!("{name} is the same on both sides: {} migrations", here.len()),
                    );
                }
            }
        }
    }
    Ok(())
}

enum Found {
    /// None where there is no such table.
    Read(Option<BTreeSet<String>>),
    /// It may not be read, and the report says so.
    Closed,
}

/// The keys of a list of migrations (when they ran differs between nodes).
async fn versions(conn: &Conn, name: &str, report: &mut Preflight) -> Result<Found, MoveError> {
    let rows = conn
        .query(
            "select format('%I.%I', n.nspname, c.relname), a.attname::text, has_table_privilege(c.oid, 'SELECT'), \
             current_user::text \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
             left join pg_index i on i.indrelid = c.oid and i.indisprimary \
             where c.oid = to_regclass($1) and (i.indrelid is null or a.attnum = any(i.indkey)) order by a.attnum",
            &[&name],
        )
        .await?;
    let Some(first) = rows.first() else { return Ok(Found::Read(None)) };
    let table: String = first.get(0);
    if !first.get::<_, bool>(2) {
        let role: String = first.get(3);
        report.problem(
            Topic::Privileges,
            format!("role {role} on the {} may not read {table}", conn.side()),
            format!("there GRANT SELECT ON {table} TO {};", sql::ident(&role)),
        );
        return Ok(Found::Closed);
    }
    let columns: Vec<String> =
        rows.iter().map(|row| format!("{}::text", sql::ident(row.get(1)))).collect();
    let found = conn
        .query(&format!("select concat_ws(' ', {}) from {table}", columns.join(", ")), &[])
        .await?;
    Ok(Found::Read(Some(found.iter().map(|row| row.get(0)).collect())))
}
