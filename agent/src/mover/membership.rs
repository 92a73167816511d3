//! How a row is known to be the tenant's: the one place that says it.
//!
//! Most tables name the tenant in a column. Others belong to a tenant through
//! a foreign key alone: a point of a route is of whom the route is. Membership
//! of such a row is a lookup, in SQL an EXISTS on its parents, in a trigger a
//! few statements (a WHEN can't look anything up).
//!
//! A row can then change hands without being written: its parent is deleted,
//! given away, or hung under another parent. So the guard of a parent logs the
//! keys of the rows below it whenever their membership may change, *before* it
//! does; and a lookup takes the parent's row `FOR KEY SHARE`, which such a
//! change (it takes it `FOR UPDATE`) waits for, and the other way round. A
//! write of a parent's other columns is not in anybody's way.
//!
//! On the target the rows below a parent are deleted with it, and a drained row
//! brings its parents along, so that in every state that is committed there a
//! row's membership can be read off its parents.

use serde::{Deserialize, Serialize};

use super::sql;

/// How a row is known to be the tenant's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// This column names the tenant; quoted.
    Column(String),
    /// By the parents' rows: the first hop leaves the table itself, the last
    /// one's parent names the tenant in `tenant` (quoted).
    Through { hops: Vec<Hop>, tenant: String },
}

/// One step from a row to its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Quoted columns of the child.
    pub columns: Vec<String>,
    /// Quoted, with its schema.
    pub parent: String,
    /// The parent's columns that they point to; quoted.
    pub parent_columns: Vec<String>,
    /// The parent's primary key; quoted.
    pub parent_key: Vec<String>,
    /// The parent's place in the list of tables.
    pub parent_number: usize,
    /// The parent's column that a downgrade cuts by, with its type.
    pub parent_time: Option<Time>,
    /// The constraint may be checked at the end of a transaction only.
    pub deferrable: bool,
}

/// A column by which the scope of a downgrade cuts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Quoted.
    pub column: String,
    /// As the catalog names its type.
    pub cast: String,
    pub not_null: bool,
}

/// A table whose rows belong to the tenant through rows of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependent {
    /// Its place in the list of tables.
    pub number: usize,
    pub name: String,
    /// Its primary key; quoted.
    pub key: Vec<String>,
    /// From it up to the table that has it as a dependent.
    pub path: Vec<Hop>,
}

/// Types that a scope can cut by.
pub const TIMES: [&str; 3] = ["timestamp with time zone", "timestamp without time zone", "date"];

impl Time {
    /// Whether a row's time is at or after `from`, in microseconds since 1970.
    /// A row without a time is never old.
    fn within(&self, from: i64, value: &str) -> String {
        let from = since(from, &self.cast);
        if self.not_null {
            format!("{value} >= {from}")
        } else {
            format!("({value} >= {from} OR {value} IS NULL)")
        }
    }
}

/// The cut as a literal of a time's type; without a time zone is UTC, as the
/// application writes it.
fn since(from: i64, cast: &str) -> String {
    let stamp = jiff::Timestamp::from_microsecond(from).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let utc = stamp.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    match cast {
        "date" => format!("'{}'::pg_catalog.date", utc.date()),
        "timestamp without time zone" => format!("'{utc}'::pg_catalog.timestamp"),
        _ => format!("'{stamp}'::pg_catalog.timestamptz"),
    }
}

/// A row in SQL: gives a column's expression.
pub type RowOf<'a> = &'a dyn Fn(&str) -> String;

/// `alias."column"`.
pub fn of(alias: &str) -> impl Fn(&str) -> String + '_ {
    move |column| format!("{alias}.{column}")
}

fn alias(at: usize) -> String {
    format!("webhost_fleet_{at}")
}

