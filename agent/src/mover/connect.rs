//! Sessions with the two databases.
//!
//! The target is reached through a [`Transport`]: today the tunnel to the
//! target's agent, in tests a plain socket, later perhaps a relay.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::error::{MoveError, Side};
use super::sql;

/// A stream that carries PostgreSQL's protocol.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A stream to a database, with whom to log in as.
pub struct Dialled {
    pub stream: Box<dyn Stream>,
    pub user: String,
    pub database: String,
    /// Free beside the database; none where nobody said.
    pub disk_free_bytes: Option<u64>,
}

/// How the target's database is reached.
#[tonic::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// A new stream; one session each.
    ///
    /// # Errors
    /// In words, naming the address.
    async fn dial(&self) -> Result<Dialled, String>;
}

/// One of the two databases.
#[derive(Clone)]
pub enum Endpoint {
    Local(Box<Config>),
    Through(Arc<dyn Transport>),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Endpoint {
    /// A session with the mover's settings.
    ///
    /// # Errors
    /// [`MoveError::Unreachable`], or what the database said.
    pub async fn connect(&self, side: Side, name: &str) -> Result<Conn, MoveError> {
        let unreachable = |detail: String| MoveError::Unreachable { side, detail };
        let work = async {
            match self {
                Self::Local(config) => {
                    let mut config = config.clone();
                    config.application_name(name);
                    let (client, connection) = config
                        .connect(NoTls)
                        .await
                        .map_err(|error| unreachable(super::error::describe(&error)))?;
                    Ok(Conn::new(side, client, connection, None))
                }
                Self::Through(transport) => {
                    let dialled = transport.dial().await.map_err(unreachable)?;
                    let mut config = Config::new();
                    config
                        .user(&dialled.user)
                        .dbname(&dialled.database)
                        .application_name(name)
                        .ssl_mode(tokio_postgres::config::SslMode::Disable);
                    let (client, connection) = config
                        .connect_raw(dialled.stream, NoTls)
                        .await
                        .map_err(|error| unreachable(super::error::describe(&error)))?;
                    Ok(Conn::new(side, client, connection, dialled.disk_free_bytes))
                }
            }
        };
        let conn = tokio::time::timeout(CONNECT_TIMEOUT, work)
            .await
            .map_err(|_| unreachable(format!("no session within {CONNECT_TIMEOUT:?}")))??;
        conn.batch(sql::session_settings()).await?;
        Ok(conn)
    }
}

/// How often a session says something, so that a tunnel knows it from one
/// whose mover is gone; well below the tunnel's bound for silence.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// One session; closed when dropped.
pub struct Conn {
    side: Side,
    disk_free_bytes: Option<u64>,
    client: Arc<Client>,
    /// Drives the protocol; aborted, and the socket closed, on drop.
    _driver: JoinSet<()>,
}

impl Conn {
    fn new<F>(side: Side, client: Client, connection: F, disk_free_bytes: Option<u64>) -> Self
    where
        F: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Every request in flight gets the same error from the client.
            if let Err(error) = connection.await {
                tracing::debug!(%side, error = %super::error::describe(&error), "session ended");
            }
        });
        let client = Arc::new(client);
        let kept = Arc::clone(&client);
        driver.spawn(async move {
            // An empty query queues behind whatever runs and changes nothing,
            // in a transaction or out of one. It fails when the session ended.
            loop {
                tokio::time::sleep(KEEP_ALIVE).await;
                if kept.batch_execute("").await.is_err() {
                    return;
                }
            }
        });
        Self { side, disk_free_bytes, client, _driver: driver }
    }

    /// Which database this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// What was free beside this database when the session began; none where
    /// nobody said.
    pub fn disk_free_bytes(&self) -> Option<u64> {
        self.disk_free_bytes
    }

    /// The client itself, for COPY and pipelining.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Names the side in an error.
    pub fn error(&self, error: tokio_postgres::Error) -> MoveError {
        MoveError::Database { side: self.side, error }
    }

    /// Runs a string of statements.
    ///
    /// # Errors
    /// What the database said.
    pub async fn batch(&self, sql: &str) -> Result<(), MoveError> {
        self.client.batch_execute(sql).await.map_err(|error| self.error(error))
    }

    /// Runs one query.
    ///
    /// # Errors
    /// What the database said.
    pub async fn query(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, MoveError> {
        self.client.query(sql, params).await.map_err(|error| self.error(error))
    }

    /// Runs one query that answers with exactly one row.
    ///
    /// # Errors
    /// What the database said.
    pub async fn one(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Row, MoveError> {
        self.client.query_one(sql, params).await.map_err(|error| self.error(error))
    }

    /// Runs one statement; answers how many rows it changed.
    ///
    /// # Errors
    /// What the database said.
    pub async fn execute(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, MoveError> {
        self.client.execute(sql, params).await.map_err(|error| self.error(error))
    }

    /// Prepares a statement.
    ///
    /// # Errors
    /// What the database said.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, MoveError> {
        self.client.prepare(sql).await.map_err(|error| self.error(error))
    }
}
