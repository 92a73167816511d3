//! Rows brought up to date on the side that a leg goes to, key by key.
//!
//! The statements of a table are prepared once per session and used by the
//! drain and inside the fence alike; several tables go over in one round trip.

use futures_util::future::{join, join_all, join3, join4};
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::catalog::Table;
use super::connect::Conn;
use super::error::MoveError;
use super::leg::Leg;
use super::spec::Spec;
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
    pub(super) fn new(to: &'a Conn, spec: &Spec, leg: Leg, tables: &'a [Table]) -> Self {
        Self {
            to,
            sql: tables.iter().map(|table| TableSql::on(table, spec, leg)).collect(),
            references: references(tables),
            prepared: tables.iter().map(|_| None).collect(),
        }
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

    /// Applies `batch`, compares every key of it and looks at its foreign
    /// keys, all in one round trip: the first poll sends everything, in order.
    /// Runs in the caller's transaction, under the replica role.
    ///
    /// # Errors
    /// [`MoveError::Mismatch`] when the database keeps another row than was
    /// given; [`MoveError::Refused`] when a row points to nothing.
    pub(super) async fn apply(
        &self,
        batch: &Batch,
        mode: Mode,
        check: Check,
    ) -> Result<(), MoveError> {
        let groups: Vec<(usize, &Group)> =
            batch.groups.iter().map(|(&number, group)| (number, group)).collect();
        self.groups(&groups, mode, check).await
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
