//! Taking connections in: what an unauthenticated stranger may cost.
//!
//! Theory of operation. One loop accepts; each handshake is a task with a
//! time limit. A permit is taken *before* accepting, so that strangers wait
//! in the kernel's backlog and not in our memory; one source address may hold
//! only so many of the permits, so that it can't keep the others out. What
//! comes out is an authenticated stream that can be cut from outside, and
//! that ends by itself when its peer's certificate expires.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::accepted::Accepted;

/// What strangers and peers may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the TCP connection to the end of the handshake.
    pub handshake: Duration,
    /// Handshakes at a time, over all sources.
    pub handshakes: usize,
    /// Connections at a time, after the handshake.
    pub connections: usize,
    /// Per source address (IPv6: per /64).
    pub per_source: usize,
    /// What `per_source` counts.
    pub source_scope: SourceScope,
}

/// Until when a connection counts against its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceScope {
    /// Until the handshake ends: the handshake authenticates, and many nodes
    /// may share one address.
    Handshake,
    /// Until the connection ends: the handshake proves nothing.
    Connection,
}

impl Limits {
    /// For ports where the handshake authenticates the client.
    pub fn mutual() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            handshakes: 512,
            connections: 20_000,
            per_source: 128,
            source_scope: SourceScope::Handshake,
        }
    }

    /// For ports that anybody may talk to.
    pub fn open() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            handshakes: 128,
            connections: 1_024,
            per_source: 64,
            source_scope: SourceScope::Connection,
        }
    }
}

/// What an acceptor has seen since it started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Handshakes that succeeded.
    pub accepted: AtomicU64,
    /// Handshakes that failed, by rustls' or the peer's decision.
    pub failed: AtomicU64,
    /// Handshakes that took longer than the limit.
    pub timed_out: AtomicU64,
    /// Connections closed at once because their source had too many.
    pub over_source_limit: AtomicU64,
    /// Connections closed after the handshake because there were too many.
    pub over_connection_limit: AtomicU64,
    /// Pauses because the process was out of file descriptors.
    pub out_of_files: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The accepting end: yields streams until it is shut down.
pub struct Acceptor {
    streams: mpsc::Receiver<Accepted>,
    counts: Arc<Counts>,
    local: SocketAddr,
}

impl Acceptor {
    /// Accepts on `listener` with the newest configuration of `config` for
    /// each connection, in tasks of `tasks`, until `shutdown`. Streams that
    /// were handed out live on.
    ///
    /// # Errors
    /// When the listener has no local address.
    pub fn start(
        listener: TcpListener,
        config: watch::Receiver<Arc<ServerConfig>>,
        limits: Limits,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        // Bounded: a server that takes no streams leaves the handshakes'
        // permits taken, and new connections wait in the kernel.
        let (sender, streams) = mpsc::channel(16);
        let gate = Gate {
            config,
            limits,
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            sources: Sources::default(),
            counts: counts.clone(),
            sender,
        };
        tasks.spawn(accept(listener, gate, shutdown));
        Ok(Self { streams, counts, local })
    }

    /// The next authenticated stream; `None` after shutdown.
    pub async fn next(&mut self) -> Option<Accepted> {
        self.streams.recv().await
    }

    /// For `tokio_stream::Stream`-shaped consumers.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Accepted>> {
        self.streams.poll_recv(context)
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

struct Gate {
    config: watch::Receiver<Arc<ServerConfig>>,
    limits: Limits,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    sources: Sources,
    counts: Arc<Counts>,
    sender: mpsc::Sender<Accepted>,
}

async fn accept(listener: TcpListener, gate: Gate, shutdown: CancellationToken) {
    let handshakes = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = gate.handshakes.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let Some(source) = gate.sources.enter(peer.ip(), gate.limits.per_source) else {
                    count(&gate.counts.over_source_limit);
                    debug!(%peer, limit = gate.limits.per_source, "too many connections of one source");
                    continue;
                };
                let config = gate.config.borrow().clone();
                let shake = Handshake {
                    config,
                    limits: gate.limits,
                    connections: gate.connections.clone(),
                    counts: gate.counts.clone(),
                    sender: gate.sender.clone(),
                    source,
                    _permit: permit,
                };
                let shutdown = shutdown.clone();
                handshakes.spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = shake.run(tcp, peer) => {}
                    }
                });
            }
            Err(error) => pause_after(&error, &gate.counts).await,
        }
    }
    handshakes.close();
    handshakes.wait().await;
}

