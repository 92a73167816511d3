//! The target's end.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_postgres::config::Host;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_proto::ids::MoveId;
use webhost_proto::tls::{Accepted, Acceptor, Limits, peer_node};
use webhost_proto::wire;

use super::tickets::Tickets;
use crate::mover::connect::Stream;

/// How long a stranger with a node's certificate may keep us waiting.
const GREETING: Duration = Duration::from_secs(5);
/// A connection without a byte in either direction for this long ends: movers
/// send something every 30 s.
const IDLE: Duration = Duration::from_secs(120);
/// Connections at a time, over all moves.
const CONNECTIONS: usize = 64;

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

/// Accepts movers until `shutdown`; their connections end with it.
///
/// # Errors
/// When the listener can't be used.
pub async fn serve(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    tickets: Arc<Tickets>,
    database: Database,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let tasks = TaskTracker::new();
    let mut acceptor =
        Acceptor::start(listener, config, Limits::mutual(), &tasks, shutdown.clone())?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some(accepted) = acceptor.next().await {
        // Full: the newest is dropped; its mover is told nothing and retries.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!("tunnel: {CONNECTIONS} connections are open, one more refused");
            continue;
        };
        let (tickets, database, shutdown) =
            (Arc::clone(&tickets), database.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = carry(accepted, &tickets, &database) => {}
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn carry(mut stream: Accepted, tickets: &Tickets, database: &Database) {
    let from = stream.info().address;
    let (move_id, cut) = match greet(&mut stream, tickets).await {
        Ok(admitted) => admitted,
        Err(reason) => {
            tracing::warn!(%from, %reason, "tunnel: refused");
            let refusal = wire::TunnelWelcome {
                refusal: "no such move, ticket or node".into(),
                ..wire::TunnelWelcome::default()
            };
            if let Err(error) = super::write(&mut stream, &refusal).await {
                tracing::debug!(%from, %error, "tunnel: refusal not delivered");
            }
            return;
        }
    };
    let local = match database.connect().await {
        Ok(local) => local,
        Err(error) => {
            tracing::warn!(%from, %error, "tunnel: the local database can't be reached");
            let refusal = wire::TunnelWelcome {
                refusal: "the database beside the target's agent can't be reached".into(),
                ..wire::TunnelWelcome::default()
            };
            if let Err(error) = super::write(&mut stream, &refusal).await {
                tracing::debug!(%from, %error, "tunnel: refusal not delivered");
            }
            return;
        }
    };
    let welcome = wire::TunnelWelcome {
        user: database.user.clone(),
        database: database.name.clone(),
        refusal: String::new(),
        disk_free_bytes: database.disk_free_bytes(),
    };
    if let Err(error) = super::write(&mut stream, &welcome).await {
        tracing::debug!(%from, %error, "tunnel: welcome not delivered");
        return;
    }
    tracing::info!(%from, %move_id, "tunnel: open");
    let seen = Seen::new();
    let mut outside = Watched { inner: stream, seen: seen.clone() };
    let mut inside = Watched { inner: local, seen: seen.clone() };
    let why = tokio::select! {
        ended = copy_bidirectional(&mut outside, &mut inside) => match ended {
            Ok(_) => "closed".to_owned(),
            Err(error) => error.to_string(),
        },
        () = cut.cancelled() => "the tunnel was closed for this move".to_owned(),
        () = seen.idle() => "idle".to_owned(),
    };
    tracing::info!(%from, %move_id, %why, "tunnel: ended");
}

/// Reads the hello; answers the move and what ends its connections.
async fn greet(
    stream: &mut Accepted,
    tickets: &Tickets,
) -> Result<(MoveId, CancellationToken), String> {
    let node = peer_node(&stream.info().certificates).map_err(|error| error.to_string())?;
    let hello: wire::TunnelHello = tokio::time::timeout(GREETING, super::read(stream))
        .await
        .map_err(|_| format!("node {node} sent no hello within {GREETING:?}"))?
        .map_err(|error| format!("node {node}: {error}"))?;
    let move_id = MoveId::from_wire(&hello.move_id).map_err(|error| error.to_string())?;
    let now = jiff::Timestamp::now().as_microsecond();
    tickets
        .admit(move_id, &hello.ticket, node, now)
        .map(|cut| (move_id, cut))
        .map_err(|reason| format!("node {node}, move {move_id}: {reason}"))
}

/// When a byte last went by.
#[derive(Clone)]
struct Seen {
    last: watch::Sender<Instant>,
}

impl Seen {
    fn new() -> Self {
        Self { last: watch::Sender::new(Instant::now()) }
    }

    fn now(&self) {
        self.last.send_replace(Instant::now());
    }

    /// Returns when nothing went by for long enough.
    async fn idle(&self) {
        loop {
            let due = *self.last.borrow() + IDLE;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

struct Watched<S> {
    inner: S,
    seen: Seen,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.seen.now();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
