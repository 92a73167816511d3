//! The tenant's rows: on the source, not on the target, and in nobody's way.

use crate::mover::catalog::{Catalog, Column, Table};
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::fence::{self, State};
use crate::mover::report::{Preflight, Topic};
use crate::mover::run::{Pair, Run};
use crate::mover::sql;
use crate::mover::statements::TableSql;

/// Rows of a table whose unique values are looked up on the target one by one;
/// above it a collision is found by the copy itself, which then stops.
const LOOKED_UP: u64 = 20_000;

/// What one row of a table takes, in bytes.
pub(super) struct RowBytes {
    pub(super) row: u64,
    /// With its share of the indexes.
    pub(super) with_indexes: u64,
}

/// The averages over all rows of a table; a guess where it was never counted.
pub(super) async fn row_bytes(conn: &Conn, table: &Table) -> Result<RowBytes, MoveError> {
    // Compressed chunks say nothing about the size that their rows will have.
    let open = match table.hypertable {
        Some(_) => {
            "and not exists (select 1 from timescaledb_information.chunks k where k.is_compressed \
             and to_regclass(format('%I.%I', k.chunk_schema, k.chunk_name)) = c.oid)"
        }
        None => "",
    };
    let row = conn
        .one(
            &format!("select coalesce((sum(pg_table_size(c.oid)) / nullif(sum(greatest(c.reltuples, 0)), 0))::int8, 200), \
             coalesce((sum(pg_total_relation_size(c.oid)) / nullif(sum(greatest(c.reltuples, 0)), 0))::int8, 300) \
             from pg_class c where (c.oid = $1::text::regclass \
             or c.oid in (select relid from pg_partition_tree($1::text::regclass)) \
             or c.oid in (select inhrelid from pg_inherits where inhparent = $1::text::regclass)) {open}"),
            &[&table.name],
        )
        .await?;
    let bytes = |at: usize| row.get::<_, i64>(at).clamp(1, 1_000_000).cast_unsigned();
    Ok(RowBytes { row: bytes(0), with_indexes: bytes(1) })
}

/// Whether the target's rows of the tenant were left by this very move.
pub(super) async fn ours(run: &Run, target: &Conn) -> Result<bool, MoveError> {
    let fence = fence::read(target, run.spec.tenant, false).await?;
    Ok(fence.is_some_and(|fence| {
        fence.state == State::Standby && fence.move_id == Some(run.spec.move_id)
    }))
}

pub(super) async fn absent(
    target: &Conn,
    sql: &TableSql<'_>,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let found: bool = target
        .one(
            &format!(
                "select exists (select 1 from {} x where {})",
                sql.table.name,
                sql.of_tenant("x")
            ),
            &[],
        )
        .await?
        .get(0);
    if found {
        report.problem(
            Topic::Rows,
            format!("table {} on the target holds rows of the tenant already", sql.table.name),
            "no move of ours left them; find out who did, and delete them",
        );
    }
    Ok(())
}

/// Values of the tenant's unique keys that another tenant's row on the target
/// has already.
pub(super) async fn collisions(
    run: &Run,
    pair: &Pair,
    table: &Table,
    rows: u64,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let name = &table.name;
    let crowded: bool =
        pair.target.one(&format!("select exists (select 1 from {name})"), &[]).await?.get(0);
    if rows > LOOKED_UP || !crowded {
        return Ok(());
    }
    let sql = TableSql::new(table, &run.spec);
    let primary: Vec<String> = table.key_columns().map(|column| column.name.clone()).collect();
    for unique in std::iter::once(&primary).chain(&table.uniques) {
        if theirs_alone(table, unique) && !(unique == &primary && primary.len() == 1) {
            continue;
        }
        let columns: Vec<&Column> =
            unique.iter().filter_map(|u| table.columns.iter().find(|c| c.name == *u)).collect();
        let values: Vec<String> =
            columns.iter().map(|column| format!("array_agg(x.{}::text)", column.name)).collect();
        let row = pair
            .source
            .one(
                &format!(
                    "select {} from (select * from {name} as x where {} limit {LOOKED_UP}) as x",
                    values.join(", "),
                    sql.of_tenant("x")
                ),
                &[],
            )
            .await?;
        let values: Vec<Option<Vec<Option<String>>>> =
            (0..columns.len()).map(|at| row.get(at)).collect();
        let Some(values) = values.into_iter().collect::<Option<Vec<_>>>() else { continue };
        let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            values.iter().map(|column| column as _).collect();
        let args: Vec<String> = (1..=columns.len()).map(|at| format!("${at}::text[]")).collect();
        let names: Vec<String> = (1..=columns.len()).map(|at| format!("v{at}")).collect();
        let same: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| format!("x.{} = (v.v{})::{}", column.name, at + 1, column.cast))
            .collect();
        let hits = pair
            .target
            .query(
                &format!(
                    "select distinct concat_ws(',', {}) from unnest({}) as v({}) join {name} as x on {} \
                     where ({}) is not true limit 3",
                    names.iter().map(|n| format!("v.{n}")).collect::<Vec<_>>().join(", "),
                    args.join(", "),
                    names.join(", "),
                    same.join(" and "),
                    sql.of_tenant("x"),
                ),
                &params,
            )
            .await?;
        for row in &hits {
            let value: String = row.get(0);
            report.problem(
                Topic::Rows,
                format!(
                    "{name} ({}) = {value} belongs to another tenant on the target",
                    unique.join(", ")
                ),
                "change one of the two; on one server the value must be unique",
            );
        }
    }
    Ok(())
}

/// Whether a unique key holds what only one tenant has, so that no other's row
/// can have the same.
fn theirs_alone(table: &Table, unique: &[String]) -> bool {
    match table.membership.hops().first() {
        None => table.membership.column().is_some_and(|column| unique.iter().any(|u| u == column)),
        Some(hop) => hop.columns.iter().all(|column| unique.contains(column)),
    }
}

pub(super) async fn tenant_is_here(
    run: &Run,
    source: &Conn,
    here: &Catalog,
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let own = here
        .tables
        .iter()
        .find(|table| table.membership.column().is_some_and(|column| column == sql::ident("id")));
    if let Some(table) = own {
        let sql = TableSql::new(table, &run.spec);
        let found: bool = source
            .one(
                &format!(
                    "select exists (select 1 from {} x where {})",
                    table.name,
                    sql.of_tenant("x")
                ),
                &[],
            )
            .await?
            .get(0);
        if !found {
            report.problem(
                Topic::Rows,
                format!("tenant {} has no row in {} of the source", run.spec.tenant, table.name),
                "",
            );
        }
    }
    Ok(())
}
