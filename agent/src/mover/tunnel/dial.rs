//! The mover's end.

use std::time::Duration;

use rustix::net::sockopt;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use webhost_proto::ids::{MoveId, NodeId};
use webhost_proto::tls::{self, Identity};
use webhost_proto::wire;

use crate::mover::connect::{Dialled, Stream, Transport};
use crate::mover::spec::{Secret, Spec};

/// The node's certificate and key, as they go to the child on its standard
/// input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TunnelIdentity {
    /// DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    pub key_pkcs8: Secret,
    /// DER of those that sign nodes' certificates.
    pub node_authorities: Vec<Vec<u8>>,
}

/// Dials the tunnel of the target's agent.
pub struct Through {
    address: String,
    config: std::sync::Arc<rustls::ClientConfig>,
    move_id: MoveId,
    ticket: Secret,
    target: NodeId,
}

/// A peer that stops to answer is given up after this.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
const GREETING: Duration = Duration::from_secs(5);

impl Through {
    /// For one move.
    ///
    /// # Errors
    /// A sentence, when the identity can't be used.
    pub fn new(spec: &Spec, identity: &TunnelIdentity) -> Result<Self, String> {
        let ours = Identity::new(identity.chain.clone(), identity.key_pkcs8.0.clone())
            .map_err(|error| error.to_string())?;
        let authorities: Vec<CertificateDer<'static>> =
            identity.node_authorities.iter().cloned().map(CertificateDer::from).collect();
        let config = tls::tunnel_client(&ours, &authorities, spec.target_node)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            address: spec.target_tunnel.clone(),
            config,
            move_id: spec.move_id,
            ticket: spec.ticket.clone(),
            target: spec.target_node,
        })
    }
}

impl Through {
    /// A connection to the application beside the target's agent.
    ///
    /// # Errors
    /// In words, naming the address.
    pub async fn http(&self) -> Result<Box<dyn Stream>, String> {
        let (stream, _welcome) = self.open(wire::TunnelPurpose::Http).await?;
        Ok(Box::new(stream))
    }

    async fn open(
        &self,
        purpose: wire::TunnelPurpose,
    ) -> Result<(TlsStream<TcpStream>, wire::TunnelWelcome), String> {
        let words =
            |what: String| format!("tunnel of node {} at {}: {what}", self.target, self.address);
        let mut stream = tls::connect(&self.address, self.config.clone())
            .await
            .map_err(|error| words(error.to_string()))?;
        let tcp = stream.get_ref().0;
        sockopt::set_socket_keepalive(tcp, true)
            .and_then(|()| sockopt::set_tcp_keepidle(tcp, Duration::from_secs(5)))
            .and_then(|()| sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(5)))
            .and_then(|()| sockopt::set_tcp_user_timeout(tcp, millis(USER_TIMEOUT)))
            .map_err(|error| words(error.to_string()))?;
        let hello = wire::TunnelHello {
            move_id: self.move_id.to_wire(),
            ticket: self.ticket.0.clone(),
            purpose: purpose.into(),
        };
        super::write(&mut stream, &hello).await.map_err(|error| words(error.to_string()))?;
        let welcome: wire::TunnelWelcome = tokio::time::timeout(GREETING, super::read(&mut stream))
            .await
            .map_err(|_| words(format!("no welcome within {GREETING:?}")))?
            .map_err(|error| words(error.to_string()))?;
        if !welcome.refusal.is_empty() {
            return Err(words(format!("refused: {}", welcome.refusal)));
        }
        Ok((stream, welcome))
    }
}

#[tonic::async_trait]
impl Transport for Through {
    async fn dial(&self) -> Result<Dialled, String> {
        let (stream, welcome) = self.open(wire::TunnelPurpose::Database).await?;
        Ok(Dialled {
            stream: Box::new(stream),
            user: welcome.user,
            database: welcome.database,
            disk_free_bytes: Some(welcome.disk_free_bytes).filter(|bytes| *bytes > 0),
        })
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
