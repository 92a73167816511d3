//! The proxy between real sockets, with two small applications.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::frames::COME_AGAIN;
use super::*;

const HOST: &str = "acme.example.net";

type Echo = http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>;

/// Answers with its name and what it was sent; trailers come back, too. On
/// `/socket` it upgrades and echoes bytes, on `/slow` it takes 100 ms.
async fn answer(name: &'static str, mut request: Request<Incoming>) -> Response<Echo> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if request.headers().contains_key(header::UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        let echo = async move {
            let mut io = TokioIo::new(upgrade.await.expect("upgrades"));
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = io.read(&mut buffer).await {
                io.write_all(&buffer[..read]).await.expect("writes");
            }
        };
        TaskTracker::new().spawn(echo);
        return Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Full::default().map_err(|never| match never {}).boxed_unsync())
            .expect("a response");
    }
    let seen = format!("{:?}", request.headers());
    Response::builder()
        .header("x-app", name)
        .header("x-seen", HeaderValue::from_str(&seen.replace('\n', " ")).expect("visible"))
        .header("trailer", "x-sum")
        .body(request.into_body().boxed_unsync())
        .expect("a response")
}

async fn application(name: &'static str, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            connections.spawn(async move {
                let service = service_fn(move |request| async move {
                    Ok::<_, std::convert::Infallible>(answer(name, request).await)
                });
                let server = auto::Builder::new(TokioExecutor::new());
                let ended =
                    server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                drop(ended);
            });
        }
    });
    address
}

struct World {
    hold: Hold,
    at: SocketAddr,
    there: SocketAddr,
    _tasks: JoinSet<()>,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    async fn start() -> Self {
        let mut tasks = JoinSet::new();
        let here = application("here", &mut tasks).await;
        let there = application("there", &mut tasks).await;
        let settings = Settings { application: here, max_connections: 64 };
        let hold = Hold::new(settings, Handle::current());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        tasks.spawn(hold.clone().serve(listener, stop.clone()));
        Self { hold, at, there, _tasks: tasks, _stop: stop.drop_guard() }
    }

    fn tenant(&self) -> Arc<Tenant> {
        let there =
            Upstream::new(Arc::new(Application(self.there)), Duration::ZERO, self.hold.tasks());
        self.hold.put(HOST, Way::Here, Some(there))
    }

    fn request(&self, path: &str, body: &'static str) -> Request<Full<Bytes>> {
        Request::post(format!("http://{}{path}", self.at))
            .header("host", HOST)
            .header("te", "trailers")
            .body(Full::from(body))
            .expect("a request")
    }

    async fn post(&self, path: &str, body: &'static str) -> (StatusCode, HeaderMap, String) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(self.request(path, body)).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (head.status, head.headers, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    async fn who(&self, path: &str) -> String {
        let (status, headers, _) = self.post(path, "x").await;
        assert_eq!(status, StatusCode::OK);
        headers["x-app"].to_str().expect("text").to_owned()
    }
}

#[tokio::test]
async fn a_host_that_belongs_to_no_move_passes_untouched() {
    let world = World::start().await;
    let (status, headers, body) = world.post("/a?b=c", "hello").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "hello"));
    assert_eq!(headers["x-app"], "here");
    let seen = headers["x-seen"].to_str().expect("text");
    for wanted in [r#""host": "acme.example.net""#, r#""x-forwarded-for": "127.0.0.1""#] {
        assert!(seen.contains(wanted), "{seen}");
    }
    assert!(!seen.contains("connection"), "{seen}");
}

#[tokio::test]
async fn trailers_go_both_ways_in_both_versions() {
    let world = World::start().await;
    for http2 in [false, true] {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let frames = [
            Frame::data(Bytes::from_static(b"part one, ")),
            Frame::data(Bytes::from_static(b"part two")),
            Frame::trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                HeaderValue::from_static("42"),
            )])),
        ];
        let frames = frames.into_iter().map(Ok::<_, std::convert::Infallible>);
        let request = Request::post(format!("http://{}/x", world.at))
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(StreamBody::new(futures_util::stream::iter(frames)))
            .expect("a request");
        let answer = client.request(request).await.expect("an answer");
        assert_eq!(answer.headers()["x-app"], "here");
        let body = answer.into_body().collect().await.expect("a body");
        assert_eq!(body.trailers().expect("trailers")["x-sum"], "42", "http2: {http2}");
        assert_eq!(body.to_bytes(), "part one, part two");
    }
}

