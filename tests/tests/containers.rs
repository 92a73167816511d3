//! The demo's engine: containers that are seen, and nothing left behind.
//!
//! Where no engine can run this asserts that the reason is given in words.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::path::Path;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use webhost_agent::collect::container::{ContainerSource, proxy};
use webhost_agent::collect::source::{Outcome, Source};
use webhost_agent::config::Containers;
use webhost_proto::ids::TenantId;
use webhost_tests::containers::{Appetite, Engine, TENANT_LABEL};

#[path = "containers/recipe.rs"]
mod recipe;
#[path = "containers/truth.rs"]
mod truth;

/// Engines of one process share a control group: one at a time.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// An engine below `dir`; none where none can run, for a reason that is said.
async fn engine(dir: &Path) -> Option<Engine> {
    match Engine::start(dir).await {
        Ok(engine) => Some(engine),
        Err(why) => {
            let words = format!("{why:#}");
            assert!(words.contains("ocker"), "no reason that a person could use: {words}");
            eprintln!("no containers here: {words}");
            None
        }
    }
}

fn running(pid: i64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_tenants_container_runs_and_is_gone_with_its_engine() {
    let _one = ONE.lock().await;
    let dir = tempfile::Builder::new().prefix("wh").tempdir().expect("a directory");
    let Some(engine) = engine(dir.path()).await else { return };
    let tenant = Uuid::new_v4();
    let appetite = Appetite { memory_mb: 16, busy_ms: 2, burn_ms: 0 };
    let id = engine.run_tenant(tenant, "acme", appetite).await.expect("starts");

    let seen = engine.docker().inspect_container(&id, None).await.expect("is known");
    let labels = seen.config.and_then(|config| config.labels).expect("has labels");
    assert_eq!(labels.get(TENANT_LABEL), Some(&tenant.to_string()));
    let pid = seen.state.and_then(|state| state.pid).expect("has a process");
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("has a cgroup");
    assert!(cgroup.contains(&id), "the container's cgroup carries its id: {cgroup}");

    let daemon: i64 = std::fs::read_to_string(dir.path().join("dockerd.pid"))
        .expect("a pid file")
        .trim()
        .parse()
        .expect("a pid");
    engine.stop().await;
    assert!(!running(pid), "the container's process must be gone");
    assert!(!running(daemon), "the engine must be gone");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "nothing stays mounted: {mounts}");
    let cgroups = cgroup
        .lines()
        .filter_map(|line| line.rsplit(':').next())
        .filter_map(|path| path.split('/').nth(1))
        .filter(|name| name.starts_with("webhost-containers-"));
    for name in cgroups {
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            assert!(!hierarchy.path().join(name).exists(), "cgroup {name} stays behind");
        }
    }
    dir.close().expect("the directory can be removed");
}

/// What the agent says of a container that burns two seconds of CPU and holds
/// 64 MB, no more and no less.
#[tokio::test]
async fn a_containers_use_is_what_it_is_known_to_be() {
    let _one = ONE.lock().await;
    let dir = tempfile::Builder::new().prefix("wh").tempdir().expect("a directory");
    let Some(engine) = engine(dir.path()).await else { return };
    let config = Containers { socket: engine.socket(), ..Containers::default() };
    let mut source = ContainerSource::new(&config, BTreeSet::new());
    // From now on a container that appears is watched from its beginning.
    assert!(matches!(source.read().await, Outcome::Good(_)));

    let tenant = Uuid::new_v4();
    let appetite = Appetite { memory_mb: 64, burn_ms: 2_000, ..Appetite::default() };
    let id = engine.run_tenant(tenant, "burner", appetite).await.expect("starts");
    let seen = engine.docker().inspect_container(&id, None).await.expect("is known");
    let pid = seen.state.and_then(|state| state.pid).expect("has a process");
    let truth_us = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
        let nanos = text.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok());
        nanos.expect("a number") / 1_000
    };
    // However long the machine takes for it.
    while truth_us() < 2_000_000 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut last = 0;
    let (own, truth) = loop {
        let reading = match source.read().await {
            Outcome::Good(reading) => reading,
            other => panic!("not good: {other:?}"),
        };
        let own = reading.tenants.get(&TenantId(tenant)).cloned().unwrap_or_default();
        if own.cpu_us > 0 && own.cpu_us == last {
            break (own, truth_us());
        }
        last = own.cpu_us;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    engine.stop().await;
    let mib = own.memory_bytes as f64 / f64::from(1 << 20);
    eprintln!("burnt {truth} us, the agent says {}; holds 64 MiB, it says {mib:.2}", own.cpu_us);
    // runc's work before the program begins is in the group, too.
    assert!(own.cpu_us >= truth * 98 / 100 && own.cpu_us <= truth + 250_000, "{own:?} {truth}");
    assert!((64.0..70.0).contains(&mib), "{own:?}");
    assert_eq!(own.running, 1);
}

#[tokio::test]
async fn the_agent_needs_no_more_of_docker_than_the_proxy_lets_through() {
    let _one = ONE.lock().await;
    let dir = tempfile::Builder::new().prefix("wh").tempdir().expect("a directory");
    let Some(engine) = engine(dir.path()).await else { return };
    let listen = dir.path().join("proxy.sock");
    let (stop, mut tasks) = (CancellationToken::new(), tokio::task::JoinSet::new());
    let (at, behind, stopped) = (listen.clone(), engine.socket(), stop.clone());
    tasks.spawn(async move { proxy::run(&at, &behind, stopped).await });
    while tokio::net::UnixStream::connect(&listen).await.is_err() {
        tokio::task::yield_now().await;
    }
    let config = Containers { socket: listen, ..Containers::default() };
    let mut source = ContainerSource::new(&config, BTreeSet::new());
    assert!(matches!(source.read().await, Outcome::Good(_)));

    // That one came is known from the events, that one went as well.
    let tenant = Uuid::new_v4();
    let appetite = Appetite { memory_mb: 8, ..Appetite::default() };
    let id = engine.run_tenant(tenant, "through", appetite).await.expect("starts");
    for running in [1, 0] {
        loop {
            let Outcome::Good(reading) = source.read().await else { panic!("not good") };
            if reading.tenants.get(&TenantId(tenant)).map_or(0, |own| own.running) == running {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        if running == 1 {
            engine.remove(&id).await.expect("is removed");
        }
    }
    stop.cancel();
    tasks.join_next().await.expect("a task").expect("no panic").expect("ends well");
    engine.stop().await;
}
