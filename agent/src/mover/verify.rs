//! The exact comparison of both sides while the tenant keeps writing.
//!
//! After a drain two snapshots are taken, the source's first; L is the set of
//! keys in the source's log at its snapshot. What is not in L has not changed
//! since it was applied, so it must be equal on both sides. Every batch that is
//! drained later is compared by key before it commits, so the equality holds up
//! to the cut-over by induction.
//!
//! A row's hash is the exclusive or of its columns' hashes, each with its own
//! seed; a table's is the sum of its rows' hashes as a number, and their count
//! (an exclusive or over rows would let pairs cancel).

use super::catalog::{Column, Table};
use super::connect::Conn;
use super::drain::Drain;
use super::error::MoveError;
use super::leg::Leg;
use super::run::{Pair, Run};
use super::spec::{Progress, Verified};
use super::sql;
use super::statements::{Batch, TableSql};

/// When this returns, both sides hold the same rows, but for keys still in the
/// log. Reads only, apart from the drain before it.
///
/// # Errors
/// [`MoveError::Mismatch`], naming the table and some keys;
/// [`MoveError::Refused`] for a row on the target that points to nothing.
pub async fn run(run: &Run, pair: &Pair, leg: Leg) -> Result<Verified, MoveError> {
    let tables = run.guarded_tables(pair, leg).await?;
    let mut drain = Drain::prepare(run, pair, leg, &tables).await?;
    drain.until_short().await?;
    drain.vacuum().await?;

    // Sessions of their own: these may scan.
    let source = run.connect(leg.from_side()).await?;
    let target = run.connect(leg.to_side()).await?;
    for conn in [&source, &target] {
        conn.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    }
    let mut excluded = Batch::default();
    for row in source
        .query(&format!("SELECT DISTINCT tab, k FROM {}", sql::log_table(run.spec.move_id)), &[])
        .await?
    {
        let tab: i16 = row.get(0);
        excluded.push(usize::try_from(tab).unwrap_or(usize::MAX), row.get(1), None);
    }

    let mut compared = 0;
    for (number, table) in tables.iter().enumerate() {
        let sql = TableSql::new(table, &run.spec);
        run.progress.send_replace(Progress {
            table: table.name.clone(),
            rows_done: compared,
            ..Progress::default()
        });
        let keys = match excluded.groups.get(&number) {
            Some(group) => group.keys.clone(),
            None => vec![Vec::new(); sql.key_width()],
        };
        let query = sum(&sql, "0", None);
        let (here, there) =
            futures_util::future::join(hash(&source, &query, &keys), hash(&target, &query, &keys))
                .await;
        let (here, there) = (here?, there?);
        if here != there {
            let keys = differing(&source, &target, &sql, &keys).await?;
            return Err(MoveError::Mismatch { table: table.name.clone(), keys });
        }
        compared += here.first().map_or(0, |bucket| bucket.1);
        if let Some(check) = sql.all_dangling()
            && let Some(row) = target.query(&check, &[]).await?.first()
        {
            let what: String = row.get(0);
            return Err(MoveError::refused(format!(
                "a row of {} on the target points to a row that is not there: {what}",
                table.name
            )));
        }
    }
    run.fail.on("mid_verify", leg)?;
    for conn in [&source, &target] {
        conn.batch("COMMIT").await?;
    }
    Ok(Verified { rows_compared: compared, keys_excluded: excluded.keys as u64 })
}

/// Bucket, count of rows, sum of hashes.
type Bucket = (i32, u64, String);

async fn hash(conn: &Conn, query: &str, keys: &[Vec<String>]) -> Result<Vec<Bucket>, MoveError> {
    let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        keys.iter().map(|column| column as _).collect();
    Ok(conn
        .query(query, &params)
        .await?
        .iter()
        .map(|row| (row.get(0), row.get::<_, i64>(1).max(0).cast_unsigned(), row.get(2)))
        .collect())
}