/// An error of `accept` is the connection's or the process's, never the
/// listener's end. Out of descriptors the next try fails at once: without a
/// pause the loop would burn a core.
async fn pause_after(error: &std::io::Error, counts: &Counts) {
    if out_of_files(error) {
        count(&counts.out_of_files);
        warn!(%error, "out of file descriptors: not accepting for a moment");
        tokio::time::sleep(Duration::from_millis(200)).await;
    } else {
        debug!(%error, "accept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn out_of_files(error: &std::io::Error) -> bool {
    // ENFILE and EMFILE.
    matches!(error.raw_os_error(), Some(23 | 24))
}

struct Handshake {
    config: Arc<ServerConfig>,
    limits: Limits,
    connections: Arc<Semaphore>,
    counts: Arc<Counts>,
    sender: mpsc::Sender<Accepted>,
    source: SourceGuard,
    _permit: OwnedSemaphorePermit,
}

impl Handshake {
    async fn run(self, tcp: TcpStream, peer: SocketAddr) {
        if let Err(error) = tcp.set_nodelay(true) {
            debug!(%peer, %error, "the connection ended before it began");
            return;
        }
        let shake = TlsAcceptor::from(self.config).accept(tcp);
        let tls = match tokio::time::timeout(self.limits.handshake, shake).await {
            Err(_) => {
                count(&self.counts.timed_out);
                debug!(%peer, "TLS handshake took too long");
                return;
            }
            Ok(Err(error)) => {
                count(&self.counts.failed);
                warn!(%peer, reason = super::reason(&error), "TLS handshake refused");
                return;
            }
            Ok(Ok(tls)) => tls,
        };
        let Ok(connection) = self.connections.try_acquire_owned() else {
            count(&self.counts.over_connection_limit);
            warn!(%peer, limit = self.limits.connections, "too many connections");
            return;
        };
        count(&self.counts.accepted);
        let source = (self.limits.source_scope == SourceScope::Connection).then_some(self.source);
        // An error says that the server is gone; the stream closes.
        let _server_gone = self.sender.send(Accepted::new(tls, peer, connection, source)).await;
    }
}

// --------------------------------------------------------- per source

#[derive(Clone, Default)]
struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

pub(super) struct SourceGuard {
    sources: Sources,
    key: IpAddr,
}

impl Sources {
    fn enter(&self, source: IpAddr, limit: usize) -> Option<SourceGuard> {
        let key = source_key(source);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = held.entry(key).or_insert(0);
        if *now >= limit {
            return None;
        }
        *now += 1;
        Some(SourceGuard { sources: self.clone(), key })
    }
}

impl Drop for SourceGuard {
    fn drop(&mut self) {
        let mut held = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = held.get_mut(&self.key) {
            *now -= 1;
            if *now == 0 {
                held.remove(&self.key);
            }
        }
    }
}

/// An IPv6 user commands a whole /64.
fn source_key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_counted_by_whom_they_belong_to() {
        let sources = Sources::default();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = sources.enter(ip("2001:db8::1"), 2).expect("one");
        let _second = sources.enter(ip("2001:db8::ffff:2"), 2).expect("two");
        assert!(sources.enter(ip("2001:db8::3"), 2).is_none(), "the same /64");
        assert!(sources.enter(ip("2001:db8:0:1::3"), 2).is_some(), "another /64");
        drop(first);
        assert!(sources.enter(ip("2001:db8::3"), 2).is_some());
        let _v4 = sources.enter(ip("192.0.2.1"), 1).expect("one");
        assert!(sources.enter(ip("::ffff:192.0.2.1"), 1).is_none(), "the same address");
    }

    #[test]
    fn nothing_is_kept_of_sources_that_left() {
        let sources = Sources::default();
        for last in 0..=255 {
            let _guard = sources.enter(IpAddr::from([192, 0, 2, last]), 1);
        }
        assert_eq!(sources.0.lock().expect("lock").len(), 0);
    }

    #[test]
    fn running_out_of_files_is_told_from_other_errors() {
        for (number, expected) in [(23, true), (24, true), (103, false), (4, false)] {
            assert_eq!(out_of_files(&std::io::Error::from_raw_os_error(number)), expected);
        }
    }
}
