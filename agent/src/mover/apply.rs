//! Rows brought up to date on the side that a leg goes to, key by key.
//!
//! The statements of a table are prepared once per session and used by the
//! drain and inside the fence alike; several tables go over in one round trip.

use futures_util::future::{join, join_all, join3, join4};
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::catalog::Table;
use super::connect::Conn;
use super::error::MoveError;
use super::hypertable::chunks;
use super::leg::Leg;
use super::spec::Spec;
use super::statements::cold::Cold;
use super::statements::{Batch, Group, Mode, TableSql};

/// Which foreign keys of the rows are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Those to tables that are not the tenant's: what a drain can promise,
    /// whose batches may hold a child without its parent.
    References,
    /// All of them: nothing is left in the log.
    Everything,
}

/// The prepared statements of all tables on one session.
pub(super) struct Applier<'a> {
    to: &'a Conn,
    pub(super) sql: Vec<TableSql<'a>>,
    references: Vec<String>,
    prepared: Vec<Option<Prepared>>,
}

struct Prepared {
    delete: Statement,
    /// Only in [`Mode::Replace`].
    delete_all: Statement,
    update: Option<Statement>,
    insert: Statement,
    compare: Statement,
    references: Option<Statement>,
    everything: Option<Statement>,
}

impl<'a> Applier<'a> {
    /// Looks where compressed chunks end; nothing is prepared yet. A chunk that
    /// is compressed later makes statements slower, and none of them wrong.
    ///
    /// # Errors
    /// What the database said.
    pub(super) async fn new(
        to: &'a Conn,
        spec: &Spec,
        leg: Leg,
        tables: &'a [Table],
    ) -> Result<Self, MoveError> {
        let mut sql: Vec<TableSql<'a>> =
            tables.iter().map(|table| TableSql::on(table, spec, leg)).collect();
        for sql in &mut sql {
            if let Some(hypertable) = &sql.table.hypertable {
                sql.set_cold_until(chunks::cold_until(to, &sql.table.name, hypertable).await?);
            }
        }
        Ok(Self {
            to,
            sql,
            references: references(tables),
            prepared: tables.iter().map(|_| None).collect(),
        })
    }

    /// Prepares what `batch` needs.
    ///
    /// # Errors
    /// [`MoveError::Refused`] for a table that is unknown.
    pub(super) async fn ready(&mut self, batch: &Batch) -> Result<(), MoveError> {
        let numbers: Vec<usize> = batch.groups.keys().copied().collect();
        self.prepare(&numbers).await
    }

    /// Prepares every table, in one round trip or two.
    ///
    /// # Errors
    /// What the database said.
    pub(super) async fn ready_all(&mut self) -> Result<(), MoveError> {
        let numbers: Vec<usize> = (0..self.sql.len()).collect();
        self.prepare(&numbers).await
    }

    async fn prepare(&mut self, numbers: &[usize]) -> Result<(), MoveError> {
        let mut missing = Vec::new();
        for &number in numbers {
            match self.prepared.get(number) {
                Some(None) => missing.push(number),
                Some(Some(_)) => {}
                None => {
                    return Err(MoveError::refused(format!(
                        "the key log names the unknown table {number}"
                    )));
                }
            }
        }
        let prepared = join_all(missing.iter().map(|&number| self.table(number))).await;
        for (number, prepared) in missing.into_iter().zip(prepared) {
            if let Some(slot) = self.prepared.get_mut(number) {
                *slot = prepared?;
            }
        }
        Ok(())
    }