#[tokio::test]
async fn parked_requests_go_to_the_new_place_and_those_in_flight_end_before() {
    let world = Arc::new(World::start().await);
    let tenant = world.tenant();
    assert_eq!(world.who("/").await, "here");
    let mut clients = JoinSet::new();
    let slow = Arc::clone(&world);
    clients.spawn(async move { ("slow", slow.who("/slow").await) });
    while tenant.figures().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tenant.park();
    for _ in 0..20 {
        let world = Arc::clone(&world);
        clients.spawn(async move { ("parked", world.who("/").await) });
    }
    assert_eq!(tenant.drained(Duration::from_secs(20)).await, 0);
    let (when, who) = clients.join_next().await.expect("the slow one").expect("no panic");
    assert_eq!((when, who.as_str()), ("slow", "here"));
    world.hold.warm(&tenant).await.expect("can be reached");
    tenant.release(Way::There);
    while let Some(ended) = clients.join_next().await {
        let (when, who) = ended.expect("no panic");
        assert_eq!((when, who.as_str()), ("parked", "there"));
    }
    assert_eq!(world.who("/").await, "there");
    tenant.release(Way::Here);
    assert_eq!(world.who("/").await, "here");
    world.hold.remove(HOST);
    assert_eq!(world.who("/").await, "here");
}

#[tokio::test]
async fn a_park_that_nobody_ends_costs_a_second_and_no_error() {
    let world = World::start().await;
    let tenant = world.tenant();
    tenant.park();
    let began = Instant::now();
    assert_eq!(world.who("/").await, "here");
    assert!(began.elapsed() >= phase::PATIENCE - Duration::from_millis(50));
}

#[tokio::test]
async fn a_place_out_of_reach_is_said_with_a_time_to_retry() {
    let world = World::start().await;
    let tenant = world.hold.put(HOST, Way::There, None);
    let (status, headers, _) = world.post("/", "x").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers[header::RETRY_AFTER], "1");
    tenant.release(Way::Here);
    assert_eq!(world.who("/").await, "here");
}

/// A WebSocket's handshake, as bytes.
async fn socket(world: &World) -> TcpStream {
    let mut stream = hello(world, "/socket").await;
    welcome(&mut stream).await;
    stream
}

async fn hello(world: &World, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.at).await.expect("connects");
    let hello = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    stream.write_all(hello.as_bytes()).await.expect("writes");
    stream
}

async fn welcome(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
}

async fn echoed(stream: &mut TcpStream, frame: &[u8]) {
    stream.write_all(frame).await.expect("writes");
    let mut back = vec![0; frame.len()];
    stream.read_exact(&mut back).await.expect("an echo");
    assert_eq!(back, frame);
}

#[tokio::test]
async fn a_websocket_is_told_to_come_again_and_not_before() {
    let world = World::start().await;
    let tenant = world.tenant();
    let mut stream = socket(&world).await;
    echoed(&mut stream, &[0x82, 3, 1, 2, 3]).await;
    assert_eq!((tenant.figures().upgraded, tenant.figures().in_flight), (1, 0));
    // A cut-over that came to nothing.
    tenant.park();
    stream.write_all(&[0x82, 1, 9]).await.expect("writes");
    let mut one = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut one)).await;
    assert!(early.is_err(), "nothing goes by while it is parked");
    tenant.release(Way::Here);
    let mut back = [0; 3];
    stream.read_exact(&mut back).await.expect("goes on");
    assert_eq!(back, [0x82, 1, 9]);
    // One that succeeds.
    tenant.park();
    tenant.release(Way::There);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("ends well");
    assert_eq!(rest, COME_AGAIN);
    drop(stream);
    let mut again = socket(&world).await;
    echoed(&mut again, &[0x82, 1, 7]).await;
}

/// The old application answered the handshake after the switch.
#[tokio::test]
async fn a_websocket_that_was_admitted_before_the_switch_is_told_to_come_again() {
    let world = World::start().await;
    let tenant = world.tenant();
    let mut stream = hello(&world, "/slow").await;
    while tenant.figures().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tenant.park();
    tenant.release(Way::There);
    welcome(&mut stream).await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("ends well");
    assert_eq!(rest, COME_AGAIN);
}
