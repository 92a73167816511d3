//! The SQL of one move, generated once from its tables.
//!
//! Rows travel as the text of their record (`row::text`), which is exact under
//! the pinned session settings, and compares bytewise.

pub mod bulk;

use super::catalog::{Column, Table};
use super::leg::Leg;
use super::spec::Spec;
use super::sql;

/// What a whole row is called; a column of this name would shadow it.
const ROW: &str = "webhost_fleet_row";

/// How rows that exist on the target are brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By UPDATE: a statement that waits for the row finds its successor, and
    /// then meets the guard. One that waited for a deleted row would find
    /// nothing, change nothing, and be acknowledged.
    Update,
    /// By DELETE and INSERT, which can swap unique values between rows.
    Replace,
}

/// The statements of one table. Keys are text arrays, one per key column.
pub struct TableSql<'a> {
    pub table: &'a Table,
    tenant: String,
}

impl<'a> TableSql<'a> {
    /// The statements of `table` for the move's tenant.
    pub fn new(table: &'a Table, spec: &Spec) -> Self {
        Self { table, tenant: sql::tenant_literal(spec.tenant) }
    }

    /// How many key columns there are.
    pub fn key_width(&self) -> usize {
        self.table.key.len()
    }

    /// `alias."id" = (value)::uuid AND … AND alias."customer_id" = tenant`
    fn matches(&self, alias: &str, value: impl Fn(usize) -> String) -> String {
        let mut terms: Vec<String> = self
            .table
            .key_columns()
            .enumerate()
            .map(|(at, column)| {
                format!("{alias}.{} = ({})::{}", column.name, value(at), column.cast)
            })
            .collect();
        terms.push(format!("{alias}.{} = {}", self.table.tenant, self.tenant));
        terms.join(" AND ")
    }

    /// The tenant's rows, for any alias.
    pub fn of_tenant(&self, alias: &str) -> String {
        format!("{alias}.{} = {}", self.table.tenant, self.tenant)
    }

    /// The text of the current row whose key is the array `k`, or null.
    pub fn current(&self, k: &str) -> String {
        format!(
            "(SELECT {ROW}::text FROM {} AS {ROW} WHERE {})",
            self.table.name,
            self.matches(ROW, |at| format!("({k})[{}]", at + 1))
        )
    }

    /// `unnest(a, b) AS k(k1, k2)`
    fn keys(&self, arg: &dyn Fn(usize) -> String, extra: Option<(String, &str)>) -> String {
        let mut args: Vec<String> = (0..self.key_width()).map(arg).collect();
        let mut names: Vec<String> = (1..=self.key_width()).map(|at| format!("k{at}")).collect();
        if let Some((value, name)) = extra {
            args.push(value);
            names.push(name.into());
        }
        format!("unnest({}) AS k({})", args.join(", "), names.join(", "))
    }

    /// Deletes the tenant's rows of these keys; in [`Mode::Update`] only where
    /// the given row is null. Arguments: the key arrays, then the rows.
    pub fn delete(&self, arg: &dyn Fn(usize) -> String, rows: &str, mode: Mode) -> String {
        let gone = match mode {
            Mode::Update => " AND k.rec IS NULL",
            Mode::Replace => "",
        };
        format!(
            "DELETE FROM {} AS x USING {} WHERE {}{gone}",
            self.table.name,
            self.keys(arg, Some((rows.to_owned(), "rec"))),
            self.matches("x", |at| format!("k.k{}", at + 1))
        )
    }

    /// The given rows, cast once each, as `y.r`; only the tenant's.
    fn given(&self, rows: &str) -> String {
        format!(
            "(SELECT u.rec::{} AS r FROM unnest({rows}) AS u(rec) WHERE u.rec IS NOT NULL OFFSET 0) AS y",
            self.table.name
        )
    }

    /// `x."id" = (y.r)."id" AND … AND x."customer_id" = tenant`
    fn same_as_given(&self) -> String {
        let mut terms: Vec<String> = self
            .table
            .key_columns()
            .map(|column| format!("x.{name} = (y.r).{name}", name = column.name))
            .collect();
        terms.push(self.of_tenant("x"));
        terms.join(" AND ")
    }

    /// The columns that an update sets.
    fn updated(&self) -> impl Iterator<Item = &str> {
        let kept = |column: &Column| column.generated || column.identity_always;
        self.table
            .columns
            .iter()
            .enumerate()
            .filter(move |(at, column)| !kept(column) && !self.table.key.contains(at))
            .map(|(_, column)| column.name.as_str())
    }

    /// Updates rows that exist to what is given. None where a row is its key.
    /// Argument: the rows.
    pub fn update(&self, rows: &str) -> Option<String> {
        let set: Vec<String> =
            self.updated().map(|name| format!("{name} = (y.r).{name}")).collect();
        (!set.is_empty()).then(|| {
            format!(
                "UPDATE {} AS x SET {} FROM {} WHERE {}",
                self.table.name,
                set.join(", "),
                self.given(rows),
                self.same_as_given()
            )
        })
    }

    /// Inserts the given rows that don't exist. Argument: the rows.
    pub fn insert(&self, rows: &str) -> String {
        let columns = self.table.copied();
        let values: Vec<String> = columns.iter().map(|name| format!("(y.r).{name}")).collect();
        format!(
            "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} \
             WHERE (y.r).{} = {} AND NOT EXISTS (SELECT 1 FROM {name} AS x WHERE {})",
            columns.join(", "),
            values.join(", "),
            self.given(rows),
            self.table.tenant,
            self.tenant,
            self.same_as_given(),
            name = self.table.name,
        )
    }

