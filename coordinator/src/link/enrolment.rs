//! Enrolment: a join token for a certificate. The one service that speaks
//! with strangers; it tells them as little as it can.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::json;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use webhost_proto::ids::NodeId;
use webhost_proto::tls::PeerInfo;
use webhost_proto::wire;

use super::authority::{Authority, AuthorityError, Issued};
use super::token::secret_sha256;
use crate::store::audit::{self, Entry};
use crate::store::node_link::{self, Enrolled};
use crate::store::{Store, StoreError, join_tokens};

/// Larger than any honest request.
pub(super) const MAX_REQUEST_BYTES: usize = 16 * 1024;

const TIME_LIMIT: Duration = Duration::from_secs(15);

pub(super) struct Service {
    pub(super) store: Store,
    pub(super) authority: Arc<Authority>,
}

/// What the one who asked is told. One answer for unknown, used and expired.
const NO_TOKEN: &str = "the join token is unknown, used or expired: ask for a new one";

enum Refused {
    Token(&'static str),
    Request(String),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<AuthorityError> for Refused {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Store(error) => Self::Store(error),
            other => Self::Request(other.to_string()),
        }
    }
}

#[tonic::async_trait]
impl wire::enrolment_server::Enrolment for Service {
    async fn enrol(
        &self,
        request: Request<wire::EnrolRequest>,
    ) -> Result<Response<wire::EnrolResponse>, Status> {
        let address = request.extensions().get::<PeerInfo>().map(|peer| peer.address);
        let from = address.map_or_else(|| "?".into(), |address| address.to_string());
        let request = request.into_inner();
        match tokio::time::timeout(TIME_LIMIT, self.take_in(&request, &from)).await {
            Ok(Ok(response)) => Ok(Response::new(response)),
            Ok(Err(Refused::Token(reason))) => {
                warn!(%from, reason, "join token refused");
                Err(Status::permission_denied(NO_TOKEN))
            }
            Ok(Err(Refused::Request(reason))) => {
                warn!(%from, reason, "enrolment refused");
                Err(Status::invalid_argument(reason))
            }
            Ok(Err(Refused::Store(error))) => {
                warn!(%from, %error, "enrolment failed");
                Err(Status::unavailable("the coordinator's state database is not available"))
            }
            Err(_) => Err(Status::unavailable("the coordinator is too busy")),
        }
    }
}

impl Service {
    /// Redeems the token, makes the node and its certificate, all in one
    /// transaction: a request that fails anywhere leaves the token unused.
    async fn take_in(
        &self,
        request: &wire::EnrolRequest,
        from: &str,
    ) -> Result<wire::EnrolResponse, Refused> {
        if request.agent_version.len() > 64 {
            return Err(Refused::Request("agent_version is longer than 64 bytes".into()));
        }
        let sha256 = secret_sha256(&request.secret);
        let mut client = self.store.client().await?;
        let transaction = (**client).transaction().await.map_err(StoreError::from)?;
        let Some(promise) = join_tokens::redeem(&transaction, &sha256).await? else {
            return Err(Refused::Token(join_tokens::why_not(&transaction, &sha256).await?));
        };
        let (node, again) =
            match node_link::enrol(&transaction, NodeId::generate(), &promise).await? {
                Enrolled::New(node) => (node, false),
                Enrolled::Again(node) => (node, true),
                // The name was taken since the token was made.
                Enrolled::NameTaken => return Err(Refused::Token("for a name that is taken")),
            };
        let issued = self.authority.issue_node(node, &request.csr_der, SystemTime::now())?;
        node_link::set_certificate(&transaction, node, &issued.serial, not_after(&issued)?).await?;
        join_tokens::redeemed_by(&transaction, &sha256, node).await?;
        let entry = Entry {
            actor: "system",
            action: if again { "node.enrolled_again" } else { "node.enrolled" },
            subject: "node",
            subject_id: node.to_string(),
            detail: json!({ "name": promise.node_name, "from": from, "serial": issued.serial }),
        };
        audit::record(&transaction, &entry).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        info!(%node, name = promise.node_name, again, from, "node enrolled");
        Ok(wire::EnrolResponse {
            node_id: node.to_wire(),
            node_name: promise.node_name,
            certificate_chain: issued.chain,
            trust_roots: vec![
                self.authority.coordinators().to_vec(),
                self.authority.nodes().to_vec(),
            ],
        })
    }
}

fn not_after(issued: &Issued) -> Result<Timestamp, Refused> {
    Timestamp::try_from(issued.not_after)
        .map_err(|error| Refused::Request(format!("certificate lifetime: {error}")))
}
