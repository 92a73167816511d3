//! What the catalog can't tell, as the node's configuration says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mover::hypertable::Hypertables;

/// What is done about statements that write several tenants' rows at once: in
/// the moment of the cut-over they fail for everybody in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixed {
    /// Said in the report.
    #[default]
    Warn,
    /// The preflight refuses.
    Refuse,
    /// Nobody looks.
    Ignore,
}

/// Names of tables are "table" or "schema.table".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Never moved.
    pub ignore: Vec<String>,
    /// Without tenant rows, but pointed to by them.
    pub reference: Vec<String>,
    /// By which foreign key (its column, or its name) rows of a table belong
    /// to a tenant, where there are several.
    pub through: BTreeMap<String, String>,
    /// The time of a row, by which a downgrade cuts.
    pub time_columns: BTreeMap<String, String>,
    /// The application's lists of its migrations: equal on both sides.
    pub migrations: Vec<String>,
    pub mixed_statements: Mixed,
    /// For how long the preflight watches statements; 0 looks at what the
    /// server remembers, and waits for nothing.
    pub watch_statements_ms: u64,
    pub hypertables: Hypertables,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ignore: Vec::new(),
            reference: Vec::new(),
            through: BTreeMap::new(),
            time_columns: BTreeMap::from([("gps_positions".into(), "recorded_at".into())]),
            migrations: vec!["schema_migrations".into()],
            mixed_statements: Mixed::Warn,
            watch_statements_ms: 0,
            hypertables: Hypertables::Verified,
        }
    }
}

impl Rules {
    pub(super) fn names(list: &[String], schema: &str, table: &str) -> bool {
        list.iter().any(|name| *name == table || *name == format!("{schema}.{table}"))
    }

    pub(super) fn given<'a>(
        map: &'a BTreeMap<String, String>,
        schema: &str,
        table: &str,
    ) -> Option<&'a str> {
        map.get(&format!("{schema}.{table}")).or_else(|| map.get(table)).map(String::as_str)
    }
}
