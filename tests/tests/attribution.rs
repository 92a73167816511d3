//! Known work: what the agent says of it beside what it was.
//!
//! The error of a split can't be seen in production, where nobody knows the
//! truth. Here a shared process serves three tenants, each in a process of its
//! own whose CPU time the kernel knows; and a control group may use half a
//! core and no more.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_agent::collect::app::AppSource;
use webhost_agent::collect::detail::THROTTLED;
use webhost_agent::collect::round::{Assembler, Round, SharedPlan, Sources};
use webhost_agent::collect::shared::SharedSource;
use webhost_agent::collect::slices::SlicesSource;
use webhost_agent::collect::source::{Health, Outcome, Published, Source};
use webhost_agent::config::{Config, Slices, SplitBy};
use webhost_proto::ids::TenantId;

/// However slow the machine is: what was waited for comes, or never will.
const LIMIT: Duration = Duration::from_secs(120);

/// Turns of a loop that are one request.
const TURNS: u64 = 1_000;

/// A process with one child for each number of requests. The children stand
/// still until they are let go, and stay when they are done.
struct Workers {
    root: Child,
    children: Vec<u32>,
    _dir: tempfile::TempDir,
}

impl Workers {
    fn start(requests: &[u64]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("writes");
        };
        write(
            "unit.sh",
            "kill -STOP $$\ni=0\nwhile [ $i -lt $1 ]; do i=$((i + 1)); done\nexec sleep 600\n",
        );
        write("root.sh", "for turns in \"$@\"; do sh unit.sh $turns & echo $!; done\nwait\n");
        let turns = requests.iter().map(|count| (count * TURNS).to_string());
        let mut root = Command::new("sh")
            .arg("root.sh")
            .args(turns)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(root.stdout.take().expect("is piped")).lines();
        let pids = lines.take(requests.len());
        let children = pids.map(|pid| pid.expect("a line").parse().expect("a pid")).collect();
        Self { root, children, _dir: dir }
    }

    async fn stand_still(&self) {
        for pid in &self.children {
            until("a child stands still", || state(*pid) == Some('T')).await;
        }
    }

    fn let_go(&self) {
        for pid in &self.children {
            signal(*pid, "CONT");
        }
    }

    async fn done(&self) {
        for pid in &self.children {
            let comm = PathBuf::from(format!("/proc/{pid}/comm"));
            let done = || std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep");
            until("a child is done", done).await;
        }
    }

    /// CPU time of each child since it began, in microseconds.
    fn truth_us(&self) -> Vec<u64> {
        let read = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
            let nanos = text.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok());
            nanos.expect("a number") / 1_000
        };
        self.children.iter().map(read).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for pid in &self.children {
            signal(*pid, "KILL");
        }
        // It ends with its last child; killed and reaped in any case.
        let _gone = self.root.kill();
        let _reaped = self.root.wait();
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.is_ok(), "there is a program called kill");
}

fn state(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

async fn until(what: &str, mut wanted: impl FnMut() -> bool) {
    let work = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Serves what is in the page to whoever asks.
async fn serve(page: Arc<Mutex<String>>) -> (String, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/metrics", listener.local_addr().expect("an address"));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = [0; 2048];
            let _length = stream.read(&mut request).await.expect("reads");
            let body = page.lock().expect("unpoisoned").clone();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.expect("writes");
        }
    });
    (url, tasks)
}

async fn good<S: Source>(source: &mut S) -> S::Reading {
    match source.read().await {
        Outcome::Good(reading) => reading,
        Outcome::Partial(_, why) | Outcome::Failed(why) | Outcome::Off(why) => panic!("{why}"),
    }
}

fn published<T>(round: u64, value: T) -> Published<T> {
    Published {
        round,
        value_round: round,
        taken: Some(Instant::now()),
        health: Health::Ok,
        value: Some(value),
    }
}

/// Reads both sources and makes a round of them.
async fn round(
    number: u64,
    app: &mut AppSource,
    shared: &mut SharedSource,
    assembler: &mut Assembler,
) -> Round {
    let (app, shared) = (published(number, good(app).await), published(number, good(shared).await));
    let (host, containers, postgres) =
        (Published::waiting(), Published::off(""), Published::off(""));
    let (slices, access, redis, checks) =
        (Published::off(""), Published::off(""), Published::off(""), Published::off(""));
    let sources = Sources {
        host: &host,
        containers: &containers,
        postgres: &postgres,
        app: &app,
        shared: &shared,
        slices: &slices,
        access: &access,
        redis: &redis,
        checks: &checks,
    };
    assembler.assemble(&sources, Instant::now(), 1, Duration::from_secs(60))
}

