//! A tenant's rows of a hypertable, deleted in batches of time: rows of
//! compressed chunks have no place that a statement could name.

use super::TableSql;
use crate::mover::sql;

impl TableSql<'_> {
    /// The first and the last time of the tenant's next `rows` rows, from
    /// `from` on; nulls where there are none. None for a table that is no
    /// hypertable.
    pub fn next_times(&self, from: Option<&str>, rows: usize) -> Option<String> {
        let hypertable = self.table.hypertable.as_ref()?;
        let (name, time) = (&self.table.name, &hypertable.time);
        let from = from.map_or_else(String::new, |from| {
            format!(" AND x.{time} >= {}::{}", sql::literal(from), hypertable.cast)
        });
        Some(format!(
            "SELECT min(s.t)::text, max(s.t)::text FROM (SELECT x.{time} AS t FROM {name} AS x \
             WHERE {}{from} ORDER BY x.{time} LIMIT {rows}) AS s",
            self.of_tenant("x")
        ))
    }

    /// Deletes the tenant's rows between two times, both inclusive.
    pub fn delete_times(&self, from: &str, until: &str) -> Option<String> {
        let hypertable = self.table.hypertable.as_ref()?;
        let (time, cast) = (&hypertable.time, &hypertable.cast);
        Some(format!(
            "DELETE FROM {} AS x WHERE {} AND x.{time} >= {}::{cast} AND x.{time} <= {}::{cast}",
            self.table.name,
            self.of_tenant("x"),
            sql::literal(from),
            sql::literal(until)
        ))
    }
}
