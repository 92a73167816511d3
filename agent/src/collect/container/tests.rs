use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::*;

const TENANT: &str = "00000000-0000-7000-8000-00000000000a";

/// What runs: id, name, label, and the rest of the list's entry.
type Running = Arc<Mutex<Vec<(String, String, String, String)>>>;

/// Enough of Docker's API: its version, a list, and events.
struct Engine {
    running: Running,
    listings: Arc<Mutex<u32>>,
    /// What happened to whom.
    events: broadcast::Sender<(String, String)>,
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
            .map(|(id, name, label)| ((*id).into(), (*name).into(), (*label).into(), String::new()))
            .collect();
        self.tell("some", "rename");
    }

    /// One tenant's container, and how it is listed.
    fn lists(&self, id: &str, status: &str, network: &str) {
        let rest =
            format!(",\"Status\":\"{status}\",\"HostConfig\":{{\"NetworkMode\":\"{network}\"}}");
        *self.running.lock().expect("unpoisoned") =
            vec![(id.into(), "acme-web".into(), TENANT.into(), rest)];
    }

    fn tell(&self, id: &str, action: &str) {
        // Nobody may be listening yet.
        let _listeners = self.events.send((id.into(), action.into()));
    }

    fn listings(&self) -> u32 {
        *self.listings.lock().expect("unpoisoned")
    }
}

