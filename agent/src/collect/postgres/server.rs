//! How the tenants' database server is: what its cache serves, who waits for
//! whom, whether its standbys follow and its archive takes the write-ahead log
//! that backups rest on.
//!
//! All of it comes from the server's own statistics: no table of the tenants is
//! touched.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use webhost_proto::wire::{Archiving, DatabaseSample, Standby};

use super::catalog::{quote, unsigned};
use super::session::describe;
use crate::collect::counter::Counter;

/// Between two readings.
const EVERY: Duration = Duration::from_secs(10);

/// Between two looks at `pg_stat_statements`, which has thousands of rows.
const STATEMENTS_EVERY: Duration = Duration::from_secs(60);

/// A statement that takes longer than this on average is slow.
const SLOW_MS: f64 = 1_000.0;

/// The most standbys that are reported, and the bytes of a name.
const MAX_STANDBYS: i64 = 16;
const MAX_NAME: usize = 63;

/// What was read last; counters are totals since the agent watches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerReading {
    /// How many readings there were: tells a new one from an old one.
    pub number: u64,
    pub sample: DatabaseSample,
}

/// The state between readings.
#[derive(Debug, Default)]
pub(super) struct Server {
    read: Option<Instant>,
    statements_read: Option<Instant>,
    hit: Counter,
    missed: Counter,
    failures: Counter,
    slow: Option<u64>,
    reading: Option<ServerReading>,
}

impl Server {
    /// Another server may have come up at this address.
    pub(super) fn forget(&mut self) {
        *self = Self {
            hit: self.hit,
            missed: self.missed,
            failures: self.failures,
            reading: self.reading.take(),
            ..Self::default()
        };
    }

    /// Reads again when it is time to; what is known.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn look(&mut self, client: &Client) -> Result<Option<ServerReading>, String> {
        let now = Instant::now();
        if self.read.is_some_and(|at| now.duration_since(at) < EVERY) {
            return Ok(self.reading.clone());
        }
        if self.statements_read.is_none_or(|at| now.duration_since(at) >= STATEMENTS_EVERY) {
            self.slow = slow_statements(client).await?;
            self.statements_read = Some(now);
        }
        let sample = self.sample(client).await?;
        self.read = Some(now);
        let number = self.reading.as_ref().map_or(0, |reading| reading.number) + 1;
        self.reading = Some(ServerReading { number, sample });
        Ok(self.reading.clone())
    }

    async fn sample(&mut self, client: &Client) -> Result<DatabaseSample, String> {
        let row = client
            .query_one(
                "select d.blks_hit, d.blks_read, s.waiting, s.oldest_us,
                        current_setting('archive_mode') <> 'off', a.failed_count,
                        a.last_failed_time is null
                            or coalesce(a.last_archived_time > a.last_failed_time, false),
                        (extract(epoch from clock_timestamp() - a.last_archived_time)
                            * 1000000)::bigint
                 from pg_catalog.pg_stat_database d,
                      pg_catalog.pg_stat_archiver a,
                      (select count(*) filter (where wait_event_type = 'Lock') as waiting,
                              (extract(epoch from clock_timestamp() - min(xact_start) filter (
                                  where backend_type = 'client backend'
                                    and pid <> pg_catalog.pg_backend_pid())) * 1000000)::bigint
                                  as oldest_us
                       from pg_catalog.pg_stat_activity) s
                 where d.datname = current_database()",
                &[],
            )
            .await
            .map_err(|error| describe(&error))?;
        self.hit.observe(unsigned(row.get(0)));
        self.missed.observe(unsigned(row.get(1)));
        self.failures.observe(unsigned(row.get(5)));
        Ok(DatabaseSample {
            blocks_hit: self.hit.total(),
            blocks_read: self.missed.total(),
            waiting_locks: unsigned(row.get(2)),
            oldest_transaction_us: unsigned(row.get::<_, Option<i64>>(3).unwrap_or(0)),
            standbys: standbys(client).await?,
            slow_statements: self.slow,
            archiving: row.get::<_, bool>(4).then(|| Archiving {
                working: row.get(6),
                failures: self.failures.total(),
                age_us: row.get::<_, Option<i64>>(7).map(unsigned),
            }),
        })
    }
}

/// Who receives write-ahead log, and how far behind in replaying it, or in
/// keeping it where it is only kept; without the right to see it (`pg_monitor`)
/// nobody.
async fn standbys(client: &Client) -> Result<Vec<Standby>, String> {
    let rows = client
        .query(
            "select coalesce(application_name, ''), coalesce(state, ''),
                    pg_catalog.pg_wal_lsn_diff(
                        case when pg_catalog.pg_is_in_recovery()
                             then pg_catalog.pg_last_wal_receive_lsn()
                             else pg_catalog.pg_current_wal_lsn() end,
                        coalesce(replay_lsn, flush_lsn, write_lsn))::bigint,
                    (extract(epoch from coalesce(replay_lag, flush_lag, write_lag)) * 1000000)::bigint
             from pg_catalog.pg_stat_replication
             where coalesce(replay_lsn, flush_lsn, write_lsn) is not null
             order by application_name, pid limit $1",
            &[&MAX_STANDBYS],
        )
        .await
        .map_err(|error| describe(&error))?;
    Ok(rows
        .iter()
        .map(|row| Standby {
            name: printable(row.get(0)),
            state: printable(row.get(1)),
            lag_bytes: unsigned(row.get::<_, Option<i64>>(2).unwrap_or(0)),
            lag_us: row.get::<_, Option<i64>>(3).map(unsigned),
        })
        .collect())
}

fn printable(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if text.len() + letter.len_utf8() > MAX_NAME {
            break;
        }
        text.push(letter);
    }
    text
}

/// Slow statements of this database, where the extension is in it and the
/// server has loaded its library. Their texts, which it keeps in a file, are
/// not read.
async fn slow_statements(client: &Client) -> Result<Option<u64>, String> {
    let found = client
        .query_opt(
            "select n.nspname::text from pg_catalog.pg_extension e
             join pg_catalog.pg_namespace n on n.oid = e.extnamespace
             where e.extname = 'pg_stat_statements'
               and current_setting('pg_stat_statements.max', true) is not null",
            &[],
        )
        .await
        .map_err(|error| describe(&error))?;
    let Some(row) = found else { return Ok(None) };
    let statement = format!(
        "select count(*) from {}.pg_stat_statements(false) s
         join pg_catalog.pg_database d on d.oid = s.dbid
         where d.datname = current_database() and s.mean_exec_time >= $1",
        quote(row.get(0))
    );
    match client.query_one(&statement, &[&SLOW_MS]).await {
        Ok(row) => Ok(Some(unsigned(row.get(0)))),
        // Of another form, or not for us: the rest is worth having.
        Err(error) if error.as_db_error().is_some() => {
            tracing::debug!(error = %describe(&error), "pg_stat_statements can't be read");
            Ok(None)
        }
        Err(error) => Err(describe(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for (name, expected) in [
            ("standby-1", "standby-1".to_owned()),
            ("a\u{1b}[31m\nb", "a[31mb".to_owned()),
            (&"ä".repeat(40), "ä".repeat(31)),
        ] {
            assert_eq!(printable(name), expected);
        }
    }
}
