//! The agent's command line, as people and scripts use it.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::process::{Command, Output};

use webhost_tests::harness::process::program;

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
