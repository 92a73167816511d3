//! The catalog's rows, as few queries as possible.

use std::collections::HashMap;

use super::{Column, ForeignKey, Table};
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::hypertable::Hypertables;
use crate::mover::hypertable::read::{Found, hypertables};
use crate::mover::membership::{Membership, Time};
use crate::mover::sql;

/// One table as the catalog describes it.
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) name: String,
    kind: String,
    pub(super) is_partition: bool,
    inherits: bool,
    pub(super) hypertable: Option<Found>,
    hidden_rows: bool,
    pub(super) rows: u64,
    pub(super) columns: Vec<RawColumn>,
    key: Vec<i16>,
    pub(super) foreign_keys: Vec<RawForeignKey>,
    constraints: Vec<String>,
    uniques: Vec<Vec<String>>,
    sequences: Vec<String>,
    late_triggers: Vec<String>,
    rules: bool,
    /// Triggers that fire in the replica role as well.
    pub(super) always_triggers: Vec<String>,
    /// Leaf partitions, and levels of partitioning.
    leaves: i64,
    levels: i32,
}

pub(super) struct RawColumn {
    pub(super) raw_name: String,
    number: i16,
    is_uuid: bool,
    pub(super) column: Column,
}

pub(super) struct RawForeignKey {
    pub(super) parent_oid: u32,
    pub(super) key: ForeignKey,
    pub(super) deferrable: bool,
    /// Deletes the row with its parent.
    pub(super) cascades: bool,
    /// An index begins with the columns.
    pub(super) indexed: bool,
}

impl Relation {
    /// Why this table's rows can't be moved; none when they can. `tenant` is
    /// the quoted column that names the tenant, where one does.
    pub(super) fn refusal(&self, tenant: Option<&str>, rule: Hypertables) -> Option<String> {
        if self.kind == "f" {
            return Some("it is a foreign table".into());
        }
        if let Some(found) = &self.hypertable {
            let key = self.columns.iter().filter(|c| self.key.contains(&c.number));
            let key: Vec<&str> = key.map(|c| c.column.name.as_str()).collect();
            if let Some(reason) = found.refusal(rule, tenant, &key) {
                return Some(reason);
            }
        }
        // A hypertable's chunks inherit from it.
        if self.inherits && self.hypertable.is_none() {
            return Some("it takes part in table inheritance".into());
        }
        if let Some(tenant) = tenant {
            match self.columns.iter().find(|c| c.column.name == tenant) {
                None => return Some(format!("it has no column {}", sql::bare(tenant))),
                Some(column) if !column.is_uuid => {
                    return Some(format!(
                        "its column {} is {}, not uuid",
                        column.raw_name, column.column.full_type
                    ));
                }
                Some(_) => {}
            }
        }
        if self.key.is_empty() {
            return Some(
                "it has no primary key: give it one, or name it in ignore_tables if its rows may stay behind"
                    .into(),
            );
        }
        let generated =
            self.columns.iter().find(|c| self.key.contains(&c.number) && c.column.generated);
        if let Some(column) = generated {
            return Some(format!("its primary key has the generated column {}", column.raw_name));
        }
        if self.hidden_rows {
            return Some(
                "row level security hides rows from the agent's role: ALTER ROLE … BYPASSRLS, or a policy for it"
                    .into(),
            );
        }
        if let Some(trigger) = self.late_triggers.first() {
            return Some(format!(
                "its trigger {trigger} would run after the guard: rename it to sort before zzz_webhost_fleet"
            ));
        }
        if self.rules {
            return Some("it has rewrite rules".into());
        }
        None
    }

    /// Whether the columns (quoted) can't be null.
    pub(super) fn never_null(&self, columns: &[String]) -> bool {
        columns.iter().all(|name| {
            self.columns.iter().any(|column| column.column.name == *name && column.column.not_null)
        })
    }

    /// What is worth knowing about the table, for its verdict.
    pub(super) fn traits(&self) -> String {
        let mut parts = Vec::new();
        if let Some(found) = &self.hypertable {
            parts.push(found.traits());
        } else if self.kind == "p" {
            parts.push(format!("{} partitions at {} levels", self.leaves, self.levels));
        }
        let generated: Vec<&str> = self
            .columns
            .iter()
            .filter(|c| c.column.generated)
            .map(|c| c.raw_name.as_str())
            .collect();
        if !generated.is_empty() {
            parts.push(format!("computed there: {}", generated.join(", ")));
        }
        if !self.sequences.is_empty() {
            parts.push(format!("sequences: {}", self.sequences.join(", ")));
        }
        if self.columns.iter().any(|c| c.column.text_only && !c.column.generated) {
            parts.push("copied as text".into());
        }
        if self.foreign_keys.iter().any(|key| key.parent_oid == self.oid) {
            parts.push("points to itself".into());
        }
        if parts.is_empty() { String::new() } else { format!("; {}", parts.join("; ")) }
    }

