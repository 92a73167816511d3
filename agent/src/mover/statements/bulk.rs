//! The SQL of many keys at once: keys and rows in temporary tables, typed, and
//! every statement a join with them.

use super::{Mode, TableSql, points_to_nothing};
use crate::mover::membership::of;
use crate::mover::sql;

/// On the side that rows come from: what was taken off the log.
pub const TAKEN: &str = "pg_temp.webhost_fleet_taken";
/// Whether the row was there, in a given table.
pub(super) const HERE: &str = "webhost_fleet_here";

/// A key column's name in a given table.
pub(super) fn key(at: usize) -> String {
    format!("webhost_fleet_k{}", at + 1)
}

/// On the side that rows go to: the keys of table `number`, each with its row
/// or none.
pub fn given(number: usize) -> String {
    format!("pg_temp.webhost_fleet_given_{number}")
}

impl TableSql<'_> {
    /// Creates the given table, empty after every transaction.
    pub fn create_given(&self, number: usize) -> String {
        let keys: Vec<String> = self
            .table
            .key_columns()
            .enumerate()
            .map(|(at, column)| format!("x.{} AS {}", column.name, key(at)))
            .collect();
        let columns: Vec<String> =
            self.table.copied().iter().map(|name| format!("x.{name}")).collect();
        format!(
            "CREATE TEMP TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS \
             SELECT true AS {HERE}, {}, {} FROM {} AS x WITH NO DATA",
            given(number).trim_start_matches("pg_temp."),
            keys.join(", "),
            columns.join(", "),
            self.table.name
        )
    }

    /// `x."id" = (b.k)[1]::uuid AND … AND x."customer_id" = tenant`
    fn of_taken(&self) -> String {
        let mut found = self.matches("x", |at| format!("(b.k)[{}]", at + 1));
        if self.retain_from_us > 0 && !self.carries_all {
            found = format!("{found} AND {}", self.in_scope("x"));
        }
        found
    }

    /// `x."id" = g.webhost_fleet_k1 AND … AND x."customer_id" = tenant`
    pub(super) fn of_given(&self) -> String {
        let mut terms: Vec<String> = self
            .table
            .key_columns()
            .enumerate()
            .map(|(at, column)| format!("x.{} = g.{}", column.name, key(at)))
            .collect();
        terms.push(self.of_tenant("x"));
        terms.join(" AND ")
    }

    /// How COPY writes and reads the rows.
    fn format(&self) -> &'static str {
        if self.table.binary() { "binary" } else { "text" }
    }

    /// Prints the taken keys with their current rows, but for those whose row
    /// is gone and that `kept` (of a key `b`) says the other side keeps.
    pub fn copy_taken(&self, number: usize, kept: &str) -> String {
        let keys: Vec<String> = self
            .table
            .key_columns()
            .enumerate()
            .map(|(at, column)| format!("((b.k)[{}])::{}", at + 1, column.cast))
            .collect();
        let columns: Vec<String> =
            self.table.copied().iter().map(|name| format!("x.{name}")).collect();
        let here = self.here();
        format!(
            "COPY (SELECT {here}, {}, {} FROM {TAKEN} AS b LEFT JOIN {} ON true \
             WHERE b.tab = {number} AND ({here} OR NOT {kept})) TO STDOUT (FORMAT {})",
            keys.join(", "),
            columns.join(", "),
            self.one_by_one(&self.of_taken()),
            self.format()
        )
    }

    /// The table's rows as `x`, looked up for one key after the other: OFFSET
    /// keeps the planner from turning the lookup round, which on a table
    /// through a parent compares every row of the tenant with every key.
    fn one_by_one(&self, same: &str) -> String {
        format!("LATERAL (SELECT x.* FROM {} AS x WHERE {same} OFFSET 0) AS x", self.table.name)
    }

    fn here(&self) -> String {
        self.table
            .key_columns()
            .next()
            .map_or_else(|| "false".to_owned(), |column| format!("(x.{} IS NOT NULL)", column.name))
    }

    /// Reads what [`TableSql::copy_taken`] prints.
    pub fn copy_given(&self, number: usize) -> String {
        format!("COPY {} FROM STDIN (FORMAT {})", given(number), self.format())
    }

    /// How many of the given keys have a row, and how many have none.
    pub fn count_given(&self, number: usize) -> String {
        format!(
            "SELECT count(*) FILTER (WHERE {HERE}), count(*) FILTER (WHERE NOT {HERE}) FROM {}",
            given(number)
        )
    }

    /// Deletes the given keys, as the statements for single keys do: those
    /// without a row, or all.
    pub fn delete_given(&self, number: usize, mode: Mode) -> String {
        let (name, given, same) = (&self.table.name, given(number), self.of_given());
        let gone = match mode {
            Mode::Update => format!("NOT g.{HERE} AND "),
            Mode::Replace => String::new(),
        };
        let below = self.delete_below(&given, &same);
        format!(
            "{below}DELETE FROM {name} AS x USING {given} AS g WHERE {gone}{same}{}",
            self.hot("x")
        )
    }

    /// Updates what is there to the given rows. None where a row is its key.
    pub fn update_given(&self, number: usize) -> Option<String> {
        let set: Vec<String> =
            self.updated().map(|column| format!("{column} = g.{column}")).collect();
        (!set.is_empty()).then(|| {
            format!(
                "UPDATE {} AS x SET {} FROM {} AS g WHERE g.{HERE} AND {}{}",
                self.table.name,
                set.join(", "),
                given(number),
                self.of_given(),
                self.hot("x")
            )
        })
    }

    /// Inserts the given rows that are not there.
    pub fn insert_given(&self, number: usize) -> String {
        let name = &self.table.name;
        let columns = self.table.copied();
        let values: Vec<String> = columns.iter().map(|name| format!("g.{name}")).collect();
        format!(
            "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS g \
             WHERE g.{HERE} AND {} AND NOT EXISTS (SELECT 1 FROM {name} AS x WHERE {})",
            columns.join(", "),
            values.join(", "),
            given(number),
            self.table.membership.is_tenants(&of("g"), &self.tenant),
            self.of_given()
        )
    }

    /// Deletes what belongs to the tenant through rows that go for good.
    fn delete_below(&self, given: &str, same: &str) -> String {
        self.table
            .dependents
            .iter()
            .map(|dependent| {
                let (from, below) = dependent.below(&of("x"));
                let keys: Vec<String> = dependent.key.iter().map(|c| format!("d.{c}")).collect();
                let equal: Vec<String> =
                    dependent.key.iter().map(|c| format!("o.{c} = h.{c}")).collect();
                format!(
                    "DELETE FROM {} AS o USING (SELECT {} FROM {from}, {} AS x, {given} AS g \
                     WHERE NOT g.{HERE} AND {same} AND {below}) AS h WHERE {}; ",
                    dependent.name,
                    keys.join(", "),
                    self.table.name,
                    equal.join(" AND "),
                )
            })
            .collect()
    }

    /// `FROM taken keys JOIN the table AS x WHERE …`, where rows come from.
    pub fn taken_rows(&self, number: usize) -> String {
        format!(
            "FROM {TAKEN} AS b CROSS JOIN {} WHERE b.tab = {number}",
            self.one_by_one(&self.of_taken())
        )
    }

    /// The same where they went to.
    pub fn given_rows(&self, number: usize) -> String {
        format!(
            "FROM {} AS g CROSS JOIN {} WHERE true",
            given(number),
            self.one_by_one(&self.of_given())
        )
    }

    /// Foreign keys of the given rows that point to nothing, by name. None
    /// where the table has no foreign key that `wanted` takes.
    pub fn dangling_given(&self, number: usize, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let checks: Vec<String> = self
            .table
            .foreign_keys
            .iter()
            .filter(|key| wanted(&key.parent))
            .map(|key| {
                format!(
                    "(SELECT {} {} AND {} LIMIT 1)",
                    sql::literal(&format!("{} to {}", key.name, key.parent)),
                    self.given_rows(number),
                    points_to_nothing(key, "x")
                )
            })
            .collect();
        (!checks.is_empty()).then(|| checks.join(" UNION ALL "))
    }
}
