//! Which tables hold tenants' rows, as the catalog tells it: every table with
//! a `customer_id uuid`, and the tenants' own table, to which those columns'
//! foreign keys lead.

use tokio_postgres::Client;

use super::session::describe;

/// A table with tenants' rows. Partitions and hypertable chunks are part of
/// their root.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Quoted, with its schema.
    pub(super) sql: String,
    pub(super) schema: String,
    pub(super) name: String,
    /// The column with the tenant's id, as it stands in the catalog.
    pub(super) column: String,
    /// All partitions, indexes and out-of-line values, in bytes.
    pub(super) bytes: u64,
    /// As the statistics estimate; `None` when never analysed.
    pub(super) rows: Option<u64>,
    /// Statistics over its descendants are what counts.
    pub(super) inherited: bool,
}

/// The tenants' own table and what it says of them.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// Quoted, with its schema.
    pub(super) sql: String,
    /// Quoted.
    pub(super) key: String,
    /// SQL expressions of type text, `''` where there is no such column.
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) email: String,
}

/// A time series of positions that can be counted by an index.
#[derive(Clone, Debug)]
pub(super) struct Points {
    /// Quoted, with its schema.
    pub(super) sql: String,
    /// Quoted; follows `customer_id` in an index.
    pub(super) time: String,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Catalog {
    pub(super) own: Own,
    pub(super) tables: Vec<Table>,
    pub(super) points: Option<Points>,
}

const TABLES: &str = "
with recursive tenant as (
    select c.oid, n.nspname, c.relname
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_class c on c.oid = a.attrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where a.attname = 'customer_id' and a.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype
      and not a.attisdropped and c.relkind in ('r', 'p') and not c.relispartition
      and not exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid)
      and n.nspname not in ('information_schema', 'webhost_fleet')
      and n.nspname !~ '^(pg_|_timescaledb)'
), tree as (
    select oid as root, oid from tenant
    union all
    select tree.root, i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid
)
select t.nspname::text, t.relname::text,
       coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint,
       bool_or(c.reltuples < 0 and c.relkind = 'r'),
       coalesce(sum(greatest(c.reltuples, 0)) filter (where c.relkind = 'r'), 0)::bigint,
       count(*) > 1
from tenant t join tree on tree.root = t.oid join pg_catalog.pg_class c on c.oid = tree.oid
group by t.oid, t.nspname, t.relname
order by t.nspname, t.relname";

/// The table that most customer_id columns refer to, else one called customers.
const OWN: &str = "
with referred as (
    select f.confrelid as oid, f.confkey[1] as attnum, count(*) as times
    from pg_catalog.pg_constraint f
    join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and f.conkey = array[a.attnum]
    where f.contype = 'f' and a.attname = 'customer_id'
    group by 1, 2
    union all
    select c.oid, a.attnum, 0
    from pg_catalog.pg_class c
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'id'
    where c.relname = 'customers' and c.relkind in ('r', 'p')
      and pg_catalog.pg_table_is_visible(c.oid)
)
select n.nspname::text, c.relname::text, k.attname::text,
       pg_catalog.pg_total_relation_size(c.oid)::bigint, c.reltuples::bigint,
       array(select b.attname::text from pg_catalog.pg_attribute b
             where b.attrelid = c.oid and b.attnum > 0 and not b.attisdropped)
from referred r
join pg_catalog.pg_class c on c.oid = r.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute k on k.attrelid = c.oid and k.attnum = r.attnum
where k.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype
order by r.times desc, n.nspname, c.relname
limit 1";

/// Tables with positions, and the time that follows customer_id in an index.
const POINTS: &str = "
select n.nspname::text, c.relname::text, t.attname::text
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indrelid and c.relkind in ('r', 'p') and not c.relispartition
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute k on k.attrelid = c.oid and k.attnum = i.indkey[0] and k.attname = 'customer_id'
join pg_catalog.pg_attribute t on t.attrelid = c.oid and t.attnum = i.indkey[1]
     and t.atttypid = 'pg_catalog.timestamptz'::pg_catalog.regtype
where i.indisvalid and i.indpred is null
  and n.nspname !~ '^(pg_|_timescaledb)'
  and case when $1::text is null
      then exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = 'latitude')
       and exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = 'longitude')
      else c.oid = pg_catalog.to_regclass($1) end
order by c.reltuples desc, n.nspname, c.relname, t.attname
limit 1";

impl Catalog {
    /// Looks through the catalog.
    ///
    /// # Errors
    /// A sentence, when there are no tenants' tables or the database refuses.
    pub(super) async fn read(client: &Client, points_table: Option<&str>) -> Result<Self, String> {
        let refused = |error: tokio_postgres::Error| describe(&error);
        let own = client.query_opt(OWN, &[]).await.map_err(refused)?.ok_or(
            "no table of tenants: neither does a customer_id refer to one, nor is there a table \
             \"customers\" with an id of type uuid; has the application migrated this database?",
        )?;
        let (schema, name, key): (String, String, String) = (own.get(0), own.get(1), own.get(2));
        let columns: Vec<String> = own.get(5);
        let text = |column: &str| {
            if columns.iter().any(|known| known == column) {
                format!("coalesce({}::text, '')", quote(column))
            } else {
                "''".to_owned()
            }
        };
        let mut tables = vec![Table {
            sql: qualified(&schema, &name),
            bytes: unsigned(own.get(3)),
            rows: u64::try_from(own.get::<_, i64>(4)).ok(),
            inherited: false,
            column: key.clone(),
            schema: schema.clone(),
            name: name.clone(),
        }];
        let own = Own {
            sql: qualified(&schema, &name),
            key: quote(&key),
            slug: text("slug"),
            name: text("name"),
            email: text("email"),
        };
        for row in client.query(TABLES, &[]).await.map_err(refused)? {
            let (schema, name): (String, String) = (row.get(0), row.get(1));
            let never_analysed: bool = row.get(3);
            tables.push(Table {
                sql: qualified(&schema, &name),
                column: "customer_id".into(),
                bytes: unsigned(row.get(2)),
                rows: (!never_analysed).then(|| unsigned(row.get(4))),
                inherited: row.get(5),
                schema,
                name,
            });
        }
        let points = client
            .query_opt(POINTS, &[&points_table])
            .await
            .map_err(refused)?
            .map(|row| Points { sql: qualified(row.get(0), row.get(1)), time: quote(row.get(2)) });
        Ok(Self { own, tables, points })
    }
}

/// An identifier as SQL takes it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// PostgreSQL has no unsigned numbers; sizes and counts are never negative.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
