//! The one connection to the tenants' database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Row, Statement};

/// How long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A connection and the task that drives it; both end together.
pub(super) struct Session {
    pub(super) client: Client,
    /// What is asked in every round, by its text.
    prepared: Mutex<HashMap<String, Statement>>,
    /// Dropping it ends the task, and with it the connection.
    _driver: JoinSet<()>,
}

impl Session {
    /// Connects. Every statement is bounded by `statement_ms` on the server,
    /// so that nothing that we asked runs on after we gave up.
    pub(super) async fn open(
        config: &crate::config::Postgres,
        statement_ms: u32,
    ) -> Result<Self, String> {
        let mut connection = config.connection().map_err(|problem| problem.to_string())?;
        connection.connect_timeout(CONNECT_LIMIT);
        let bounds = format!(
            "{} -c statement_timeout={statement_ms} -c lock_timeout=500 -c jit=off",
            connection.get_options().unwrap_or("")
        );
        connection.options(bounds.trim());
        let (client, driver) = connection.connect(NoTls).await.map_err(|error| describe(&error))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(error = %describe(&error), "the database connection ended");
            }
        });
        Ok(Self { client, prepared: Mutex::default(), _driver: tasks })
    }

    /// Asks what is asked in every round: parsed and planned once for the
    /// connection, which costs the server more than the answer does. Only for
    /// texts that are the same each time.
    pub(super) async fn ask(&self, statement: &str) -> Result<Vec<Row>, String> {
        let refused = |error: tokio_postgres::Error| describe(&error);
        let known = {
            let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            prepared.get(statement).cloned()
        };
        let ready = match known {
            Some(ready) => ready,
            None => {
                let ready = self.client.prepare(statement).await.map_err(refused)?;
                let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
                prepared.insert(statement.to_owned(), ready.clone());
                ready
            }
        };
        self.client.query(&ready, &[]).await.map_err(refused)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// An error of the database in one sentence, with the server's own words.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}
