//! The two gRPC servers, and the tasks that serve all sessions: delivery of
//! commands, and the look whether connected nodes still may speak.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};
use webhost_proto::tls::{self, Accepted, Acceptor, Counts, PeerInfo};
use webhost_proto::{MAX_MESSAGE_BYTES, wire};

use super::enrolment;
use super::served::Served;
use super::session::{self, Peer, Shared};
use super::sessions::{Ending, Sessions};
use super::{LinkSettings, NodeEvents, Progress, Signals};
use crate::store::nodes::NodeState;
use crate::store::{Store, StoreError, commands, node_link};

/// Messages on their way to one agent.
const OUTGOING: usize = 32;

/// How long sessions may take to end at shutdown.
const FAREWELL: Duration = Duration::from_secs(3);

/// The link could not be served.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A listener is unusable.
    #[error("listener: {0}")]
    Listener(#[from] std::io::Error),
    /// hyper or tonic gave up.
    #[error("grpc server: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// The coordinator's end of the link.
pub struct Link {
    shared: Arc<Shared>,
    served: Served,
}

impl Link {
    /// A link that hands reports to `events` and takes commands from the
    /// store's outbox when `signals.commands` is raised (or within a second).
    pub fn new(
        store: Store,
        served: Served,
        events: Arc<dyn NodeEvents>,
        signals: Signals,
        settings: LinkSettings,
    ) -> Self {
        let (progress, _) = broadcast::channel(256);
        let shared = Shared {
            store,
            events,
            signals,
            progress,
            sessions: Sessions::default(),
            began: tokio::sync::Notify::new(),
            settings,
            shutdown: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), served }
    }

    /// Progress of running commands, as agents report it. Kept nowhere; a
    /// slow listener loses the oldest.
    pub fn progress(&self) -> broadcast::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// How many agents are connected here.
    pub fn connected(&self) -> usize {
        self.shared.sessions.count()
    }

    /// Serves the link on `link` and enrolment on `enrolment` until
    /// `shutdown`; then says goodbye to every agent and returns.
    ///
    /// # Errors
    /// [`LinkError`] when either can't be served.
    pub async fn run(
        &self,
        link: TcpListener,
        enrolment: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), LinkError> {
        // Ends with this call, however it ends.
        let stop = shutdown.child_token();
        let _stop_on_return = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let settings = &self.shared.settings;
        let acceptor =
            Acceptor::start(link, self.served.link(), settings.limits, &tasks, stop.clone())?;
        let open = Acceptor::start(
            enrolment,
            self.served.open(),
            settings.enrolment_limits,
            &tasks,
            stop.clone(),
        )?;
        info!(link = %acceptor.local_addr(), enrolment = %open.local_addr(), "serving agents");
        tasks.spawn(self.served.clone().renew(stop.clone()));
        tasks.spawn(deliver(self.shared.clone(), stop.clone()));
        tasks.spawn(watch_standing(self.shared.clone(), stop.clone()));
        tasks.spawn(log_counts(acceptor.counts(), stop.clone()));
        let served = tokio::try_join!(
            self.serve_sessions(acceptor, &tasks, stop.clone()),
            self.serve_enrolment(open, stop.clone()),
        );
        stop.cancel();
        self.shared.shutdown.cancel();
        tasks.close();
        if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
            warn!(left = tasks.len(), "sessions did not end in time");
        }
        served.map(|_| ())
    }

    async fn serve_sessions(
        &self,
        acceptor: Acceptor,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<(), LinkError> {
        let service = LinkService { shared: self.shared.clone(), tasks: tasks.clone() };
        let service = wire::link_server::LinkServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let shutdown = self.shared.shutdown.clone();
        let serve = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .http2_adaptive_window(Some(false))
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(128 * 1024)
            .max_concurrent_streams(16)
            .concurrency_limit_per_connection(8)
            .http2_max_header_list_size(8 * 1024)
            .http2_max_pending_accept_reset_streams(Some(20))
            .load_shed(true)
            .add_service(service)
            .serve_with_incoming_shutdown(Incoming(acceptor), async move {
                stop.cancelled().await;
                // Every session says goodbye, which ends its stream.
                shutdown.cancel();
            });
        bounded(serve, &self.shared.shutdown).await
    }

    async fn serve_enrolment(
        &self,
        acceptor: Acceptor,
        stop: CancellationToken,
    ) -> Result<(), LinkError> {
        let service = enrolment::Service {
            store: self.shared.store.clone(),
            authority: self.served.authority().clone(),
        };
        let service = wire::enrolment_server::EnrolmentServer::new(service)
            .max_decoding_message_size(enrolment::MAX_REQUEST_BYTES);
        let shutdown = stop.clone();
        let serve = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(64 * 1024)
            .max_concurrent_streams(2)
            .concurrency_limit_per_connection(1)
            .http2_max_header_list_size(8 * 1024)
            .http2_max_pending_accept_reset_streams(Some(20))
            .max_connection_age(Duration::from_secs(30))
            .load_shed(true)
            .add_service(service)
            .serve_with_incoming_shutdown(Incoming(acceptor), async move {
                shutdown.cancelled().await;
            });
        bounded(serve, &stop).await
    }
}

