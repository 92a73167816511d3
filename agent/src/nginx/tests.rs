use std::os::unix::fs::PermissionsExt;

use super::reload::{Reload, run};
use super::*;

#[test]
fn only_plain_names_reach_nginx() {
    let longest = format!("{}.example", "a".repeat(63));
    for good in ["acme.example.net", "a-1.b.c", "1.2.3.4", longest.as_str()] {
        assert_eq!(check_host(good), Ok(()), "{good}");
    }
    let long = format!("{}.example", "a".repeat(64));
    let endless = ["a.".repeat(130), "a".into()].concat();
    for bad in [
        "",
        "acme",
        "Acme.example",
        "a_b.example",
        "a..b",
        ".a.b",
        "a.b.",
        "-a.b",
        "a-.b",
        "a.b;",
        "a.b webhost_hold; c.d",
        "a.b\n",
        "a.b\"",
        "a.b{}",
        "$host.b",
        "*.b.c",
        "~^a.b",
        "ä.example",
        "a.b/../c",
        "include.x;",
        long.as_str(),
        endless.as_str(),
    ] {
        let error = check_host(bad).expect_err(bad);
        assert!(error.contains("is no host name"), "{error}");
    }
}

/// A directory, and a stand-in for nginx that answers as `says` tells.
fn stand_in(says: &str) -> (tempfile::TempDir, Nginx, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("nginx");
    std::fs::write(&program, format!("#!/bin/sh\n{says}\n")).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let nginx = Nginx::open(
        dir.path().join("routes"),
        dir.path().join("verdict.json"),
        Duration::from_secs(1),
    )
    .expect("opens");
    (dir, nginx, program)
}

/// Runs the privileged side until `stop`.
async fn reloading(nginx: Nginx, program: PathBuf) {
    let mut last = 0;
    loop {
        let now = read_generation(&nginx.dir);
        if now != last {
            last = now;
            let reload = Reload {
                routes: &nginx.dir,
                verdict: &nginx.verdict,
                nginx: &program,
                config: None,
            };
            run(&reload).expect("a verdict");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_file_is_there_while_a_tenant_moves_and_gone_after() {
    let (_dir, nginx, program) = stand_in("exit 0");
    let mut side = tokio::task::JoinSet::new();
    side.spawn(reloading(nginx.clone(), program));
    let tenant = TenantId::generate();
    nginx.add(tenant, "acme.example.net").await.expect("good");
    let text = std::fs::read_to_string(nginx.path(tenant)).expect("the file");
    assert_eq!(text, "acme.example.net webhost_hold;\n");
    nginx.add(tenant, "acme.example.net").await.expect("again");
    nginx.remove(tenant).await.expect("good");
    assert!(!nginx.path(tenant).exists());
    nginx.remove(tenant).await.expect("twice");
    nginx.restore(tenant, "acme.example.net").expect("written");
    assert!(nginx.path(tenant).exists());
}

#[tokio::test]
async fn a_refused_file_is_taken_back() {
    let (_dir, nginx, program) =
        stand_in("[ \"$1\" = -t ] && echo 'unknown directive' >&2; exit 1");
    let mut side = tokio::task::JoinSet::new();
    side.spawn(reloading(nginx.clone(), program));
    let tenant = TenantId::generate();
    let error = nginx.add(tenant, "acme.example.net").await.expect_err("refused");
    assert!(error.contains("unknown directive"), "{error}");
    assert!(!nginx.path(tenant).exists());
    assert!(nginx.add(tenant, "a b").await.expect_err("refused").contains("is no host name"));
}

#[tokio::test(start_paused = true)]
async fn nobody_reloads() {
    let (_dir, nginx, _program) = stand_in("exit 0");
    let tenant = TenantId::generate();
    let error = nginx.add(tenant, "acme.example.net").await.expect_err("no verdict");
    assert!(error.contains("webhost-nginx-reload.path"), "{error}");
    assert!(!nginx.path(tenant).exists(), "taken back");
}
