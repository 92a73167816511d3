//! The exact comparison of both sides while the tenant keeps writing.
//!
//! After a drain two snapshots are taken, the source's first; L is the set of
//! keys in the source's log at its snapshot. What is not in L has not changed
//! since it was applied, so it must be equal on both sides. Every batch that is
//! drained later is compared by key before it commits, so the equality holds up
//! to the cut-over by induction.
//!
//! "Source" and "target" are those of the leg. On the way back the keys that
//! retention deleted on the new side are left out on both, and so is what it
//! dropped there in whole chunks of a hypertable.
//!
//! A row's hash is the exclusive or of its columns' hashes, each with its own
//! seed; a table's is the sum of its rows' hashes as a number, and their count
//! (an exclusive or over rows would let pairs cancel).

mod dangling;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{SinkExt, StreamExt};

use super::catalog::{Column, Table};
use super::connect::Conn;
use super::drain::Drain;
use super::error::MoveError;
use super::hypertable::chunks;
use super::hypertable::lost::{self, Differs};
use super::leg::Leg;
use super::run::{Pair, Run};
use super::spec::{Progress, Verified};
use super::sql;
use super::statements::{Batch, TableSql};
use super::way_back;

/// When this returns, both sides hold the same rows, but for keys still in the
/// log. Reads only, apart from the drain before it.
///
/// # Errors
/// [`MoveError::Mismatch`], naming the table and some keys;
/// [`MoveError::Refused`] for a row on the target that points to nothing.
pub async fn run(run: &Run, pair: &Pair, leg: Leg) -> Result<Verified, MoveError> {
    let tables = run.guarded_tables(pair, leg).await?;
    let mut mirrored = BTreeSet::new();
    let verified = loop {
        let (differs, mismatch) = match compare(run, pair, leg, &tables).await? {
            Compared::Equal(verified) => break verified,
            Compared::Differs(differs, mismatch) => (differs, mismatch),
        };
        // Once: what dropping chunks did not settle is another difference.
        let lost = match tables.get(differs.number) {
            Some(table) if mirrored.insert(differs.number) => {
                lost::mirror(run, pair, leg, table, &differs).await?
            }
            _ => false,
        };
        if !lost {
            return Err(mismatch);
        }
    };
    // Verified ready before the first cut-over: a switch that could not be
    // taken back is not begun.
    if leg == Leg::FORTH && run.spec.way_back_until_us != 0 {
        way_back::rehearse(run, pair, &tables).await?;
    }
    Ok(verified)
}

/// What a comparison found.
enum Compared {
    Equal(Verified),
    /// The first table that differs, and the error that says so.
    Differs(Differs, MoveError),
}

/// One drain, and one comparison after it.
async fn compare(
    run: &Run,
    pair: &Pair,
    leg: Leg,
    tables: &[Table],
) -> Result<Compared, MoveError> {
    let mut drain = Drain::prepare(run, pair, leg, tables).await?;
    drain.until_short().await?;
    drain.vacuum().await?;

    // Sessions of their own: these may scan.
    let source = run.connect(leg.from_side()).await?;
    let target = run.connect(leg.to_side()).await?;
    if leg.is_back() {
        target
            .batch("CREATE TEMP TABLE webhost_fleet_kept (tab smallint, k text[], PRIMARY KEY (tab, k))")
            .await?;
    }
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

    let kept = if leg.is_back() {
        let here = sql::kept_table(run.spec.move_id);
        carry_kept(&source, &target, &here).await?;
        [Some(here), Some("pg_temp.webhost_fleet_kept".to_owned())]
    } else {
        [None, None]
    };

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
        let older = lost::kept(&source, leg, table).await?;
        let compared_rows = kept.each_ref().map(|kept| {
            let except = except(&sql, kept.as_ref().map(|name| (number, name)));
            format!("{except}{older}")
        });
        let [here, there] = compared_rows.each_ref().map(|except| sum(&sql, "0", except));
        let (here, there) =
            futures_util::future::join(hash(&source, &here, &keys), hash(&target, &there, &keys))
                .await;
        let (here, there) = (here?, there?);
        if here != there {
            let keys = differing((&source, &target), &sql, &compared_rows, &keys).await?;
            let starts = match &table.hypertable {
                Some(hypertable) => chunks::starts(&source, &table.name, hypertable).await?,
                None => Vec::new(),
            };
            let mismatch = MoveError::Mismatch { table: table.name.clone(), keys };
            return Ok(Compared::Differs(Differs { number, starts }, mismatch));
        }
        compared += here.first().map_or(0, |bucket| bucket.1);
        dangling::check((&source, &target), &sql, tables, (&run.spec, leg), &keys).await?;
    }
    run.fail.on("mid_verify", leg)?;
    for conn in [&source, &target] {
        conn.batch("COMMIT").await?;
    }
    Ok(Compared::Equal(Verified { rows_compared: compared, keys_excluded: excluded.keys as u64 }))
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

