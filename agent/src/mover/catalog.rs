//! Which tables carry the tenant's rows, found in the catalog.
//!
//! A table with a `customer_id uuid` carries tenant rows; the table that
//! `customer_id` foreign keys point to is the tenant's own; untenanted tables
//! that those point to are references. Everything else is left alone, or is a
//! reason to refuse. Nothing here knows the schema by heart.

mod read;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::connect::Conn;
use super::error::MoveError;
use super::spec::{Verdict, VerdictKind};
use super::sql;

/// The column that makes a row a tenant's.
pub const TENANT_COLUMN: &str = "customer_id";

/// What the node's configuration says about tables; names are "table" or
/// "schema.table".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub ignore: Vec<String>,
    pub reference: Vec<String>,
}

impl Rules {
    fn names(list: &[String], schema: &str, table: &str) -> bool {
        list.iter().any(|name| *name == table || *name == format!("{schema}.{table}"))
    }
}

/// A table whose rows move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Quoted, with its schema: goes into statements as it is.
    pub name: String,
    /// Quoted: the column that names the tenant.
    pub tenant: String,
    pub partitioned: bool,
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
    let relations = read::relations(conn).await?;
    let parents: BTreeSet<u32> = tenant_parents(&relations);
    let mut tables = Vec::new();
    let mut verdicts = Vec::new();
    let mut verdict = |name: &str, kind, reason: String, rows| {
        verdicts.push(Verdict {
            table: name.to_owned(),
            verdict: kind,
            reason,
            rows_estimated: rows,
        });
    };

    let mut moved: BTreeSet<u32> = BTreeSet::new();
    let mut rest = Vec::new();
    for relation in &relations {
        let carries = relation.columns.iter().any(|c| c.raw_name == TENANT_COLUMN);
        if relation.is_partition {
            continue;
        }
        if Rules::names(&rules.ignore, &relation.schema, &relation.table) {
            verdict(&relation.name, VerdictKind::Ignore, "named in ignore_tables".into(), 0);
        } else if Rules::names(&rules.reference, &relation.schema, &relation.table) {
            rest.push(relation);
        } else if carries || parents.contains(&relation.oid) {
            let tenant = if carries { TENANT_COLUMN } else { "id" };
            match relation.refusal(tenant) {
                Some(reason) => verdict(&relation.name, VerdictKind::Refuse, reason, 0),
                None => {
                    moved.insert(relation.oid);
                    let reason = if carries {
                        format!("rows name their tenant in {TENANT_COLUMN}")
                    } else {
                        format!("the tenant's own row: {TENANT_COLUMN} points here")
                    };
                    verdict(&relation.name, VerdictKind::Move, reason, relation.rows);
                    tables.push(relation.table(tenant));
                }
            }
        } else {
            rest.push(relation);
        }
    }
    if tables.is_empty() {
        verdict(
            "(none)",
            VerdictKind::Refuse,
            format!("no table with a column {TENANT_COLUMN} is visible here"),
            0,
        );
    } else if parents.is_empty() {
        verdict(
            "(none)",
            VerdictKind::Refuse,
            format!(
                "the tenant's own table was not found: no foreign key on {TENANT_COLUMN}, and no customers (id uuid)"
            ),
            0,
        );
    }

    let pointed: BTreeSet<u32> = relations
        .iter()
        .filter(|relation| moved.contains(&relation.oid))
        .flat_map(|relation| relation.foreign_keys.iter().map(|key| key.parent_oid))
        .filter(|oid| !moved.contains(oid))
        .collect();
    let mut references = BTreeSet::new();
    for relation in rest {
        let declared = Rules::names(&rules.reference, &relation.schema, &relation.table);
        let child_of = relation
            .foreign_keys
            .iter()
            .find(|key| moved.contains(&key.parent_oid))
            .map(|key| key.key.parent.clone());
        if declared || pointed.contains(&relation.oid) {
            references.insert(relation.name.clone());
            let reason = if declared {
                "named in reference_tables".to_owned()
            } else {
                "tenant rows point here; the rows must be on the target already".to_owned()
            };
            verdict(&relation.name, VerdictKind::Reference, reason, relation.rows);
        } else if let Some(parent) = child_of {
            verdict(
                &relation.name,
                VerdictKind::Refuse,
                format!(
                    "its rows belong to a tenant only through {parent}: give it a {TENANT_COLUMN}, or name it in ignore_tables"
                ),
                relation.rows,
            );
        } else {
            verdict(
                &relation.name,
                VerdictKind::Ignore,
                "no tenant rows, and none point here".into(),
                relation.rows,
            );
        }
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    verdicts.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(Catalog { tables, references, verdicts })
}

/// The tables that `customer_id` foreign keys point to; where there is none,
/// a table `customers` with an id.
fn tenant_parents(relations: &[read::Relation]) -> BTreeSet<u32> {
    let by_key: BTreeSet<u32> = relations
        .iter()
        .flat_map(|relation| &relation.foreign_keys)
        .filter(|key| key.key.columns == [sql::ident(TENANT_COLUMN)])
        .map(|key| key.parent_oid)
        .collect();
    if !by_key.is_empty() {
        return by_key;
    }
    relations.iter().filter(|relation| relation.table == "customers").map(|r| r.oid).collect()
}

/// What differs between the two sides' tables, each in a sentence.
pub fn differences(source: &[Table], target: &[Table]) -> Vec<String> {
    let mut problems = Vec::new();
    for here in source {
        let Some(there) = target.iter().find(|table| table.name == here.name) else {
            problems.push(format!("table {} is missing on the target", here.name));
            continue;
        };
        let show = |table: &Table| {
            table
                .columns
                .iter()
                .map(|c| {
                    format!(
                        "{} {}{}{}",
                        c.name,
                        c.full_type,
                        if c.not_null { " not null" } else { "" },
                        if c.generated { " generated" } else { "" }
                    )
                })
                .collect::<Vec<_>>()
        };
        let (left, right) = (show(here), show(there));
        if left != right {
            let first = left
                .iter()
                .zip(&right)
                .find(|(a, b)| a != b)
                .map(|(a, b)| format!("source has {a}, target has {b}"))
                .unwrap_or_else(|| {
                    format!("source has {} columns, target {}", left.len(), right.len())
                });
            problems.push(format!("columns of {} differ: {first}", here.name));
        }
        if here.tenant != there.tenant || here.key != there.key {
            problems.push(format!("the key of {} differs between source and target", here.name));
        }
        for constraint in &here.constraints {
            if !there.constraints.contains(constraint) {
                problems.push(format!("{} lacks on the target: {constraint}", here.name));
            }
        }
        for constraint in &there.constraints {
            if !here.constraints.contains(constraint) {
                problems.push(format!("{} has only on the target: {constraint}", here.name));
            }
        }
        for sequence in &here.sequences {
            if !there.sequences.contains(sequence) {
                problems
                    .push(format!("sequence {sequence} of {} is missing on the target", here.name));
            }
        }
    }
    problems
}
