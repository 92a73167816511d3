//! The extension's answers about its hypertables.

use std::collections::BTreeMap;

use super::Hypertable;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::sql;

/// The extension of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::mover) struct Version {
    /// None where the views are there, and no extension of that name.
    pub(in crate::mover) extension: Option<String>,
    /// PostgreSQL's major version.
    pub(in crate::mover) server: i32,
}

/// One hypertable as the extension describes it.
#[derive(Clone, Debug)]
pub(in crate::mover) struct Found {
    pub(in crate::mover) table: Hypertable,
    pub(in crate::mover) version: Version,
    pub(in crate::mover) dimensions: i64,
    /// As PostgreSQL prints the interval, or a number.
    pub(in crate::mover) interval: String,
    /// How rows of a compressed segment are ordered.
    pub(in crate::mover) order_by: Vec<String>,
    pub(in crate::mover) chunks: i64,
    pub(in crate::mover) compressed: i64,
    /// What holds the rows of chunks, where it is not a heap.
    pub(in crate::mover) storage: Vec<String>,
    /// Over all chunks; the hypertable's own count is always 0.
    pub(in crate::mover) rows: u64,
}

const HYPERTABLES: &str = "
select format('%I.%I', h.hypertable_schema, h.hypertable_name),
       d.column_name::text, d.column_type::text, h.compression_enabled, h.num_dimensions::int8,
       coalesce(d.time_interval::text, d.integer_interval::text, ''),
       h.num_chunks::int8,
       (select count(*) from timescaledb_information.chunks c
        where c.hypertable_schema = h.hypertable_schema and c.hypertable_name = h.hypertable_name and c.is_compressed),
       array(select distinct coalesce(a.amname::text, 'a foreign table')
             from pg_inherits i join pg_class c on c.oid = i.inhrelid left join pg_am a on a.oid = c.relam
             where i.inhparent = r.oid and c.relkind in ('r', 'f') and a.amname is distinct from 'heap' order by 1),
       greatest(coalesce((select sum(greatest(c.reltuples, 0)) from pg_inherits i join pg_class c on c.oid = i.inhrelid
                 where i.inhparent = r.oid), 0), 0)::int8
from timescaledb_information.hypertables h
join timescaledb_information.dimensions d on d.hypertable_schema = h.hypertable_schema
     and d.hypertable_name = h.hypertable_name and d.dimension_number = 1
cross join lateral (select to_regclass(format('%I.%I', h.hypertable_schema, h.hypertable_name))::oid) r(oid)
where r.oid is not null
order by 1";

/// The columns of compressed rows; the one view of them that every version
/// since 2.11 has.
const COMPRESSION: &str = "
select format('%I.%I', s.hypertable_schema, s.hypertable_name), s.attname::text,
       s.segmentby_column_index is not null,
       format('%I %s %s', s.attname, case when s.orderby_asc then 'asc' else 'desc' end,
              case when s.orderby_nullsfirst then 'nulls first' else 'nulls last' end)
from timescaledb_information.compression_settings s
where s.segmentby_column_index is not null or s.orderby_column_index is not null
order by 1, s.segmentby_column_index, s.orderby_column_index";

/// Every hypertable of the database by its quoted name; none without the
/// extension. Internal ones (compressed chunks, the content of continuous
/// aggregates) are not among them.
pub(in crate::mover) async fn hypertables(
    conn: &Conn,
) -> Result<BTreeMap<String, Found>, MoveError> {
    if !exists(conn, "timescaledb_information.hypertables").await? {
        return Ok(BTreeMap::new());
    }
    let version = version(conn).await?;
    let mut all: BTreeMap<String, Found> = conn
        .query(HYPERTABLES, &[])
        .await?
        .iter()
        .map(|row| {
            let found = Found {
                table: Hypertable {
                    time: sql::ident(row.get(1)),
                    cast: row.get(2),
                    compression: row.get::<_, Option<bool>>(3).unwrap_or(false),
                    segment_by: Vec::new(),
                },
                version: version.clone(),
                dimensions: row.get(4),
                interval: row.get(5),
                order_by: Vec::new(),
                chunks: row.get(6),
                compressed: row.get(7),
                storage: row.get(8),
                rows: row.get::<_, i64>(9).max(0).cast_unsigned(),
            };
            (row.get(0), found)
        })
        .collect();
    if exists(conn, "timescaledb_information.compression_settings").await? {
        for row in conn.query(COMPRESSION, &[]).await? {
            let Some(found) = all.get_mut(row.get::<_, &str>(0)) else { continue };
            if row.get(2) {
                found.table.segment_by.push(sql::ident(row.get(1)));
            } else {
                found.order_by.push(row.get(3));
            }
        }
    }
    Ok(all)
}

/// What the database runs.
pub(in crate::mover) async fn version(conn: &Conn) -> Result<Version, MoveError> {
    let row = conn
        .one(
            "select (select extversion from pg_extension where extname = 'timescaledb'), \
             current_setting('server_version_num')::int4 / 10000",
            &[],
        )
        .await?;
    Ok(Version { extension: row.get(0), server: row.get(1) })
}

/// The schema of the extension's functions; quoted.
pub(in crate::mover) async fn functions(conn: &Conn) -> Result<String, MoveError> {
    let row = conn
        .one(
            "select coalesce((select quote_ident(n.nspname) from pg_extension e \
               join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb'), 'public')",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

pub(in crate::mover) async fn exists(conn: &Conn, relation: &str) -> Result<bool, MoveError> {
    Ok(conn.one("select to_regclass($1::text) is not null", &[&relation]).await?.get(0))
}