async fn answer(
    mut stream: tokio::net::UnixStream,
    running: Running,
    listings: Arc<Mutex<u32>>,
    mut events: broadcast::Receiver<(String, String)>,
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
        while let Ok((id, action)) = events.recv().await {
            let event = format!(
                "{{\"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"{id}\"}}}}\n"
            );
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
            .map(|(id, name, label, rest)| {
                let labels = match label.as_str() {
                    "" => "{}".to_owned(),
                    label => format!("{{\"webhost.customer_id\":\"{label}\"}}"),
                };
                format!("{{\"Id\":\"{id}\",\"Names\":[\"/{name}\"],\"Labels\":{labels}{rest}}}")
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

fn plain(own: &ContainerTenant) -> (u64, u64, u32) {
    (own.cpu_us, own.memory_bytes, own.running)
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
    let first = (0, 50, 1);
    assert_eq!(plain(&reading.tenants[&tenant]), first, "counted from the first look on");
    assert_eq!(reading.shared["webhost"], Use { cpu_us: 0, memory_bytes: 9 });

    cgroup(&root, "aa", 1_400, 60);
    let reading = until(&mut source, "values", |_| true).await;
    assert_eq!(reading.tenants[&tenant].cpu_us, 400);

    // A second one comes: all that it used was used under our eyes.
    cgroup(&root, "dd", 300, 5);
    engine.runs(&[("aa", "acme-web", TENANT), ("bb", "webhost", ""), ("dd", "acme-2", TENANT)]);
    let reading =
        until(&mut source, "the new container", |r| r.tenants[&tenant].running == 2).await;
    let both = (700, 65, 2);
    assert_eq!(plain(&reading.tenants[&tenant]), both);
    let listings = engine.listings();
    for _ in 0..5 {
        source.read().await;
    }
    assert_eq!(engine.listings(), listings, "no call to Docker without an event");

    engine.runs(&[("bb", "webhost", "")]);
    let reading = until(&mut source, "the end", |r| r.tenants[&tenant].running == 0).await;
    let gone = (700, 0, 0);
    assert_eq!(plain(&reading.tenants[&tenant]), gone, "what was used stays used");
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

/// What a container does beyond CPU and memory, over a kill for memory, its
/// restart and its end; and nothing of it from another call to Docker.
#[tokio::test]
async fn kills_restarts_health_and_network_of_a_container() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("cgroup");
    let scope = root.join("system.slice/docker-aa.scope");
    let write = |file: &str, text: &str| std::fs::write(scope.join(file), text).expect("writes");
    let dev = |pid: u32, received: u64| {
        let net = dir.path().join(format!("proc/{pid}/net"));
        std::fs::create_dir_all(&net).expect("a process");
        let line = format!("a\nb\n eth0: {received} 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n");
        std::fs::write(net.join("dev"), line).expect("writes");
    };
    let begins = |pid: u32| {
        cgroup(&root, "aa", 10, 50);
        write("memory.events", "oom_kill 0\n");
        write("pids.current", "3\n");
        write("cgroup.procs", &format!("{pid}\n"));
        dev(pid, 100);
    };
    begins(7);
    let engine = Engine::start(dir.path());
    engine.lists("aa", "Up 5 minutes (healthy)", "bridge");
    let mut source = source(dir.path(), &[]);
    source.look_every = Duration::ZERO;
    source.proc = dir.path().join("proc");
    let tenant: TenantId = TENANT.parse().expect("an id");
    let own = |reading: &ContainersReading| reading.tenants[&tenant].detail;

    let Outcome::Good(reading) = source.read().await else { panic!("good") };
    let first = own(&reading);
    assert_eq!((first.tasks, first.unhealthy), (Some(3), Some(0)));
    assert_eq!(
        (first.counts[detail::OOM_KILLS], first.counts[detail::RESTARTS]),
        (Some(0), Some(0))
    );
    assert_eq!((first.counts[detail::RECEIVED], first.counts[detail::THROTTLED]), (Some(0), None));

    // A child is killed: the group and the engine both tell, once it counts.
    write("memory.events", "oom_kill 1\n");
    dev(7, 350);
    engine.lists("aa", "Up 6 minutes (unhealthy)", "bridge");
    engine.tell("aa", "oom");
    let sick = |reading: &ContainersReading| own(reading).unhealthy == Some(1);
    let reading = until(&mut source, "the health", sick).await;
    let then = own(&reading);
    assert_eq!(
        (then.counts[detail::OOM_KILLS], then.counts[detail::RECEIVED]),
        (Some(1), Some(250))
    );

    // Its first process is killed, and with it the group that would count it;
    // it begins again. The gone group's files are found missing as on a real
    // one, by the open file of its CPU time that ends.
    source.watched.clear();
    begins(8);
    engine.lists("aa", "Up 1 second (health: starting)", "bridge");
    for action in ["oom", "die", "start"] {
        engine.tell("aa", action);
    }
    let again = |reading: &ContainersReading| {
        let counts = own(reading).counts;
        counts[detail::RESTARTS] == Some(1) && counts[detail::OOM_KILLS] == Some(2)
    };
    let reading = until(&mut source, "the restart and the kill", again).await;
    assert_eq!(own(&reading).unhealthy, Some(0));
    assert_eq!(
        own(&reading).counts[detail::RECEIVED],
        Some(350),
        "a network that began under our eyes counts in full"
    );

    engine.runs(&[]);
    let gone = |reading: &ContainersReading| reading.tenants[&tenant].running == 0;
    let reading = until(&mut source, "the end", gone).await;
    let last = own(&reading);
    assert_eq!((last.tasks, last.unhealthy), (None, None));
    assert_eq!(last.counts[detail::OOM_KILLS], Some(2), "what happened stays counted");
}

/// The machine's network is nobody's.
#[tokio::test]
async fn a_container_in_the_hosts_network_has_none_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("cgroup");
    cgroup(&root, "aa", 10, 50);
    let procs = root.join("system.slice/docker-aa.scope/cgroup.procs");
    std::fs::write(procs, format!("{}\n", std::process::id())).expect("writes");
    let tenant: TenantId = TENANT.parse().expect("an id");
    for (network, known) in [("host", false), ("bridge", true)] {
        // Another directory's engine: one socket is one engine's.
        let place = tempfile::tempdir().expect("a directory");
        let engine = Engine::start(place.path());
        engine.lists("aa", "Up 5 minutes", network);
        let mut source = source(place.path(), &[]);
        source.hierarchies = Hierarchies::new(&root);
        let Outcome::Good(reading) = source.read().await else { panic!("good") };
        let own = reading.tenants[&tenant].detail;
        assert_eq!(own.counts[detail::SENT].is_some(), known, "{network}");
        assert_eq!(own.unhealthy, None);
    }
}
