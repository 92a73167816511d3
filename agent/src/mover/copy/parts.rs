//! A table cut into the units that the copy commits.

use super::estimate;
use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::run::Run;
use crate::mover::statements::TableSql;

/// One unit of the copy.
pub(super) struct Part {
    /// Quoted: the table itself or a leaf of it.
    pub(super) relation: String,
    /// The pages from (inclusive) and to (exclusive).
    pub(super) from: u32,
    pub(super) to: Option<u32>,
    /// Names the part in the ledger, with the file that the pages are of.
    pub(super) id: String,
}

impl Part {
    pub(super) fn filter(&self) -> String {
        let mut filter = String::new();
        if self.from > 0 {
            filter.push_str(&format!(" AND x.ctid >= '({},0)'", self.from));
        }
        if let Some(to) = self.to {
            filter.push_str(&format!(" AND x.ctid < '({to},0)'"));
        }
        filter
    }
}

/// The parts of a table: its leaves, and ranges of pages where the tenant owns
/// a good share of a large one (a range is read whole, whoever owns the rows).
pub(super) async fn plan(run: &Run, source: &Conn, table: &Table) -> Result<Vec<Part>, MoveError> {
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
                parts.push(Part {
                    id: format!("{file}:{relation}:{from}-{to}"),
                    relation: relation.clone(),
                    from,
                    to: Some(to),
                });
                from = to;
            }
        }
        parts.push(Part { id: format!("{file}:{relation}:{from}-"), relation, from, to: None });
    }
    Ok(parts)
}