    async fn table(&self, number: usize) -> Result<Option<Prepared>, MoveError> {
        let Some(sql) = self.sql.get(number) else { return Ok(None) };
        let arg = |at: usize| format!("${}::text[]", at + 1);
        let rows = format!("${}::text[]", sql.key_width() + 1);
        let outside = |parent: &str| self.references.iter().any(|name| name == parent);
        let must = |text: String| async move { self.to.prepare(&text).await };
        let may = |text: Option<String>| async move {
            match text {
                Some(text) => self.to.prepare(&text).await.map(Some),
                None => Ok(None),
            }
        };
        let (always, sometimes) = join(
            join4(
                must(sql.delete(&arg, &rows, Mode::Update)),
                must(sql.delete(&arg, &rows, Mode::Replace)),
                must(sql.insert("$1::text[]")),
                must(sql.compare(&arg, &rows)),
            ),
            join3(
                may(sql.update("$1::text[]")),
                may(sql.dangling(&arg, outside)),
                may(sql.dangling(&arg, |_| true)),
            ),
        )
        .await;
        let (delete, delete_all, insert, compare) = always;
        let (update, references, everything) = sometimes;
        Ok(Some(Prepared {
            delete: delete?,
            delete_all: delete_all?,
            insert: insert?,
            compare: compare?,
            update: update?,
            references: references?,
            everything: everything?,
        }))
    }

    /// The changes of keys in compressed chunks, as statements for
    /// [`Self::apply`]; empty, without asking, where no chunk is compressed.
    ///
    /// The stored rows may be looked at before the transaction that changes
    /// them: on the side that a leg goes to nobody but the one mover writes
    /// rows of the tenant, and what is stored in the end is compared.
    ///
    /// # Errors
    /// What the database said.
    pub(super) async fn cold(&self, batch: &Batch, mode: Mode) -> Result<String, MoveError> {
        let mut text = String::new();
        for (&number, group) in &batch.groups {
            let Some(sql) = self.sql.get(number) else { continue };
            let arg = |at: usize| format!("${}::text[]", at + 1);
            let Some(query) = sql.cold_keys(&arg) else { continue };
            let keys: Vec<&(dyn ToSql + Sync)> =
                group.keys.iter().map(|column| column as _).collect();
            for row in self.to.query(&query, &keys).await? {
                let at = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
                let key = group.keys.iter().filter_map(|column| column.get(at).cloned()).collect();
                let cold = Cold { key, segment: row.get(1) };
                let given = group.rows.get(at).and_then(Option::as_deref);
                text.push_str(&sql.change_cold(&cold, given, mode));
            }
        }
        Ok(text)
    }

    /// The same for the given table `number` of a batch in bulk.
    ///
    /// # Errors
    /// What the database said.
    pub(super) async fn cold_given(&self, number: usize, mode: Mode) -> Result<String, MoveError> {
        let Some(sql) = self.sql.get(number) else { return Ok(String::new()) };
        let Some(query) = sql.cold_keys_given(number) else { return Ok(String::new()) };
        let mut text = String::new();
        for row in self.to.query(&query, &[]).await? {
            let cold = Cold { key: row.get(0), segment: row.get(1) };
            text.push_str(&sql.change_cold_given(&cold, number, row.get(2), mode));
        }
        Ok(text)
    }

    /// Applies `batch`, compares every key of it and looks at its foreign
    /// keys, all in one round trip: the first poll sends everything, in order,
    /// the statements of [`Self::cold`] first. Runs in the caller's
    /// transaction, under the replica role.
    ///
    /// # Errors
    /// [`MoveError::Mismatch`] when the database keeps another row than was
    /// given; [`MoveError::Refused`] when a row points to nothing.
    pub(super) async fn apply(
        &self,
        batch: &Batch,
        cold: &str,
        mode: Mode,
        check: Check,
    ) -> Result<(), MoveError> {
        let groups: Vec<(usize, &Group)> =
            batch.groups.iter().map(|(&number, group)| (number, group)).collect();
        let cold = async {
            if cold.is_empty() { Ok(()) } else { self.to.batch(cold).await.map_err(compressed) }
        };
        let (changed, applied) = join(cold, self.groups(&groups, mode, check)).await;
        changed.and(applied)
    }

    /// All changes of all tables first: a row may point to one of a table that
    /// comes later in the same batch.
    async fn groups(
        &self,
        groups: &[(usize, &Group)],
        mode: Mode,
        check: Check,
    ) -> Result<(), MoveError> {
        let changes = groups.iter().map(|(number, group)| self.group(*number, group, mode));
        let checks = groups.iter().map(|(number, group)| self.dangling(*number, group, check));
        let (changed, checked) = join(join_all(changes), join_all(checks)).await;
        changed.into_iter().chain(checked).collect()
    }

