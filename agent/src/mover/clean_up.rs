//! The copy that serves nobody any more, deleted so that nobody feels it.
//!
//! After a move that is the source's, after a roll back the target's, after an
//! abandoned move what the target had of it. The agent beside it works on its
//! own database alone: the other one may be far, or gone.
//!
//! **Invariant:** a row is deleted only in a transaction that holds the
//! tenant's fence row, and finds it `moved` by this very move. A copy that
//! still stood by is first made such a tombstone, which no cut-over matches.
//!
//! Batches are small, their locks are waited for 100 ms at most, and between
//! two of them lies a pause in proportion to what the last one took: a busy
//! server slows the clean-up, not the other way round. Children go before
//! their parents. At the end triggers, functions and logs go; the fence row
//! stays as a tombstone.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::archive;
use super::catalog::{self, Table};
use super::connect::Conn;
use super::error::{MoveError, Side};
use super::fence::{self, State};
use super::finish;
use super::guard;
use super::run::Run;
use super::set_aside;
use super::spec::{CleanedUp, Progress};
use super::sql::{self, SCHEMA};
use super::statements::TableSql;

/// Rows that one transaction deletes.
const BATCH: usize = 1_000;
/// Rows that are looked up at once.
const LOOKED_UP: usize = 20_000;
/// The pause after a batch, as a multiple of the time that it took.
const PAUSE: u32 = 2;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After a lock that was not to be had.
const AFTER_LOCK: Duration = Duration::from_millis(300);

/// When this returns, this node's database holds no row of the tenant, and of
/// ours the tombstone alone. Idempotent; interrupted, a repetition goes on.
///
/// # Errors
/// [`MoveError::Refused`] where the copy is not this move's to delete;
/// [`MoveError::Blocked`] when a table stayed locked.
pub async fn run(run: &Run) -> Result<CleanedUp, MoveError> {
    // Looked at first without a lock: a wrong order disturbs no mover.
    let conn = run.connect(run.here).await?;
    whose(run, &conn).await?;
    drop(conn);
    let conn = run.beside().await?;
    let whose = whose(run, &conn).await?;
    if whose != Whose::Left {
        entomb(run, &conn).await?;
    }
    let found = catalog::discover(&conn, &run.rules).await?;
    for refusal in super::run::refusals(&found) {
        tracing::warn!(move_id = %run.spec.move_id, %refusal, "clean up leaves a table as it is");
    }
    let found = if whose == Whose::Strangers { Vec::new() } else { found.tables };
    if conn.side() == Side::Source {
        archive::write(run, &conn, &found).await?;
    }
    let mut work = Work { run, conn: &conn, rows: 0, total: 0, table: String::new() };
    let tables = children_first(found);
    for table in &tables {
        let sql = TableSql::new(table, &run.spec);
        work.total += super::copy::estimate(&conn, &sql, &table.name, false).await?;
    }
    for table in &tables {
        work.empty(table).await?;
    }
    // An abandoned copy may have left them away.
    set_aside::back(&run.spec, &conn, &|_| ()).await?;
    guard::drop_triggers(&conn, &run.spec).await?;
    guard::drop_log(&conn, &run.spec).await?;
    finish::forget(run, &conn).await?;
    Ok(CleanedUp { rows: work.rows })
}

/// What the tenant's rows here are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The tenant left them behind by this move, which is finished.
    Left,
    /// This move copied them, and was abandoned.
    Abandoned,
    /// There are none of this move's: it was abandoned before it wrote any, or
    /// they are deleted already. Rows that are here were here before it.
    Strangers,
}

