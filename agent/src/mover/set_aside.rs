//! Indexes put aside while the copy fills a large, empty table.
//!
//! Only on a node that serves this tenant alone and will serve no other:
//! elsewhere somebody would miss them. Only indexes that can be built again
//! exactly as they were, and that nothing depends on: a primary key that a
//! foreign key points at stays.
//!
//! **Invariant:** an index is away exactly when its definition is in the
//! move's row on the target: both change in one transaction, in both
//! directions. So every step begins by bringing back what an earlier run left
//! away, whatever became of that run, and nothing but the copy ever meets a
//! table without its indexes.

use serde::{Deserialize, Serialize};

use super::catalog::Table;
use super::connect::Conn;
use super::error::MoveError;
use super::guard::patiently;
use super::run::Run;
use super::spec::Spec;
use super::sql::{self, SCHEMA};

/// An index that is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Away {
    /// For a person.
    name: String,
    /// The statement that builds it again.
    create: String,
}

/// The table held rows after all. Class `MG`: ours.
const NOT_EMPTY: &str = "MG003";

/// Puts the indexes of those `tables` aside that hold no row of anybody.
///
/// # Errors
/// [`MoveError::Blocked`] when a table stayed locked; nothing of it is away
/// then.
pub(super) async fn away<'a>(
    run: &Run,
    target: &Conn,
    tables: impl Iterator<Item = &'a Table>,
) -> Result<(), MoveError> {
    for table in tables {
        let rows = target.query(CANDIDATES, &[&table.name]).await?;
        if rows.is_empty() {
            continue;
        }
        let mut all = read(&run.spec, target).await?;
        let mut drops = String::new();
        for row in &rows {
            drops.push_str(row.get(1));
            drops.push_str("; ");
            all.push(Away { name: row.get(0), create: row.get(2) });
        }
        // Under the table's lock nobody can come between the look and the
        // drop.
        let ddl = format!(
            "LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE; \
             DO $webhost$ BEGIN IF EXISTS (SELECT FROM {name}) THEN \
               RAISE EXCEPTION 'not empty' USING ERRCODE = '{NOT_EMPTY}'; END IF; END $webhost$; \
             {remember}; {drops}",
            name = table.name,
            remember = remember(&run.spec, &all)?,
        );
        match patiently(target, &table.name, &ddl).await {
            Ok(()) => tracing::info!(table = %table.name, indexes = rows.len(), "put aside"),
            Err(error) if error.code().is_some_and(|code| code.code() == NOT_EMPTY) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Brings back every index that is away, telling each name before; answers
/// how many there were. Idempotent; needs nothing but the target's database.
///
/// # Errors
/// What the database said; what is back stays back.
pub(super) async fn back(
    spec: &Spec,
    target: &Conn,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<u64, MoveError> {
    let exists: bool = target
        .one(
            "select exists (select from pg_attribute where attrelid = to_regclass($1::text) \
             and attname = 'set_aside' and not attisdropped)",
            &[&format!("{SCHEMA}.moves")],
        )
        .await?
        .get(0);
    if !exists {
        return Ok(0);
    }
    let mut all = read(spec, target).await?;
    if all.is_empty() {
        return Ok(0);
    }
    // As much memory as the server's owner gave half of its cache.
    target
        .batch(
            "SELECT set_config('maintenance_work_mem', greatest( \
               (SELECT setting::int8 FROM pg_settings WHERE name = 'maintenance_work_mem'), \
               least((SELECT setting::int8 * 4 FROM pg_settings WHERE name = 'shared_buffers'), 1048576) \
             )::text, false)",
        )
        .await?;
    let mut built = 0;
    while let Some(index) = all.pop() {
        tell(&index.name);
        // To wait for the table's lock is bounded like all our DDL; to build
        // under it is not, on a node where nobody else has rows.
        let ddl = format!("{}; {};", index.create, remember(spec, &all)?);
        patiently(target, &index.name, &ddl).await?;
        built += 1;
    }
    target.batch("RESET maintenance_work_mem").await?;
    Ok(built)
}

async fn read(spec: &Spec, target: &Conn) -> Result<Vec<Away>, MoveError> {
    let sql = format!("select set_aside from {SCHEMA}.moves where move_id = $1");
    let rows = target.query(&sql, &[&spec.move_id.0]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    serde_json::from_str(row.get(0)).map_err(|error| {
        MoveError::refused(format!("{SCHEMA}.moves.set_aside can't be read: {error}"))
    })
}

fn remember(spec: &Spec, all: &[Away]) -> Result<String, MoveError> {
    let json = serde_json::to_string(all)
        .map_err(|error| MoveError::Interrupted(format!("the list of indexes: {error}")))?;
    Ok(format!(
        "UPDATE {SCHEMA}.moves SET set_aside = {} WHERE move_id = {}",
        sql::literal(&json),
        sql::move_literal(spec.move_id)
    ))
}

/// Name, DROP and CREATE of each index of table `$1` that can go and come
/// back. What a plain CREATE INDEX or ADD CONSTRAINT would not restore stays:
/// another tablespace, options of a constraint's index, comments, statistics
/// targets, a replica identity, a clustering, and what something depends on.
const CANDIDATES: &str = "
select c.relname::text,
       case when k.oid is null then format('DROP INDEX %I.%I', n.nspname, c.relname)
            else format('ALTER TABLE %s DROP CONSTRAINT %I', $1::text, k.conname) end,
       case when k.oid is null
            -- A partitioned table's index is printed as one of the root alone.
            then regexp_replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
            else format('ALTER TABLE %s ADD CONSTRAINT %I %s', $1::text, k.conname,
                        pg_get_constraintdef(k.oid)) end
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_namespace n on n.oid = c.relnamespace
left join pg_constraint k on k.conindid = i.indexrelid and k.conrelid = i.indrelid
     and k.contype in ('p', 'u', 'x')
where i.indrelid = $1::text::regclass
  and i.indisvalid and i.indisready and i.indislive
  and not i.indisreplident and not i.indisclustered and not i.indisexclusion
  and (k.oid is null or not k.condeferrable)
  and not exists (
      select 1 from (select i.indexrelid as oid union select relid from pg_partition_tree(i.indexrelid)) t
      join pg_class x on x.oid = t.oid
      where x.reltablespace <> 0
         or (k.oid is not null and x.reloptions is not null)
         or obj_description(x.oid, 'pg_class') is not null
         or exists (select 1 from pg_attribute a where a.attrelid = x.oid
                    and coalesce(a.attstattarget, -1) <> -1)
         or exists (select 1 from pg_depend d where d.refclassid = 'pg_class'::regclass
                    and d.refobjid = x.oid and d.deptype = 'n'))
  and (k.oid is null or obj_description(k.oid, 'pg_constraint') is null
       and not exists (select 1 from pg_depend d where d.refclassid = 'pg_constraint'::regclass
                       and d.refobjid = k.oid and d.deptype = 'n'))
  and strpos(c.relname, ' ON ONLY ') = 0
order by 1";
