//! Every object that a move ever makes, and what may stay of them.

use std::collections::BTreeSet;
use std::path::Path;

use tokio_postgres::Config;

use crate::writers::session;

/// What a database holds besides its rows, one line each.
pub type Objects = BTreeSet<String>;

/// Relations of every kind, triggers, functions, types, schemas, policies,
/// publications, prepared transactions, slots, and who holds advisory locks.
const QUERY: &str = "
    select 'relation ' || c.relkind::text || ' ' || c.oid::regclass::text from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      where n.nspname !~ '^(pg_toast|pg_catalog$|information_schema$)'
    union all select 'trigger ' || tgname || ' on ' || tgrelid::regclass || ' ' || tgenabled::text
      from pg_trigger where not tgisinternal
    union all select 'function ' || oid::regprocedure from pg_proc where oid >= 16384
    union all select 'type ' || oid::regtype from pg_type where oid >= 16384 and typtype in ('e', 'd')
    union all select 'schema ' || nspname from pg_namespace where nspname !~ '^pg_(toast|temp)'
    union all select 'policy ' || polname || ' on ' || polrelid::regclass from pg_policy
    union all select 'row security ' || oid::regclass from pg_class where relrowsecurity
    union all select 'constraint ' || conname || ' on ' || conrelid::regclass || ' ' || convalidated::text
      from pg_constraint where conrelid <> 0
    union all select 'publication ' || pubname from pg_publication
    union all select 'slot ' || slot_name from pg_replication_slots where database = current_database()
    union all select 'prepared ' || gid from pg_prepared_xacts where database = current_database()
    union all select 'advisory lock ' || l.classid || ' ' || l.objid || ' of ' || a.application_name
      from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory'
      and l.database = (select oid from pg_database where datname = current_database())
      and a.application_name like 'webhost-mover%'
    union all select 'session ' || application_name from pg_stat_activity
      where datname = current_database() and application_name like 'webhost-mover%'
    union all select 'setting ' || unnest(setconfig) from pg_db_role_setting
    union all select 'large object ' || oid from pg_largeobject_metadata";

/// What is there now.
///
/// # Errors
/// What the database says.
pub async fn objects(config: &Config) -> anyhow::Result<Objects> {
    let (client, _driver) = session(config).await?;
    Ok(client.query(QUERY, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// What is there now and was not before, and the other way round; where a
/// `tombstone` may stay, all but our schema with its empty tables and the
/// fence row.
pub fn leftovers(before: &Objects, now: &Objects, tombstone: bool) -> Objects {
    let kept = |object: &String| {
        let table = ["fence", "moves", "copied"]
            .iter()
            .any(|table| object.contains(&format!("webhost_fleet.{table}")));
        tombstone && (table || object == "schema webhost_fleet")
    };
    let mut wrong: Objects =
        now.difference(before).filter(|object| !kept(object)).cloned().collect();
    wrong.extend(before.difference(now).map(|object| format!("lost: {object}")));
    wrong
}

/// Files of open moves in an agent's state directory.
pub(super) fn state_files(dir: &Path) -> Objects {
    let mut found = Objects::new();
    for part in ["moves", "tunnels"] {
        for entry in std::fs::read_dir(dir.join(part)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // The fail points' own marks are the test's.
            if !name.starts_with(webhost_agent::mover::fail::MARKER) {
                found.insert(format!("file {part}/{name}"));
            }
        }
    }
    found
}
