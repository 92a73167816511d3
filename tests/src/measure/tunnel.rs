//! The tunnel of a target's agent, on a thread of its own, with certificates
//! of its own.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::spec::{Secret, Spec};
use webhost_agent::mover::tunnel::{Database, Through, Ticket, Tickets, TunnelIdentity, serve};
use webhost_proto::ids::NodeId;
use webhost_proto::tls::{Identity, tunnel_server};

/// A running tunnel; ends with this value.
pub struct Tunnel {
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
    source: TunnelIdentity,
}

impl Tunnel {
    /// Serves the database `target` to the move of `spec`, whose address and
    /// ticket are filled in.
    ///
    /// # Errors
    /// When a certificate or a port is not to be had.
    pub async fn start(
        spec: &mut Spec,
        target: &tokio_postgres::Config,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        spec.target_tunnel = listener.local_addr()?.to_string();
        spec.ticket = Secret(b"the ticket of this move".to_vec());
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = params.self_signed(&key)?.der().to_vec();
        let issuer = Issuer::new(params, key);
        let theirs = node(spec.target_node, &issuer, &authority)?;
        let source = node(spec.source_node, &issuer, &authority)?;
        let identity = Identity::new(theirs.chain, theirs.key_pkcs8.0)?;
        let config = tunnel_server(&identity, &[authority.into()])?;
        let tickets = Arc::new(Tickets::load(dir)?);
        tickets.open(Ticket {
            move_id: spec.move_id,
            tenant: spec.tenant,
            sha256: ring::digest::digest(&ring::digest::SHA256, &spec.ticket.0).as_ref().to_vec(),
            source_node: spec.source_node,
            expires_at_us: i64::MAX,
        })?;
        let database = Database::of(target).map_err(anyhow::Error::msg)?;
        let shutdown = CancellationToken::new();
        let ends = shutdown.clone();
        let listener = listener.into_std()?;
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?;
                let (_kept, config) = watch::channel(config);
                serve(listener, config, tickets, database, ends).await
            })?;
            anyhow::Ok(())
        });
        Ok(Self { shutdown, thread: Some(thread), source })
    }

    /// How the mover of `spec` gets through.
    ///
    /// # Errors
    /// When the certificates can't be used.
    pub fn endpoint(&self, spec: &Spec) -> anyhow::Result<Endpoint> {
        let through = Through::new(spec, &self.source).map_err(anyhow::Error::msg)?;
        Ok(Endpoint::Through(Arc::new(through)))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            tracing::error!("the tunnel's thread failed");
        }
    }
}

fn node(
    node: NodeId,
    issuer: &Issuer<'static, KeyPair>,
    authority: &[u8],
) -> anyhow::Result<TunnelIdentity> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let name = format!("spiffe://webhost-fleet/node/{node}");
    params.subject_alt_names = vec![SanType::URI(name.as_str().try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&key, issuer)?;
    Ok(TunnelIdentity {
        chain: vec![leaf.der().to_vec()],
        key_pkcs8: Secret(key.serialize_der()),
        node_authorities: vec![authority.to_vec()],
    })
}