#[tokio::test]
async fn the_cpu_of_a_shared_process_goes_to_whom_it_worked_for() {
    let requests = [400_u64, 800, 1_600];
    let ids: Vec<TenantId> = (1..=3).map(|n| TenantId(Uuid::from_u128(n))).collect();
    let text = |done: &[u64]| -> String {
        let line = |(id, calls): (&TenantId, &u64)| {
            format!("webhost_api_calls_total{{customer_id=\"{id}\"}} {calls}\n")
        };
        ids.iter().zip(done).map(line).collect()
    };
    let workers = Workers::start(&requests);
    workers.stand_still().await;
    let page = Arc::new(Mutex::new(text(&[0, 0, 0])));
    let (url, _tasks) = serve(Arc::clone(&page)).await;
    let pid_file = workers._dir.path().join("pid");
    std::fs::write(&pid_file, format!("{}\n", workers.root.id())).expect("writes");
    let config = format!(
        "[coordinator]\naddress = \"c:1\"\n[app]\nmetrics_url = \"{url}\"\n\
         [[attribution.shared]]\nname = \"webhost\"\nsplit_by = \"app\"\npid_file = {:?}\n",
        pid_file.display().to_string()
    );
    let config = Config::from_parts("agent.toml".as_ref(), &config, []).expect("loads");
    let mut app = AppSource::new(config.app.as_ref().expect("a section"), 0).expect("a source");
    let mut shared = SharedSource::new(&config);
    let plan = SharedPlan { name: "webhost".into(), split_by: SplitBy::App, container: None };
    let mut assembler = Assembler::new(vec![plan], false, true);

    round(1, &mut app, &mut shared, &mut assembler).await;
    let before = workers.truth_us();
    workers.let_go();
    workers.done().await;
    let after = workers.truth_us();
    *page.lock().expect("unpoisoned") = text(&requests);
    let told = round(2, &mut app, &mut shared, &mut assembler).await;

    let truth: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let whole: u64 = truth.iter().sum();
    let idle = told.shared[0].cpu_idle_us;
    let mut split = 0;
    for ((id, truth), requests) in ids.iter().zip(&truth).zip(requests) {
        let said = told.tenants[id].cpu_us.expect("is split");
        split += said;
        let error = (said as f64 - *truth as f64) / whole as f64 * 100.0;
        eprintln!(
            "{requests:5} requests took {truth:8} us of CPU, the agent says {said:8}: \
             {error:+.2} % of the whole"
        );
    }
    // What a request costs depends on what else the machine does, so the error
    // is shown and not judged; that the split is by the known work is exact.
    let work: u64 = requests.iter().sum();
    for (id, requests) in ids.iter().zip(requests) {
        let said = told.tenants[id].cpu_us.expect("is split");
        let due = split * requests / work;
        assert!(said.abs_diff(due) <= 1, "{requests} of {work} requests: {said} of {split}");
    }
    let sum = (split + idle) as f64 / whole as f64 * 100.0;
    eprintln!("the parts and {idle} us of idling are {sum:.2} % of {whole} us");
    // The kernel counts a tree in ticks, of which each of its four processes
    // has begun one.
    let ticks = 4 * 10_000;
    assert!((split + idle).abs_diff(whole) <= whole / 100 + ticks, "{split} {idle} {whole}");
}

/// A control group of version 1 that may use half a core.
struct HalfCore {
    dirs: Vec<PathBuf>,
    parent: String,
    limits: PathBuf,
}

