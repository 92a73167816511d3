//! Rows in compressed chunks of a hypertable, changed one by one.
//!
//! TimescaleDB can change a compressed row: it first decompresses the batches
//! that the row may be in. Which those are it reads off literals in the WHERE
//! clause, best of all those of the segments' columns; what a join brings it
//! does not see, and decompresses all of the tenant (and stops at a limit, with
//! SQLSTATE 53400). So the statements of many keys look at rows of chunks
//! newer than every compressed one only, and keys below are changed each by a
//! statement of its own, with the segment that the stored row is in.
//!
//! Inserts and comparisons need none of this: they decompress nothing, or only
//! what the new row could collide with.
//!
//! **Invariant:** a row of a given key is changed by exactly one of the two:
//! below the bound by literals, from it on by the set.

use super::bulk::{HERE, given, key};
use super::{Mode, ROW, TableSql};
use crate::mover::catalog::Column;
use crate::mover::sql;

/// A key below the bound whose row is stored on the side that is written to.
pub struct Cold {
    /// The key's values as text.
    pub key: Vec<String>,
    /// The stored row's values of [`TableSql::segments`].
    pub segment: Vec<Option<String>>,
}

impl TableSql<'_> {
    /// Tells where the compressed chunks end on the side that is written to.
    pub fn set_cold_until(&mut self, bound: Option<String>) {
        self.cold_until = bound;
    }

    /// Whether some rows must be changed one by one.
    pub fn is_cold(&self) -> bool {
        self.cold_until.is_some()
    }

    /// ` AND x."recorded_at" >= the bound`; nothing where all is open.
    pub(super) fn hot(&self, alias: &str) -> String {
        self.bound(&format!("{alias}.{}", self.time()), ">=")
    }

    fn cold(&self, value: &str) -> String {
        self.bound(value, "<")
    }

    fn bound(&self, value: &str, operator: &str) -> String {
        match (&self.cold_until, &self.table.hypertable) {
            (Some(bound), Some(hypertable)) => {
                format!(" AND {value} {operator} {}::{}", sql::literal(bound), hypertable.cast)
            }
            _ => String::new(),
        }
    }

    fn time(&self) -> &str {
        self.table.hypertable.as_ref().map_or("", |hypertable| hypertable.time.as_str())
    }

    /// The place of the time among the key's columns.
    fn time_in_key(&self) -> Option<usize> {
        self.table.key_columns().position(|column| column.name == self.time())
    }

    /// The segments' columns that neither the key nor the tenant gives.
    fn segments(&self) -> Vec<&Column> {
        let Some(hypertable) = &self.table.hypertable else { return Vec::new() };
        hypertable
            .segment_by
            .iter()
            .filter(|name| self.table.membership.column() != Some(name.as_str()))
            .filter(|name| !self.table.key_columns().any(|column| column.name == **name))
            .filter_map(|name| self.table.columns.iter().find(|column| column.name == *name))
            .collect()
    }

    fn segment_values(&self) -> String {
        let values: Vec<String> = self
            .segments()
            .iter()
            .map(|column| format!("x.{}::pg_catalog.text", column.name))
            .collect();
        format!("ARRAY[{}]::pg_catalog.text[]", values.join(", "))
    }

    /// Which keys have a stored row below the bound: the key's place among
    /// those given, from 1 on, and its segment. None where nothing is below.
    /// Arguments: the key arrays.
    pub fn cold_keys(&self, arg: &dyn Fn(usize) -> String) -> Option<String> {
        let at = self.time_in_key().filter(|_| self.is_cold())?;
        let cast = &self.table.hypertable.as_ref()?.cast;
        let args: Vec<String> = (0..self.key_width()).map(arg).collect();
        let names: Vec<String> = (1..=self.key_width()).map(|at| format!("k{at}")).collect();
        Some(format!(
            "SELECT k.n, s.segment FROM unnest({}) WITH ORDINALITY AS k({}, n) CROSS JOIN LATERAL ( \
               SELECT {} AS segment FROM {} AS x WHERE {}{} OFFSET 0) AS s WHERE true{} ORDER BY k.n",
            args.join(", "),
            names.join(", "),
            self.segment_values(),
            self.table.name,
            self.matches("x", |at| format!("k.k{}", at + 1)),
            self.cold(&format!("x.{}", self.time())),
            self.cold(&format!("(k.k{})::{cast}", at + 1)),
        ))
    }

    /// The same of the given table `number`: each key, its segment, and whether
    /// a row was given.
    pub fn cold_keys_given(&self, number: usize) -> Option<String> {
        let at = self.time_in_key().filter(|_| self.is_cold())?;
        let keys: Vec<String> =
            (0..self.key_width()).map(|at| format!("g.{}::pg_catalog.text", key(at))).collect();
        Some(format!(
            "SELECT ARRAY[{}], s.segment, g.{HERE} FROM {} AS g CROSS JOIN LATERAL ( \
               SELECT {} AS segment FROM {} AS x WHERE {}{} OFFSET 0) AS s WHERE true{} ORDER BY 1",
            keys.join(", "),
            given(number),
            self.segment_values(),
            self.table.name,
            self.of_given(),
            self.cold(&format!("x.{}", self.time())),
            self.cold(&format!("g.{}", key(at))),
        ))
    }

    /// The row of `cold` by literals alone.
    fn literally(&self, cold: &Cold) -> String {
        let value = |at: usize| cold.key.get(at).map_or("NULL".into(), |text| sql::literal(text));
        let mut text = self.matches("x", value);
        for (column, value) in self.segments().iter().zip(&cold.segment) {
            text.push_str(&match value {
                Some(value) => {
                    format!(" AND x.{} = {}::{}", column.name, sql::literal(value), column.cast)
                }
                None => format!(" AND x.{} IS NULL", column.name),
            });
        }
        text
    }

    /// Changes the stored row of `cold` as the set would: to `row` where there
    /// is one, and away where there is none.
    pub fn change_cold(&self, cold: &Cold, row: Option<&str>, mode: Mode) -> String {
        let stays = row.filter(|_| mode == Mode::Update);
        let given = stays.map(|row| {
            let row = sql::literal(row);
            format!("(SELECT {row}::{} AS {ROW} OFFSET 0) AS y", self.table.name)
        });
        self.change(cold, given, &format!("(y.{ROW})"))
    }

    /// The same with the row of the given table `number`, if it has one.
    pub fn change_cold_given(&self, cold: &Cold, number: usize, here: bool, mode: Mode) -> String {
        let own: Vec<String> = self
            .table
            .key_columns()
            .enumerate()
            .zip(&cold.key)
            .map(|((at, column), value)| {
                format!("g.{} = {}::{}", key(at), sql::literal(value), column.cast)
            })
            .collect();
        let given = (here && mode == Mode::Update).then(|| {
            format!(
                "(SELECT g.* FROM {} AS g WHERE {} OFFSET 0) AS y",
                given(number),
                own.join(" AND ")
            )
        });
        self.change(cold, given, "y")
    }

    fn change(&self, cold: &Cold, given: Option<String>, row: &str) -> String {
        let (name, own) = (&self.table.name, self.literally(cold));
        let Some(given) = given else {
            return format!("DELETE FROM {name} AS x WHERE {own}; ");
        };
        let set: Vec<String> =
            self.updated().map(|column| format!("{column} = {row}.{column}")).collect();
        if set.is_empty() {
            return String::new();
        }
        format!("UPDATE {name} AS x SET {} FROM {given} WHERE {own}; ", set.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use webhost_proto::ids::TenantId;

    use super::*;
    use crate::mover::catalog::Table;
    use crate::mover::hypertable::Hypertable;
    use crate::mover::membership::Membership;

    fn column(name: &str, cast: &str) -> Column {
        Column {
            name: sql::ident(name),
            cast: cast.into(),
            full_type: cast.into(),
            not_null: true,
            generated: false,
            identity_always: false,
            text_only: false,
        }
    }

    fn positions() -> Table {
        Table {
            name: "public.gps_positions".into(),
            membership: Membership::Column("\"customer_id\"".into()),
            time: None,
            dependents: Vec::new(),
            partitioned: false,
            hypertable: Some(Hypertable {
                time: "\"recorded_at\"".into(),
                cast: "timestamp with time zone".into(),
                compression: true,
                segment_by: vec!["\"customer_id\"".into(), "\"vehicle_id\"".into()],
            }),
            columns: vec![
                column("id", "uuid"),
                column("customer_id", "uuid"),
                column("vehicle_id", "uuid"),
                column("recorded_at", "timestamp with time zone"),
                column("speed", "real"),
            ],
            key: vec![0, 3],
            foreign_keys: Vec::new(),
            constraints: Vec::new(),
            uniques: Vec::new(),
            sequences: Vec::new(),
        }
    }

    const TENANT: &str = "'00000000-0000-0000-0000-000000000007'::pg_catalog.uuid";

    /// Every statement that a move to a hypertable with compressed chunks
    /// runs; what it must look like is the file beside this one.
    #[test]
    fn keys_in_compressed_chunks_are_changed_by_literals() {
        let table = positions();
        let mut sql = TableSql {
            table: &table,
            tenant: sql::tenant_literal(TenantId(uuid::Uuid::from_u128(7))),
            retain_from_us: 0,
            carries_all: false,
            cold_until: None,
        };
        let arg = |at: usize| format!("${}::text[]", at + 1);
        assert_eq!(sql.cold_keys(&arg), None);
        assert_eq!(sql.cold_keys_given(3), None);
        let open = sql.delete(&arg, "$3::text[]", Mode::Update);
        assert!(open.ends_with("AND k.rec IS NULL"), "{open}");
        assert_eq!(sql.tenant(), TENANT);

        sql.set_cold_until(Some("2026-11-15 00:00:00+00".into()));
        let cold = Cold {
            key: vec!["0a".into(), "2026-11-14 10:00:00.5+00".into()],
            segment: vec![Some("0b".into())],
        };
        let alone =
            Cold { segment: vec![None], ..Cold { key: cold.key.clone(), segment: Vec::new() } };
        let text = [
            ("delete", sql.delete(&arg, "$3::text[]", Mode::Update)),
            ("update", sql.update("$1::text[]").expect("columns")),
            ("keys below", sql.cold_keys(&arg).expect("cold")),
            ("one key gone", sql.change_cold(&cold, None, Mode::Update)),
            ("one key changed", sql.change_cold(&cold, Some("(it's)"), Mode::Update)),
            ("one key replaced", sql.change_cold(&cold, Some("(it's)"), Mode::Replace)),
            ("one key without segment", sql.change_cold(&alone, None, Mode::Update)),
            ("delete in bulk", sql.delete_given(3, Mode::Update)),
            ("update in bulk", sql.update_given(3).expect("columns")),
            ("keys below, in bulk", sql.cold_keys_given(3).expect("cold")),
            ("one key gone, in bulk", sql.change_cold_given(&cold, 3, false, Mode::Update)),
            ("one key changed, in bulk", sql.change_cold_given(&cold, 3, true, Mode::Update)),
        ]
        .map(|(what, text)| format!("-- {what}\n{}\n", text.trim_end()))
        .concat();
        assert_eq!(text, include_str!("cold.golden.sql"), "\n{text}");
    }
}
