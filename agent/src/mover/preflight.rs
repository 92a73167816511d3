//! Everything that could stand against a move, found before it starts, and
//! told together.

use std::collections::BTreeSet;

use super::catalog::{self, Catalog, Table};
use super::connect::Conn;
use super::copy;
use super::error::MoveError;
use super::fence::{self, State};
use super::recover::{self, Standing};
use super::run::{Pair, Run, refusals};
use super::spec::{Preflight, VerdictKind};
use super::sql::{self, SCHEMA};
use super::statements::TableSql;

/// Rows of a table whose unique values are looked up on the target one by one;
/// above it a collision is found by the copy itself, which then stops.
const LOOKED_UP: u64 = 20_000;

/// Reads both sides.
///
/// # Errors
/// [`MoveError::Refused`] with every problem.
pub async fn check(run: &Run, pair: &Pair) -> Result<Preflight, MoveError> {
    let (source, target) = (&pair.source, &pair.target);
    let mut problems = Vec::new();
    let mut warnings = Vec::new();

    standing(run, pair, &mut problems).await?;
    versions(pair, &mut problems, &mut warnings).await?;
    let here = catalog::discover(source, &run.rules).await?;
    let there = catalog::discover(target, &run.rules).await?;
    problems.extend(refusals(&here));
    problems.extend(catalog::differences(&here.tables, &there.tables));
    let known: BTreeSet<&str> = here.tables.iter().map(|table| table.name.as_str()).collect();
    for table in there.tables.iter().filter(|table| !known.contains(table.name.as_str())) {
        warnings.push(format!("table {} exists only on the target", table.name));
    }
    let on_both: Vec<&Table> = here
        .tables
        .iter()
        .filter(|table| there.tables.iter().any(|other| other.name == table.name))
        .collect();
    privileges(source, &here.tables, &mut problems).await?;
    let owned: Vec<Table> = on_both.iter().map(|table| (*table).clone()).collect();
    privileges(target, &owned, &mut problems).await?;
    transactions(pair, &mut problems, &mut warnings).await?;

    // A schema that differs would only fail in other words below.
    let comparable = problems.is_empty();
    let mut rows_estimated = 0;
    let mut bytes_estimated = 0;
    let mut verdicts = here.verdicts.clone();
    for table in &here.tables {
        let sql = TableSql::new(table, &run.spec);
        let rows = copy::estimate(source, &sql, &table.name, false).await?;
        rows_estimated += rows;
        bytes_estimated += rows.saturating_mul(row_bytes(source, &table.name).await?);
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.table == table.name) {
            verdict.rows_estimated = rows;
        }
        if comparable {
            if !ours(run, target).await? {
                absent(target, &sql, &mut problems).await?;
            }
            collisions(run, pair, table, rows, &mut problems).await?;
        }
    }
    if comparable {
        tenant_is_here(run, source, &here, &mut problems).await?;
        references(run, pair, &here, &mut problems, &mut warnings).await?;
    }
    if !problems.is_empty() {
        return Err(MoveError::Refused(problems));
    }
    Ok(Preflight { tables: verdicts, warnings, rows_estimated, bytes_estimated })
}

async fn standing(run: &Run, pair: &Pair, problems: &mut Vec<String>) -> Result<(), MoveError> {
    let source = fence::read(&pair.source, run.spec.tenant, false).await?;
    let target = fence::read(&pair.target, run.spec.tenant, false).await?;
    match recover::standing(run.spec.move_id, run.spec.epoch, source, target) {
        Standing::Before => {}
        Standing::PastThePoint | Standing::Switched => {
            problems.push("this move has switched the tenant already".into());
        }
        Standing::TwoActive => problems.push(format!(
            "both databases are active for tenant {}: find out which one its writers use first",
            run.spec.tenant
        )),
        Standing::Stale(why) => problems.push(why.to_owned()),
    }
    for conn in [&pair.source, &pair.target] {
        let exists: bool = conn
            .one(&format!("select to_regclass('{SCHEMA}.moves') is not null"), &[])
            .await?
            .get(0);
        if !exists {
            continue;
        }
        let others = conn
            .query(
                &format!("select move_id::text from {SCHEMA}.moves where customer_id = $1 and move_id <> $2"),
                &[&run.spec.tenant.0, &run.spec.move_id.0],
            )
            .await?;
        for row in &others {
            let other: String = row.get(0);
            problems.push(format!(
                "the {} has guards of move {other} of the same tenant: finish or undo it first",
                conn.side()
            ));
        }
    }
    Ok(())
}

