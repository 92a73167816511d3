//! nginx's access log, as a real nginx writes it in the documented format.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;
use webhost_agent::collect::access_log::hosts::Hosts;
use webhost_agent::collect::access_log::{AccessReading, AccessSource};
use webhost_agent::collect::source::{Outcome, Source};
use webhost_agent::config::AccessLog;
use webhost_proto::ids::TenantId;
use webhost_tests::harness::ports;
use webhost_tests::harness::process::Process;

const DOCUMENTED: &str = include_str!("../../systemd/nginx.conf");

/// The documented format, from its name to the semicolon.
fn format() -> &'static str {
    let from = DOCUMENTED.find("log_format webhost_json").expect("it is documented");
    let text = &DOCUMENTED[from..];
    &text[..=text.find("}';").expect("it ends") + 2]
}

async fn nginx(dir: &Path, listen: SocketAddr) -> Process {
    let shown = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {shown}/{kind};\n"))
        .concat();
    let text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {shown}/nginx.pid;\n\
         error_log {shown}/error.log info;\nevents {{}}\nhttp {{\n{temporary}{}\n\
         access_log {shown}/access.json webhost_json;\n\
         server {{ listen {listen}; location / {{ return 200 'hello'; }}\n\
         location /broken {{ return 502; }} }}\n}}\n",
        format()
    );
    let config = dir.join("nginx.conf");
    std::fs::write(&config, text).expect("writes");
    let arguments = ["-c".to_owned(), config.display().to_string()];
    let log = dir.join("nginx.log");
    let process = Process::start("nginx", Path::new("/usr/sbin/nginx"), &arguments, &[], &log)
        .expect("nginx is installed (tests/deps.sh test)");
    while TcpStream::connect(listen).await.is_err() {
        assert!(process.ended().is_none(), "nginx ended:\n{}", process.log_tail(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process
}

async fn request(listen: SocketAddr, host: &str, path: &str) {
    let mut stream = TcpStream::connect(listen).await.expect("connects");
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nCF-IPCountry: DE\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("reads");
    assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&answer));
}

/// Reads until `calls` were counted for the tenant; nginx writes an entry just
/// after the answer.
async fn counted(source: &mut AccessSource, tenant: TenantId, calls: u64) -> AccessReading {
    loop {
        let reading = match source.read().await {
            Outcome::Good(reading) => reading,
            other => panic!("not good: {other:?}"),
        };
        let seen = reading.tenants.get(&tenant).map_or(0, |tenant| tenant.calls);
        assert!(seen <= calls, "counted {seen} of {calls}");
        if seen == calls {
            return reading;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_nginx_writes_is_counted_over_its_rotation() {
    let dir = tempfile::tempdir().expect("a directory");
    let listen = ports::free().expect("a port");
    let nginx = nginx(dir.path(), listen).await;
    let (one, two) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
    let path = dir.path().join("access.json");
    let config = AccessLog {
        path: path.clone(),
        domain: None,
        hosts: [("one.example".to_owned(), one), ("two.example".to_owned(), two)].into(),
    };
    let mut source = AccessSource::new(&config, Hosts::new(&config, None));
    assert!(matches!(source.read().await, Outcome::Good(_)));

    for _ in 0..20 {
        request(listen, "one.example", "/").await;
    }
    request(listen, "two.example", "/broken").await;
    // What a stranger may put into a host name or a path.
    request(listen, "\"}{\\\"x", "/\"quoted\"").await;
    request(listen, "one.example", "/\u{fc}\"\\").await;
    let reading = counted(&mut source, one, 21).await;
    let seen = &reading.tenants[&one];
    assert_eq!((seen.errors, seen.clients, seen.recent.count()), (0, 1, 21));
    assert!(seen.bytes > 21 * 100, "{seen:?}");
    assert_eq!(seen.countries, [("DE".to_owned(), 21)].into());
    assert_eq!((reading.tenants[&two].calls, reading.tenants[&two].errors), (1, 1));

    // As logrotate does it: rename, then tell nginx.
    let old = dir.path().join("access.json.1");
    std::fs::rename(&path, &old).expect("renames");
    request(listen, "one.example", "/").await;
    let pid = std::fs::read_to_string(dir.path().join("nginx.pid")).expect("a pid file");
    let told = std::process::Command::new("kill").args(["-USR1", pid.trim()]).status();
    assert!(told.expect("kill is there").success());
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..5 {
        request(listen, "one.example", "/").await;
    }
    counted(&mut source, one, 27).await;
    drop(nginx);
}
