//! The clients: devices that upload, people who list, one who downloads, and
//! devices on WebSockets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::wire::Connection;
use crate::app::http::{EXPORT, EXPORT_PIECE};
use crate::app::socket;
use crate::app::wire::{Point, Upload};
use crate::demo::town::Tenant;

/// What a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Upload,
    List,
    Download,
    Message,
}

/// One request that was answered well.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub kind: Kind,
    /// Since the clients' start.
    pub began: Duration,
    pub took: Duration,
}

/// One request that came to nothing.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Since the clients' start.
    pub at: Duration,
    /// From its first byte to the error.
    pub took: Duration,
    pub what: String,
}

/// Everything that the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub samples: Vec<Sample>,
    pub errors: Vec<Failure>,
    /// Points that were acknowledged.
    pub written: Vec<Uuid>,
    /// Idle connections that ended as a request came.
    pub reopened: u64,
    /// WebSockets that were told to come again, and those that just ended.
    pub told: u64,
    pub cut: u64,
}

/// Running clients.
pub struct Clients {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    address: SocketAddr,
    host: String,
    tenant: Tenant,
    began: Instant,
    seen: Mutex<Seen>,
}

impl Clients {
    /// `pairs` of an uploading device and a listing person, `pause` between
    /// their requests, and with `others` two downloads and three WebSockets.
    pub fn start(
        address: SocketAddr,
        host: String,
        tenant: Tenant,
        pairs: usize,
        pause: Duration,
        others: bool,
    ) -> Self {
        let shared =
            Shared { address, host, tenant, began: Instant::now(), seen: Mutex::default() };
        let clients = Self {
            shared: Arc::new(shared),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for number in 0..pairs {
            for kind in [Kind::Upload, Kind::List] {
                clients.spawn(async move |shared, stop| {
                    shared.requests(kind, number, pause, &stop).await;
                });
            }
        }
        for number in 0..if others { 3 } else { 0 } {
            if number < 2 {
                clients.spawn(async move |shared, stop| {
                    shared.requests(Kind::Download, number, pause, &stop).await;
                });
            }
            clients.spawn(async move |shared, stop| shared.messages(number, pause, &stop).await);
        }
        clients.tasks.close();
        clients
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        client: impl FnOnce(Arc<Shared>, CancellationToken) -> F,
    ) {
        self.tasks.spawn(client(Arc::clone(&self.shared), self.stop.clone()));
    }

    /// Since the start.
    pub fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// A copy of what was seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.with(|seen| seen.clone())
    }

    /// Lets every request end, and answers what was seen.
    pub async fn stop(self) -> Seen {
        self.stop.cancel();
        self.tasks.wait().await;
        self.shared.with(std::mem::take)
    }
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn failed(&self, started: Instant, what: String) {
        let failure = Failure { at: self.began.elapsed(), took: started.elapsed(), what };
        self.with(|seen| seen.errors.push(failure));
    }

    fn well(&self, kind: Kind, started: Instant, written: Option<Uuid>) {
        let sample = Sample { kind, began: started - self.began, took: started.elapsed() };
        self.with(|seen| {
            seen.samples.push(sample);
            seen.written.extend(written);
        });
    }

    fn vehicle(&self, number: usize) -> Uuid {
        self.tenant.vehicles[number % self.tenant.vehicles.len()].id
    }

    fn head(&self, method: &str, path: &str, length: usize) -> Vec<u8> {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n",
            self.host
        )
        .into_bytes()
    }

    async fn requests(&self, kind: Kind, number: usize, pause: Duration, stop: &CancellationToken) {
        let mut connection = Connection::new(self.address);
        let customer = self.tenant.id;
        while !stop.is_cancelled() {
            let id = Uuid::new_v4();
            let (method, path, body) = match kind {
                Kind::Upload => {
                    let point = point(id, self.vehicle(number));
                    let body = serde_json::to_vec(&Upload { points: vec![point] });
                    ("POST", format!("/ingest/{customer}/positions"), body.unwrap_or_default())
                }
                Kind::List | Kind::Message => {
                    ("GET", format!("/api/customers/{customer}/vehicles"), Vec::new())
                }
                Kind::Download => ("GET", format!("/api/customers/{customer}/export"), Vec::new()),
            };
            let head = self.head(method, &path, body.len());
            let started = Instant::now();
            match connection.exchange(&[&head, &body]).await {
                Ok(answer) if !(200..300).contains(&answer.status) => {
                    let text = String::from_utf8_lossy(&answer.body);
                    self.failed(started, format!("{kind:?}: {} {text}", answer.status));
                }
                Ok(answer)
                    if kind == Kind::Download && answer.body.len() != EXPORT.0 * EXPORT_PIECE =>
                {
                    self.failed(started, format!("{kind:?}: {} bytes", answer.body.len()));
                }
                Ok(_) => self.well(kind, started, (kind == Kind::Upload).then_some(id)),
                Err(error) => self.failed(started, format!("{kind:?}: {error}")),
            }
            tokio::time::sleep(pause).await;
        }
        self.with(|seen| seen.reopened += connection.reopened);
    }

    /// A device on a WebSocket: an id that is not acknowledged when the socket
    /// ends is sent again on the next one.
    async fn messages(&self, number: usize, pause: Duration, stop: &CancellationToken) {
        let mut id = Uuid::new_v4();
        while !stop.is_cancelled() {
            let started = Instant::now();
            let mut stream = match self.socket(number).await {
                Ok(stream) => stream,
                Err(error) => {
                    self.failed(started, format!("a WebSocket: {error}"));
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            while !stop.is_cancelled() {
                let started = Instant::now();
                let said = socket::say(&mut stream, &id.to_string(), Some([1, 2, 3, 4])).await;
                let heard = match said {
                    Ok(()) => socket::frame(&mut stream).await,
                    // What the server said before it closed can be read yet.
                    Err(_) => socket::frame(&mut stream).await,
                };
                match heard {
                    Ok(Some((1, text))) if text == id.to_string().as_bytes() => {
                        self.well(Kind::Message, started, Some(id));
                        id = Uuid::new_v4();
                    }
                    Ok(Some((8, code))) if code == [0x03, 0xF4] => {
                        self.with(|seen| seen.told += 1);
                        break;
                    }
                    Ok(Some((_, text))) => {
                        self.failed(
                            started,
                            format!("a message: {}", String::from_utf8_lossy(&text)),
                        );
                        id = Uuid::new_v4();
                    }
                    Ok(None) | Err(_) => {
                        self.with(|seen| seen.cut += 1);
                        break;
                    }
                }
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn socket(&self, number: usize) -> Result<BufReader<TcpStream>, String> {
        let words = |error: std::io::Error| error.to_string();
        let stream = TcpStream::connect(self.address).await.map_err(words)?;
        let mut stream = BufReader::new(stream);
        let head = format!(
            "GET /socket/{}/{} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.tenant.id,
            self.vehicle(number),
            self.host
        );
        stream.write_all(head.as_bytes()).await.map_err(words)?;
        let mut status = String::new();
        stream.read_line(&mut status).await.map_err(words)?;
        if !status.starts_with("HTTP/1.1 101") {
            return Err(format!("{status:?}"));
        }
        let mut line = String::new();
        while stream.read_line(&mut line).await.map_err(words)? > 2 {
            line.clear();
        }
        Ok(stream)
    }
}

fn point(id: Uuid, vehicle_id: Uuid) -> Point {
    let at = Timestamp::now();
    Point {
        id,
        vehicle_id,
        recorded_at: Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at),
        latitude: 52.5,
        longitude: 13.4,
        speed: 30.0,
        heading: 90.0,
    }
}