    /// Runs every statement once with nothing to do, so that plans and caches
    /// are warm when writers wait. In the caller's transaction.
    ///
    /// # Errors
    /// What the database said.
    pub(super) async fn rehearse(&self) -> Result<(), MoveError> {
        let empty: Vec<Group> = self
            .sql
            .iter()
            .map(|sql| Group { keys: vec![Vec::new(); sql.key_width()], rows: Vec::new() })
            .collect();
        let groups: Vec<(usize, &Group)> = empty.iter().enumerate().collect();
        self.groups(&groups, Mode::Update, Check::Everything).await
    }

    fn of(&self, number: usize) -> Result<(&TableSql<'a>, &Prepared), MoveError> {
        match (self.sql.get(number), self.prepared.get(number)) {
            (Some(sql), Some(Some(prepared))) => Ok((sql, prepared)),
            _ => Err(MoveError::refused(format!("the key log names the unknown table {number}"))),
        }
    }

    async fn dangling(&self, number: usize, group: &Group, check: Check) -> Result<(), MoveError> {
        let (sql, prepared) = self.of(number)?;
        let query = match check {
            Check::References => &prepared.references,
            Check::Everything => &prepared.everything,
        };
        let Some(query) = query else { return Ok(()) };
        let keys: Vec<&(dyn ToSql + Sync)> = group.keys.iter().map(|column| column as _).collect();
        let found =
            self.to.client().query(query, &keys).await.map_err(|error| self.to.error(error))?;
        match found.first() {
            None => Ok(()),
            Some(row) => Err(points_to_nothing(&sql.table.name, row.get(0), self.to)),
        }
    }

    async fn group(&self, number: usize, group: &Group, mode: Mode) -> Result<(), MoveError> {
        let (sql, prepared) = self.of(number)?;
        let client = self.to.client();
        let keys: Vec<&(dyn ToSql + Sync)> = group.keys.iter().map(|column| column as _).collect();
        let mut keys_and_rows = keys;
        keys_and_rows.push(&group.rows);
        let rows: [&(dyn ToSql + Sync); 1] = [&group.rows];
        let delete = match mode {
            Mode::Update => &prepared.delete,
            Mode::Replace => &prepared.delete_all,
        };
        let update = async {
            match (&prepared.update, mode) {
                (Some(update), Mode::Update) => client.execute(update, &rows).await,
                _ => Ok(0),
            }
        };
        let (deleted, updated, inserted, compared) = join4(
            client.execute(delete, &keys_and_rows),
            update,
            client.execute(&prepared.insert, &rows),
            client.query(&prepared.compare, &keys_and_rows),
        )
        .await;
        let error = |error| self.to.error(error);
        deleted.map_err(error)?;
        updated.map_err(error)?;
        inserted.map_err(error)?;
        let wrong = compared.map_err(error)?;
        if !wrong.is_empty() {
            let keys: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
            return Err(MoveError::Mismatch {
                table: sql.table.name.clone(),
                keys: keys.join(" "),
            });
        }
        Ok(())
    }

    /// Whether a foreign key of a table is to be looked at.
    pub(super) fn outside(&self, parent: &str) -> bool {
        self.references.iter().any(|name| name == parent)
    }
}

/// A refusal of TimescaleDB's to change compressed rows, with the way out.
pub(super) fn compressed(error: MoveError) -> MoveError {
    if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) {
        MoveError::refused(format!(
            "rows in compressed chunks could not be brought up to date ({error}): decompress the chunks that the \
             tenant still writes to (decompress_chunk) and try again"
        ))
    } else {
        error
    }
}

/// The error for a row of `table` whose reference `what` is not there.
pub(super) fn points_to_nothing(table: &str, what: &str, to: &Conn) -> MoveError {
    MoveError::refused(format!(
        "a row of {table} points to a row that the {} lacks: {what}",
        to.side()
    ))
}

/// Tables outside the tenant's that its rows point to.
fn references(tables: &[Table]) -> Vec<String> {
    tables
        .iter()
        .flat_map(|table| &table.foreign_keys)
        .map(|key| key.parent.clone())
        .filter(|parent| !tables.iter().any(|table| table.name == *parent))
        .collect()
}
