//! The SQL of one move, generated once from its tables.
//!
//! Rows travel as the text of their record (`row::text`), which is exact under
//! the pinned session settings, and compares bytewise.

pub mod bulk;
mod by_time;
pub mod cold;
mod log;

pub use self::log::{Batch, Group, kept, longer, look_up, take_aside, take_off};
use super::catalog::{Column, ForeignKey, Table};
use super::leg::Leg;
use super::membership::{self, of};
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
    /// The scope of a downgrade; 0 is everything.
    retain_from_us: i64,
    /// Whether rows outside of the scope are carried.
    carries_all: bool,
    /// Where the compressed chunks of a hypertable end, on the side that is
    /// written to; see [`cold`].
    cold_until: Option<String>,
}

impl<'a> TableSql<'a> {
    /// The statements of `table` for the move's tenant.
    pub fn new(table: &'a Table, spec: &Spec) -> Self {
        Self {
            table,
            tenant: sql::tenant_literal(spec.tenant),
            retain_from_us: spec.retain_from_us,
            carries_all: false,
            cold_until: None,
        }
    }

    /// The statements of a leg. On the way back what was written on the new
    /// side goes along whatever its time is; what stayed behind at the start is
    /// still no part of what both sides must hold alike.
    pub fn on(table: &'a Table, spec: &Spec, leg: Leg) -> Self {
        Self { carries_all: leg.is_back(), ..Self::new(table, spec) }
    }

    /// How many key columns there are.
    pub fn key_width(&self) -> usize {
        self.table.key.len()
    }

    /// `alias."id" = (value)::uuid AND … AND alias."customer_id" = tenant`
    pub(super) fn matches(&self, alias: &str, value: impl Fn(usize) -> String) -> String {
        let mut terms: Vec<String> = self
            .table
            .key_columns()
            .enumerate()
            .map(|(at, column)| {
                format!("{alias}.{} = ({})::{}", column.name, value(at), column.cast)
            })
            .collect();
        terms.push(self.of_tenant(alias));
        terms.join(" AND ")
    }

    /// The tenant's rows, for any alias: all of them, also what a downgrade
    /// leaves behind. For deletes, and for what must not be there.
    pub fn of_tenant(&self, alias: &str) -> String {
        self.table.membership.is_tenants(&of(alias), &self.tenant)
    }

    /// The tenant's rows that move: what is copied, compared and counted.
    pub fn in_scope(&self, alias: &str) -> String {
        if self.retain_from_us == 0 {
            return self.of_tenant(alias);
        }
        let from = self.retain_from_us;
        let mut text = self.table.membership.in_scope(&of(alias), &self.tenant, from);
        if let Some(own) = membership::within(self.table.time.as_ref(), &of(alias), from) {
            text = format!("{text} AND {own}");
        }
        text
    }

    /// The tenant's rows that a downgrade leaves behind; none where all move.
    pub fn left_behind(&self, alias: &str) -> Option<String> {
        let cut = self.table.time.is_some()
            || self.table.membership.hops().iter().any(|hop| hop.parent_time.is_some());
        (cut && self.retain_from_us > 0)
            .then(|| format!("{} AND NOT ({})", self.of_tenant(alias), self.in_scope(alias)))
    }

