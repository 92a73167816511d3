//! The demo's engine: containers that are seen, and nothing left behind.
//!
//! Where no engine can run this asserts that the reason is given in words.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;

use uuid::Uuid;
use webhost_tests::containers::{Appetite, Engine, TENANT_LABEL};

fn running(pid: i64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_tenants_container_runs_and_is_gone_with_its_engine() {
    let dir = tempfile::Builder::new().prefix("wh").tempdir().expect("a directory");
    let engine = match Engine::start(dir.path()).await {
        Ok(engine) => engine,
        Err(why) => {
            let words = format!("{why:#}");
            assert!(words.contains("ocker"), "no reason that a person could use: {words}");
            eprintln!("no containers here: {words}");
            return;
        }
    };
    let tenant = Uuid::new_v4();
    let appetite = Appetite { memory_mb: 16, busy_ms: 2 };
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
