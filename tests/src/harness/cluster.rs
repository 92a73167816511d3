//! A node's PostgreSQL: a cluster of its own with the WebHost schema.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};
use webhost_coordinator::embedded::{Embedded, Options, SUPERUSER};

use crate::schema;

/// A running cluster; stops when dropped.
pub struct Cluster {
    /// As the superuser, to the tenants' database.
    config: tokio_postgres::Config,
    socket_dir: PathBuf,
    data: PathBuf,
    /// Held for its end; the lock makes the handle shareable.
    _server: Mutex<Embedded>,
}

/// A connection whose task ends with it.
pub struct Session {
    client: Client,
    _connection: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl std::ops::Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Connects by `config` without TLS.
///
/// # Errors
/// As the connection fails.
pub async fn connect(config: &tokio_postgres::Config) -> anyhow::Result<Session> {
    let (client, connection) = config.connect(NoTls).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    Ok(Session { client, _connection: tasks })
}

impl Cluster {
    /// Starts a cluster in `dir` and loads roles and `schema` into it.
    ///
    /// # Errors
    /// When PostgreSQL can't be started or refuses the schema.
    pub async fn start(dir: &Path, options: Options, schema: &str) -> anyhow::Result<Self> {
        let owned = dir.to_path_buf();
        let server =
            tokio::task::spawn_blocking(move || Embedded::start(&owned, &options)).await??;
        let admin = connect(&server.config("postgres")).await?;
        let cluster = Self {
            config: server.config(schema::DATABASE),
            socket_dir: server.socket_dir(),
            data: dir.join("data"),
            _server: Mutex::new(server),
        };
        let exists = admin
            .query_opt("select from pg_database where datname = $1", &[&schema::DATABASE])
            .await?;
        if exists.is_none() {
            admin.batch_execute(&format!("create database {}", schema::DATABASE)).await?;
            let superuser = cluster.session(SUPERUSER).await?;
            superuser.batch_execute(schema::ROLES).await.context("roles.sql")?;
            let owner = cluster.session(schema::APP).await?;
            owner.batch_execute(schema).await.context("the WebHost schema")?;
        }
        Ok(cluster)
    }

    /// How `role` connects to the tenants' database.
    pub fn config(&self, role: &str) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        config.user(role);
        config
    }

    /// A connection of `role` to the tenants' database.
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn session(&self, role: &str) -> anyhow::Result<Session> {
        connect(&self.config(role)).await
    }

    /// A connection that sees everything: the inspector of tests and demo.
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn inspect(&self) -> anyhow::Result<Session> {
        self.session(SUPERUSER).await
    }

    /// The directory of the unix socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.socket_dir.clone()
    }

    /// The postmaster's pid file.
    pub fn pid_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn both_schemas_load_and_the_agent_is_no_superuser() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        for (name, sql) in
            [("plain", schema::WEBHOST), ("partitioned", schema::WEBHOST_PARTITIONED)]
        {
            let cluster = Cluster::start(&dir.path().join(name), Options::throwaway(), sql)
                .await
                .expect("a cluster");
            let agent = cluster.session(schema::AGENT).await.expect("connects");
            agent
                .batch_execute(
                    "set session_replication_role = replica; create schema webhost_fleet",
                )
                .await
                .expect("the grants suffice");
            let superuser: bool = agent
                .query_one("select rolsuper from pg_roles where rolname = current_user", &[])
                .await
                .expect("answers")
                .get(0);
            assert!(!superuser);
            let tenant_tables: i64 = agent
                .query_one(
                    "select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid
                     where a.attname = 'customer_id' and c.relkind in ('r', 'p')
                       and not c.relispartition",
                    &[],
                )
                .await
                .expect("answers")
                .get(0);
            assert_eq!(tenant_tables, 12, "{name}");
        }
    }
}