/// Connections that don't end after shutdown are dropped.
async fn bounded(
    serve: impl Future<Output = Result<(), tonic::transport::Error>>,
    shutdown: &CancellationToken,
) -> Result<(), LinkError> {
    tokio::select! {
        served = serve => Ok(served?),
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        } => Ok(()),
    }
}

struct Incoming(Acceptor);

impl Stream for Incoming {
    type Item = std::io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context).map(|accepted| accepted.map(Ok))
    }
}

struct LinkService {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[tonic::async_trait]
impl wire::link_server::Link for LinkService {
    type SessionStream = ReceiverStream<Result<wire::CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let info = request
            .extensions()
            .get::<PeerInfo>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("no certificate"))?;
        // The acceptor's verifier has seen the name already; here it becomes
        // the one identity of the session.
        let node = tls::peer_node(&info.certificates)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let serial = info
            .certificates
            .first()
            .and_then(|leaf| tls::identity::serial(leaf).ok())
            .ok_or_else(|| Status::unauthenticated("unreadable certificate"))?;
        if info.cut.is_cancelled() {
            return Err(Status::unauthenticated("the certificate expired"));
        }
        let (out, messages) = mpsc::channel(OUTGOING);
        let peer = Peer { node, serial, info };
        self.tasks.spawn(session::run(self.shared.clone(), peer, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

// ------------------------------------------------------------ commands

/// Hands the outbox to the sessions: at a signal, when a session begins, and
/// once a second for what another process put in.
async fn deliver(shared: Arc<Shared>, stop: CancellationToken) {
    let mut signal = shared.signals.commands.listen();
    let mut period = tokio::time::interval(Duration::from_secs(1));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let periodic = tokio::select! {
            () = stop.cancelled() => return,
            () = signal.heard() => false,
            () = shared.began.notified() => false,
            _ = period.tick() => true,
        };
        if let Err(error) = deliver_once(&shared, periodic).await {
            warn!(%error, "commands are not delivered at the moment");
        }
    }
}

async fn deliver_once(shared: &Shared, expire: bool) -> Result<(), StoreError> {
    let client = shared.store.client().await?;
    let now = Timestamp::now();
    if expire && commands::expire(&**client, now).await? > 0 {
        shared.signals.replies.notify();
    }
    shared.sessions.deliver(commands::open(&**client, now).await?);
    Ok(())
}

// ------------------------------------------------------------ standing

/// Ends the sessions of nodes that were revoked or enrolled again. While the
/// state database is away everybody keeps the session: an outage there must
/// not become one of the fleet.
async fn watch_standing(shared: Arc<Shared>, stop: CancellationToken) {
    let mut period = tokio::time::interval(shared.settings.recheck);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = period.tick() => {}
        }
        if let Err(error) = check_standing(&shared).await {
            warn!(%error, "can't look whether connected nodes still may speak");
        }
    }
}

async fn check_standing(shared: &Shared) -> Result<(), StoreError> {
    let connected = shared.sessions.all();
    if connected.is_empty() {
        return Ok(());
    }
    let nodes: Vec<_> = connected.iter().map(|(node, _)| *node).collect();
    let client = shared.store.client().await?;
    let standing: std::collections::HashMap<_, _> = node_link::standing(&**client, &nodes)
        .await?
        .into_iter()
        .map(|standing| (standing.node, standing))
        .collect();
    for (node, serial) in connected {
        let why = match standing.get(&node) {
            None => Some(Ending::Revoked),
            Some(found) if found.state == NodeState::Revoked => Some(Ending::Revoked),
            Some(found) if found.serial.as_ref() != Some(&serial) => {
                Some(Ending::CertificateReplaced)
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            shared.sessions.end(node, &serial, why);
        }
    }
    Ok(())
}

/// Says once a minute what strangers tried, if they did.
async fn log_counts(counts: Arc<Counts>, stop: CancellationToken) {
    use std::sync::atomic::Ordering::Relaxed;
    let mut before = [0; 5];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        let now = [
            counts.failed.load(Relaxed),
            counts.timed_out.load(Relaxed),
            counts.over_source_limit.load(Relaxed),
            counts.over_connection_limit.load(Relaxed),
            counts.out_of_files.load(Relaxed),
        ];
        if now != before {
            let [failed, timed_out, over_source, over_connections, out_of_files] = now;
            warn!(
                failed,
                timed_out,
                over_source,
                over_connections,
                out_of_files,
                "connections to the link that came to nothing, since the start"
            );
            before = now;
        }
    }
}
