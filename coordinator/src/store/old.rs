//! Rows that only ever grow, deleted when they are old: some at a time, so that
//! no lock is held for long, and never what something unfinished needs. Of two
//! coordinators that delete at once each takes others.

use jiff::Timestamp;
use tokio_postgres::GenericClient;

use super::StoreError;

/// A table whose old rows are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Commands of moves that have ended, or of none, that were answered or
    /// have expired.
    Commands,
    /// The histories of moves that have ended; the moves themselves stay.
    MoveEvents,
    /// Decisions that no move refers to.
    Decisions,
    /// Sums of hours.
    UsageHourly,
    /// Tokens by which machines joined, or could have.
    JoinTokens,
    /// The audit trail.
    Audit,
}

impl Old {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Commands,
        Self::MoveEvents,
        Self::Decisions,
        Self::UsageHourly,
        Self::JoinTokens,
        Self::Audit,
    ];

    /// The table.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::MoveEvents => "move_events",
            Self::Decisions => "decisions",
            Self::UsageHourly => "usage_hourly",
            Self::JoinTokens => "join_tokens",
            Self::Audit => "audit",
        }
    }

    /// The rows before $1 that nothing needs.
    const fn gone(self) -> &'static str {
        match self {
            Self::Commands => {
                "created_at < $1 and (replied_at is not null or expires_at < $1)
                 and not exists (select 1 from moves m
                                 where m.id = t.move_id and m.ended_at is null)"
            }
            Self::MoveEvents => {
                "at < $1 and exists (select 1 from moves m
                                     where m.id = t.move_id and m.ended_at < $1)"
            }
            Self::Decisions => {
                "at < $1 and not exists (select 1 from moves m where m.decision_id = t.id)"
            }
            Self::UsageHourly => "hour < $1",
            Self::JoinTokens => "expires_at < $1",
            Self::Audit => "at < $1",
        }
    }
}

/// Deletes up to `most` rows of `what` that are from before `before`; answers
/// how many there were.
pub async fn delete(
    client: &impl GenericClient,
    what: Old,
    before: Timestamp,
    most: i64,
) -> Result<u64, StoreError> {
    let (table, gone) = (what.table(), what.gone());
    let sql = format!(
        "delete from {table} where ctid = any(array(
           select t.ctid from {table} t where {gone} limit $2 for update of t skip locked))"
    );
    Ok(client.execute(&sql, &[&before, &most]).await?)
}
