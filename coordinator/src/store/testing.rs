//! A real, empty, migrated database for each test: one throwaway cluster per
//! test process, one template that is migrated once, one copy per test.
//!
//! A static is never dropped, so the cluster's server is ended by the kernel
//! when the process ends, and its directory is removed by the next process
//! that comes here: each holds a lock on its own for as long as it lives.

#![allow(clippy::expect_used, reason = "support for tests: a failure here is a failed test")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::fs::FlockOperation;

use super::Store;
use crate::embedded::{Embedded, Options};

struct Cluster {
    /// Held for as long as the process lives; a mutex makes it `Sync`.
    _server: Mutex<Embedded>,
    _lock: File,
    /// How to connect, to any database.
    config: tokio_postgres::Config,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// A store over a database of its own, with the newest schema and no rows.
///
/// # Panics
/// Where PostgreSQL is not installed or can't start.
pub async fn database() -> Store {
    Store::new(config().await, 8).expect("a pool")
}

/// As [`database`], as what `Store::new` or a process of its own connects to.
///
/// # Panics
/// As [`database`].
pub async fn config() -> tokio_postgres::Config {
    tokio::task::spawn_blocking(|| {
        let cluster = CLUSTER.get_or_init(start);
        let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        execute(&cluster.config, &format!("create database {name} template base"));
        cluster.config.clone().dbname(&name).clone()
    })
    .await
    .expect("the cluster starts")
}

fn start() -> Cluster {
    let (dir, lock) = directory();
    let server = Embedded::start(&dir, &Options::throwaway()).expect("PostgreSQL starts");
    let config = server.config("postgres");
    execute(&config, "create database base");
    let base = server.config("base");
    on_runtime(async {
        Store::new(base, 1).expect("a pool").migrate().await.expect("the schema applies");
    });
    Cluster { _server: Mutex::new(server), _lock: lock, config }
}

fn execute(config: &tokio_postgres::Config, statement: &str) {
    on_runtime(async {
        let (client, connection) =
            config.connect(tokio_postgres::NoTls).await.expect("the cluster accepts");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        client.batch_execute(statement).await.expect("the statement runs");
    });
}

/// The cluster outlives the runtime of any one test, so its own work runs on
/// runtimes of its own, on blocking threads.
fn on_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work);
}

/// A directory of this process, locked; those of dead processes are removed.
/// Not below a home directory: PostgreSQL runs as another user under root.
fn directory() -> (PathBuf, File) {
    let user = rustix::process::geteuid().as_raw();
    let root = std::env::temp_dir().join(format!("webhost-tests-{user}"));
    std::fs::create_dir_all(&root).expect("a directory for clusters");
    let gate = File::create(root.join("gate")).expect("a gate file");
    rustix::fs::flock(&gate, FlockOperation::LockExclusive).expect("the gate");
    for entry in std::fs::read_dir(&root).expect("lists clusters").flatten() {
        if entry.path().is_dir() {
            remove_if_dead(&entry.path());
        }
    }
    let dir = root.join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).expect("a directory for this cluster");
    let lock = File::create(dir.join("owner")).expect("an owner file");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("the owner's lock");
    (dir, lock)
}

fn remove_if_dead(dir: &Path) {
    let dead = File::open(dir.join("owner")).map_or(true, |owner| {
        rustix::fs::flock(&owner, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    if dead {
        // Its server may be writing its last files; the next process tries
        // again.
        let _left_for_the_next = std::fs::remove_dir_all(dir);
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn every_database_is_its_own_and_migrated() {
        let (one, two) = tokio::join!(super::database(), super::database());
        let insert = "insert into audit (actor, action, subject, subject_id) \
                      values ('system', 'test', 'node', 'x')";
        one.client().await.expect("one").execute(insert, &[]).await.expect("inserts");
        let count = "select count(*) from audit";
        for (store, expected) in [(one, 1_i64), (two, 0)] {
            let found: i64 = store
                .client()
                .await
                .expect("a client")
                .query_one(count, &[])
                .await
                .expect("counts")
                .get(0);
            assert_eq!(found, expected);
        }
    }
}
