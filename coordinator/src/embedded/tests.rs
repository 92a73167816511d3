use std::os::unix::fs::MetadataExt;

use super::*;

fn with_client<T>(server: &Embedded, work: impl AsyncFnOnce(tokio_postgres::Client) -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, connection) =
            server.config("postgres").connect(tokio_postgres::NoTls).await.expect("connects");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        work(client).await
    })
}

#[test]
fn keeps_its_data_over_a_restart_and_leaves_nothing_running() {
    let dir = tempfile::Builder::new().prefix("embedded").tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let server = Embedded::start(dir.path(), &Options::throwaway()).expect("starts");
    if let Some((uid, _)) = unprivileged() {
        assert_eq!(std::fs::metadata(dir.path().join("data")).expect("metadata").uid(), uid);
    }
    with_client(&server, async |client| {
        client
            .batch_execute("create table kept (n int); insert into kept values (7)")
            .await
            .expect("writes");
    });
    let pid = server.pid();
    drop(server);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the postmaster must be gone");

    let server = Embedded::start(dir.path(), &Options::throwaway()).expect("starts again");
    let kept: i32 = with_client(&server, async |client| {
        client.query_one("select n from kept", &[]).await.expect("reads").get(0)
    });
    assert_eq!(kept, 7);
}

#[test]
fn a_setting_that_postgres_refuses_is_reported_with_its_words() {
    let dir = tempfile::Builder::new().prefix("embedded").tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let options = Options::throwaway().with("shared_buffers", "lots");
    let error = Embedded::start(dir.path(), &options).err().expect("must fail").to_string();
    assert!(error.contains("shared_buffers"), "{error}");
}
