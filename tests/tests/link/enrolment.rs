//! Who is let in.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use webhost_agent::identity::{EnrolError, IdentityError, JoinToken, StoredIdentity, enrol};

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_token_lets_one_machine_in_and_its_key_stays_private() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    assert_eq!(machine.identity.node_name, "fsn-1");
    let path = StoredIdentity::path(machine.dir.path());
    let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let row = world.store.client().await.expect("a client");
    let row = row
        .query_one("select name, state, certificate_serial from nodes", &[])
        .await
        .expect("one node");
    assert_eq!(row.get::<_, &str>(0), "fsn-1");
    assert_eq!(row.get::<_, &str>(1), "joining");
    assert!(row.get::<_, Option<&str>>(2).is_some());
}

#[tokio::test]
async fn of_two_that_race_for_a_token_exactly_one_wins() {
    let world = World::start().await;
    let token = world.token("fsn-1", MINUTE).await;
    let dirs = [tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two")];
    let (one, two) =
        tokio::join!(world.enrol(dirs[0].path(), &token), world.enrol(dirs[1].path(), &token));
    let (won, lost): (Vec<_>, Vec<_>) = [one, two].into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 1));
    assert!(matches!(lost[0], Err(EnrolError::Token(_))), "{:?}", lost[0]);
    let present = |at: usize| StoredIdentity::path(dirs[at].path()).exists();
    assert_eq!(u8::from(present(0)) + u8::from(present(1)), 1);
}

#[tokio::test]
async fn unknown_used_and_expired_tokens_get_one_answer() {
    let world = World::start().await;
    let used = world.token("fsn-1", MINUTE).await;
    let dir = tempfile::tempdir().expect("a directory");
    world.enrol(dir.path(), &used).await.expect("enrols");
    let expired = world.token("fsn-2", Duration::from_secs(1)).await;
    let client = world.store.client().await.expect("a client");
    let age =
        "update join_tokens set expires_at = now() - interval '1 second' where used_at is null";
    client.execute(age, &[]).await.expect("ages");
    let print: String = world.authority.root_sha256().iter().map(|b| format!("{b:02x}")).collect();
    let unknown = JoinToken::parse(&format!("whf1.{}.{print}", "x".repeat(43))).expect("a token");
    let mut answers = Vec::new();
    for token in [used, expired, unknown] {
        let dir = tempfile::tempdir().expect("a directory");
        let error = world.enrol(dir.path(), &token).await.expect_err("refused");
        assert!(matches!(error, EnrolError::Token(_)), "{error}");
        answers.push(error.to_string());
        assert!(!StoredIdentity::path(dir.path()).exists());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn another_fleets_coordinator_gets_no_secret() {
    let (ours, theirs) = (World::start().await, World::start().await);
    let token = ours.token("fsn-1", MINUTE).await;
    let dir = tempfile::tempdir().expect("a directory");
    let error = theirs.enrol(dir.path(), &token).await.expect_err("refused").to_string();
    assert!(error.contains("not the one of the join token"), "{error}");
    ours.enrol(dir.path(), &token).await.expect("the token is still good");
}

#[tokio::test]
async fn an_identity_is_kept_unless_forced_and_the_token_too() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let token = world.token("fsn-1", MINUTE).await;
    let error = world.enrol(machine.dir.path(), &token).await.expect_err("refused");
    assert!(matches!(error, EnrolError::Identity(IdentityError::Exists { .. })), "{error}");
    let again = enrol(&world.enrolment, &token, machine.dir.path(), true).await.expect("forced");
    assert_eq!(again.node, machine.node(), "a node keeps its id");
}

#[tokio::test]
async fn a_machine_that_can_keep_no_identity_uses_up_no_token() {
    let world = World::start().await;
    let token = world.token("fsn-1", MINUTE).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, b"").expect("written");
    let error = world.enrol(&file, &token).await.expect_err("no directory");
    assert!(matches!(error, EnrolError::Identity(IdentityError::Io { .. })), "{error}");
    world.enrol(dir.path(), &token).await.expect("the token is still good");
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let world = World::start().await;
    let token = world.token("fsn-1", MINUTE).await;
    let dir = tempfile::tempdir().expect("a directory");
    for address in ["127.0.0.1:1", "nonsense"] {
        let error = enrol(address, &token, dir.path(), false).await.expect_err("fails");
        assert!(matches!(error, EnrolError::Connect(_)), "{error}");
        assert!(error.to_string().contains(address), "{error}");
    }
}
