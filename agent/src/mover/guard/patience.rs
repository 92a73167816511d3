//! DDL under load: a short wait for the table's lock, again and again, so that
//! no writer queues long behind us; and who was in the way.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::sql::{self, Lock};

/// How long one attempt may hold up the writers that queue behind it.
const LOCK_TIMEOUT: &str = "100ms";
/// How long we try.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs DDL on one table with a short lock timeout, again and again.
pub(in crate::mover) async fn patiently(
    conn: &Conn,
    table: &str,
    ddl: &str,
) -> Result<(), MoveError> {
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(20);
    loop {
        let attempt = conn
            .batch(&format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {ddl} COMMIT"))
            .await;
        let Err(error) = attempt else { return Ok(()) };
        conn.batch("ROLLBACK").await?;
        let again = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
            || error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED);
        if !again {
            return Err(error);
        }
        if Instant::now() >= until {
            return Err(MoveError::Blocked {
                what: format!("a trigger on {table} of the {}", conn.side()),
                blockers: blockers(conn, Held::Table(table)).await?,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// What somebody else holds.
pub(in crate::mover) enum Held<'a> {
    /// Any lock on a table (quoted).
    Table(&'a str),
    Lock(Lock),
}

/// Who is in the way, with pid, name and age.
pub(in crate::mover) async fn blockers(conn: &Conn, held: Held<'_>) -> Result<String, MoveError> {
    let filter = match held {
        Held::Table(table) => format!("l.relation = to_regclass({})", sql::literal(table)),
        Held::Lock(lock) => format!(
            "l.locktype = 'advisory' and l.objsubid = 1 \
             and ((l.classid::int8 << 32) | l.objid::int8) = {}",
            lock.key()
        ),
    };
    let rows = conn
        .query(
            &format!(
                "select distinct format('pid %s (%s, open for %s s)', a.pid, \
                   coalesce(nullif(a.application_name, ''), a.usename), \
                   extract(epoch from clock_timestamp() - a.xact_start)::int) \
                 from pg_locks l join pg_stat_activity a on a.pid = l.pid \
                 where {filter} and l.granted and a.pid <> pg_backend_pid() and a.xact_start is not null \
                 union all select format('prepared transaction %s', gid) from pg_prepared_xacts \
                 where database = current_database() limit 5"
            ),
            &[],
        )
        .await?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(if names.is_empty() {
        "a transaction that ended meanwhile".into()
    } else {
        names.join(", ")
    })
}