/// `FROM` and `WHERE` that lead from `row` over `hops`; the parents are called
/// `webhost_fleet_0` and on.
fn way(hops: &[Hop], row: RowOf<'_>) -> (Vec<String>, Vec<String>) {
    let (mut tables, mut terms) = (Vec::new(), Vec::new());
    for (at, hop) in hops.iter().enumerate() {
        tables.push(format!("{} AS {}", hop.parent, alias(at)));
        for (child, parent) in hop.columns.iter().zip(&hop.parent_columns) {
            let child = if at == 0 { row(child) } else { of(&alias(at - 1))(child) };
            terms.push(format!("{}.{parent} = {child}", alias(at)));
        }
    }
    (tables, terms)
}

impl Membership {
    /// The column that names the tenant in the table itself; quoted.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Column(column) => Some(column),
            Self::Through { .. } => None,
        }
    }

    /// The way to the row that names the tenant; empty where it is the row.
    pub fn hops(&self) -> &[Hop] {
        match self {
            Self::Column(_) => &[],
            Self::Through { hops, .. } => hops,
        }
    }

    /// Whether `row` is the tenant's.
    pub fn is_tenants(&self, row: RowOf<'_>, tenant: &str) -> String {
        self.condition(row, tenant, None)
    }

    /// Whether `row` is the tenant's, and its parents are within the scope.
    pub fn in_scope(&self, row: RowOf<'_>, tenant: &str, from: i64) -> String {
        self.condition(row, tenant, Some(from))
    }

    fn condition(&self, row: RowOf<'_>, tenant: &str, from: Option<i64>) -> String {
        match self {
            Self::Column(column) => format!("{} = {tenant}", row(column)),
            Self::Through { hops, tenant: column } => {
                let (tables, mut terms) = way(hops, row);
                terms.push(format!("{}.{column} = {tenant}", alias(hops.len() - 1)));
                for (at, hop) in hops.iter().enumerate() {
                    if let (Some(time), Some(from)) = (&hop.parent_time, from) {
                        terms.push(time.within(from, &of(&alias(at))(&time.column)));
                    }
                }
                format!(
                    "EXISTS (SELECT 1 FROM {} WHERE {})",
                    tables.join(", "),
                    terms.join(" AND ")
                )
            }
        }
    }

    /// Statements of PL/pgSQL that set `mine` where `row` (OLD or NEW) is the
    /// tenant's. With `lock` the parents keep what makes it so until the end
    /// of the transaction. One statement a hop: under READ COMMITTED each
    /// finds what was committed while the one before it waited.
    pub fn look_up(&self, row: &str, tenant: &str, lock: bool) -> String {
        let tail = if lock { " FOR KEY SHARE" } else { "" };
        match self {
            Self::Column(column) => {
                format!("IF {row}.{column} = {tenant} THEN mine := true; END IF;")
            }
            Self::Through { hops, tenant: column } => {
                let mut text = String::new();
                for (at, hop) in hops.iter().enumerate() {
                    let terms: Vec<String> = hop
                        .columns
                        .iter()
                        .enumerate()
                        .zip(&hop.parent_columns)
                        .map(|((n, child), parent)| {
                            let value = if at == 0 {
                                format!("{row}.{child}")
                            } else {
                                format!("r{}.c{n}", at - 1)
                            };
                            format!("x.{parent} = {value}")
                        })
                        .collect();
                    let wanted: Vec<String> = match hops.get(at + 1) {
                        Some(next) => next
                            .columns
                            .iter()
                            .enumerate()
                            .map(|(n, column)| format!("x.{column} AS c{n}"))
                            .collect(),
                        None => vec![format!("x.{column} AS c0")],
                    };
                    text.push_str(&format!(
                        "SELECT {} INTO r{at} FROM {} AS x WHERE {}{tail}; ",
                        wanted.join(", "),
                        hop.parent,
                        terms.join(" AND "),
                    ));
                }
                format!("{text}IF r{}.c0 = {tenant} THEN mine := true; END IF;", hops.len() - 1)
            }
        }
    }

    /// The variables that [`Membership::look_up`] uses.
    pub fn variables(&self) -> String {
        (0..self.hops().len()).map(|at| format!("r{at} record; ")).collect()
    }

    /// The same way on another server, where tables may be numbered otherwise.
    pub fn same_as(&self, other: &Self) -> bool {
        let plain = |membership: &Self| {
            let mut membership = membership.clone();
            if let Self::Through { hops, .. } = &mut membership {
                hops.iter_mut().for_each(|hop| hop.parent_number = 0);
            }
            membership
        };
        plain(self) == plain(other)
    }
}

