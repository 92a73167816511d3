//! T2: the target's transaction up to, and without, its commit.

use std::collections::BTreeMap;

use futures_util::future::join3;
use tokio_postgres::{Row, SimpleQueryMessage};

use super::fence::Fence;
use super::{FENCE_IDLE_TIMEOUT, FENCE_LOCK_TIMEOUT};
use crate::mover::apply::{Applier, Check};
use crate::mover::error::MoveError;
use crate::mover::fence;
use crate::mover::sql::{self, Lock, SCHEMA};
use crate::mover::statements::{Batch, Mode};

/// Sequences on the target start this far above both sides' values.
const SEQUENCE_MARGIN: i64 = 1000;

impl Fence<'_> {
    /// T2: everything but the commit, in one round trip: the statements are
    /// prepared, and sent before the first of them answers. An error of any
    /// fails those behind it; what the others answer is checked here. Keys in
    /// compressed chunks cost one round trip before it.
    pub(super) async fn prepare_target(
        &self,
        applier: &Applier<'_>,
        batch: &Batch,
        sequences: &[Row],
        mode: Mode,
    ) -> Result<(), MoveError> {
        let client = self.target.client();
        let cold = applier.cold(batch, mode).await?;
        let (begin, activate) = (self.begin(), self.activate(sequences));
        let (begun, applied, activated) = join3(
            client.simple_query(&begin),
            applier.apply(batch, &cold, mode, Check::Everything),
            client.simple_query(&activate),
        )
        .await;
        let begun = begun.map_err(|error| self.target.error(error))?;
        applied?;
        let activated = activated.map_err(|error| self.target.error(error))?;
        if says(&begun, "waiting") && says(&activated, "active") {
            Ok(())
        } else {
            Err(fence::not_waiting(&self.run.spec, self.leg))
        }
    }

    /// Everything of T2 with nothing to apply, rolled back: relations, plans
    /// and the session's caches are warm when writers wait.
    pub(super) async fn rehearse_target(
        &self,
        applier: &Applier<'_>,
        sequences: &[Row],
    ) -> Result<(), MoveError> {
        let client = self.target.client();
        let (begin, activate) = (self.begin(), self.activate(&[]));
        let reads: Vec<String> = self
            .sequence_names(sequences)
            .map(|name| format!("SELECT last_value FROM {name}"))
            .collect();
        let activate = format!("{activate}; {}", reads.join("; "));
        let (begun, rehearsed, activated) =
            join3(client.simple_query(&begin), applier.rehearse(), client.simple_query(&activate))
                .await;
        let rolled_back = self.target.batch("ROLLBACK").await;
        begun.map_err(|error| self.target.error(error))?;
        rehearsed?;
        activated.map_err(|error| self.target.error(error))?;
        rolled_back
    }

    fn sequence_names(&self, sequences: &[Row]) -> impl Iterator<Item = String> {
        sequences.iter().map(|row| row.get(0))
    }

    fn begin(&self) -> String {
        let spec = &self.run.spec;
        // The commit comes behind that of `moved` and need not wait for the
        // disk: see the module's essay.
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{FENCE_LOCK_TIMEOUT}'; \
             SET LOCAL idle_in_transaction_session_timeout = '{FENCE_IDLE_TIMEOUT}'; \
             SET LOCAL synchronous_commit = off; SET LOCAL session_replication_role = replica; \
             SELECT pg_advisory_xact_lock({}); \
             SELECT 'waiting' FROM ({}) AS s",
            Lock::Fence(spec.tenant).key(),
            fence::waits_query(spec, self.leg, "FOR UPDATE"),
        )
    }

    /// Sequences, and the fence row.
    fn activate(&self, sequences: &[Row]) -> String {
        let spec = &self.run.spec;
        let mut text = String::new();
        for row in sequences {
            let (name, value): (String, i64) = (row.get(0), row.get(1));
            text.push_str(&next_value(&name, value, &self.increments));
        }
        text.push_str(&format!(
            "UPDATE {SCHEMA}.fence SET state = 'active', epoch = {next}, place = '', updated_at = clock_timestamp() \
             WHERE customer_id = {tenant} AND state = '{waits}' AND epoch = {epoch} AND move_id = {ours} \
             RETURNING 'active'",
            next = self.leg.next().epoch_sql(spec),
            tenant = sql::tenant_literal(spec.tenant),
            waits = self.leg.waits_as().as_str(),
            epoch = self.leg.epoch_sql(spec),
            ours = sql::move_literal(spec.move_id),
        ));
        text
    }
}

/// Sets a sequence on, above both sides' values.
fn next_value(name: &str, value: i64, increments: &BTreeMap<String, i64>) -> String {
    let up = increments.get(name).is_none_or(|increment| *increment > 0);
    let (pick, margin) =
        if up { ("greatest", SEQUENCE_MARGIN) } else { ("least", -SEQUENCE_MARGIN) };
    // Never back: what the target gave out stays given out.
    format!(
        "SELECT setval({literal}::regclass, least(greatest({pick}(s.last_value, {value}) + {margin}, q.seqmin), q.seqmax)) \
         FROM {name} AS s, pg_sequence AS q WHERE q.seqrelid = {literal}::regclass; ",
        literal = sql::literal(name),
    )
}

/// Whether one of the answers is the word.
fn says(messages: &[SimpleQueryMessage], word: &str) -> bool {
    messages.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten() == Some(word),
        _ => false,
    })
}
