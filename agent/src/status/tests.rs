use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::cli::fetch;
use super::socket::{SocketError, StatusSocket};

#[tokio::test]
async fn the_socket_hands_out_a_document_and_outlives_a_dead_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run/status.sock");
    let board = Board::new("c.example:7401", 1_000);
    board.update(|document| document.connection.state = "connected".into());

    for round in 0..2 {
        let socket = StatusSocket::bind(&path).await.expect("binds");
        assert!(
            matches!(StatusSocket::bind(&path).await, Err(SocketError::InUse(_))),
            "a second agent must not take the socket over"
        );
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(socket.serve(board.clone(), stop.clone()));
        let document = fetch(&path).await.expect("answers");
        assert_eq!(document, board.document(), "in round {round}");
        assert!(document.healthy);
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        // As a killed agent leaves it: a socket file that nobody listens on.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    }
}

#[tokio::test]
async fn a_missing_agent_is_said_with_what_to_do() {
    let error = fetch(Path::new("/no/such/status.sock")).await.expect_err("refused");
    assert!(error.contains("the agent is not running"), "{error}");
    assert!(error.contains("systemctl start"), "{error}");
}

#[tokio::test]
async fn problems_are_what_is_degraded() {
    let board = Board::new("c.example:7401", 1_000);
    assert!(board.document().healthy, "an agent that begins is not late yet");
    board.expect_link();
    board.update(|document| document.connection.last_error = Some("refused".into()));
    let document = board.document();
    assert!(!document.healthy);
    assert_eq!(document.problems, ["not connected to c.example:7401: refused"]);
}
