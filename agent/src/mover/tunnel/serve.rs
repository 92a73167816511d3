//! The target's end.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_postgres::config::Host;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_proto::ids::MoveId;
use webhost_proto::tls::{Accepted, Acceptor, Limits, peer_node};
use webhost_proto::wire;

use super::idle::{Seen, Watched};
use super::tickets::Tickets;
use crate::mover::connect::Stream;

/// How long a stranger with a node's certificate may keep us waiting.
const GREETING: Duration = Duration::from_secs(5);
/// Sessions of movers at a time, over all moves.
const SESSIONS: usize = 64;
/// Connections for HTTP at a time, over all moves: as many as two hold points
/// admit, for a WebSocket keeps its own until names lead here.
const HTTP_CONNECTIONS: usize = 4096;
/// A connection without a byte in either direction for this long ends. Movers
/// send something every 30 s; a WebSocket or a long poll may be silent for as
/// long as both its ends like.
const IDLE_DATABASE: Duration = Duration::from_secs(120);
const IDLE_HTTP: Duration = Duration::from_secs(3600);

/// The local database, as the tunnel needs it.
#[derive(Clone, Debug)]
pub struct Database {
    host: Host,
    port: u16,
    user: String,
    name: String,
    disk: Option<PathBuf>,
}

impl Database {
    /// From the agent's own connection.
    ///
    /// # Errors
    /// A sentence, when the configuration names no host or role.
    pub fn of(config: &tokio_postgres::Config) -> Result<Self, String> {
        let host = config
            .get_hosts()
            .first()
            .cloned()
            .unwrap_or_else(|| Host::Unix(PathBuf::from("/var/run/postgresql")));
        let user = config
            .get_user()
            .map(str::to_owned)
            .ok_or("postgres.url names no user, which the tunnel has to announce")?;
        let name = config.get_dbname().map_or_else(|| user.clone(), str::to_owned);
        Ok(Self {
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            user,
            name,
            disk: None,
        })
    }

    /// Tells movers how much is free on the file system that `disk` is on.
    pub fn on_disk(self, disk: PathBuf) -> Self {
        Self { disk: Some(disk), ..self }
    }

