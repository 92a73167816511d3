//! A table cut into the units that the copy commits.

use super::estimate;
use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::hypertable::Hypertable;
use crate::mover::hypertable::chunks::{self, Range};
use crate::mover::run::Run;
use crate::mover::statements::TableSql;

/// One unit of the copy.
pub(in crate::mover) struct Part {
    /// `ONLY` a table or a leaf of it, or a whole hypertable; quoted.
    pub(super) from: String,
    /// The rows `x` of it that are meant: ` AND …`, or nothing.
    pub(super) filter: String,
    /// Names the part in the ledger, with the file that its pages are of.
    pub(super) id: String,
}

/// What the ledger's names of parts of time begin with.
const TIME: &str = "time:";

impl Part {
    fn of_pages(file: u32, relation: &str, from: u32, to: Option<u32>) -> Self {
        let mut filter = String::new();
        if from > 0 {
            filter.push_str(&format!(" AND x.ctid >= '({from},0)'"));
        }
        if let Some(to) = to {
            filter.push_str(&format!(" AND x.ctid < '({to},0)'"));
        }
        let to = to.map_or_else(String::new, |to| to.to_string());
        Self {
            from: format!("ONLY {relation}"),
            filter,
            id: format!("{file}:{relation}:{from}-{to}"),
        }
    }

    fn of_time(table: &str, hypertable: &Hypertable, range: &Range) -> Self {
        let text = |bound: &Option<String>| bound.clone().unwrap_or_default();
        Self {
            from: table.to_owned(),
            filter: range.filter(hypertable, "x"),
            id: format!("{TIME}{}..{}", text(&range.from), text(&range.until)),
        }
    }

    /// A condition: the ledger's part is one of time.
    pub(in crate::mover) fn is_of_time(part: &str) -> String {
        format!("starts_with({part}, '{TIME}')")
    }

    /// Where such a part begins and where it ends; null for an open end.
    pub(in crate::mover) fn from_of(part: &str) -> String {
        Self::bound_of(part, 1)
    }

    pub(in crate::mover) fn until_of(part: &str) -> String {
        Self::bound_of(part, 2)
    }

    fn bound_of(part: &str, at: u8) -> String {
        format!("nullif(split_part(substr({part}, {}), '..', {at}), '')", TIME.len() + 1)
    }
}

/// The parts of a table: its leaves, and ranges of pages where the tenant owns
/// a good share of a large one (a range is read whole, whoever owns the rows).
/// A hypertable goes chunk by chunk, but read by time through itself: rows of a
/// compressed chunk are not in its pages. Nothing that rewrites a chunk changes
/// what such a part is.
pub(super) async fn plan(run: &Run, source: &Conn, table: &Table) -> Result<Vec<Part>, MoveError> {
    if let Some(hypertable) = &table.hypertable {
        let starts = chunks::starts(source, &table.name, hypertable).await?;
        let parts = chunks::ranges(&starts);
        return Ok(parts.iter().map(|r| Part::of_time(&table.name, hypertable, r)).collect());
    }
    let relations = source
        .query(
            "select format('%I.%I', n.nspname, c.relname), c.relfilenode, greatest(c.reltuples, 0)::float8, \
             (pg_relation_size(c.oid) / current_setting('block_size')::int8)::int8 \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.oid = $1::text::regclass and c.relkind = 'r' \
                or c.relkind = 'r' and c.oid in (select relid from pg_partition_tree($1::text::regclass)) \
             order by 1",
            &[&table.name],
        )
        .await?;
    let step = run.tuning.copy_part_pages.max(1);
    let mut parts = Vec::new();
    for row in &relations {
        let (relation, file): (String, u32) = (row.get(0), row.get(1));
        let pages = u32::try_from(row.get::<_, i64>(3)).unwrap_or(u32::MAX);
        let mine =
            estimate(source, &TableSql::new(table, &run.spec), &relation, true).await? as f64;
        let many = mine * 4.0 >= row.get::<_, f64>(2);
        let mut from = 0;
        if many {
            while pages.saturating_sub(from) > step {
                let to = from + step;
                parts.push(Part::of_pages(file, &relation, from, Some(to)));
                from = to;
            }
        }
        parts.push(Part::of_pages(file, &relation, from, None));
    }
    Ok(parts)
}
