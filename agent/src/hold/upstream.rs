//! Where requests go: the application of this node, or a new place through
//! the tunnel of its agent. Both are pools of kept-alive connections over a
//! [`Dial`].
//!
//! A request goes on in the version that it came in: HTTP/1.1 from nginx, and
//! HTTP/2 (gRPC, trailers) where the client speaks it in clear text.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::mover::connect::Stream;

/// Makes connections to one place.
#[tonic::async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A new stream that carries HTTP.
    ///
    /// # Errors
    /// In words, naming the address.
    async fn dial(&self) -> Result<Box<dyn Stream>, String>;
}

/// The application beside this agent.
pub struct Application(pub SocketAddr);

#[tonic::async_trait]
impl Dial for Application {
    async fn dial(&self) -> Result<Box<dyn Stream>, String> {
        let stream = TcpStream::connect(self.0)
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| format!("the application at {}: {error}", self.0))?;
        Ok(Box::new(stream))
    }
}

/// Connections that nobody uses are closed after this; shorter than what
/// applications allow, so that it isn't they who close one that we are about
/// to use.
const IDLE: Duration = Duration::from_secs(20);
/// Idle connections to one place.
const IDLE_CONNECTIONS: usize = 256;
/// Connections that are kept ready for a switch.
const MOST_SPARES: usize = 32;
/// A spare connection is trusted for this long.
const SPARE_FOR: Duration = Duration::from_secs(60);

/// A place that requests go to.
pub struct Upstream {
    dialler: Dialler,
    http1: Client<Dialler, Incoming>,
    http2: Client<Dialler, Incoming>,
}

/// Runs the pool's connections as tasks that have an owner.
#[derive(Clone)]
pub(super) struct Tracked(pub(super) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// What became of a request that got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// No byte of it was sent.
    NotSent(String),
    /// It may have been carried out.
    Broken(String),
}

impl Upstream {
    /// A place behind `dial`; its connections are tasks of `tasks`. `patience`
    /// is how long a refused connection is tried again.
    pub fn new(dial: Arc<dyn Dial>, patience: Duration, tasks: &TaskTracker) -> Arc<Self> {
        let dialler = Dialler(Arc::new(Dialling { dial, patience, spares: Mutex::default() }));
        let builder = || {
            let mut builder = Client::builder(Tracked(tasks.clone()));
            builder
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                // The client's own Host stays.
                .set_host(false)
                .http1_preserve_header_case(true)
                .http1_max_buf_size(super::proxy::HEADER_BYTES);
            builder
        };
        Arc::new(Self {
            http1: builder().build(dialler.clone()),
            http2: builder().http2_only(true).build(dialler.clone()),
            dialler,
        })
    }

    /// Has at least `count` connections ready, for the moment of a switch.
    ///
    /// # Errors
    /// In words, when there is not even one.
    pub async fn warm(&self, count: usize) -> Result<(), String> {
        let dialling = &self.dialler.0;
        let wanted = count.clamp(1, MOST_SPARES).saturating_sub(dialling.spares_ready());
        let dials = (0..wanted).map(|_| dialling.dial.dial());
        let mut failure = None;
        for dialled in futures_util::future::join_all(dials).await {
            match dialled {
                Ok(stream) => dialling.keep(stream),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if dialling.spares_ready() == 0 => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends a request; the answer's body streams.
    pub(super) async fn send(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let http2 = request.version() == Version::HTTP_2;
        // One pool over all host names; HTTP/2 carries the name in the URI.
        let authority = if http2 { request.uri().authority().cloned() } else { None };
        let uri = target(request.uri().path_and_query().cloned(), authority)
            .map_err(|error| Unanswered::NotSent(error.to_string()))?;
        *request.uri_mut() = uri;
        if !http2 {
            *request.version_mut() = Version::HTTP_11;
        }
        let client = if http2 { &self.http2 } else { &self.http1 };
        client.request(request).await.map_err(|error| {
            if error.is_connect() {
                Unanswered::NotSent(words(&error))
            } else {
                Unanswered::Broken(words(&error))
            }
        })
    }
}

fn target(path: Option<PathAndQuery>, authority: Option<Authority>) -> Result<Uri, http::Error> {
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority.unwrap_or_else(|| Authority::from_static("tenant")))
        .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()
}

fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

struct Dialling {
    dial: Arc<dyn Dial>,
    patience: Duration,
    spares: Mutex<VecDeque<(Instant, Box<dyn Stream>)>>,
}

impl Dialling {
    fn keep(&self, stream: Box<dyn Stream>) {
        self.spares().push_back((Instant::now(), stream));
    }

    fn spare(&self) -> Option<Box<dyn Stream>> {
        let mut spares = self.spares();
        while let Some((since, stream)) = spares.pop_front() {
            if since.elapsed() < SPARE_FOR {
                return Some(stream);
            }
        }
        None
    }

    fn spares_ready(&self) -> usize {
        let mut spares = self.spares();
        spares.retain(|(since, _)| since.elapsed() < SPARE_FOR);
        spares.len()
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, Box<dyn Stream>)>> {
        // No code panics while it holds the lock; a poisoned list is whole.
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        if let Some(spare) = self.spare() {
            return Ok(spare);
        }
        let deadline = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(50);
        loop {
            match self.dial.dial().await {
                Err(error) if Instant::now() + pause >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(pause).await,
                stream => return stream,
            }
            pause *= 2;
        }
    }
}

/// The connector of a pool.
#[derive(Clone)]
struct Dialler(Arc<Dialling>);

impl tower::Service<Uri> for Dialler {
    type Response = Wire;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let dialling = Arc::clone(&self.0);
        Box::pin(async move {
            let stream = dialling.connect().await.map_err(std::io::Error::other)?;
            Ok(Wire(TokioIo::new(stream)))
        })
    }
}

/// A connection as the pool takes it.
struct Wire(TokioIo<Box<dyn Stream>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}
