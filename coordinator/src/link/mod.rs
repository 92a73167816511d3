//! The coordinator's end of the link: sessions of agents, delivery of
//! commands, enrolment, and the certificate authority.

pub mod authority;
pub mod sealing;
mod signals;

pub use signals::{Listener, Signal, Signals};

use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire;

/// What the link hands up: implemented by the shell around `usage` and
/// `store`, and by a recording twin in tests.
#[tonic::async_trait]
pub trait NodeEvents: Send + Sync + 'static {
    /// A node was authenticated and said Hello. Answers the tenants that are
    /// expected on it.
    async fn connected(
        &self,
        node: NodeId,
        hello: &wire::Hello,
    ) -> Result<Vec<(TenantId, String)>, Refusal>;

    /// Applies a report at most once per (epoch, sequence).
    async fn report(&self, node: NodeId, report: wire::Report) -> Result<wire::ReportAck, Refusal>;

    /// The node's session ended.
    async fn disconnected(&self, node: NodeId);
}

/// Why the link refuses a node or a message; the text reaches the agent.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The message breaks a bound or makes no sense; the session ends.
    #[error("{0}")]
    Invalid(String),
    /// The node may not do this; the session ends.
    #[error("{0}")]
    Forbidden(String),
    /// The coordinator can't at the moment; the agent tries again.
    #[error("{0}")]
    Unavailable(String),
}