/// Reads whose the rows are, and refuses where they are not this move's to
/// delete.
async fn whose(run: &Run, conn: &Conn) -> Result<Whose, MoveError> {
    let spec = &run.spec;
    let refused = |why: &str| {
        Err(MoveError::refused(format!(
            "the {} of move {} of tenant {} is not cleaned up: {why}",
            conn.side(),
            spec.move_id,
            spec.tenant
        )))
    };
    let Some(row) = fence::read(conn, spec.tenant, false).await? else {
        return refused("it has no fence row");
    };
    if row.move_id != Some(spec.move_id) {
        return refused("its fence row belongs to another move");
    }
    match row.state {
        State::Active => refused("it serves the tenant"),
        State::Moved if row.epoch > spec.epoch => match run.remembered(conn).await? {
            // Of a node that was given up and is back, the other side has
            // finished the move without it.
            Some(_) if !spec.old_copy_gone => {
                refused("its way back is open: finish the move first")
            }
            _ => Ok(Whose::Left),
        },
        State::Moved | State::Standby => {
            let wrote = conn
                .query(
                    &format!("select 1 from {SCHEMA}.moves where move_id = $1 and was_empty"),
                    &[&spec.move_id.0],
                )
                .await?;
            Ok(if wrote.is_empty() { Whose::Strangers } else { Whose::Abandoned })
        }
    }
}

/// Makes a copy that stands by a tombstone, which no cut-over matches.
async fn entomb(run: &Run, conn: &Conn) -> Result<(), MoveError> {
    let spec = &run.spec;
    conn.batch(&format!(
        "UPDATE {SCHEMA}.fence SET state = 'moved', place = {place}, updated_at = clock_timestamp() \
         WHERE customer_id = {tenant} AND move_id = {ours} AND state = 'standby'",
        place = sql::literal(&spec.source_place),
        tenant = sql::tenant_literal(spec.tenant),
        ours = sql::move_literal(spec.move_id),
    ))
    .await
}

struct Work<'a> {
    run: &'a Run,
    conn: &'a Conn,
    rows: u64,
    total: u64,
    table: String,
}

