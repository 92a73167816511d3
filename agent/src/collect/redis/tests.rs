use std::process::{Child, Command, Stdio};

use uuid::Uuid;

use super::*;
use crate::collect::source::Outcome;

/// A Redis of our own on a socket, ended with this value.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    async fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(dir.path().join("redis.sock"))
            .args(more)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (tests/deps.sh test)");
        let server = Self { child, dir };
        for _ in 0..600 {
            if tokio::net::UnixStream::connect(server.socket()).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("redis-server does not listen");
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("redis.sock")
    }

    fn source(&self, password_file: Option<std::path::PathBuf>) -> RedisSource {
        let config = Redis {
            address: self.socket().display().to_string(),
            password_file,
            prefix: Some("customer:{id}:".into()),
        };
        RedisSource::new(&config, None).expect("a source")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that ended by itself needs no end.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn read(source: &mut RedisSource) -> RedisReading {
    match source.read().await {
        Outcome::Good(reading) => reading,
        other => panic!("not good: {other:?}"),
    }
}

#[tokio::test]
async fn keys_and_memory_are_split_by_whose_they_are() {
    let server = Server::start(&[]).await;
    let mut source = server.source(None);
    assert!(read(&mut source).await.tenants.is_empty(), "an empty Redis has nobody's keys");

    // Tenant 1 has 600 keys, tenant 2 has 300, nobody has 100; all of a size.
    let tenant = |n: u128| TenantId(Uuid::from_u128(n));
    let mut redis = connect(&Place::Unix(server.socket()), None).await.expect("connects");
    let value = [b'x'; 200];
    for n in 0..1_000_u32 {
        let key = match n {
            0..600 => format!("customer:{}:{n}", tenant(1)),
            600..900 => format!("customer:{}:{n}", tenant(2)),
            _ => format!("cache:{n}"),
        };
        redis.ask(&[b"SET", key.as_bytes(), &value]).await.expect("sets");
    }
    for _ in 0..20 {
        source.last_draw = None;
        read(&mut source).await;
    }
    let reading = read(&mut source).await;
    assert_eq!(reading.keys, 1_000);
    assert!(reading.clients >= 2 && reading.commands >= 1_000 && reading.used_memory_bytes > 0);
    for (n, truth) in [(1, 600), (2, 300)] {
        let told = reading.tenants[&tenant(n)];
        assert!(told.keys_error < 60, "{told:?}");
        // Redis draws not quite evenly, so a generous multiple of the error.
        assert!(told.keys.abs_diff(truth) <= 3 * told.keys_error + 20, "{told:?}, not {truth}");
    }
    let bytes: u64 = reading.tenants.values().map(|tenant| tenant.bytes).sum();
    let share = bytes as f64 / reading.used_memory_bytes as f64;
    assert!((0.8..0.98).contains(&share), "nobody's keys keep their part: {share}");
}

#[tokio::test]
async fn a_password_is_said_and_what_is_refused_has_words() {
    let server = Server::start(&["--requirepass", "secret-word"]).await;
    let Outcome::Failed(why) = server.source(None).read().await else { panic!("no password") };
    assert!(why.contains("NOAUTH") && why.contains("redis.sock"), "{why}");
    let file = server.dir.path().join("password");
    std::fs::write(&file, "secret-word\n").expect("writes");
    read(&mut server.source(Some(file.clone()))).await;
    std::fs::write(&file, "wrong-word\n").expect("writes");
    let Outcome::Failed(why) = server.source(Some(file)).read().await else { panic!("wrong") };
    assert!(!why.contains("wrong-word"), "{why}");
}

#[tokio::test]
async fn a_redis_that_comes_back_is_read_again() {
    let mut server = Server::start(&[]).await;
    let mut source = server.source(None);
    read(&mut source).await;
    server.child.kill().expect("kills");
    server.child.wait().expect("ends");
    let Outcome::Failed(why) = source.read().await else { panic!("it is gone") };
    assert!(why.contains("redis.sock"), "{why}");
    std::fs::remove_file(server.socket()).expect("removes");
    let again = Server::start(&[]).await;
    source.place = Place::Unix(again.socket());
    read(&mut source).await;
}
