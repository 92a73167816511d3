use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[test]
fn questions_by_table() {
    let id = "c0ffee0123";
    for (method, path, expected) in [
        ("GET", "/_ping", Some(Question::Plain)),
        ("GET", "/version", Some(Question::Plain)),
        ("GET", "/v1.41/version", Some(Question::Plain)),
        ("GET", "/v1.41/containers/json", Some(Question::Plain)),
        ("GET", "/events", Some(Question::Plain)),
        ("GET", &format!("/v1.41/containers/{id}/json"), Some(Question::Container)),
        ("POST", "/v1.41/containers/create", None),
        ("POST", "/_ping", None),
        ("HEAD", "/_ping", None),
        ("GET", &format!("/containers/{id}/logs"), None),
        ("GET", &format!("/containers/{id}/export"), None),
        ("GET", &format!("/containers/{id}/archive"), None),
        ("GET", "/containers/../json", None),
        ("GET", "/containers/%2e%2e/json", None),
        ("GET", "/v1.41/v1.41/_ping", None),
        ("GET", "/v/_ping", None),
        ("GET", "/vx/containers/json", None),
        ("GET", "//containers/json", None),
        ("GET", "/containers/json/", None),
        ("GET", "/info", None),
        ("GET", "/secrets", None),
        ("GET", "/", None),
        ("GET", "", None),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        assert_eq!(question(&method, path), expected, "{method} {path}");
    }
}

/// An engine that answers everything, and remembers what it was asked.
async fn engine(path: PathBuf, heard: Arc<Mutex<Vec<String>>>) {
    let listener = UnixListener::bind(path).expect("binds");
    loop {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut text = vec![0; 4_096];
        let length = stream.read(&mut text).await.expect("reads");
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        heard.lock().expect("no panic").push(text);
        let body = r#"{"Id":"c0ffee","Name":"/acme","State":{"Pid":7},
            "Config":{"Env":["DATABASE_PASSWORD=geheim"]}}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.expect("writes");
    }
}

async fn request(socket: &Path, head: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("connects");
    let text = format!("{head} HTTP/1.1\r\nHost: d\r\nX-Secret: s\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    answer
}

#[tokio::test]
async fn questions_go_through_and_nothing_else_reaches_the_engine() {
    let dir = tempfile::tempdir().expect("a directory");
    let (listen, behind) = (dir.path().join("proxy.sock"), dir.path().join("docker.sock"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    tasks.spawn(engine(behind.clone(), Arc::clone(&heard)));
    let stop = CancellationToken::new();
    let (stopped, at, to) = (stop.clone(), listen.clone(), behind.clone());
    let mut proxy = JoinSet::new();
    proxy.spawn(async move { run(&at, &to, stopped).await });
    while UnixStream::connect(&listen).await.is_err() {
        tokio::task::yield_now().await;
    }

    let list = request(&listen, "GET /v1.41/containers/json?filters=%7B%7D").await;
    assert!(list.starts_with("HTTP/1.1 200") && list.contains("geheim"), "{list}");
    let one = request(&listen, "GET /v1.41/containers/c0ffee/json").await;
    assert!(one.contains(r#""Pid":7"#) && one.contains("acme"), "{one}");
    assert!(!one.contains("geheim"), "no container's environment: {one}");
    for refused in [
        "POST /v1.41/containers/create",
        "DELETE /v1.41/containers/c0ffee",
        "GET /v1.41/containers/c0ffee/logs",
        "GET /v1.41/images/json",
    ] {
        let answer = request(&listen, refused).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{refused}: {answer}");
    }
    let heard = heard.lock().expect("no panic").clone();
    assert_eq!(heard.len(), 2, "{heard:#?}");
    assert!(heard[0].starts_with("GET /v1.41/containers/json?filters=%7B%7D HTTP/1.1\r\n"));
    assert!(!heard[0].contains("X-Secret"), "{heard:#?}");

    stop.cancel();
    proxy.join_next().await.expect("a task").expect("no panic").expect("ends well");
    assert!(!listen.exists());
}

#[tokio::test]
async fn an_engine_that_is_away_is_a_bad_gateway() {
    let dir = tempfile::tempdir().expect("a directory");
    let listen = dir.path().join("proxy.sock");
    let (at, to) = (listen.clone(), dir.path().join("docker.sock"));
    let mut proxy = JoinSet::new();
    proxy.spawn(async move { run(&at, &to, CancellationToken::new()).await });
    while UnixStream::connect(&listen).await.is_err() {
        tokio::task::yield_now().await;
    }
    let answer = request(&listen, "GET /_ping").await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("docker.sock"), "{answer}");
}