async fn versions(
    pair: &Pair,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), MoveError> {
    let mut majors = Vec::new();
    let mut extensions = Vec::new();
    let mut encodings = Vec::new();
    for conn in [&pair.source, &pair.target] {
        let row = conn
            .one(
                "select current_setting('server_version_num')::int4 / 10000, \
                 (select pg_encoding_to_char(encoding)::text from pg_database where datname = current_database())",
                &[],
            )
            .await?;
        majors.push(row.get::<_, i32>(0));
        encodings.push(row.get::<_, String>(1));
        extensions.push(
            conn.query("select extname::text, extversion from pg_extension order by 1", &[])
                .await?
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect::<Vec<(String, String)>>(),
        );
    }
    if let [here, there] = majors[..] {
        if here < 15 || there < 15 {
            problems
                .push(format!("PostgreSQL 15 or later is needed (source {here}, target {there})"));
        } else if here != there {
            problems.push(format!(
                "the two servers' major versions differ (source {here}, target {there})"
            ));
        }
    }
    if encodings.first() != encodings.last() {
        problems.push(format!("the databases' encodings differ: {}", encodings.join(", ")));
    }
    if let [here, there] = &extensions[..] {
        for (name, version) in here {
            match there.iter().find(|(other, _)| other == name) {
                None => {
                    problems.push(format!("extension {name} {version} is missing on the target"))
                }
                Some((_, other)) if other != version => warnings.push(format!(
                    "extension {name} is {version} on the source and {other} on the target"
                )),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

async fn privileges(
    conn: &Conn,
    tables: &[Table],
    problems: &mut Vec<String>,
) -> Result<(), MoveError> {
    let side = conn.side();
    let row = conn
        .one(
            &format!(
                "select current_user::text, has_parameter_privilege('session_replication_role', 'SET'), \
                 has_database_privilege(current_database(), 'CREATE'), \
                 to_regnamespace('{SCHEMA}') is null or has_schema_privilege(to_regnamespace('{SCHEMA}')::oid, 'CREATE')"
            ),
            &[],
        )
        .await?;
    let role: String = row.get(0);
    if !row.get::<_, bool>(1) && side == super::error::Side::Target {
        problems.push(format!(
            "role {role} on the {side} may not set session_replication_role: a superuser must run \
             GRANT SET ON PARAMETER session_replication_role TO {}",
            sql::ident(&role)
        ));
    }
    let has_schema: bool =
        conn.one(&format!("select to_regnamespace('{SCHEMA}') is not null"), &[]).await?.get(0);
    if (!has_schema && !row.get::<_, bool>(2)) || !row.get::<_, bool>(3) {
        problems.push(format!(
            "role {role} on the {side} may not create the schema {SCHEMA}: GRANT CREATE ON DATABASE is needed"
        ));
    }
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    for row in conn
        .query(
            "select n.name from unnest($1::text[]) n(name) join pg_class c on c.oid = n.name::regclass \
             where not pg_has_role(c.relowner, 'USAGE')",
            &[&names],
        )
        .await?
    {
        let table: String = row.get(0);
        problems.push(format!(
            "role {role} on the {side} is not a member of the owner of {table}: GRANT its owner TO {}",
            sql::ident(&role)
        ));
    }
    let sequences: Vec<&str> =
        tables.iter().flat_map(|table| &table.sequences).map(String::as_str).collect();
    for row in conn
        .query(
            "select distinct n.name from unnest($1::text[]) n(name) where to_regclass(n.name) is not null \
             and not (has_sequence_privilege(n.name, 'SELECT') and has_sequence_privilege(n.name, 'UPDATE'))",
            &[&sequences],
        )
        .await?
    {
        let name: String = row.get(0);
        problems.push(format!("role {role} on the {side} may not read and set the sequence {name}"));
    }
    Ok(())
}

async fn transactions(
    pair: &Pair,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), MoveError> {
    for conn in [&pair.source, &pair.target] {
        let side = conn.side();
        for row in conn
            .query(
                "select gid from pg_prepared_xacts where database = current_database() order by 1",
                &[],
            )
            .await?
        {
            let gid: String = row.get(0);
            problems.push(format!(
                "the {side} has the prepared transaction {gid}, which would hold its locks: commit or roll it back"
            ));
        }
        for row in conn
            .query(
                "select format('pid %s (%s) has been open for %s s', pid, \
                   coalesce(nullif(application_name, ''), usename::text), \
                   extract(epoch from clock_timestamp() - xact_start)::int) from pg_stat_activity \
                 where datname = current_database() and pid <> pg_backend_pid() \
                 and xact_start < clock_timestamp() - interval '10 seconds' order by 1 limit 5",
                &[],
            )
            .await?
        {
            let who: String = row.get(0);
            warnings.push(format!("a long transaction on the {side} may delay the guards: {who}"));
        }
    }
    Ok(())
}

async fn row_bytes(conn: &Conn, table: &str) -> Result<u64, MoveError> {
    let row = conn
        .one(
            "select coalesce((sum(pg_table_size(c.oid)) / nullif(sum(greatest(c.reltuples, 0)), 0))::int8, 200) \
             from pg_class c where c.oid = $1::text::regclass \
             or c.oid in (select relid from pg_partition_tree($1::text::regclass))",
            &[&table],
        )
        .await?;
    Ok(row.get::<_, i64>(0).clamp(1, 1_000_000).cast_unsigned())
}

/// Whether the target's rows of the tenant were left by this very move.
async fn ours(run: &Run, target: &Conn) -> Result<bool, MoveError> {
    let fence = fence::read(target, run.spec.tenant, false).await?;
    Ok(fence.is_some_and(|fence| {
        fence.state == State::Standby && fence.move_id == Some(run.spec.move_id)
    }))
}

async fn absent(
    target: &Conn,
    sql: &TableSql<'_>,
    problems: &mut Vec<String>,
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
        problems.push(format!(
            "table {} on the target holds rows of the tenant already",
            sql.table.name
        ));
    }
    Ok(())
}

/// Values of the tenant's unique keys that another tenant's row on the target
/// has already.
async fn collisions(
    run: &Run,
    pair: &Pair,
    table: &Table,
    rows: u64,
    problems: &mut Vec<String>,
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
        if unique.contains(&table.tenant) && !(unique == &primary && primary.len() == 1) {
            continue;
        }
        let columns: Vec<&catalog::Column> =
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
                     where x.{} is distinct from {} limit 3",
                    names.iter().map(|n| format!("v.{n}")).collect::<Vec<_>>().join(", "),
                    args.join(", "),
                    names.join(", "),
                    same.join(" and "),
                    table.tenant,
                    sql::tenant_literal(run.spec.tenant),
                ),
                &params,
            )
            .await?;
        for row in &hits {
            let value: String = row.get(0);
            problems.push(format!(
                "{name} ({}) = {value} belongs to another tenant on the target",
                unique.join(", ")
            ));
        }
    }
    Ok(())
}

