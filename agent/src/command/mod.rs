//! Commands from the coordinator: a closed set, tracked by id, so that a
//! command that comes again attaches to the one that runs.
//!
//! Theory of operation. The [`Registry`] says what this agent lets the
//! coordinator do, and the coordinator can't widen it. The [`Tracker`] runs
//! commands; the [`Journal`] keeps their outcomes over restarts. An outcome is
//! journaled before it is told.
//!
//! **Invariant:** a command whose outcome is journaled never runs again; one
//! that runs is never started a second time. After a crash of the agent a
//! command without an outcome may run again: handlers are idempotent.

mod journal;

mod tracker;

use std::fmt;

use serde::Serialize;
use webhost_proto::wire::{self, command, command_reply};

pub use journal::{Journal, JournalError};
pub use tracker::{Registry, RunningCommand, Tracker};

/// Carries out one kind of command. A handler is idempotent: a command may
/// run again after a crash of the agent.
#[tonic::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs `command` to its end and answers with the outcome that ends it
    /// (never `Accepted` or `Progress`). `progress` may be fed on the way; a
    /// slow reader sees the latest one only.
    async fn handle(
        &self,
        command: command::Kind,
        progress: tokio::sync::watch::Sender<Option<wire::MoveProgress>>,
    ) -> command_reply::Outcome;
}

/// The kinds of commands, as logs and status call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandName {
    ListTenants,
    OpenTunnel,
    CloseTunnel,
    MoveStep,
}

impl CommandName {
    /// What `kind` is.
    pub fn of(kind: &command::Kind) -> Self {
        match kind {
            command::Kind::ListTenants(_) => Self::ListTenants,
            command::Kind::OpenTunnel(_) => Self::OpenTunnel,
            command::Kind::CloseTunnel(_) => Self::CloseTunnel,
            command::Kind::MoveStep(_) => Self::MoveStep,
        }
    }
}

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ListTenants => "list_tenants",
            Self::OpenTunnel => "open_tunnel",
            Self::CloseTunnel => "close_tunnel",
            Self::MoveStep => "move_step",
        })
    }
}
