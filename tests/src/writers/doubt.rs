//! What a writer does when a connection breaks: it finds out what became of
//! the transaction, as a careful application would.

use anyhow::bail;
use tokio::time::Instant;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::writer::{LOOK, PATIENCE, Side, Stopped, Writer};

/// What became of a transaction, by its number.
const STATUS: &str = "select pg_xact_status($1::text::xid8)";

pub(super) fn second_phase(name: &str, commits: bool) -> String {
    format!("{} prepared '{name}'", if commits { "commit" } else { "rollback" })
}

impl Writer {
    /// Whether the server or the way to it is gone, and that was announced.
    pub(super) fn is_broken(&self, error: &Error) -> bool {
        self.mix.crashes
            && match error.code() {
                None => true,
                Some(code) => ["57P", "08"].iter().any(|class| code.code().starts_with(class)),
            }
    }

    /// Sorts an error, and leaves the session ready for the next try.
    pub(super) async fn stopped(&self, error: Error, committing: Option<String>) -> Stopped {
        if self.is_broken(&error) {
            return Stopped::Broken { committing };
        }
        match self.sides[self.at].client.batch_execute("rollback").await {
            Err(second) if self.is_broken(&second) => Stopped::Broken { committing: None },
            // Where it fails otherwise, the first error is the one to tell.
            _ => Stopped::Refused(error),
        }
    }

    /// New sessions with both sides, where the old ones ended.
    pub(super) async fn reconnect(&mut self, since: Instant) -> anyhow::Result<()> {
        for side in &mut self.sides {
            while side.client.is_closed() || side.client.simple_query("select 1").await.is_err() {
                *side = Side::connect(side.config.clone(), since).await?;
            }
        }
        Ok(())
    }

    /// Whether the transaction of that number committed, at the side where it
    /// was sent to.
    pub(super) async fn committed(&self, number: &str) -> anyhow::Result<bool> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let client = &self.sides[self.at].client;
            let row = match client.query_one(STATUS, &[&number]).await {
                Ok(row) => row,
                // The server forgot that it ever gave the number out: nothing
                // of the transaction reached the disk.
                Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            match row.get::<_, Option<&str>>(0) {
                Some("committed") => return Ok(true),
                Some("in progress") => tokio::time::sleep(LOOK).await,
                _ => return Ok(false),
            }
        }
        bail!("transaction {number} neither commits nor ends")
    }

    /// Brings a transaction of two phases to its end. None where it was never
    /// prepared.
    pub(super) async fn settled(
        &self,
        name: &str,
        commits: bool,
        second: bool,
    ) -> anyhow::Result<Option<bool>> {
        let client = &self.sides[self.at].client;
        let prepared = client
            .query_one("select exists (select 1 from pg_prepared_xacts where gid = $1)", &[&name])
            .await?
            .get(0);
        if prepared {
            client.batch_execute(&second_phase(name, commits)).await?;
        }
        Ok((prepared || second).then_some(commits))
    }
}