    /// In bytes, as an unprivileged user has them; 0 is not known.
    fn disk_free_bytes(&self) -> u64 {
        let Some(disk) = &self.disk else { return 0 };
        match rustix::fs::statvfs(disk) {
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            Err(error) => {
                tracing::warn!(disk = %disk.display(), %error, "tunnel: free disk not known");
                0
            }
        }
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match &self.host {
            Host::Unix(dir) => {
                let path = dir.join(format!(".s.PGSQL.{}", self.port));
                Box::new(UnixStream::connect(path).await?)
            }
            Host::Tcp(host) => {
                let stream = TcpStream::connect((host.as_str(), self.port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }
}

/// What stands behind this node's tunnel.
#[derive(Clone, Debug)]
pub struct Behind {
    pub database: Database,
    /// The hold point, which passes requests on to the application.
    pub http: Option<SocketAddr>,
}

impl From<Database> for Behind {
    fn from(database: Database) -> Self {
        Self { database, http: None }
    }
}

struct Shared {
    tickets: Arc<Tickets>,
    behind: Behind,
    sessions: Semaphore,
    http: Semaphore,
}

/// Accepts movers and hold points until `shutdown`; their connections end
/// with it.
///
/// # Errors
/// When the listener can't be used.
pub async fn serve(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    tickets: Arc<Tickets>,
    behind: impl Into<Behind>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let tasks = TaskTracker::new();
    let mut acceptor =
        Acceptor::start(listener, config, Limits::mutual(), &tasks, shutdown.clone())?;
    let shared = Arc::new(Shared {
        tickets,
        behind: behind.into(),
        sessions: Semaphore::new(SESSIONS),
        http: Semaphore::new(HTTP_CONNECTIONS),
    });
    while let Some(accepted) = acceptor.next().await {
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = shared.carry(accepted) => {}
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

impl Shared {
    async fn carry(&self, mut stream: Accepted) {
        let from = stream.info().address;
        let (move_id, purpose, cut) = match greet(&mut stream, &self.tickets).await {
            Ok(admitted) => admitted,
            Err(reason) => {
                tracing::warn!(%from, %reason, "tunnel: refused");
                return refuse(&mut stream, "no such move, ticket or node").await;
            }
        };
        let (slots, most, idle) = match purpose {
            wire::TunnelPurpose::Database => (&self.sessions, SESSIONS, IDLE_DATABASE),
            wire::TunnelPurpose::Http => (&self.http, HTTP_CONNECTIONS, IDLE_HTTP),
        };
        // Full: the newest is refused; who dials tries again.
        let Ok(_slot) = slots.try_acquire() else {
            tracing::warn!(%from, ?purpose, "tunnel: {most} connections are open, one more refused");
            return refuse(&mut stream, "too many connections").await;
        };
        let seen = Seen::new();
        let mut outside = Watched::new(stream, &seen);
        let carried = async {
            let mut inside = match self.inside(&mut outside, purpose).await {
                Ok(local) => Watched::new(local, &seen),
                Err(refusal) => {
                    tracing::warn!(%from, %move_id, %refusal, "tunnel: refused");
                    refuse(&mut outside, refusal).await;
                    return "refused".to_owned();
                }
            };
            match copy_bidirectional(&mut outside, &mut inside).await {
                Ok(_) => "closed".to_owned(),
                // As every mover ends: its process, and its sessions with it.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => "closed".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        let why = tokio::select! {
            why = carried => why,
            () = cut.cancelled() => "the tunnel was closed for this move".to_owned(),
            () = seen.idle(idle) => "idle".to_owned(),
        };
        match purpose {
            wire::TunnelPurpose::Database => {
                tracing::info!(%from, %move_id, %why, "tunnel: ended");
            }
            wire::TunnelPurpose::Http => tracing::debug!(%from, %move_id, %why, "tunnel: ended"),
        }
    }

    /// Greets back, and connects to what the tunnel leads to.
    async fn inside(
        &self,
        outside: &mut Watched<Accepted>,
        purpose: wire::TunnelPurpose,
    ) -> Result<Box<dyn Stream>, &'static str> {
        let database = &self.behind.database;
        match purpose {
            wire::TunnelPurpose::Database => {
                let local = database.connect().await.map_err(|error| {
                    tracing::warn!(%error, "tunnel: the local database");
                    "the database beside the target's agent can't be reached"
                })?;
                let welcome = wire::TunnelWelcome {
                    user: database.user.clone(),
                    database: database.name.clone(),
                    refusal: String::new(),
                    disk_free_bytes: database.disk_free_bytes(),
                };
                say(outside, &welcome).await;
                Ok(local)
            }
            wire::TunnelPurpose::Http => {
                let address = self.behind.http.ok_or("the target's node takes no requests")?;
                let unreachable = |error: std::io::Error| {
                    tracing::warn!(%address, %error, "tunnel: the local hold point");
                    "the hold point beside the target's agent can't be reached"
                };
                TcpStream::connect(address).await.map_err(unreachable)?;
                say(outside, &wire::TunnelWelcome::default()).await;
                // Spare connections wait here for their first request; who
                // stands behind would have closed them for being idle.
                outside.first_byte().await;
                let local = TcpStream::connect(address).await.map_err(unreachable)?;
                local.set_nodelay(true).map_err(unreachable)?;
                Ok(Box::new(local))
            }
        }
    }
}

async fn refuse(stream: &mut (impl AsyncWrite + Unpin), why: &str) {
    let refusal = wire::TunnelWelcome { refusal: why.into(), ..wire::TunnelWelcome::default() };
    say(stream, &refusal).await;
}

/// A greeting that is not delivered shows in what follows it.
async fn say(stream: &mut (impl AsyncWrite + Unpin), welcome: &wire::TunnelWelcome) {
    if let Err(error) = super::write(stream, welcome).await {
        tracing::debug!(%error, "tunnel: a greeting was not delivered");
    }
}

/// Reads the hello; answers the move, what the bytes are for, and what ends
/// its connections.
async fn greet(
    stream: &mut Accepted,
    tickets: &Tickets,
) -> Result<(MoveId, wire::TunnelPurpose, CancellationToken), String> {
    let node = peer_node(&stream.info().certificates).map_err(|error| error.to_string())?;
    let hello: wire::TunnelHello = tokio::time::timeout(GREETING, super::read(stream))
        .await
        .map_err(|_| format!("node {node} sent no hello within {GREETING:?}"))?
        .map_err(|error| format!("node {node}: {error}"))?;
    let move_id = MoveId::from_wire(&hello.move_id).map_err(|error| error.to_string())?;
    let now = jiff::Timestamp::now().as_microsecond();
    tickets
        .admit(move_id, &hello.ticket, node, now)
        .map(|cut| (move_id, hello.purpose(), cut))
        .map_err(|reason| format!("node {node}, move {move_id}: {reason}"))
}
