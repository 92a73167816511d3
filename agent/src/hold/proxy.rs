//! The listener: HTTP/1.1 and HTTP/2 in clear text, on loopback.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::phase::Way;
use super::tenant::{Busy, Tenant, To};
use super::upstream::{Tracked, Unanswered, Upstream};
use super::{Hold, headers, upgrade};

/// All fields of one request's head, in bytes.
pub(super) const HEADER_BYTES: usize = 64 * 1024;
const HEADER_FIELDS: usize = 128;
/// Longer than nginx keeps an unused connection to us (60 s), so that it isn't
/// we who close one that it is about to use.
const HEAD: Duration = Duration::from_secs(75);
/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 256;
/// How long requests that run may take to end when the agent stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves until `shutdown`; requests that run then get [`FAREWELL`].
pub(super) async fn serve(listener: TcpListener, hold: Hold, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let server = server(&tasks);
    // Full: newcomers wait in the kernel's queue.
    let slots = Arc::new(Semaphore::new(hold.settings().max_connections));
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        // The semaphore is never closed.
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others end soon.
                tracing::warn!(%error, "hold point: a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let proxy = Proxy {
            hold: hold.clone(),
            peer: peer.ip(),
            slot: Arc::new(slot),
            tasks: tasks.clone(),
        };
        let (server, shutdown) = (server.clone(), shutdown.clone());
        tasks.spawn(async move { proxy.connection(stream, &server, &shutdown).await });
    }
    tasks.close();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "hold point: connections are cut");
    }
}

fn server(tasks: &TaskTracker) -> auto::Builder<Tracked> {
    let mut server = auto::Builder::new(Tracked(tasks.clone()));
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADER_FIELDS)
        .preserve_header_case(true);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX));
    server
}

/// One connection's way to the tenants.
#[derive(Clone)]
struct Proxy {
    hold: Hold,
    peer: IpAddr,
    /// Held by the connection, and on by what it was upgraded to.
    slot: Arc<OwnedSemaphorePermit>,
    tasks: TaskTracker,
}

/// A body of ours or of the upstream.
type Answer = Response<Either<Counted, Full<Bytes>>>;

impl Proxy {
    async fn connection(
        self,
        stream: TcpStream,
        server: &auto::Builder<Tracked>,
        shutdown: &CancellationToken,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "hold point: TCP_NODELAY");
        }
        let service = service_fn(move |request| {
            let proxy = self.clone();
            async move { Ok::<_, Infallible>(proxy.request(request).await) }
        });
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // The client went away, or spoke no HTTP.
            tracing::debug!(%error, "hold point: a connection ended");
        }
    }

    async fn request(&self, mut request: Request<Incoming>) -> Answer {
        let arrived = Instant::now();
        if request.method() == Method::CONNECT {
            return refusal(StatusCode::NOT_IMPLEMENTED, "CONNECT is not for this server");
        }
        let tenant = headers::host(&request).and_then(|host| self.hold.tenant(&host));
        let (busy, to) = match &tenant {
            None => (None, To::Here),
            Some(tenant) => {
                let entered = tenant.enter(arrived).await;
                (Some(entered.busy), entered.to)
            }
        };
        let upstream: &Upstream = match &to {
            To::Here => self.hold.here(),
            To::There(there) => there,
            To::OutOfReach => {
                return refusal(StatusCode::SERVICE_UNAVAILABLE, "the tenant has moved");
            }
        };
        let wanted = headers::upgrade(&request);
        headers::onward(request.headers_mut(), self.peer, wanted.as_ref());
        let client = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
        let mut answer = match upstream.send(request).await {
            Ok(answer) => answer,
            Err(Unanswered::NotSent(error)) => {
                tracing::warn!(%error, "hold point: no connection");
                return refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the application can't be reached",
                );
            }
            Err(Unanswered::Broken(error)) => {
                tracing::warn!(%error, "hold point: no answer");
                return refusal(StatusCode::BAD_GATEWAY, "the application gave no answer");
            }
        };
        let status = answer.status();
        headers::back(answer.headers_mut(), status);
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else {
                return refusal(StatusCode::BAD_GATEWAY, "an upgrade that nobody asked for");
            };
            let server = hyper::upgrade::on(&mut answer);
            let websocket = answer.headers().get(header::UPGRADE).is_some_and(|it| {
                it.to_str().is_ok_and(|text| text.eq_ignore_ascii_case("websocket"))
            });
            // As it was admitted: the way may have changed since.
            let way = if matches!(to, To::Here) { Way::Here } else { Way::There };
            self.upgraded((client, server), websocket, tenant.map(|tenant| (tenant, way)), busy);
            return answer.map(|_| Either::Right(Full::default()));
        }
        if let Some(busy) = &busy {
            busy.answering();
        }
        answer.map(|body| Either::Left(Counted { body, _busy: busy }))
    }

    /// Joins the two ends of an upgraded connection, which is no request in
    /// flight any more.
    fn upgraded(
        &self,
        (client, server): (hyper::upgrade::OnUpgrade, hyper::upgrade::OnUpgrade),
        websocket: bool,
        watched: Option<(Arc<Tenant>, Way)>,
        busy: Option<Busy>,
    ) {
        let slot = Arc::clone(&self.slot);
        self.tasks.spawn(async move {
            let _slot = slot;
            let ends = futures_util::future::try_join(client, server).await;
            drop(busy);
            match ends {
                Ok((client, server)) => {
                    let watched = watched.as_ref().map(|(tenant, way)| (tenant, *way));
                    upgrade::join(client, server, websocket, watched).await;
                }
                Err(error) => tracing::debug!(%error, "hold point: an upgrade came to nothing"),
            }
        });
    }
}

fn refusal(status: StatusCode, why: &'static str) -> Answer {
    let mut answer = Response::new(Either::Right(Full::from(format!("{why}\n"))));
    *answer.status_mut() = status;
    *answer.version_mut() = Version::HTTP_11;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// An answer's body; its request is in flight until it ends.
struct Counted {
    body: Incoming,
    _busy: Option<Busy>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            this._busy = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
