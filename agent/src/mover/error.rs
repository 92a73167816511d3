//! Why a step of a move did not end well, and what its caller may do then.

use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;
use webhost_proto::wire;

/// One of the two databases of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    Source,
    Target,
}

impl Side {
    /// The one that it isn't.
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// What the caller of a failed step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing was done; the same step may succeed later.
    Retry,
    /// It can't be met as things are.
    Refused,
    /// It stopped part way; a repetition resumes it.
    Interrupted,
}

impl Kind {
    /// As a message carries it.
    pub fn to_wire(self) -> wire::FailureKind {
        match self {
            Self::Retry => wire::FailureKind::Retry,
            Self::Refused => wire::FailureKind::Refused,
            Self::Interrupted => wire::FailureKind::Interrupted,
        }
    }
}

/// Why a step did not end well.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error("{side} database: {}", describe(.error))]
    Database { side: Side, error: tokio_postgres::Error },
    #[error("{side} database can't be reached: {detail}")]
    Unreachable { side: Side, detail: String },
    /// Everything that stands against the move, found together.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// A preflight with a problem: the whole report.
    #[error("{}", .0.problems().join("; "))]
    Preflight(Box<super::report::Preflight>),
    /// Both sides say that they serve the tenant. Nothing is touched.
    #[error(
        "both databases are active for tenant {tenant} (source epoch {source_epoch}, target epoch {target_epoch}): \
         nothing was touched; find out which side the tenant's writers use and set the other fence row to 'moved'"
    )]
    TwoActive { tenant: String, source_epoch: i64, target_epoch: i64 },
    /// The two sides differ where they must not.
    #[error("{table}: source and target differ at {keys}; the side that is active stays so")]
    Mismatch { table: String, keys: String },
    /// A lock was not to be had.
    #[error("{what} waits for {blockers}; nothing was changed, try again")]
    Blocked { what: String, blockers: String },
    /// The step stopped part way.
    #[error("{0}")]
    Interrupted(String),
    /// A fail point of a test.
    #[error("stopped at fail point {0}")]
    FailPoint(&'static str),
}

impl MoveError {
    /// One reason why the move can't be.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(vec![reason.into()])
    }

    /// What the caller may do.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Database { error, .. } => match error.code() {
                None => Kind::Interrupted,
                Some(code) => classify(code),
            },
            Self::Unreachable { .. } | Self::Interrupted(_) | Self::FailPoint(_) => {
                Kind::Interrupted
            }
            Self::Refused(_)
            | Self::Preflight(_)
            | Self::TwoActive { .. }
            | Self::Mismatch { .. } => Kind::Refused,
            Self::Blocked { .. } => Kind::Retry,
        }
    }

    /// The SQLSTATE, where a database refused.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Database { error, .. } => error.code(),
            _ => None,
        }
    }
}

/// Locks and serialisation may go better next time; a lost connection or a
/// lack of resources stopped the work part way; the rest would fail again.
fn classify(code: &SqlState) -> Kind {
    let class = code.code().get(..2).unwrap_or_default();
    match class {
        "40" | "55" => Kind::Retry,
        "08" | "53" | "57" | "58" | "XX" => Kind::Interrupted,
        // 25P03: our transaction idled too long and was ended.
        "25" => Kind::Interrupted,
        _ => Kind::Refused,
    }
}

/// What a database said, in one line with its SQLSTATE.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let mut text = format!("{} ({})", db.message(), db.code().code());
            if let Some(detail) = db.detail() {
                text.push_str(": ");
                text.push_str(detail);
            }
            text
        }
        None => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                text.push_str(": ");
                text.push_str(&inner.to_string());
                cause = inner.source();
            }
            text
        }
    }
}