    /// The table as the mover works with it.
    pub(super) fn table(&self, membership: Membership, time: Option<Time>) -> Table {
        let key = self
            .key
            .iter()
            .filter_map(|number| self.columns.iter().position(|c| c.number == *number))
            .collect();
        Table {
            name: self.name.clone(),
            membership,
            time,
            dependents: Vec::new(),
            partitioned: self.kind == "p",
            hypertable: self.hypertable.as_ref().map(|found| found.table.clone()),
            columns: self.columns.iter().map(|c| c.column.clone()).collect(),
            key,
            foreign_keys: self.foreign_keys.iter().map(|key| key.key.clone()).collect(),
            constraints: self.constraints.clone(),
            uniques: self.uniques.clone(),
            sequences: self.sequences.clone(),
        }
    }
}

const RELATIONS: &str = "
select c.oid, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.relkind::text,
       c.relispartition,
       not c.relispartition and exists (
           select 1 from pg_inherits i join pg_class p on p.oid = i.inhparent
           where (i.inhrelid = c.oid or i.inhparent = c.oid) and p.relkind <> 'p'),
       c.relrowsecurity and row_security_active(c.oid),
       greatest(case when c.relkind = 'p'
           then (select sum(greatest(l.reltuples, 0)) from pg_partition_tree(c.oid) t
                 join pg_class l on l.oid = t.relid where t.isleaf)
           else c.reltuples end, 0)::int8,
       coalesce((select k.conkey from pg_constraint k
                 where k.conrelid = c.oid and k.contype = 'p'), '{}'::int2[]),
       array(select pg_get_constraintdef(k.oid) from pg_constraint k
             where k.conrelid = c.oid and k.contype in ('p', 'u', 'c', 'x') order by 1),
       array(select format('%I.%I', sn.nspname, s.relname)
             from pg_class s join pg_namespace sn on sn.oid = s.relnamespace
             where s.relkind = 'S' and (
                 exists (select 1 from pg_depend d where d.classid = 'pg_class'::regclass
                         and d.objid = s.oid and d.refobjid = c.oid and d.deptype in ('a', 'i'))
                 or exists (select 1 from pg_depend d join pg_attrdef f on f.oid = d.objid
                            where d.classid = 'pg_attrdef'::regclass and d.refobjid = s.oid
                            and f.adrelid = c.oid))
             order by 1),
       array(select t.tgname::text from pg_trigger t
             where t.tgrelid = c.oid and not t.tgisinternal and t.tgtype & 3 = 3
             and t.tgname > 'zzz_webhost_fleet_' and t.tgname not like 'zzz\\_webhost\\_fleet\\_%'),
       exists (select 1 from pg_rewrite r where r.ev_class = c.oid),
       array(select distinct t.tgname::text from pg_trigger t
             join pg_proc f on f.oid = t.tgfoid join pg_namespace fn on fn.oid = f.pronamespace
             where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('A', 'R')
             and fn.nspname not like '\\_timescaledb%' order by 1),
       case when c.relkind = 'p' then (select count(*) from pg_partition_tree(c.oid) t where t.isleaf) else 0 end,
       case when c.relkind = 'p' then (select max(t.level) from pg_partition_tree(c.oid) t) else 0 end
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't'
  and n.nspname not like 'pg\\_%' and n.nspname not like '\\_timescaledb%'
  and n.nspname not in ('information_schema', 'webhost_fleet', 'timescaledb_information')
  and not exists (select 1 from pg_depend d where d.classid = 'pg_class'::regclass
                  and d.objid = c.oid and d.deptype = 'e')
  and not exists (select 1 from pg_inherits i join pg_class p on p.oid = i.inhparent
                  join pg_namespace pn on pn.oid = p.relnamespace
                  where i.inhrelid = c.oid and format('%I.%I', pn.nspname, p.relname) = any($1))
order by 4";

const COLUMNS: &str = "
select a.attrelid, a.attnum, a.attname::text, quote_ident(a.attname),
       format_type(a.atttypid, -1), format_type(a.atttypid, a.atttypmod)
           || case when co.oid is null or co.collname = 'default' then '' else ' collate ' || co.collname end,
       a.attnotnull, a.attgenerated <> '',
       a.atttypid = 'uuid'::regtype,
       (t.typcategory = 'A' and t.typelem >= 16384) or t.typtype = 'c'
           or (t.typtype = 'd' and exists (select 1 from pg_type b where b.oid = t.typbasetype
               and (b.typtype = 'c' or (b.typcategory = 'A' and b.typelem >= 16384)))),
       a.attidentity = 'a'