impl HalfCore {
    /// Of the group that `tenant` is told by.
    fn make(root: &Path, tenant: TenantId) -> Result<Self, String> {
        let parent = format!("webhost-known-work-{}", std::process::id());
        let mut made = Self { dirs: Vec::new(), parent: parent.clone(), limits: PathBuf::new() };
        let mut trees: Vec<PathBuf> = ["cpu", "cpuacct"].map(|tree| root.join(tree)).into();
        trees.retain(|tree| tree.join("cgroup.procs").exists());
        if trees.len() < 2 {
            return Err("no control groups of version 1 here".into());
        }
        // Both names may be one tree.
        if trees[0].canonicalize().ok() == trees[1].canonicalize().ok() {
            trees.pop();
        }
        for tree in trees {
            for dir in [tree.join(&parent), tree.join(&parent).join(format!("{tenant}.service"))] {
                std::fs::create_dir(&dir).map_err(|why| format!("{}: {why}", dir.display()))?;
                made.dirs.push(dir);
            }
        }
        made.limits = root.join("cpu").join(&parent).join(format!("{tenant}.service"));
        made.limit("50000").map_err(|why| format!("a limit: {why}"))?;
        Ok(made)
    }

    /// So many microseconds of CPU in a tenth of a second.
    fn limit(&self, quota_us: &str) -> std::io::Result<()> {
        std::fs::write(self.limits.join("cpu.cfs_period_us"), "100000")?;
        std::fs::write(self.limits.join("cpu.cfs_quota_us"), quota_us)
    }

    fn take(&self, pid: u32) {
        for dir in self.dirs.iter().filter(|dir| dir.extension().is_some()) {
            std::fs::write(dir.join("cgroup.procs"), pid.to_string()).expect("is moved");
        }
    }
}

impl Drop for HalfCore {
    fn drop(&mut self) {
        for dir in self.dirs.iter().rev() {
            // A process that was killed leaves it a moment later.
            for _ in 0..500 {
                if std::fs::remove_dir(dir).is_ok() || !dir.exists() {
                    break;
                }
                let (_never, wait) = mpsc::channel::<()>();
                let _timeout = wait.recv_timeout(Duration::from_millis(10));
            }
        }
    }
}

#[tokio::test]
async fn a_group_that_may_use_half_a_core_is_seen_to_use_that_and_to_be_held_back() {
    let tenant = TenantId(Uuid::new_v4());
    let root = Path::new("/sys/fs/cgroup");
    let group = match HalfCore::make(root, tenant) {
        Ok(group) => group,
        Err(why) => {
            assert!(!why.is_empty());
            eprintln!("no control group can be limited here: {why}");
            return;
        }
    };
    // Two of them, who would use two cores as long as there are any.
    let workers = Workers::start(&[1_000_000, 1_000_000]);
    workers.stand_still().await;
    for pid in &workers.children {
        group.take(*pid);
    }
    let config = Slices { parent: format!("/{}", group.parent), name: "{id}.service".into() };
    // Truth and agent begin here.
    let mut source = SlicesSource::new(&config, root, None).expect("a source");
    good(&mut source).await;
    let before: u64 = workers.truth_us().iter().sum();
    let began = Instant::now();
    workers.let_go();
    // A second of CPU takes two at least.
    let used = || workers.truth_us().iter().sum::<u64>() - before;
    until("a second of CPU", || used() > 1_000_000).await;
    let low = used();
    let own = good(&mut source).await.remove(&tenant).expect("is seen");
    let elapsed = began.elapsed();
    let high = used();
    let share = own.cpu_us as f64 / elapsed.as_micros() as f64;
    eprintln!(
        "a second and more of half a core: {low} to {high} us of CPU, the agent says {} \
         in {} us, which is {share:.3} of a core",
        own.cpu_us,
        elapsed.as_micros()
    );
    // The group's clock and the processes' differ by the slice that runs.
    assert!(own.cpu_us + 20_000 >= low && own.cpu_us <= high + 20_000, "{own:?} {low} {high}");
    // Two loops would use up to two cores. A machine that stands still makes
    // the kernel see more than the limit for a moment, which it takes back.
    assert!(share < 1.0, "{share}");

    // So little that it is held back on the busiest machine.
    group.limit("1000").expect("is limited");
    let mut held_back = 0;
    let work = async {
        while held_back == 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let own = good(&mut source).await.remove(&tenant).expect("is seen");
            held_back = own.detail.counts[THROTTLED].unwrap_or(0);
        }
    };
    tokio::time::timeout(LIMIT, work).await.expect("it is held back");
    eprintln!("and it was held back for {held_back} us");
    drop(workers);
    drop(group);
}