impl Dependent {
    /// `FROM … WHERE …` of the rows called `d` that hang on `row`.
    pub fn below(&self, row: RowOf<'_>) -> (String, String) {
        let Some((last, before)) = self.path.split_last() else {
            return (format!("{} AS d", self.name), "false".into());
        };
        let (mut tables, mut terms) = way(before, &of("d"));
        tables.insert(0, format!("{} AS d", self.name));
        let from = if before.is_empty() { "d".to_owned() } else { alias(before.len() - 1) };
        for (child, parent) in last.columns.iter().zip(&last.parent_columns) {
            terms.push(format!("{from}.{child} = {}", row(parent)));
        }
        (tables.join(", "), terms.join(" AND "))
    }

    /// The columns of the table above that the rows hang on.
    pub fn held_by(&self) -> &[String] {
        self.path.last().map_or(&[], |hop| &hop.parent_columns)
    }

    /// Whether rows may stand before what they hang on does.
    pub fn deferrable(&self) -> bool {
        self.path.iter().any(|hop| hop.deferrable)
    }

    /// `ARRAY[d."id"::text, …]`.
    pub fn logged_key(&self) -> String {
        let parts: Vec<String> =
            self.key.iter().map(|column| format!("d.{column}::pg_catalog.text")).collect();
        format!("ARRAY[{}]", parts.join(", "))
    }
}

/// `FROM` and `WHERE` from the row `child` up to its parent `p` over the first
/// `at + 1` hops.
pub fn up(membership: &Membership, at: usize, child: &str) -> (String, String) {
    let hops: Vec<Hop> = membership.hops().iter().take(at + 1).cloned().collect();
    let (mut tables, terms) = way(&hops, &of(child));
    // The last parent is the one that is asked for.
    let last = alias(at);
    if let (Some(table), Some(hop)) = (tables.last_mut(), hops.last()) {
        *table = format!("{} AS p", hop.parent);
    }
    let terms: Vec<String> =
        terms.iter().map(|term| term.replace(&format!("{last}."), "p.")).collect();
    (tables.join(", "), terms.join(" AND "))
}

/// A time's condition in the table itself, for a scope from `from` on.
pub fn within(time: Option<&Time>, row: RowOf<'_>, from: i64) -> Option<String> {
    time.map(|time| time.within(from, &row(&time.column)))
}

/// The columns of a table that decide about rows below it, quoted.
pub fn deciding(
    membership: &Membership,
    time: Option<&Time>,
    dependents: &[Dependent],
) -> Vec<String> {
    let mut columns: Vec<String> = match membership {
        Membership::Column(column) => vec![column.clone()],
        Membership::Through { hops, .. } => {
            hops.first().map(|hop| hop.columns.clone()).unwrap_or_default()
        }
    };
    columns.extend(time.map(|time| time.column.clone()));
    columns.extend(dependents.iter().flat_map(|d| d.held_by().iter().cloned()));
    columns.sort();
    columns.dedup();
    columns
}

/// `(a, b) IS DISTINCT FROM (c, d)` between OLD and NEW.
pub fn changed(columns: &[String]) -> String {
    let parts: Vec<String> =
        columns.iter().map(|c| format!("OLD.{c} IS DISTINCT FROM NEW.{c}")).collect();
    if parts.is_empty() { "false".into() } else { parts.join(" OR ") }
}

/// Names in a list for a message.
pub fn shown(columns: &[String]) -> String {
    columns.iter().map(|c| sql::bare(c)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