    /// Keys whose stored row is not the one that was sent, at most five.
    /// Arguments: the key arrays, then the rows.
    pub fn compare(&self, arg: &dyn Fn(usize) -> String, rows: &str) -> String {
        let shown: Vec<String> = (1..=self.key_width()).map(|at| format!("k.k{at}")).collect();
        format!(
            "SELECT concat_ws(',', {}) FROM {} WHERE (SELECT {ROW}::text FROM {} AS {ROW} WHERE {}) \
             IS DISTINCT FROM k.rec LIMIT 5",
            shown.join(", "),
            self.keys(arg, Some((rows.to_owned(), "rec"))),
            self.table.name,
            self.matches(ROW, |at| format!("k.k{}", at + 1))
        )
    }

    /// Foreign keys of the given rows that point to nothing, by name. None
    /// where the table has no foreign key that `wanted` takes.
    pub fn dangling(
        &self,
        arg: &dyn Fn(usize) -> String,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let checks: Vec<String> = self
            .table
            .foreign_keys
            .iter()
            .filter(|key| wanted(&key.parent))
            .map(|key| {
                format!(
                    "SELECT {} FROM {} JOIN {} AS x ON {} WHERE {}",
                    sql::literal(&format!("{} to {}", key.name, key.parent)),
                    self.keys(arg, None),
                    self.table.name,
                    self.matches("x", |at| format!("k.k{}", at + 1)),
                    points_to_nothing(key, "x"),
                )
            })
            .collect();
        (!checks.is_empty()).then(|| format!("{} LIMIT 5", checks.join(" UNION ")))
    }

    /// All foreign keys of the tenant's rows that point to nothing.
    pub fn all_dangling(&self) -> Option<String> {
        let checks: Vec<String> = self
            .table
            .foreign_keys
            .iter()
            .map(|key| {
                format!(
                    "(SELECT {} FROM {} AS x WHERE {} AND {} LIMIT 1)",
                    sql::literal(&format!("{} to {}", key.name, key.parent)),
                    self.table.name,
                    self.of_tenant("x"),
                    points_to_nothing(key, "x"),
                )
            })
            .collect();
        (!checks.is_empty()).then(|| checks.join(" UNION ALL "))
    }

    /// The arrays that a trigger appends: `ARRAY[NEW."id"::text, …]`.
    pub fn logged_key(&self, row: &str) -> String {
        let parts: Vec<String> = self
            .table
            .key_columns()
            .map(|c| format!("{row}.{}::pg_catalog.text", c.name))
            .collect();
        format!("ARRAY[{}]", parts.join(", "))
    }
}

fn points_to_nothing(key: &super::catalog::ForeignKey, alias: &str) -> String {
    let set: Vec<String> =
        key.columns.iter().map(|column| format!("{alias}.{column} IS NOT NULL")).collect();
    let same: Vec<String> = key
        .columns
        .iter()
        .zip(&key.parent_columns)
        .map(|(child, parent)| format!("p.{parent} = {alias}.{child}"))
        .collect();
    format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
        set.join(" AND "),
        key.parent,
        same.join(" AND ")
    )
}

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
pub fn current_rows(tables: &[TableSql<'_>]) -> String {
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

/// Takes up to `$1` rows off the log (all for null) and reads the current
/// rows: table, key, row, and whether the other side keeps a row that is gone.
pub fn take_off(spec: &Spec, leg: Leg, tables: &[TableSql<'_>]) -> String {
    let log = sql::log_table(spec.move_id);
    format!(
        "WITH d AS (DELETE FROM {log} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {log} LIMIT $1::int8)) RETURNING tab, k), \
         b AS (SELECT DISTINCT tab, k FROM d) SELECT b.tab, b.k, {}, {} FROM b",
        current_rows(tables),
        kept(spec, leg)
    )
}

/// A row where the log holds more than `$1`.
pub fn longer(spec: &Spec) -> String {
    format!("SELECT 1 FROM {} OFFSET $1::int8 LIMIT 1", sql::log_table(spec.move_id))
}

/// Takes up to `$1` rows off the log (all for null) into the taken table;
/// answers each table with how many keys it has there.
pub fn take_aside(spec: &Spec) -> String {
    let (log, taken) = (sql::log_table(spec.move_id), bulk::TAKEN);
    format!(
        "WITH d AS (DELETE FROM {log} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {log} LIMIT $1::int8)) RETURNING tab, k), \
         i AS (INSERT INTO {taken} (tab, k) SELECT DISTINCT tab, k FROM d RETURNING tab) \
         SELECT tab, count(*) FROM i GROUP BY tab ORDER BY tab"
    )
}

/// Reads the whole log with the current rows, as [`take_off`] does, leaving it
/// as it is.
pub fn look_up(spec: &Spec, leg: Leg, tables: &[TableSql<'_>]) -> String {
    format!(
        "SELECT b.tab, b.k, {}, {} FROM (SELECT DISTINCT tab, k FROM {}) AS b",
        current_rows(tables),
        kept(spec, leg),
        sql::log_table(spec.move_id)
    )
}
