//! Many keys at once: what a copy's backlog and a busy tenant need.
//!
//! Keys and rows go over by COPY into temporary tables, typed and without
//! their text; sets of rows are deleted, updated and inserted, and then hashed
//! on both sides before the target commits: exactly these keys, the source in
//! the snapshot that they were read in.
//!
//! The order is that of a small batch, and so are the invariants: the source's
//! transaction stays open until the target has committed; existing rows are
//! updated in place.

use futures_util::future::try_join;

use super::Drain;
use crate::mover::apply::{compressed, points_to_nothing};
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::fence;
use crate::mover::pump::pump;
use crate::mover::statements::{self, Mode, TableSql, bulk};
use crate::mover::verify;

impl Drain<'_> {
    /// Whether the log holds more than `rows`.
    pub(in crate::mover) async fn is_longer(&self, rows: i64) -> Result<bool, MoveError> {
        let source = self.source;
        let rows = source
            .client()
            .query(&self.longer, &[&rows])
            .await
            .map_err(|error| source.error(error))?;
        Ok(!rows.is_empty())
    }

    /// One batch in bulk, of up to `limit` log rows; answers how many distinct
    /// keys it had.
    pub(super) async fn bulk(&mut self, limit: Option<i64>, mode: Mode) -> Result<u64, MoveError> {
        let (source, target) = (self.source, self.target);
        if !self.taken {
            // The setting can't change once there is a temporary table.
            let create = format!(
                "SET temp_buffers = '32MB'; \
                 CREATE TEMP TABLE IF NOT EXISTS {} (tab smallint, k text[]) ON COMMIT DELETE ROWS",
                bulk::TAKEN.trim_start_matches("pg_temp.")
            );
            source.batch(&create).await?;
            self.taken = true;
        }
        source
            .batch("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL synchronous_commit = off")
            .await?;
        let taken = source
            .client()
            .query(&statements::take_aside(&self.run.spec, &self.applier.sql), &[&limit])
            .await
            .map_err(|error| source.error(error))?;
        let tables: Vec<(usize, u64)> = taken
            .iter()
            .map(|row| {
                let (tab, keys): (i16, i64) = (row.get(0), row.get(1));
                (usize::try_from(tab).unwrap_or(usize::MAX), keys.max(0).cast_unsigned())
            })
            .collect();
        for (number, _) in &tables {
            let Some(sql) = self.applier.sql.get(*number) else {
                return Err(MoveError::refused(format!(
                    "the key log names the unknown table {number}"
                )));
            };
            // Outside the transaction: it is there for the next batch too.
            if !self.given.contains(number) {
                target.batch(&sql.create_given(*number)).await?;
                self.given.insert(*number);
            }
        }
        self.run.fail.on("mid_drain", self.leg)?;
        target
            .batch(
                "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL synchronous_commit = on",
            )
            .await?;
        fence::waits(&self.run.spec, self.leg, target, "FOR UPDATE").await?;
        for (number, _) in &tables {
            self.table(*number, mode).await?;
        }
        target.batch("COMMIT").await?;
        self.run.fail.on("between_commits", self.leg)?;
        source.batch("COMMIT").await?;
        let keys = tables.iter().map(|(_, keys)| keys).sum();
        self.keys += keys;
        Ok(keys)
    }

    /// The taken keys of one table: over, applied, compared.
    async fn table(&self, number: usize, mode: Mode) -> Result<(), MoveError> {
        let Some(sql) = self.applier.sql.get(number) else { return Ok(()) };
        let (source, target) = (self.source, self.target);
        let kept = statements::kept(&self.run.spec, self.leg);
        let out = sql.copy_taken(number, &kept);
        let into = sql.copy_given(number);
        pump((source, &out), (target, &into), &mut |_, _| Ok(None)).await?;
        let row = verify::row_hash(sql.table);
        let sum = |rows: String| {
            format!("SELECT count(*)::text, coalesce(sum(({row})::numeric), 0)::text {rows}")
        };
        let cold = self.applier.cold_given(number, mode).await?;
        let apply = apply(target, sql, number, mode, &cold);
        let (here, ()) = try_join(hash(source, sum(sql.taken_rows(number))), apply).await?;
        let there = hash(target, sum(sql.given_rows(number))).await?;
        if here != there {
            return Err(MoveError::Mismatch {
                table: sql.table.name.clone(),
                keys: self.differing(number, &row).await?,
            });
        }
        if let Some(check) = sql.dangling_given(number, |parent| self.applier.outside(parent))
            && let Some(row) = target.query(&check, &[]).await?.first()
        {
            return Err(points_to_nothing(&sql.table.name, row.get(0), target));
        }
        Ok(())
    }

    /// Up to five of the taken keys whose rows differ.
    async fn differing(&self, number: usize, row: &str) -> Result<String, MoveError> {
        let Some(sql) = self.applier.sql.get(number) else { return Ok(String::new()) };
        let key = verify::key_text(sql);
        let all = |rows: String| format!("SELECT {key}, ({row})::text {rows}");
        let (here, there) = try_join(
            keyed(self.source, all(sql.taken_rows(number))),
            keyed(self.target, all(sql.given_rows(number))),
        )
        .await?;
        Ok(verify::names(&here, &there))
    }
}

/// Brings the table up to date with what was given. What a count shows to be
/// needless is left out: each of the three looks every key up. Rows in
/// compressed chunks go first, by the statements in `cold`; the three leave
/// them alone.
async fn apply(
    target: &Conn,
    sql: &TableSql<'_>,
    number: usize,
    mode: Mode,
    cold: &str,
) -> Result<(), MoveError> {
    if !cold.is_empty() {
        target.batch(cold).await.map_err(compressed)?;
    }
    let count = target.one(&sql.count_given(number), &[]).await?;
    let (here, gone): (i64, i64) = (count.get(0), count.get(1));
    if gone > 0 || mode == Mode::Replace {
        target.batch(&sql.delete_given(number, mode)).await?;
    }
    let updated = match sql.update_given(number) {
        Some(update) if mode == Mode::Update && here > 0 => target.execute(&update, &[]).await?,
        _ => 0,
    };
    if updated < here.cast_unsigned() {
        target.batch(&sql.insert_given(number)).await?;
    }
    Ok(())
}

async fn hash(conn: &Conn, query: String) -> Result<Vec<String>, MoveError> {
    let rows = conn.query(&query, &[]).await?;
    Ok(rows.iter().flat_map(|row| [row.get(0), row.get(1)]).collect())
}

async fn keyed(
    conn: &Conn,
    query: String,
) -> Result<std::collections::BTreeMap<String, String>, MoveError> {
    Ok(conn.query(&query, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}
