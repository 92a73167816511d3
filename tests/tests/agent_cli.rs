//! The agent's command line, as people and scripts use it.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use webhost_tests::harness::api::wait_for;
use webhost_tests::harness::ports;
use webhost_tests::harness::process::{Process, program};
use webhost_tests::measure::agent::sink::Sink;

fn agent(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(program("webhost-agent").expect("is built"))
        .args(arguments)
        .env_remove("WEBHOST_AGENT_COORDINATOR_ADDRESS")
        .envs(environment.iter().copied())
        .output()
        .expect("starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn without_a_file_the_environment_alone_is_enough() {
    let check = ["check-config", "--config", "/no/such/agent.toml"];
    let refused = agent(&check, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("/no/such/agent.toml"), "{}", said(&refused));
    let coordinator = ("WEBHOST_AGENT_COORDINATOR_ADDRESS", "c.example:7401");
    let accepted = agent(&check, &[coordinator]);
    assert_eq!(accepted.status.code(), Some(0), "{}", said(&accepted));
    assert!(said(&accepted).contains("c.example:7401"));
}

#[test]
fn exit_codes_are_those_that_the_help_names() {
    let status = ["status", "--socket", "/no/such/status.sock"];
    let missing = agent(&status, &[]);
    assert_eq!(missing.status.code(), Some(2), "not running");
    assert!(said(&missing).contains("the agent is not running"), "{}", said(&missing));
    assert_eq!(agent(&["no-such-command"], &[]).status.code(), Some(2), "not understood");
    let grants = agent(&["postgres-grants", "--role", "x; drop role y"], &[]);
    assert_eq!(grants.status.code(), Some(1), "{}", said(&grants));
    // Lines are broken where the terminal ends.
    let help = said(&agent(&["status", "--help"], &[]));
    let help = help.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    for code in ["0: healthy", "1: degraded", "2: not", "3: no such tenant"] {
        assert!(help.contains(code), "the help lacks {code:?}: {help}");
    }
}

#[test]
fn completions_and_pages_come_from_the_program_itself() {
    let bash = agent(&["completions", "bash"], &[]);
    assert!(bash.status.success() && said(&bash).contains("postgres-grants"));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display().to_string();
    assert!(agent(&["man", &path], &[]).status.success());
    let page = std::fs::read_to_string(dir.path().join("webhost-agent.1")).expect("a page");
    assert!(page.contains(".TH"), "{page}");
}

/// How long anything may take that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(dir: &Path, log: &str) -> Process {
    let config = dir.join("agent.toml").display().to_string();
    let arguments = ["run".into(), "--config".into(), config];
    let agent = program("webhost-agent").expect("is built");
    Process::start("agent", &agent, &arguments, &[], &dir.join(log)).expect("starts")
}

fn configure(dir: &Path, link: std::net::SocketAddr, sink: &Sink) {
    let text = format!(
        "state_dir = {:?}\nstatus_socket = {:?}\ninterval_ms = 200\n\
         [coordinator]\naddress = \"{link}\"\nenrolment_address = \"{}\"\n\
         [containers]\nenabled = false\n[moves]\nenabled = false\n",
        dir.join("state"),
        dir.join("status.sock"),
        sink.enrolment,
    );
    std::fs::write(dir.join("agent.toml"), text).expect("written");
}

async fn enrol(dir: &Path, sink: &Sink, name: &str, more: &[&str]) -> Output {
    let token = dir.join("token");
    std::fs::write(&token, sink.token(name).await.expect("a token")).expect("written");
    let mut command = tokio::process::Command::new(program("webhost-agent").expect("is built"));
    command.arg("enroll").arg("--config").arg(dir.join("agent.toml"));
    command.arg("--token-file").arg(token).args(more).output().await.expect("starts")
}

async fn status(dir: &Path) -> Option<Value> {
    let mut command = tokio::process::Command::new(program("webhost-agent").expect("is built"));
    let config = dir.join("agent.toml");
    let said = command.args(["status", "--json", "--config"]).arg(config).output().await;
    serde_json::from_slice(&said.expect("starts").stdout).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_becomes_another_node_sends_nothing_of_the_first() {
    let dir = tempfile::Builder::new().prefix("wh").tempdir().expect("a directory");
    let dir = dir.path();
    std::fs::create_dir(dir.join("state")).expect("made");
    let sink = Sink::start().await.expect("a coordinator's end");
    // The first node can be enrolled, and never reaches its coordinator.
    configure(dir, ports::free().expect("a port"), &sink);
    let enrolled = enrol(dir, &sink, "first", &[]).await;
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    let agent = start(dir, "first.log");
    let backlog = wait_for("a backlog", PATIENCE, async || {
        let waiting = status(dir).await;
        Ok(waiting.filter(|status| status["spool"]["reports"].as_u64() >= Some(3)))
    });
    let first = backlog.await.expect("reports wait")["certificate"]["node_id"].clone();
    agent.terminate();
    assert!(agent.wait(PATIENCE).is_some(), "it ends");

    let refused = enrol(dir, &sink, "second", &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--force"), "{}", said(&refused));
    let enrolled = enrol(dir, &sink, "second", &["--force"]).await;
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    configure(dir, sink.link, &sink);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let agent = start(dir, "second.log");
    // More than the backlog's bursts would take to begin.
    let heard =
        wait_for("reports", PATIENCE, async || Ok((sink.heard().reports >= 5).then_some(())));
    heard.await.unwrap_or_else(|error| panic!("{error:#}: {}", agent.log_tail(20)));
    let second = wait_for("a status", PATIENCE, async || Ok(status(dir).await)).await;
    let second = second.expect("answers")["certificate"]["node_id"].clone();
    agent.terminate();
    assert!(agent.wait(PATIENCE).is_some(), "it ends");

    assert_ne!(first, second);
    let nodes = sink.nodes();
    let heard: Vec<String> = nodes.keys().map(ToString::to_string).collect();
    assert_eq!(heard, [second.as_str().expect("an id")], "the first one was never heard of");
    for told in nodes.values() {
        assert!(told.oldest_us >= since.as_micros() as i64, "a report of before: {told:?}");
    }
    let aside = dir.join("state").join(format!("spool-of-{}", first.as_str().expect("an id")));
    assert!(aside.is_dir(), "what the first one measured is kept, at {}", aside.display());
}