    /// The tenant, as SQL has it.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The text of the current row whose key is the array `k`, or null where
    /// there is none that moves.
    pub fn current(&self, k: &str) -> String {
        let mut wanted = self.matches(ROW, |at| format!("({k})[{}]", at + 1));
        if self.retain_from_us > 0 && !self.carries_all {
            wanted = format!("{wanted} AND {}", self.in_scope(ROW));
        }
        format!("(SELECT {ROW}::text FROM {} AS {ROW} WHERE {wanted})", self.table.name)
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
    /// the given row is null. Rows that belong to the tenant through a row that
    /// goes for good go with it, as they did on the other side. Arguments: the
    /// key arrays, then the rows.
    pub fn delete(&self, arg: &dyn Fn(usize) -> String, rows: &str, mode: Mode) -> String {
        let gone = match mode {
            Mode::Update => " AND k.rec IS NULL",
            Mode::Replace => "",
        };
        let keys = self.keys(arg, Some((rows.to_owned(), "rec")));
        let matches = self.matches("x", |at| format!("k.k{}", at + 1));
        // One statement: all parts of it see the parent's row.
        let below: Vec<String> = self
            .table
            .dependents
            .iter()
            .enumerate()
            .map(|(at, dependent)| {
                let (from, wanted) = dependent.below(&of("x"));
                let columns: Vec<String> = dependent.key.iter().map(|c| format!("d.{c}")).collect();
                let same: Vec<String> =
                    dependent.key.iter().map(|c| format!("o.{c} = g.{c}")).collect();
                format!(
                    "g{at} AS (DELETE FROM {name} AS o USING (SELECT {columns} FROM {from}, {table} AS x, {keys} \
                     WHERE k.rec IS NULL AND {matches} AND {wanted}) AS g WHERE {same})",
                    name = dependent.name,
                    columns = columns.join(", "),
                    table = self.table.name,
                    same = same.join(" AND "),
                )
            })
            .collect();
        let with =
            if below.is_empty() { String::new() } else { format!("WITH {} ", below.join(", ")) };
        format!(
            "{with}DELETE FROM {} AS x USING {keys} WHERE {matches}{gone}{}",
            self.table.name,
            self.hot("x")
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
                "UPDATE {} AS x SET {} FROM {} WHERE {}{}",
                self.table.name,
                set.join(", "),
                self.given(rows),
                self.same_as_given(),
                self.hot("x")
            )
        })
    }

    /// Inserts the given rows that don't exist. Argument: the rows.
    pub fn insert(&self, rows: &str) -> String {
        let columns = self.table.copied();
        let values: Vec<String> = columns.iter().map(|name| format!("(y.r).{name}")).collect();
        format!(
            "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} \
             WHERE {} AND NOT EXISTS (SELECT 1 FROM {name} AS x WHERE {})",
            columns.join(", "),
            values.join(", "),
            self.given(rows),
            self.table.membership.is_tenants(&|column| format!("(y.r).{column}"), &self.tenant),
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

    /// The foreign keys, by their place, with rows of the tenant that point to
    /// nothing. None where the table has no foreign key.
    pub fn all_dangling(&self) -> Option<String> {
        let checks: Vec<String> = self
            .table
            .foreign_keys
            .iter()
            .enumerate()
            .map(|(at, key)| {
                format!(
                    "(SELECT {at}::int4 FROM {} AS x WHERE {} AND {} LIMIT 1)",
                    self.table.name,
                    self.of_tenant("x"),
                    points_to_nothing(key, "x"),
                )
            })
            .collect();
        (!checks.is_empty()).then(|| checks.join(" UNION ALL "))
    }

    /// A page of the keys, each as one array of text, of the tenant's rows
    /// whose foreign key points to nothing, but for those that `except` takes
    /// away from `x`.
    pub fn dangling_keys(
        &self,
        key: &ForeignKey,
        except: &str,
        (limit, offset): (usize, usize),
    ) -> String {
        let columns: Vec<String> =
            self.table.key_columns().map(|column| format!("x.{}", column.name)).collect();
        format!(
            "SELECT {} FROM {} AS x WHERE {} AND {} {except} ORDER BY {} LIMIT {limit} OFFSET {offset}",
            self.logged_key("x"),
            self.table.name,
            self.of_tenant("x"),
            points_to_nothing(key, "x"),
            columns.join(", ")
        )
    }

    /// Of the given keys those whose row does not point, by the foreign key, to
    /// a row of `parent` that moves; at most five. Arguments: the key arrays.
    pub fn astray(
        &self,
        arg: &dyn Fn(usize) -> String,
        key: &ForeignKey,
        parent: &TableSql<'_>,
    ) -> String {
        let shown: Vec<String> = (1..=self.key_width()).map(|at| format!("k.k{at}")).collect();
        let moves = if parent.carries_all { parent.of_tenant("p") } else { parent.in_scope("p") };
        format!(
            "SELECT concat_ws(',', {}) FROM {} WHERE NOT EXISTS (SELECT 1 FROM {} AS x, {} AS p \
             WHERE {} AND {} AND {}) LIMIT 5",
            shown.join(", "),
            self.keys(arg, None),
            self.table.name,
            parent.table.name,
            self.matches("x", |at| format!("k.k{}", at + 1)),
            same(key, "x"),
            moves
        )
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

fn points_to_nothing(key: &ForeignKey, alias: &str) -> String {
    let set: Vec<String> =
        key.columns.iter().map(|column| format!("{alias}.{column} IS NOT NULL")).collect();
    format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
        set.join(" AND "),
        key.parent,
        same(key, alias)
    )
}

/// `p` is what the row points to.
fn same(key: &ForeignKey, alias: &str) -> String {
    let terms: Vec<String> = key
        .columns
        .iter()
        .zip(&key.parent_columns)
        .map(|(child, parent)| format!("p.{parent} = {alias}.{child}"))
        .collect();
    terms.join(" AND ")
}
