//! Which tables carry the tenant's rows, found in the catalog.
//!
//! A table with a `customer_id uuid` carries tenant rows; the table that
//! `customer_id` foreign keys point to is the tenant's own; a table whose rows
//! can't be without a row of such a table belongs to a tenant through it;
//! untenanted tables that those point to are references. Everything else is
//! left alone, or is a reason to refuse. Nothing here knows the schema by
//! heart; what it can't know is in [`Rules`].
//!
//! **Invariant:** a table comes after those that its rows belong through.

mod differ;
mod judge;
mod order;
mod read;
mod rules;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use self::differ::differences;
pub(super) use self::order::parents_first;
pub use self::rules::{Mixed, Rules};
use super::connect::Conn;
use super::error::MoveError;
use super::hypertable::Hypertable;
use super::membership::{Dependent, Membership, Time};
use super::report::Verdict;

/// The column that makes a row a tenant's.
pub const TENANT_COLUMN: &str = "customer_id";

/// A table whose rows move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Quoted, with its schema: goes into statements as it is.
    pub name: String,
    /// How a row is known to be the tenant's.
    pub membership: Membership,
    /// What a downgrade cuts by, where the configuration names it.
    pub time: Option<Time>,
    /// Tables whose rows belong to the tenant through rows of this one.
    pub dependents: Vec<Dependent>,
    pub partitioned: bool,
    /// Set where it is a hypertable of TimescaleDB.
    #[serde(default)]
    pub hypertable: Option<Hypertable>,
    /// In their order; generated ones are not copied.
    pub columns: Vec<Column>,
    /// The primary key's columns, as positions in `columns`.
    pub key: Vec<usize>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Definitions of the primary key, unique, check and exclusion
    /// constraints, sorted.
    pub constraints: Vec<String>,
    /// Unique keys beside the primary one: quoted columns.
    pub uniques: Vec<Vec<String>>,
    /// Sequences that feed columns of the table: quoted, with schema.
    pub sequences: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Quoted.
    pub name: String,
    /// For casts: without a length that would cut.
    pub cast: String,
    /// With length and precision, to compare the two sides.
    pub full_type: String,
    pub not_null: bool,
    pub generated: bool,
    /// An identity that only accepts its own values: never updated.
    pub identity_always: bool,
    /// Binary COPY of this type carries object ids that differ per database.
    pub text_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    pub name: String,
    /// Quoted.
    pub columns: Vec<String>,
    /// Quoted, with its schema.
    pub parent: String,
    /// Quoted.
    pub parent_columns: Vec<String>,
}

/// What a database holds, as far as a move is concerned.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub tables: Vec<Table>,
    /// Quoted names of tables that moved rows point to.
    pub references: BTreeSet<String>,
    pub verdicts: Vec<Verdict>,
    /// What a person should know about single tables.
    pub warnings: Vec<String>,
    /// What stands against a move that has not begun.
    pub problems: Vec<String>,
}

impl Table {
    /// The columns that are copied, quoted, in their order.
    pub fn copied(&self) -> Vec<&str> {
        self.columns.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect()
    }

    /// The primary key's columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|&at| self.columns.get(at))
    }

    /// Whether binary COPY means the same on both sides.
    pub fn binary(&self) -> bool {
        !self.columns.iter().any(|column| column.text_only && !column.generated)
    }
}

/// Reads the catalog of one side. Problems of single tables are verdicts, not
/// errors.
///
/// # Errors
/// What the database said.
pub async fn discover(conn: &Conn, rules: &Rules) -> Result<Catalog, MoveError> {
    Ok(judge::judge(&read::relations(conn).await?, rules))
}
