//! The coordinator's end of the link: sessions of agents, delivery of
//! commands, enrolment, and the certificate authority.
//!
//! Background. Agents dial out and keep one stream open; the coordinator
//! never dials. Everything that an agent may cost before and after it has
//! authenticated is bounded here, and who it is comes from its certificate.
//!
//! Theory of operation. [`authority`] signs nodes and coordinators, with keys
//! that [`sealing`] keeps; [`token`] and [`enrolment`] let new machines in;
//! [`served`] is this process's own certificate. [`server`] accepts, and runs
//! one [`session`] per agent; [`sessions`] knows which is a node's newest;
//! [`validate`] bounds what an agent may say. What a session learns goes up
//! through [`NodeEvents`]; commands come down through the store's outbox.
//!
//! **Invariant:** no handler takes a node's id from a message.
//!
//! **Invariant:** a node has at most one session in this process; the newest
//! one wins.
//!
//! **Invariant:** a session ends within the recheck period after its node was
//! revoked or enrolled again, and at the second its certificate expires.
//!
//! **Invariant:** a command is answered only by the node that it was sent to,
//! once.

pub mod sealing;

pub mod authority;

pub mod token;

mod enrolment;

pub mod served;

pub mod validate;

mod sessions;

mod session;

pub mod server;

mod signals;

use std::time::Duration;

pub use served::Served;
pub use server::{Link, LinkError};
pub use signals::{Listener, Signal, Signals};
pub use token::{JoinToken, TokenError, create_join_token};

use webhost_proto::ids::{CommandId, NodeId, TenantId};
use webhost_proto::tls::Limits;
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

/// How far a running command is, as its agent says.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Who runs it.
    pub node: NodeId,
    /// Which one.
    pub command: CommandId,
    /// How far.
    pub progress: wire::MoveProgress,
}

/// How the link is served.
#[derive(Clone, Copy, Debug)]
pub struct LinkSettings {
    /// How often agents shall report.
    pub report_interval_ms: u32,
    /// Reports of one agent in flight without an acknowledgement.
    pub report_window: u32,
    /// Tenants that one agent may speak of.
    pub max_tenants: u32,
    /// From the start of a session to its Hello.
    pub hello_timeout: Duration,
    /// How long an agent may leave its queue full.
    pub send_timeout: Duration,
    /// How often connected nodes are looked up again; at most 10 s keeps the
    /// promise about revocation.
    pub recheck: Duration,
    /// What strangers may cost at the link's port.
    pub limits: Limits,
    /// And at the enrolment port.
    pub enrolment_limits: Limits,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            report_interval_ms: 5_000,
            report_window: 8,
            max_tenants: 1_000,
            hello_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(30),
            recheck: Duration::from_secs(5),
            limits: Limits::mutual(),
            enrolment_limits: Limits::open(),
        }
    }
}
