//! Commands from the coordinator: a closed set, tracked by id, so that a
//! command that comes again attaches to the one that runs.

use webhost_proto::wire::{self, command, command_reply};

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