/// Sums per bucket over the tenant's rows whose key is not in the arguments.
fn sum(sql: &TableSql<'_>, bucket: &str, only: Option<&str>) -> String {
    format!(
        "SELECT ({bucket})::int4, count(*), coalesce(sum(({row})::numeric), 0)::text \
         FROM {name} AS x WHERE {mine} {except}{only} GROUP BY 1 ORDER BY 1",
        row = row_hash(sql.table),
        name = sql.table.name,
        mine = sql.of_tenant("x"),
        except = except(sql),
        only = only.unwrap_or_default(),
    )
}

fn except(sql: &TableSql<'_>) -> String {
    let args: Vec<String> = (1..=sql.key_width()).map(|at| format!("${at}::text[]")).collect();
    let names: Vec<String> = (1..=sql.key_width()).map(|at| format!("k{at}")).collect();
    let same: Vec<String> = sql
        .table
        .key_columns()
        .enumerate()
        .map(|(at, column)| format!("(e.k{})::{} = x.{}", at + 1, column.cast, column.name))
        .collect();
    format!(
        "AND NOT EXISTS (SELECT 1 FROM unnest({}) AS e({}) WHERE {})",
        args.join(", "),
        names.join(", "),
        same.join(" AND ")
    )
}

fn row_hash(table: &Table) -> String {
    let parts: Vec<String> = table
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| format!("coalesce({}, {})", column_hash(column, at + 1), at + 1))
        .collect();
    parts.join(" # ")
}

/// Built-in types by their own hash; the rest by their text, which is exact
/// under the pinned settings (PostGIS prints every bit of a geometry).
fn column_hash(column: &Column, seed: usize) -> String {
    let name = format!("x.{}", column.name);
    match column.cast.as_str() {
        "uuid" => format!("uuid_hash_extended({name}, {seed})"),
        "bigint" => format!("hashint8extended({name}, {seed})"),
        "integer" => format!("hashint4extended({name}, {seed})"),
        "smallint" => format!("hashint2extended({name}, {seed})"),
        "timestamp with time zone" | "timestamp without time zone" => {
            format!("timestamp_hash_extended({name}::timestamp without time zone, {seed})")
        }
        "boolean" => format!("hashint4extended({name}::int4, {seed})"),
        "text" | "character varying" => {
            format!("hashtextextended({name} COLLATE \"C\", {seed})")
        }
        _ => format!("hashtextextended({name}::text COLLATE \"C\", {seed})"),
    }
}

/// Names up to five keys that differ, by narrowing down on buckets of keys.
async fn differing(
    source: &Conn,
    target: &Conn,
    sql: &TableSql<'_>,
    keys: &[Vec<String>],
) -> Result<String, MoveError> {
    let key_text: Vec<String> =
        sql.table.key_columns().map(|column| format!("x.{}::text", column.name)).collect();
    let key_text = format!("concat_ws(',', {})", key_text.join(", "));
    let bucket = format!("hashtextextended({key_text} COLLATE \"C\", 0) & 1023");
    let query = sum(sql, &bucket, None);
    let (here, there) = (hash(source, &query, keys).await?, hash(target, &query, keys).await?);
    let Some(first) = here
        .iter()
        .chain(&there)
        .map(|bucket| bucket.0)
        .filter(|number| {
            here.iter().find(|b| b.0 == *number) != there.iter().find(|b| b.0 == *number)
        })
        .min()
    else {
        return Ok("keys that could not be narrowed down".into());
    };
    let listing = format!(
        "SELECT {key_text}, ({})::text FROM {} AS x WHERE {} {} AND ({bucket}) = {first} ORDER BY 1",
        row_hash(sql.table),
        sql.table.name,
        sql.of_tenant("x"),
        except(sql),
    );
    let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        keys.iter().map(|column| column as _).collect();
    let rows = |rows: Vec<tokio_postgres::Row>| {
        rows.iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect::<std::collections::BTreeMap<String, String>>()
    };
    let here = rows(source.query(&listing, &params).await?);
    let there = rows(target.query(&listing, &params).await?);
    let mut names: Vec<&str> = here
        .iter()
        .filter(|(key, hash)| there.get(*key) != Some(hash))
        .map(|(key, _)| key.as_str())
        .chain(there.keys().filter(|key| !here.contains_key(*key)).map(String::as_str))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(5);
    Ok(format!("key {}", names.join(", key ")))
}
