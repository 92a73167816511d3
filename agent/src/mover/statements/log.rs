//! What is read off the key log: keys, their current rows, and their parents'.

use super::TableSql;
use super::bulk::TAKEN;
use crate::mover::leg::Leg;
use crate::mover::membership;
use crate::mover::spec::Spec;
use crate::mover::sql;

/// Keys of one table with their current rows.
#[derive(Debug, Default, Clone)]
pub struct Group {
    /// One vector per key column.
    pub keys: Vec<Vec<String>>,
    pub rows: Vec<Option<String>>,
}

/// What was taken from the key log at once, by table number.
#[derive(Debug, Default)]
pub struct Batch {
    pub groups: std::collections::BTreeMap<usize, Group>,
    /// Distinct keys.
    pub keys: usize,
}

impl Batch {
    /// What [`take_off`] and [`look_up`] answer, without the keys whose rows
    /// the other side keeps.
    pub fn of(rows: &[tokio_postgres::Row]) -> Self {
        let mut batch = Self::default();
        for row in rows {
            let text: Option<String> = row.get(2);
            let kept: bool = row.get(3);
            if text.is_some() || !kept {
                let tab: i16 = row.get(0);
                batch.push(usize::try_from(tab).unwrap_or(usize::MAX), row.get(1), text);
            }
        }
        batch
    }

    /// Adds one key.
    pub fn push(&mut self, table: usize, key: Vec<String>, row: Option<String>) {
        let group = self.groups.entry(table).or_default();
        group.keys.resize(key.len(), Vec::new());
        for (column, value) in group.keys.iter_mut().zip(key) {
            column.push(value);
        }
        group.rows.push(row);
        self.keys += 1;
    }
}

/// `CASE b.tab WHEN 0 THEN (current row) … END`: scalar subqueries, so that
/// the planner can only look keys up.
fn current_rows(tables: &[TableSql<'_>]) -> String {
    let arms: Vec<String> = tables
        .iter()
        .enumerate()
        .map(|(at, table)| format!("WHEN {at} THEN {}", table.current("b.k")))
        .collect();
    format!("CASE b.tab {} END", arms.join(" "))
}

/// Whether a key that has no row any more was deleted by retention on the new
/// side of the move: the old copy keeps its row then.
pub fn kept(spec: &Spec, leg: Leg) -> String {
    if leg.is_back() {
        let kept = sql::kept_table(spec.move_id);
        format!("EXISTS (SELECT 1 FROM {kept} AS x WHERE x.tab = b.tab AND x.k = b.k)")
    } else {
        "false".into()
    }
}

/// The keys in `d` and those of the parents of their rows: a row goes along
/// with what it belongs to the tenant through. As the relation `b`.
fn with_parents(tables: &[TableSql<'_>]) -> String {
    let mut arms = vec!["SELECT tab, k FROM d".to_owned()];
    for (number, sql) in tables.iter().enumerate() {
        for (at, hop) in sql.table.membership.hops().iter().enumerate() {
            let found = sql.matches("c", |n| format!("(e.k)[{}]", n + 1));
            let (from, way) = membership::up(&sql.table.membership, at, "c");
            let key: Vec<String> = hop
                .parent_key
                .iter()
                .map(|column| format!("p.{column}::pg_catalog.text"))
                .collect();
            arms.push(format!(
                "SELECT {}::pg_catalog.int2, ARRAY[{}] FROM (SELECT k FROM d WHERE tab = {number} OFFSET 0) AS e, \
                 {} AS c, {from} WHERE {found} AND {way}",
                hop.parent_number,
                key.join(", "),
                sql.table.name,
            ));
        }
    }
    if arms.len() == 1 {
        "b AS (SELECT DISTINCT tab, k FROM d)".into()
    } else {
        format!("b AS ({})", arms.join(" UNION "))
    }
}

/// Takes up to `$1` rows off the log (all for null) and reads the current
/// rows: table, key, row, and whether the other side keeps a row that is gone.
pub fn take_off(spec: &Spec, leg: Leg, tables: &[TableSql<'_>]) -> String {
    let log = sql::log_table(spec.move_id);
    format!(
        "WITH d AS (DELETE FROM {log} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {log} LIMIT $1::int8)) RETURNING tab, k), \
         {} SELECT b.tab, b.k, {}, {} FROM b",
        with_parents(tables),
        current_rows(tables),
        kept(spec, leg)
    )
}

/// A row where the log holds more than `$1`.
pub fn longer(spec: &Spec) -> String {
    format!("SELECT 1 FROM {} OFFSET $1::int8 LIMIT 1", sql::log_table(spec.move_id))
}

/// Takes up to `$1` rows off the log (all for null) into the taken table, with
/// their parents; answers each table with how many keys it has there.
pub fn take_aside(spec: &Spec, tables: &[TableSql<'_>]) -> String {
    let (log, taken) = (sql::log_table(spec.move_id), TAKEN);
    format!(
        "WITH d AS (DELETE FROM {log} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {log} LIMIT $1::int8)) RETURNING tab, k), \
         {}, i AS (INSERT INTO {taken} (tab, k) SELECT tab, k FROM b RETURNING tab) \
         SELECT tab, count(*) FROM i GROUP BY tab ORDER BY tab",
        with_parents(tables)
    )
}

/// Reads the whole log with the current rows, as [`take_off`] does, leaving it
/// as it is.
pub fn look_up(spec: &Spec, leg: Leg, tables: &[TableSql<'_>]) -> String {
    format!(
        "WITH d AS (SELECT DISTINCT tab, k FROM {}), {} SELECT b.tab, b.k, {}, {} FROM b",
        sql::log_table(spec.move_id),
        with_parents(tables),
        current_rows(tables),
        kept(spec, leg)
    )
}
