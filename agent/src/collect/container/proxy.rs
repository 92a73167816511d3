//! A Docker socket that only answers questions.
//!
//! Whoever may write to Docker's socket is root in all but name, and whoever
//! may read all of it sees the environment of every container, passwords
//! included. The agent needs neither. This small program, which runs as a
//! member of the `docker` group instead of the agent, lets through
//!
//! - `GET /_ping` and `GET /version`,
//! - `GET /containers/json`, the list,
//! - `GET /events`, as a stream,
//! - `GET /containers/ID/json`, of whose answer it passes on the id, the name
//!   and the state alone,
//!
//! each with or without a version (`/v1.41`) before it. Everything else is
//! answered with 403 and is never sent on.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at a time; more wait in the socket's queue.
const CONNECTIONS: usize = 16;
/// A request's head has to be there within this.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer about one container that is read.
const MAX_INSPECT: usize = 1024 * 1024;

type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Its answer is passed on as it is.
    Plain,
    /// Its answer is cut to what the agent needs.
    Container,
}

/// Whether a request is one of ours. Pure.
fn question(method: &Method, path: &str) -> Option<Question> {
    if method != Method::GET {
        return None;
    }
    let mut parts = path.strip_prefix('/')?.split('/').peekable();
    let version = |part: &&str| {
        part.strip_prefix('v').is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        })
    };
    // "/version" begins with a v and is none.
    parts.next_if(version);
    match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        ("_ping" | "version" | "events", None, None, None) => Some(Question::Plain),
        ("containers", Some("json"), None, None) => Some(Question::Plain),
        ("containers", Some(id), Some("json"), None) => {
            let hex = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then_some(Question::Container)
        }
        _ => None,
    }
}

/// Serves at `listen` (mode 0660, over a socket that a dead one left), asking
/// `engine`, until `stop`.
///
/// # Errors
/// When `listen` can't be bound.
pub async fn run(listen: &Path, engine: &Path, stop: CancellationToken) -> std::io::Result<()> {
    if UnixStream::connect(listen).await.is_err() && listen.exists() {
        std::fs::remove_file(listen)?;
    }
    let listener = UnixListener::bind(listen)?;
    std::fs::set_permissions(listen, std::fs::Permissions::from_mode(0o660))?;
    tracing::info!(listen = %listen.display(), engine = %engine.display(), "the proxy serves");
    let engine: Arc<PathBuf> = Arc::new(engine.into());
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let (stream, permit) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener, &room) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let engine = Arc::clone(&engine);
        open.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| answer(request, Arc::clone(&engine)));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    open.shutdown().await;
    // Gone already, or left for the next one to remove: both are fine.
    let _gone = std::fs::remove_file(listen);
    Ok(())
}

async fn accept(
    listener: &UnixListener,
    room: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "no connection could be taken");
            // Out of descriptors, most likely: not at once again.
            tokio::time::sleep(Duration::from_millis(200)).await;
            None
        }
    }
}

fn said(status: StatusCode, words: &str) -> Answer {
    let body = serde_json::json!({ "message": words }).to_string();
    let mut answer = Response::new(Either::Right(Full::new(Bytes::from(body))));
    *answer.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, json);
    answer
}

async fn answer(
    request: Request<Incoming>,
    engine: Arc<PathBuf>,
) -> Result<Answer, std::convert::Infallible> {
    let Some(question) = question(request.method(), request.uri().path()) else {
        let (method, path) = (request.method(), request.uri().path());
        tracing::warn!(%method, path, "refused");
        return Ok(said(StatusCode::FORBIDDEN, "this proxy answers only what webhost-agent asks"));
    };
    // Nothing of the request but its target goes on: no header, no body.
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    drop(request);
    Ok(ask(&target, question, &engine).await.unwrap_or_else(|why| {
        tracing::warn!(why, "the engine did not answer");
        said(StatusCode::BAD_GATEWAY, &why)
    }))
}

async fn ask(target: &str, question: Question, engine: &Path) -> Result<Answer, String> {
    let unreachable = |error: std::io::Error| format!("{}: {error}", engine.display());
    let stream = UnixStream::connect(engine).await.map_err(unreachable)?;
    let broken = |error: hyper::Error| format!("{}: {error}", engine.display());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let asked = Request::get(target)
        .header(http::header::HOST, "docker")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answered = sender.send_request(asked).await.map_err(broken)?;
    let status = answered.status();
    if question == Question::Plain {
        let (head, body) = answered.into_parts();
        let mut answer = Response::new(Either::Left(body));
        *answer.status_mut() = status;
        for name in
            [http::header::CONTENT_TYPE, http::header::HeaderName::from_static("api-version")]
        {
            if let Some(value) = head.headers.get(&name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        // The connection has to live as long as the body, which is a stream;
        // it ends with the engine's answer.
        driver.detach_all();
        return Ok(answer);
    }
    let body = Limited::new(answered.into_body(), MAX_INSPECT);
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Ok(said(status, "the engine has no such container"));
    }
    let all: serde_json::Value =
        serde_json::from_slice(&body).map_err(|error| format!("the engine's answer: {error}"))?;
    let kept = serde_json::json!({
        "Id": all["Id"], "Name": all["Name"], "State": all["State"],
    });
    let mut answer = said(StatusCode::OK, "");
    *answer.body_mut() = Either::Right(Full::new(Bytes::from(kept.to_string())));
    Ok(answer)
}

#[cfg(test)]
mod tests;
