//! All SQL of the coordinator, by noun: plain statements, typed rows, and in
//! each function's comment what is true when it returns.

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use std::time::Duration;

pub mod commands;
pub mod connect;
mod listen;
mod locks;
mod text;

pub mod accuracy;
pub mod api_tokens;
pub mod audit;
pub mod certificates;
pub mod decisions;
pub mod evaluation;
pub mod history;
pub mod idempotency;
pub mod join_tokens;
pub mod leases;
pub mod limits;
pub mod moves;
pub mod node_link;
pub mod nodes;
pub mod old;
pub mod placements;
pub mod places;
pub mod rules;
pub mod tenants;
pub mod usage;
pub mod windows;

#[doc(hidden)]
pub mod testing;

use self::locks::Lock;

mod embedded_migrations {
    refinery::embed_migrations!("src/store/schema");
}

/// An error between the coordinator and its database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be had from the pool.
    #[error("no connection to the state database: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// Nor for those that were to be written together with whom [`Self::Pool`]
    /// was told; its words.
    #[error("no connection to the state database: {0}")]
    NoConnection(String),
    /// The database refused a statement.
    #[error("state database: {0}")]
    Database(#[from] tokio_postgres::Error),
    /// The schema could not be brought up to date.
    #[error("schema migration: {0}")]
    Migration(#[from] refinery::Error),
    /// A row holds what the code can't read.
    #[error("state database holds an unreadable {what}: {detail}")]
    Corrupt {
        /// Table and column.
        what: &'static str,
        /// What was found.
        detail: String,
    },
}

/// A pool of connections to the state database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    /// For connections outside of the pool.
    target: connect::Target,
}

impl Store {
    /// A pool over `config`; connects lazily.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] never; only when the pool can't be built.
    pub fn new(config: tokio_postgres::Config, connections: usize) -> Result<Self, StoreError> {
        Self::connect(connect::Target::local(config), connections)
    }

    /// A pool over `target`, with TLS where it says so; connects lazily.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] only when the pool can't be built.
    pub fn connect(target: connect::Target, connections: usize) -> Result<Self, StoreError> {
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let kept = target.clone();
        let manager = match target.tls {
            None => Manager::from_config(target.config, tokio_postgres::NoTls, settings),
            Some(tls) => Manager::from_config(
                target.config,
                tokio_postgres_rustls::MakeRustlsConnect::new(tls),
                settings,
            ),
        };
        let wait = Some(Duration::from_secs(5));
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait, create: wait, recycle: wait })
            .build()
            .map_err(|error| StoreError::Corrupt { what: "pool", detail: error.to_string() })?;
        Ok(Self { pool, target: kept })
    }

    /// A connection; returns to the pool when dropped.
    ///
    /// # Errors
    /// [`StoreError::Pool`] when none is free within five seconds.
    pub async fn client(&self) -> Result<deadpool_postgres::Object, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// Returns when the database answers.
    ///
    /// # Errors
    /// [`StoreError`] when it doesn't.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.client().await?.query_one("select 1", &[]).await?;
        Ok(())
    }

    /// Brings the schema up to date. When it returns, every migration that
    /// this program knows is applied, by this process or by another one.
    ///
    /// # Errors
    /// [`StoreError::Migration`] with the migration's name.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        client.execute("select pg_advisory_lock($1)", &[&Lock::Migration.key()]).await?;
        let outcome = embedded_migrations::migrations::runner().run_async(&mut **client).await;
        client.execute("select pg_advisory_unlock($1)", &[&Lock::Migration.key()]).await?;
        outcome?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