async fn tenant_is_here(
    run: &Run,
    source: &Conn,
    here: &Catalog,
    problems: &mut Vec<String>,
) -> Result<(), MoveError> {
    let own = here.tables.iter().find(|table| table.tenant != sql::ident(catalog::TENANT_COLUMN));
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
            problems.push(format!(
                "tenant {} has no row in {} of the source",
                run.spec.tenant, table.name
            ));
        }
    }
    Ok(())
}

/// The rows outside the tenant's that its rows point to: missing ones are a
/// problem, other contents a warning (ages and prices may differ per node).
async fn references(
    run: &Run,
    pair: &Pair,
    here: &Catalog,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), MoveError> {
    for table in &here.tables {
        let sql = TableSql::new(table, &run.spec);
        for key in table.foreign_keys.iter().filter(|key| here.references.contains(&key.parent)) {
            let exists: bool =
                pair.target.one("select to_regclass($1) is not null", &[&key.parent]).await?.get(0);
            if !exists {
                problems.push(format!("reference table {} is missing on the target", key.parent));
                continue;
            }
            let join: Vec<String> = key
                .columns
                .iter()
                .zip(&key.parent_columns)
                .map(|(child, parent)| format!("p.{parent} = x.{child}"))
                .collect();
            let shown: Vec<String> =
                key.parent_columns.iter().map(|column| format!("p.{column}::text")).collect();
            let rows = pair
                .source
                .query(
                    &format!(
                        "select distinct concat_ws(',', {}), p::text from {} as x join {} as p on {} \
                         where {} order by 1 limit 1001",
                        shown.join(", "),
                        table.name,
                        key.parent,
                        join.join(" and "),
                        sql.of_tenant("x"),
                    ),
                    &[],
                )
                .await?;
            let wanted: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let found = pair
                .target
                .query(
                    &format!(
                        "select concat_ws(',', {shown}), p::text from {} as p where concat_ws(',', {shown}) = any($1)",
                        key.parent,
                        shown = shown.join(", "),
                    ),
                    &[&wanted],
                )
                .await?;
            for row in &rows {
                let (id, text): (String, String) = (row.get(0), row.get(1));
                match found.iter().find(|other| other.get::<_, &str>(0) == id) {
                    None => problems.push(format!(
                        "{} {id}, which rows of {} point to, is missing on the target",
                        key.parent, table.name
                    )),
                    Some(other) if other.get::<_, &str>(1) != text => warnings.push(format!(
                        "{} {id}, which rows of {} point to, is not the same on the target",
                        key.parent, table.name
                    )),
                    Some(_) => {}
                }
            }
        }
    }
    debug_assert!(
        here.verdicts.iter().all(|verdict| verdict.verdict != VerdictKind::Refuse),
        "refusals were told before"
    );
    Ok(())
}
