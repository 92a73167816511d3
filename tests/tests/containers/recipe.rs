//! The example recipe for a Fly.io machine, built and run as it stands, on a
//! base of ours instead of the application's image: the agent beside it runs
//! from the environment alone, is enrolled as the recipe says, and reports.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use webhost_tests::harness::process::program;
use webhost_tests::measure::agent::sink::Sink;

use super::*;

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/flyio");
/// How long the agent may take for what comes by itself; it is started again
/// every 5 s until it is enrolled.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

/// Copies a program of this machine, with the libraries that it loads.
fn carry(program: &Path, root: &Path, to: &str) {
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("made");
        std::fs::copy(from, to).expect("copied");
    };
    copy(program, to);
    let libraries = String::from_utf8(run(Command::new("ldd").arg(program))).expect("text");
    for library in libraries.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), library);
    }
}

fn packed(dir: &Path) -> Vec<u8> {
    run(Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--directory"])
        .arg(dir)
        .arg("."))
}

/// A shell, what the recipe's script calls, and an application that sleeps.
fn base(root: &Path) {
    for (program, to) in
        [("/bin/sh", "/bin/sh"), ("/bin/mkdir", "/bin/mkdir"), ("/bin/sleep", "/bin/sleep")]
    {
        carry(Path::new(program), root, to);
    }
    // What the agent loads that they don't.
    let agent = program("webhost-agent").expect("is built");
    carry(&agent, root, "/unused");
    std::fs::remove_file(root.join("unused")).expect("removed");
    for dir in ["app/bin", "run", "tmp", "data", "etc"] {
        std::fs::create_dir_all(root.join(dir)).expect("made");
    }
    let application = root.join("app/bin/webhost");
    std::fs::write(&application, "#!/bin/sh\nexec sleep 3600\n").expect("written");
    run(Command::new("chmod").arg("755").arg(&application));
}

/// Runs a command in a container; its exit code, and all that it said.
async fn within(engine: &Engine, id: &str, command: &[&str], input: &str) -> (i64, String) {
    let exec = ExecConfig {
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = engine.docker().create_exec(id, exec).await.expect("is made").id;
    let started = engine.docker().start_exec(&exec, None).await.expect("starts");
    let StartExecResults::Attached { mut output, input: mut stdin } = started else {
        panic!("it is attached");
    };
    stdin.write_all(input.as_bytes()).await.expect("is read");
    stdin.shutdown().await.expect("ends");
    drop(stdin);
    let mut said = String::new();
    while let Some(part) = output.next().await {
        if let LogOutput::StdOut { message } | LogOutput::StdErr { message } = part.expect("a part")
        {
            said.push_str(&String::from_utf8_lossy(&message));
        }
    }
    let code = engine.docker().inspect_exec(&exec).await.expect("is known").exit_code;
    (code.expect("it ended"), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipe_makes_a_machine_whose_agent_reports() {
    let _one = ONE.lock().await;
    let dir = tempfile::Builder::new().prefix("wh").tempdir().expect("a directory");
    let Some(engine) = engine(dir.path()).await else { return };
    // The base, under the name that the recipe begins from.
    let recipe = std::fs::read_to_string(Path::new(RECIPE).join("Dockerfile")).expect("reads");
    let from = recipe.lines().find_map(|line| line.strip_prefix("FROM ")).expect("a base");
    let root = dir.path().join("root");
    base(&root);
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(from).build();
    let body = bollard::body_full(packed(&root).into());
    let imported = engine.docker().create_image(Some(options), Some(body), None);
    imported.try_collect::<Vec<_>>().await.expect("is imported");

    // As its first lines say: the agent beside it, then built.
    let context = dir.path().join("context");
    std::fs::create_dir(&context).expect("made");
    for name in ["Dockerfile", "start.sh"] {
        std::fs::copy(Path::new(RECIPE).join(name), context.join(name)).expect("copied");
    }
    let agent = program("webhost-agent").expect("is built");
    run(Command::new("strip").arg("-o").arg(context.join("webhost-agent")).arg(agent));
    let options = BuildImageOptionsBuilder::new().t("webhost-fly:test").rm(true).build();
    let body = bollard::body_full(packed(&context).into());
    let built: Vec<_> =
        engine.docker().build_image(options, None, Some(body)).try_collect().await.expect("builds");
    let wrong: Vec<_> = built.iter().filter_map(|step| step.error_detail.as_ref()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");

    // The machine: nothing but environment.
    let sink = Sink::start().await.expect("a coordinator's end");
    let tenant = Uuid::new_v4();
    let body = ContainerCreateBody {
        image: Some("webhost-fly:test".into()),
        env: Some(vec![
            format!("WEBHOST_AGENT_COORDINATOR_ADDRESS={}", sink.link),
            format!("WEBHOST_AGENT_COORDINATOR_ENROLMENT_ADDRESS={}", sink.enrolment),
            format!("WEBHOST_AGENT_MACHINE_TENANT={tenant}"),
            "FLY_MACHINE_ID=148e21b7".into(),
            "FLY_APP_NAME=webhost-acme".into(),
            "FLY_REGION=fra".into(),
        ]),
        labels: Some(HashMap::new()),
        host_config: Some(HostConfig {
            network_mode: Some("host".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = engine.docker().create_container(None, body).await.expect("is made").id;
    engine.docker().start_container(&id, None).await.expect("starts");

    let (code, said) = within(&engine, &id, &["webhost-agent", "check-config"], "").await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = within(&engine, &id, &["webhost-agent", "status"], "").await;
    assert_eq!(code, 2, "it has no identity yet, and does not run: {said}");
    let token = sink.token("acme-1").await.expect("a token");
    let (code, said) = within(&engine, &id, &["webhost-agent", "enroll"], &token).await;
    assert_eq!(code, 0, "{said}");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        let (_, said) = within(&engine, &id, &["webhost-agent", "status", "--json"], "").await;
        let read = serde_json::from_str::<serde_json::Value>(&said);
        if let Some(status) = read.ok().filter(|_| sink.heard().values > 0) {
            break status;
        }
        assert!(Instant::now() < deadline, "it never reported: {:?}\n{said}", sink.heard());
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(status["machine"]["provider"], "flyio", "{status:#}");
    assert_eq!(status["machine"]["app"], "webhost-acme");
    assert_eq!(status["machine"]["region"], "fra");
    assert_eq!(status["machine"]["tenant_id"], tenant.to_string());
    // The identity is on the volume, and no other place.
    let (code, _) =
        within(&engine, &id, &["/bin/sh", "-c", "test -d /data/webhost-agent"], "").await;
    assert_eq!(code, 0);
    // The application is the machine's first process: it ends with that one.
    let seen = engine.docker().inspect_container(&id, None).await.expect("is known");
    let pid = seen.state.and_then(|state| state.pid).expect("has a process");
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    assert_eq!(comm.trim(), "sleep", "the application itself, not the script");
    engine.stop().await;
}