/// The keys that retention deleted on the new side, as of the snapshot, for the
/// old copy's session: any number of them, through a little memory.
async fn carry_kept(source: &Conn, target: &Conn, name: &str) -> Result<(), MoveError> {
    let rows = source
        .client()
        .copy_out(&format!("COPY {name} (tab, k) TO STDOUT (FORMAT binary)"))
        .await
        .map_err(|error| source.error(error))?;
    let sink = target
        .client()
        .copy_in::<_, bytes::Bytes>(
            "COPY pg_temp.webhost_fleet_kept (tab, k) FROM STDIN (FORMAT binary)",
        )
        .await
        .map_err(|error| target.error(error))?;
    tokio::pin!(rows);
    tokio::pin!(sink);
    while let Some(row) = rows.next().await {
        let row = row.map_err(|error| source.error(error))?;
        sink.feed(row).await.map_err(|error| target.error(error))?;
    }
    sink.finish().await.map_err(|error| target.error(error))?;
    Ok(())
}

/// Sums per bucket over the tenant's rows that `except` leaves.
fn sum(sql: &TableSql<'_>, bucket: &str, except: &str) -> String {
    format!(
        "SELECT ({bucket})::int4, count(*), coalesce(sum(({row})::numeric), 0)::text \
         FROM {name} AS x WHERE {mine} {except} GROUP BY 1 ORDER BY 1",
        row = row_hash(sql.table),
        name = sql.table.name,
        mine = sql.in_scope("x"),
    )
}

/// Not the keys in the arguments, and not those in the list of what the old
/// copy keeps: its number for the table, and its name on this side.
fn except(sql: &TableSql<'_>, kept: Option<(usize, &String)>) -> String {
    let args: Vec<String> = (1..=sql.key_width()).map(|at| format!("${at}::text[]")).collect();
    let names: Vec<String> = (1..=sql.key_width()).map(|at| format!("k{at}")).collect();
    let same = |value: &dyn Fn(usize) -> String| {
        sql.table
            .key_columns()
            .enumerate()
            .map(|(at, column)| format!("({})::{} = x.{}", value(at + 1), column.cast, column.name))
            .collect::<Vec<_>>()
            .join(" AND ")
    };
    let mut text = format!(
        "AND NOT EXISTS (SELECT 1 FROM unnest({}) AS e({}) WHERE {})",
        args.join(", "),
        names.join(", "),
        same(&|at| format!("e.k{at}"))
    );
    if let Some((number, name)) = kept {
        text.push_str(&format!(
            " AND NOT EXISTS (SELECT 1 FROM {name} AS e WHERE e.tab = {number} AND {})",
            same(&|at| format!("e.k[{at}]"))
        ));
    }
    text
}

/// An expression of the row `x`.
pub(super) fn row_hash(table: &Table) -> String {
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
    (source, target): (&Conn, &Conn),
    sql: &TableSql<'_>,
    except: &[String; 2],
    keys: &[Vec<String>],
) -> Result<String, MoveError> {
    let key_text = key_text(sql);
    let bucket = format!("hashtextextended({key_text} COLLATE \"C\", 0) & 1023");
    let [here, there] = except.each_ref().map(|except| sum(sql, &bucket, except));
    let (here, there) = (hash(source, &here, keys).await?, hash(target, &there, keys).await?);
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
    let listing = |except: &String| {
        format!(
            "SELECT {key_text}, ({})::text FROM {} AS x WHERE {} {except} AND ({bucket}) = {first} ORDER BY 1",
            row_hash(sql.table),
            sql.table.name,
            sql.in_scope("x"),
        )
    };
    let [list_here, list_there] = except.each_ref().map(listing);
    let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        keys.iter().map(|column| column as _).collect();
    let rows = |rows: Vec<tokio_postgres::Row>| {
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<BTreeMap<String, String>>()
    };
    let here = rows(source.query(&list_here, &params).await?);
    let there = rows(target.query(&list_there, &params).await?);
    Ok(names(&here, &there))
}

/// The key of the row `x`, for a person.
pub(super) fn key_text(sql: &TableSql<'_>) -> String {
    let columns: Vec<String> =
        sql.table.key_columns().map(|column| format!("x.{}::text", column.name)).collect();
    format!("concat_ws(',', {})", columns.join(", "))
}

/// Up to five keys that are not on both sides with one hash.
pub(super) fn names(here: &BTreeMap<String, String>, there: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&str> = here
        .iter()
        .filter(|(key, hash)| there.get(*key) != Some(hash))
        .map(|(key, _)| key.as_str())
        .chain(there.keys().filter(|key| !here.contains_key(*key)).map(String::as_str))
        .collect();
    names.sort_unstable();
    names.truncate(5);
    format!("key {}", names.join(", key "))
}