impl Work<'_> {
    /// Deletes the tenant's rows of one table.
    async fn empty(&mut self, table: &Table) -> Result<(), MoveError> {
        self.table.clone_from(&table.name);
        self.report();
        let sql = TableSql::new(table, &self.run.spec);
        if table.hypertable.is_some() {
            return self.empty_by_time(&sql).await;
        }
        for relation in relations(self.conn, table).await? {
            loop {
                let rows = self
                    .conn
                    .query(
                        &format!(
                            "SELECT x.ctid::text FROM ONLY {relation} AS x WHERE {} LIMIT {LOOKED_UP}",
                            sql.of_tenant("x")
                        ),
                        &[],
                    )
                    .await?;
                if rows.is_empty() {
                    break;
                }
                let places: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                let mut gone = 0;
                for batch in places.chunks(BATCH) {
                    // The condition on the tenant is not redundant: the place
                    // may be another row's by now.
                    let delete = format!(
                        "DELETE FROM ONLY {relation} AS x WHERE {} AND x.ctid = ANY({}::tid[])",
                        sql.of_tenant("x"),
                        sql::text_array(batch.iter().map(|place| Some(place.as_str())))
                    );
                    gone += self.batch(&delete).await?;
                    self.run.fail.point("mid_clean_up")?;
                }
                if gone == 0 {
                    return Err(MoveError::Interrupted(format!(
                        "rows of {relation} moved about while they were deleted; try again"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Deletes the tenant's rows of a hypertable, in order of time.
    async fn empty_by_time(&mut self, sql: &TableSql<'_>) -> Result<(), MoveError> {
        let mut from: Option<String> = None;
        while let Some(next) = sql.next_times(from.as_deref(), BATCH) {
            let row = self.conn.one(&next, &[]).await?;
            let (Some(first), Some(last)): (Option<String>, Option<String>) =
                (row.get(0), row.get(1))
            else {
                return Ok(());
            };
            let Some(delete) = sql.delete_times(&first, &last) else { return Ok(()) };
            self.batch(&delete).await?;
            self.run.fail.point("mid_clean_up")?;
            from = Some(last);
        }
        Ok(())
    }

    async fn batch(&mut self, delete: &str) -> Result<u64, MoveError> {
        loop {
            let began = Instant::now();
            match self.delete(delete).await {
                Ok(gone) => {
                    self.rows += gone;
                    self.report();
                    tokio::time::sleep((began.elapsed() * PAUSE).min(LONGEST_PAUSE)).await;
                    return Ok(gone);
                }
                Err(error) => {
                    self.conn.batch("ROLLBACK").await?;
                    let waits = [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::T_R_DEADLOCK_DETECTED];
                    if !error.code().is_some_and(|code| waits.contains(&code)) {
                        return Err(error);
                    }
                    tracing::debug!(%error, table = self.table, "a batch of the clean-up waits");
                    tokio::time::sleep(AFTER_LOCK).await;
                }
            }
        }
    }

    async fn delete(&self, delete: &str) -> Result<u64, MoveError> {
        // Losing the last batches in a crash costs a repetition and nothing else.
        self.conn
            .batch(
                "BEGIN; SET LOCAL session_replication_role = replica; \
                 SET LOCAL lock_timeout = '100ms'; SET LOCAL synchronous_commit = off",
            )
            .await?;
        let spec = &self.run.spec;
        let tombstone = self
            .conn
            .query(
                &format!(
                    "SELECT 1 FROM {SCHEMA}.fence WHERE customer_id = {} AND move_id = {} \
                     AND state = 'moved' FOR UPDATE",
                    sql::tenant_literal(spec.tenant),
                    sql::move_literal(spec.move_id)
                ),
                &[],
            )
            .await?;
        if tombstone.is_empty() {
            return Err(MoveError::refused(format!(
                "the {} belongs to another move by now; the clean-up ends",
                self.conn.side()
            )));
        }
        let gone = self.conn.execute(delete, &[]).await?;
        self.conn.batch("COMMIT").await?;
        Ok(gone)
    }

    fn report(&self) {
        self.run.progress.send_replace(Progress {
            table: self.table.clone(),
            rows_done: self.rows,
            rows_total: self.total.max(self.rows),
            ..Progress::default()
        });
    }
}

/// What holds a table's rows: itself, or its leaf partitions.
async fn relations(conn: &Conn, table: &Table) -> Result<Vec<String>, MoveError> {
    let rows = conn
        .query(
            "select format('%I.%I', n.nspname, c.relname) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind = 'r' and (c.oid = $1::text::regclass \
                or c.oid in (select relid from pg_partition_tree($1::text::regclass))) order by 1",
            &[&table.name],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Tables before those that they point to.
fn children_first(tables: Vec<Table>) -> Vec<Table> {
    let mut ordered = catalog::parents_first(tables);
    ordered.reverse();
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mover::catalog::ForeignKey;

    fn table(name: &str, parents: &[&str]) -> Table {
        let key = |parent: &&str| ForeignKey {
            name: format!("{name}_{parent}"),
            columns: Vec::new(),
            parent: (*parent).to_owned(),
            parent_columns: Vec::new(),
        };
        Table {
            name: name.into(),
            membership: crate::mover::membership::Membership::Column("customer_id".into()),
            time: None,
            dependents: Vec::new(),
            partitioned: false,
            hypertable: None,
            columns: Vec::new(),
            key: Vec::new(),
            foreign_keys: parents.iter().map(key).collect(),
            constraints: Vec::new(),
            uniques: Vec::new(),
            sequences: Vec::new(),
        }
    }

    #[test]
    fn children_go_before_their_parents() {
        let tables = vec![
            table("a", &[]),
            table("b", &["a", "b"]),
            table("c", &["b"]),
            table("d", &["e"]),
            table("e", &["d", "a"]),
        ];
        let order: Vec<String> = children_first(tables).into_iter().map(|t| t.name).collect();
        let at = |name: &str| order.iter().position(|other| other == name).expect("there");
        assert!(at("c") < at("b") && at("b") < at("a") && at("e") < at("a"), "{order:?}");
        assert_eq!(order.len(), 5);
    }
}
