use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::*;

const TENANT: &str = "00000000-0000-7000-8000-00000000000a";

/// Enough of Docker's API: its version, a list, and events.
struct Engine {
    /// (id, name, label) of what runs.
    running: Arc<Mutex<Vec<(String, String, String)>>>,
    listings: Arc<Mutex<u32>>,
    events: broadcast::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Engine {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("docker.sock");
        let listener = UnixListener::bind(&socket).expect("binds");
        let running = Arc::new(Mutex::new(Vec::new()));
        let listings = Arc::new(Mutex::new(0));
        let (events, _) = broadcast::channel(16);
        let mut tasks = JoinSet::new();
        let (list, count, sender) = (Arc::clone(&running), Arc::clone(&listings), events.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                let (list, count) = (Arc::clone(&list), Arc::clone(&count));
                connections.spawn(answer(stream, list, count, sender.subscribe()));
            }
        });
        Self { running, listings, events, _tasks: tasks }
    }

    fn runs(&self, containers: &[(&str, &str, &str)]) {
        *self.running.lock().expect("unpoisoned") = containers
            .iter()
            .map(|(id, name, label)| ((*id).into(), (*name).into(), (*label).into()))
            .collect();
        // Nobody may be listening yet.
        let _listeners = self.events.send(());
    }

    fn listings(&self) -> u32 {
        *self.listings.lock().expect("unpoisoned")
    }
}

async fn answer(
    mut stream: tokio::net::UnixStream,
    running: Arc<Mutex<Vec<(String, String, String)>>>,
    listings: Arc<Mutex<u32>>,
    mut events: broadcast::Receiver<()>,
) {
    let mut request = Vec::new();
    let mut byte = [0; 1];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).expect("text");
    let path = request.split(' ').nth(1).expect("a path").to_owned();
    let body = if path.contains("/events") {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("writes");
        while events.recv().await.is_ok() {
            let event = "{\"Type\":\"container\",\"Action\":\"start\"}\n";
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                return;
            }
        }
        return;
    } else if path.contains("/containers/json") {
        *listings.lock().expect("unpoisoned") += 1;
        let list: Vec<String> = running
            .lock()
            .expect("unpoisoned")
            .iter()
            .map(|(id, name, label)| {
                let labels = match label.as_str() {
                    "" => "{}".to_owned(),
                    label => format!("{{\"webhost.customer_id\":\"{label}\"}}"),
                };
                format!("{{\"Id\":\"{id}\",\"Names\":[\"/{name}\"],\"Labels\":{labels}}}")
            })
            .collect();
        format!("[{}]", list.join(","))
    } else {
        "{\"Version\":\"20.10.24\",\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}".to_owned()
    };
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    // The client may have gone; then nobody misses the answer.
    let _gone = stream.write_all(text.as_bytes()).await;
}

/// A control group of version 2 as Docker makes it.
fn cgroup(root: &Path, id: &str, cpu_us: u64, memory: u64) {
    let dir = root.join(format!("system.slice/docker-{id}.scope"));
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("cpu.stat"), format!("usage_usec {cpu_us}\n")).expect("writes");
    std::fs::write(dir.join("memory.current"), format!("{memory}\n")).expect("writes");
    std::fs::write(dir.join("memory.stat"), "inactive_file 0\n").expect("writes");
}

fn source(dir: &Path, shared: &[&str]) -> ContainerSource {
    let config = Containers {
        socket: dir.join("docker.sock"),
        cgroup_root: dir.join("cgroup"),
        ..Containers::default()
    };
    ContainerSource::new(&config, shared.iter().map(|&name| name.into()).collect())
}

/// Reads until the event has arrived and the reading is as wanted.
async fn until(
    source: &mut ContainerSource,
    what: &str,
    wanted: impl Fn(&ContainersReading) -> bool,
) -> ContainersReading {
    let work = async {
        loop {
            if let Outcome::Good(reading) | Outcome::Partial(reading, _) = source.read().await
                && wanted(&reading)
            {
                return reading;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("{what}"))
}

#[tokio::test]
async fn without_an_engine_the_source_is_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let Outcome::Off(why) = source(dir.path(), &[]).read().await else { panic!("off") };
    assert!(why.contains("there is no such socket"), "{why}");
}

#[tokio::test]
async fn containers_come_and_go_and_their_totals_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("cgroup");
    let engine = Engine::start(dir.path());
    let tenant: TenantId = TENANT.parse().expect("an id");
    cgroup(&root, "aa", 1_000, 50);
    cgroup(&root, "bb", 70, 9);
    engine.runs(&[("aa", "acme-web", TENANT), ("bb", "webhost", ""), ("cc", "other", "nobody")]);
    let mut source = source(dir.path(), &["webhost"]);

    let Outcome::Partial(reading, why) = source.read().await else { panic!("partial") };
    assert!(why.contains("container other: the label webhost.customer_id is not"), "{why}");
    let first = ContainerTenant { cpu_us: 0, memory_bytes: 50, running: 1 };
    assert_eq!(reading.tenants[&tenant], first, "counted from the first look on");
    assert_eq!(reading.shared["webhost"], Use { cpu_us: 0, memory_bytes: 9 });

    cgroup(&root, "aa", 1_400, 60);
    let reading = until(&mut source, "values", |_| true).await;
    assert_eq!(reading.tenants[&tenant].cpu_us, 400);

    // A second one comes: all that it used was used under our eyes.
    cgroup(&root, "dd", 300, 5);
    engine.runs(&[("aa", "acme-web", TENANT), ("bb", "webhost", ""), ("dd", "acme-2", TENANT)]);
    let reading =
        until(&mut source, "the new container", |r| r.tenants[&tenant].running == 2).await;
    let both = ContainerTenant { cpu_us: 700, memory_bytes: 65, running: 2 };
    assert_eq!(reading.tenants[&tenant], both);
    let listings = engine.listings();
    for _ in 0..5 {
        source.read().await;
    }
    assert_eq!(engine.listings(), listings, "no call to Docker without an event");

    engine.runs(&[("bb", "webhost", "")]);
    let reading = until(&mut source, "the end", |r| r.tenants[&tenant].running == 0).await;
    let gone = ContainerTenant { cpu_us: 700, memory_bytes: 0, running: 0 };
    assert_eq!(reading.tenants[&tenant], gone, "what was used stays used");
}

#[tokio::test]
async fn an_engine_that_goes_away_leaves_the_values() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("cgroup");
    let engine = Engine::start(dir.path());
    cgroup(&root, "aa", 1_000, 50);
    engine.runs(&[("aa", "acme-web", TENANT)]);
    let mut source = source(dir.path(), &[]);
    assert!(matches!(source.read().await, Outcome::Good(_)));

    drop(engine);
    std::fs::remove_file(dir.path().join("docker.sock")).expect("removes");
    cgroup(&root, "aa", 1_500, 50);
    let degraded = async {
        loop {
            if let Outcome::Partial(reading, why) = source.read().await {
                return (reading, why);
            }
            tokio::task::yield_now().await;
        }
    };
    let (reading, why) =
        tokio::time::timeout(Duration::from_secs(20), degraded).await.expect("is noticed");
    assert!(why.contains("there is no such socket"), "{why}");
    assert_eq!(reading.tenants[&TENANT.parse().expect("an id")].cpu_us, 500);

    let engine = Engine::start(dir.path());
    engine.runs(&[("aa", "acme-web", TENANT)]);
    let back = async { while !matches!(source.read().await, Outcome::Good(_)) {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("comes back");
}
