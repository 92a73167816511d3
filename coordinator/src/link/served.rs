//! The coordinator's own certificate: made at the start, made anew at half of
//! its life, for every port at once and without a restart.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;
use webhost_proto::tls;

use super::authority::{Authority, AuthorityError};

/// The newest TLS configurations of this process. Cheap to clone.
#[derive(Clone)]
pub struct Served {
    authority: Arc<Authority>,
    coordinator: Uuid,
    names: Arc<[String]>,
    link: watch::Sender<Arc<ServerConfig>>,
    open: watch::Sender<Arc<ServerConfig>>,
}

impl Served {
    /// Makes a certificate for this process, good for `names` (host names and
    /// addresses that browsers and API clients dial; agents don't need them).
    ///
    /// # Errors
    /// [`AuthorityError`], for a name that is none.
    pub fn new(authority: Arc<Authority>, names: Vec<String>) -> Result<Self, AuthorityError> {
        let coordinator = Uuid::now_v7();
        let (link, open) = configs(&authority, coordinator, &names)?;
        Ok(Self {
            authority,
            coordinator,
            names: names.into(),
            link: watch::Sender::new(link),
            open: watch::Sender::new(open),
        })
    }

    /// The authority behind it.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// For the link: clients must be nodes.
    pub fn link(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.link.subscribe()
    }

    /// For ports without client certificates: enrolment, the HTTPS API.
    pub fn open(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.open.subscribe()
    }

    /// Makes a new certificate at half of each one's life, until `shutdown`.
    pub(super) async fn renew(self, shutdown: CancellationToken) {
        let lifetime = self.authority.leaves().lifetime;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(lifetime / 2) => {}
            }
            while let Err(error) = self.renew_now() {
                warn!(%error, "the coordinator's certificate was not renewed; trying again");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(60)) => {}
                }
            }
            info!("the coordinator's certificate was renewed");
        }
    }

    fn renew_now(&self) -> Result<(), AuthorityError> {
        let (link, open) = configs(&self.authority, self.coordinator, &self.names)?;
        self.link.send_replace(link);
        self.open.send_replace(open);
        Ok(())
    }
}

type Configs = (Arc<ServerConfig>, Arc<ServerConfig>);

fn configs(
    authority: &Authority,
    coordinator: Uuid,
    names: &[String],
) -> Result<Configs, AuthorityError> {
    let identity = authority.issue_coordinator(coordinator, names, SystemTime::now())?;
    let nodes = std::slice::from_ref(authority.nodes());
    Ok((tls::link_server(&identity, nodes)?, tls::open_server(&identity)?))
}