from pg_attribute a join pg_type t on t.oid = a.atttypid
left join pg_collation co on co.oid = a.attcollation
where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum";

const FOREIGN_KEYS: &str = "
select k.conrelid, k.conname::text, k.confrelid,
       (select format('%I.%I', n.nspname, c.relname)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = k.confrelid),
       array(select quote_ident(a.attname) from unnest(k.conkey) with ordinality u(n, o)
             join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n order by u.o),
       array(select quote_ident(a.attname) from unnest(k.confkey) with ordinality u(n, o)
             join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.n order by u.o),
       k.condeferrable, k.confdeltype = 'c',
       exists (select 1 from pg_index i where i.indrelid = k.conrelid and i.indisvalid and i.indpred is null
               and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
from pg_constraint k
where k.contype = 'f' and k.conrelid = any($1) and k.conparentid = 0
order by k.conrelid, k.conname";

const UNIQUES: &str = "
select i.indrelid,
       array(select quote_ident(a.attname) from unnest(i.indkey::int2[]) with ordinality u(n, o)
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.n
             where u.o <= i.indnkeyatts order by u.o)
from pg_index i
where i.indrelid = any($1) and i.indisunique and not i.indisprimary
  and i.indexprs is null and i.indpred is null
order by 1, 2";

/// Every user table of the database.
pub(super) async fn relations(conn: &Conn) -> Result<Vec<Relation>, MoveError> {
    let mut hypertables = hypertables(conn).await?;
    let roots: Vec<&str> = hypertables.keys().map(String::as_str).collect();
    // Chunks are left out, in whatever schema they are.
    let rows = conn.query(RELATIONS, &[&roots]).await?;
    let mut relations: Vec<Relation> = rows
        .iter()
        .map(|row| {
            let name: String = row.get(3);
            let hypertable = hypertables.remove(&name);
            let rows = row.get::<_, i64>(8).max(0).cast_unsigned();
            Relation {
                oid: row.get(0),
                schema: row.get(1),
                table: row.get(2),
                name,
                kind: row.get(4),
                is_partition: row.get(5),
                inherits: row.get(6),
                hidden_rows: row.get(7),
                rows: hypertable.as_ref().map_or(rows, |found| found.rows),
                hypertable,
                columns: Vec::new(),
                key: row.get(9),
                foreign_keys: Vec::new(),
                constraints: row.get(10),
                uniques: Vec::new(),
                sequences: row.get(11),
                late_triggers: row.get(12),
                rules: row.get(13),
                always_triggers: row.get(14),
                leaves: row.get(15),
                levels: row.get(16),
            }
        })
        .collect();
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let place: HashMap<u32, usize> = oids.iter().enumerate().map(|(at, oid)| (*oid, at)).collect();
    let mut of = |oid: u32, work: &mut dyn FnMut(&mut Relation)| {
        if let Some(relation) = place.get(&oid).and_then(|at| relations.get_mut(*at)) {
            work(relation);
        }
    };

    for row in conn.query(COLUMNS, &[&oids]).await? {
        of(row.get(0), &mut |relation| {
            relation.columns.push(RawColumn {
                number: row.get(1),
                raw_name: row.get(2),
                is_uuid: row.get(8),
                column: Column {
                    // `quote_ident` leaves plain names bare; ours are always
                    // quoted, so that the two sides compare equal.
                    name: sql::ident(row.get(2)),
                    cast: row.get(4),
                    full_type: row.get(5),
                    not_null: row.get(6),
                    generated: row.get(7),
                    text_only: row.get(9),
                    identity_always: row.get(10),
                },
            });
        });
    }
    for row in conn.query(FOREIGN_KEYS, &[&oids]).await? {
        of(row.get(0), &mut |relation| {
            relation.foreign_keys.push(RawForeignKey {
                parent_oid: row.get(2),
                key: ForeignKey {
                    name: row.get(1),
                    parent: row.get(3),
                    columns: quoted(row.get(4)),
                    parent_columns: quoted(row.get(5)),
                },
                deferrable: row.get(6),
                cascades: row.get(7),
                indexed: row.get(8),
            });
        });
    }
    for row in conn.query(UNIQUES, &[&oids]).await? {
        of(row.get(0), &mut |relation| relation.uniques.push(quoted(row.get(1))));
    }
    Ok(relations)
}

/// Names as `quote_ident` prints them, always in quotes.
fn quoted(names: Vec<String>) -> Vec<String> {
    names
        .into_iter()
        .map(|name| if name.starts_with('"') { name } else { sql::ident(&name) })
        .collect()
}
