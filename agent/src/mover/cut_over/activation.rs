//! T2: the target's transaction up to, and without, its commit.

use tokio_postgres::{Row, SimpleQueryMessage};

use super::fence::Fence;
use super::{FENCE_IDLE_TIMEOUT, FENCE_LOCK_TIMEOUT};
use crate::mover::error::MoveError;
use crate::mover::fence;
use crate::mover::sql::{self, Lock, SCHEMA};
use crate::mover::statements::{Batch, Mode};

/// Sequences on the target start this far above both sides' values.
const SEQUENCE_MARGIN: i64 = 1000;

impl Fence<'_> {
    /// T2: everything but the commit, in one round trip. An error of any
    /// statement ends the string; what the others answer is checked here.
    pub(super) async fn prepare_target(
        &self,
        batch: &Batch,
        sequences: &[Row],
        mode: Mode,
    ) -> Result<(), MoveError> {
        let target = self.target;
        let text = self.activation(batch, sequences, mode);
        let messages =
            target.client().simple_query(&text).await.map_err(|error| target.error(error))?;
        let mut waiting = false;
        let mut activated = false;
        for message in &messages {
            if let SimpleQueryMessage::Row(row) = message {
                // The statements answer with one to three columns.
                let column = |at: usize| row.try_get(at).ok().flatten();
                match (column(0), column(1)) {
                    (Some("waiting"), _) => waiting = true,
                    (Some("active"), _) => activated = true,
                    (Some("differs"), Some(what)) => {
                        return Err(MoveError::Mismatch {
                            table: column(2).unwrap_or_default().to_owned(),
                            keys: what.to_owned(),
                        });
                    }
                    (Some("dangling"), Some(what)) => {
                        return Err(MoveError::refused(format!(
                            "a row points to a row that the {} lacks: {what}",
                            target.side()
                        )));
                    }
                    _ => {}
                }
            }
        }
        if waiting && activated {
            Ok(())
        } else {
            Err(fence::not_waiting(&self.run.spec, self.leg))
        }
    }

    /// The target's transaction up to, and without, its commit.
    fn activation(&self, batch: &Batch, sequences: &[Row], mode: Mode) -> String {
        let spec = &self.run.spec;
        let tenant = sql::tenant_literal(spec.tenant);
        let mut text = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{FENCE_LOCK_TIMEOUT}'; \
             SET LOCAL idle_in_transaction_session_timeout = '{FENCE_IDLE_TIMEOUT}'; \
             SET LOCAL synchronous_commit = on; SET LOCAL session_replication_role = replica; \
             SELECT pg_advisory_xact_lock({}); \
             SELECT 'waiting' FROM ({}) AS s; ",
            Lock::Fence(spec.tenant).key(),
            fence::waits_query(spec, self.leg, "FOR UPDATE"),
        );
        let mut checks = String::new();
        for (number, group) in &batch.groups {
            let Some(sql) = self.sql.get(*number) else { continue };
            let keys: Vec<String> = group
                .keys
                .iter()
                .map(|column| sql::text_array(column.iter().map(|key| Some(key.as_str()))))
                .collect();
            let rows = sql::text_array(group.rows.iter().map(Option::as_deref));
            let arg = |at: usize| keys.get(at).cloned().unwrap_or_default();
            text.push_str(&sql.delete(&arg, &rows, mode));
            text.push_str("; ");
            if mode == Mode::Update
                && let Some(update) = sql.update(&rows)
            {
                text.push_str(&update);
                text.push_str("; ");
            }
            text.push_str(&sql.insert(&rows));
            text.push_str("; ");
            checks.push_str(&format!(
                "SELECT 'differs', c.what, {} FROM ({}) AS c(what); ",
                sql::literal(&sql.table.name),
                sql.compare(&arg, &rows)
            ));
            if let Some(check) = sql.dangling(&arg, |_| true) {
                checks.push_str(&format!("SELECT 'dangling', c.what FROM ({check}) AS c(what); "));
            }
        }
        text.push_str(&checks);
        for row in sequences {
            let (name, value): (String, i64) = (row.get(0), row.get(1));
            let up = self.increments.get(&name).is_none_or(|increment| *increment > 0);
            let (pick, margin) =
                if up { ("greatest", SEQUENCE_MARGIN) } else { ("least", -SEQUENCE_MARGIN) };
            // Never back: what the target gave out stays given out.
            text.push_str(&format!(
                "SELECT setval({literal}::regclass, least(greatest({pick}(s.last_value, {value}) + {margin}, q.seqmin), q.seqmax)) \
                 FROM {name} AS s, pg_sequence AS q WHERE q.seqrelid = {literal}::regclass; ",
                literal = sql::literal(&name),
            ));
        }
        text.push_str(&format!(
            "UPDATE {SCHEMA}.fence SET state = 'active', epoch = {next}, place = '', updated_at = clock_timestamp() \
             WHERE customer_id = {tenant} AND state = '{waits}' AND epoch = {epoch} AND move_id = {ours} \
             RETURNING 'active'",
            next = self.leg.next().epoch_sql(spec),
            waits = self.leg.waits_as().as_str(),
            epoch = self.leg.epoch_sql(spec),
            ours = sql::move_literal(spec.move_id),
        ));
        text
    }
}
