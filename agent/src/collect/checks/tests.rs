use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// Answers every request with this status, or never.
async fn page(status: Option<u16>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/health", listener.local_addr().expect("bound"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Some(status) = status {
                let mut heard = [0; 1_024];
                assert!(stream.read(&mut heard).await.expect("reads") > 0);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.expect("writes");
            } else {
                open.push(stream);
            }
        }
    });
    (url, tasks)
}

fn check(name: &str, vital: bool, url: String) -> Check {
    Check { http: Some(url), ..Check::named(name, vital) }
}

fn source(checks: &[Check]) -> ChecksSource {
    ChecksSource::new(checks, Duration::ZERO).expect("a client")
}

async fn states(source: &mut ChecksSource) -> (State, Vec<State>) {
    let (Outcome::Good(reading) | Outcome::Partial(reading, _)) = source.read().await else {
        panic!("checks always say something")
    };
    (reading.overall, reading.checks.iter().map(|checked| checked.state).collect())
}

#[tokio::test]
async fn a_hiccup_is_not_down_and_the_worst_vital_check_counts() {
    use State::{Degraded, Down, Healthy};
    let (good, _good) = page(Some(204)).await;
    let (moved, _moved) = page(Some(302)).await;
    let (bad, _bad) = page(Some(503)).await;
    let mut well = source(&[check("app", true, good.clone()), check("cdn", false, moved)]);
    assert_eq!(states(&mut well).await, (Healthy, vec![Healthy, Healthy]));

    let mut side = source(&[check("app", true, good), check("cdn", false, bad.clone())]);
    for expected in [Degraded, Degraded, Down, Down] {
        assert_eq!(states(&mut side).await, (Degraded, vec![Healthy, expected]));
    }
    let mut vital = source(&[check("app", true, bad)]);
    for expected in [Degraded, Degraded, Down] {
        assert_eq!(states(&mut vital).await, (expected, vec![expected]));
    }
    let Outcome::Partial(reading, why) = vital.read().await else { panic!("down") };
    assert!(why.starts_with("app is down: answered 503"), "{why}");
    assert_eq!(reading.checks[0].failures, 4);
}

#[tokio::test]
async fn every_kind_of_check_says_why_it_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let open = listener.local_addr().expect("bound").to_string();
    let (hangs, _hangs) = page(None).await;
    // Nobody listens on port 1.
    let closed = "127.0.0.1:1";
    let nowhere = "host=127.0.0.1 port=1 user=u dbname=d password=secret";
    let checks = [
        Check { tcp: Some(open), ..Check::named("tcp", true) },
        Check { tcp: Some(closed.into()), ..Check::named("closed", true) },
        Check { redis: Some(closed.into()), ..Check::named("redis", true) },
        Check {
            postgres: Some(crate::config::SecretUrl::new(nowhere)),
            ..Check::named("postgres", true)
        },
        check("hangs", true, hangs),
    ];
    let mut source = source(&checks);
    let Outcome::Partial(reading, why) = source.read().await else { panic!("some fail") };
    let failed: Vec<bool> =
        reading.checks.iter().map(|checked| checked.state != State::Healthy).collect();
    assert_eq!(failed, [false, true, true, true, true]);
    assert!(!why.contains("secret"), "{why}");
    for checked in &reading.checks[1..] {
        assert!(!checked.message.is_empty(), "{checked:?}");
    }
    assert!(reading.checks[4].message.contains("no answer within 5 s"), "{reading:?}");
}
