//! The units, their users and their example configuration, as systemd and our
//! own parsers see them.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn systemd_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// systemd-analyze is part of Debian's systemd package. A machine without it
/// (a slim container) has no units to check either; the reason is printed.
fn systemd_analyze() -> Option<Command> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("systemd-analyze is not installed here: units not checked");
        return None;
    }
    Some(Command::new("systemd-analyze"))
}

/// Output of a command that must succeed.
fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    let words = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}:\n{words}");
    words
}

/// A copy of the units whose programs exist, so that `verify` judges the rest.
fn units_with_programs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, program) in [
        ("webhost-agent.service", "/usr/local/bin/webhost-agent"),
        ("webhost-coordinator.service", "/usr/local/bin/webhost-coordinator"),
        ("webhost-nginx-reload.service", "/usr/local/bin/webhost-agent"),
        ("webhost-docker-proxy.service", "/usr/local/bin/webhost-agent"),
    ] {
        let unit = std::fs::read_to_string(systemd_dir().join(name)).expect("the unit");
        assert!(unit.contains(&format!("ExecStart={program} ")), "{name} runs {program}");
        let unit = unit.replace(program, "/bin/true");
        std::fs::write(dir.path().join(name), unit).expect("written");
    }
    let path = "webhost-nginx-reload.path";
    std::fs::copy(systemd_dir().join(path), dir.path().join(path)).expect("copied");
    dir
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    let Some(mut verify) = systemd_analyze() else { return };
    let dir = units_with_programs();
    let words = succeeds(verify.args(["verify", "--man=no", "--recursive-errors=no"]).args([
        dir.path().join("webhost-agent.service"),
        dir.path().join("webhost-coordinator.service"),
        dir.path().join("webhost-nginx-reload.service"),
        dir.path().join("webhost-docker-proxy.service"),
        dir.path().join("webhost-nginx-reload.path"),
    ]));
    // It warns about an unknown or misplaced setting and succeeds all the
    // same; lines about other units of this machine are not ours.
    let ours: Vec<&str> = words.lines().filter(|line| line.contains("webhost-")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn the_units_are_as_tight_as_promised() {
    // In tenths, as systemd takes a threshold: 15 is 1.5.
    for (unit, tenths) in [
        ("webhost-agent.service", 15),
        ("webhost-coordinator.service", 11),
        // It reaches one socket, and no network.
        ("webhost-docker-proxy.service", 5),
        // It is root, with three capabilities.
        ("webhost-nginx-reload.service", 20),
    ] {
        let Some(mut security) = systemd_analyze() else { return };
        let words = succeeds(
            security
                .args(["security", "--offline=true", "--no-pager"])
                .arg(format!("--threshold={tenths}"))
                .arg(systemd_dir().join(unit)),
        );
        let score = words.lines().find(|line| line.contains("Overall exposure level"));
        eprintln!("{}", score.unwrap_or("no score printed").trim());
    }
}

#[test]
fn the_threshold_bites() {
    let Some(mut security) = systemd_analyze() else { return };
    let dir = units_with_programs();
    let unit = dir.path().join("webhost-agent.service");
    let text = std::fs::read_to_string(&unit).expect("the unit");
    let loose: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("SystemCallFilter=") && *line != "PrivateUsers=yes")
        .collect();
    std::fs::write(&unit, loose.join("\n")).expect("written");
    let status = security
        .args(["security", "--offline=true", "--no-pager", "--threshold=15"])
        .arg(&unit)
        .output()
        .expect("starts")
        .status;
    assert!(!status.success(), "a loosened unit must not pass");
}

#[test]
fn drop_ins_say_only_what_systemd_knows() {
    let Some(mut verify) = systemd_analyze() else { return };
    let dir = units_with_programs();
    let drop_in = dir.path().join("webhost-agent.service.d");
    std::fs::create_dir(&drop_in).expect("created");
    for name in ["docker", "network"] {
        let file = systemd_dir().join(format!("drop-ins/webhost-agent-{name}.conf"));
        std::fs::copy(&file, drop_in.join(format!("{name}.conf"))).expect("copied");
    }
    let words = succeeds(
        verify
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(dir.path().join("webhost-agent.service")),
    );
    let ours: Vec<&str> = words.lines().filter(|line| line.contains("webhost-")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn users_and_directories_are_those_of_the_units() {
    let users =
        std::fs::read_to_string(systemd_dir().join("sysusers.d/webhost.conf")).expect("sysusers.d");
    for name in ["webhost-agent", "webhost-coordinator"] {
        let unit = std::fs::read_to_string(systemd_dir().join(format!("{name}.service")))
            .expect("the unit");
        assert!(unit.contains(&format!("\nUser={name}\n")), "{name} has its own user");
        let line = users
            .lines()
            .find(|line| line.starts_with(&format!("u {name} ")))
            .unwrap_or_else(|| panic!("sysusers.d has no {name}"));
        assert!(line.contains(&format!("/var/lib/{name} ")), "its home is its state: {line}");
        assert!(unit.contains(&format!("\nStateDirectory={name}\n")), "{name}");
    }
}

/// Every commented default of an example, switched on: `#key = …` becomes
/// `key = …`, prose stays a comment.
fn with_defaults(example: &str) -> String {
    let is_setting = |line: &&str| {
        line.strip_prefix('#').is_some_and(|rest| {
            rest.starts_with('[')
                || rest.split_once(" = ").is_some_and(|(key, _)| {
                    !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                })
        })
    };
    let mut text = String::new();
    for line in example.lines() {
        text.push_str(if is_setting(&line) { &line[1..] } else { line });
        text.push('\n');
    }
    text
}

/// As whom a unit runs: peer authentication lets it in under no other role.
fn user_of(unit: &str) -> String {
    let unit = std::fs::read_to_string(systemd_dir().join(unit)).expect("the unit");
    let user = unit.lines().find_map(|line| line.strip_prefix("User="));
    user.expect("a user").to_owned()
}

#[test]
fn the_agents_example_is_understood_by_the_agent() {
    let example = std::fs::read_to_string(systemd_dir().join("agent.toml")).expect("the example");
    // The password's file is shown by the second, and does not exist here.
    let all = with_defaults(&example).replace("password_file", "#password_file");
    let none: [(std::ffi::OsString, std::ffi::OsString); 0] = [];
    for text in [example.clone(), all] {
        let path = Path::new("agent.toml");
        let config = webhost_agent::config::Config::from_parts(path, &text, none.clone())
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        let postgres = config.postgres.as_ref().expect("a database");
        let connection = postgres.connection().unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(connection.get_user(), Some(user_of("webhost-agent.service").as_str()));
        assert_eq!(connection.get_hosts().len(), 1, "the socket and nothing else");
        assert_eq!(config.status_socket, Path::new("/run/webhost-agent/status.sock"));
        assert_eq!(config.state_dir, Path::new("/var/lib/webhost-agent"));
    }
    let wrong = example.replace("metrics_url", "metrics_ulr");
    let refused = toml::from_str::<webhost_agent::config::Config>(&wrong);
    assert!(refused.is_err(), "a typing mistake is refused");
}

/// The reload unit, the agent's defaults and the documented configuration name
/// the same files.
#[test]
fn nginx_and_the_agent_mean_the_same_files() {
    let read = |name: &str| std::fs::read_to_string(systemd_dir().join(name)).expect(name);
    let defaults = webhost_agent::config::Nginx::default();
    let dir = defaults.dir.display().to_string();
    let generation = format!("{dir}/{}", webhost_agent::nginx::GENERATION);
    assert!(read("webhost-nginx-reload.path").contains(&format!("PathChanged={generation}\n")));
    let verdict_dir = defaults.verdict.parent().expect("a directory").display().to_string();
    let runtime = verdict_dir.trim_start_matches("/run/").to_owned();
    assert!(
        read("webhost-nginx-reload.service").contains(&format!("RuntimeDirectory={runtime}\n"))
    );
    let nginx = read("nginx.conf");
    assert!(nginx.contains(&format!("include {dir}/*.map;")), "{nginx}");
    let seconds = defaults.worker_shutdown_s;
    assert!(nginx.contains(&format!("worker_shutdown_timeout {seconds}s;")), "{nginx}");
    let hold = webhost_agent::config::Hold::default();
    for address in [hold.listen, hold.application] {
        assert!(nginx.contains(&format!("server {address}")), "{nginx}");
    }
}

#[test]
fn the_coordinators_environment_names_a_database() {
    let example =
        std::fs::read_to_string(systemd_dir().join("coordinator.env")).expect("the example");
    for line in example.lines() {
        let Some(url) = line.trim_start_matches('#').strip_prefix("DATABASE_URL=") else {
            continue;
        };
        let config: tokio_postgres::Config =
            url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(config.get_dbname(), Some("webhost_fleet"));
        assert_eq!(config.get_hosts().len(), 1);
        assert_eq!(config.get_user(), Some(user_of("webhost-coordinator.service").as_str()));
    }
}

#[test]
fn the_coordinators_example_shows_the_defaults() {
    use webhost_coordinator::config::Config;

    let example =
        std::fs::read_to_string(systemd_dir().join("coordinator.toml")).expect("the example");
    let dir = tempfile::tempdir().expect("a directory");
    let load = |text: &str| {
        let file = dir.path().join("coordinator.toml");
        std::fs::write(&file, text).expect("written");
        Config::load(Some(&file), &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    let shown = load(&example);
    let mut spelled_out = load(&with_defaults(&example));
    // Their defaults are absence; the example shows a value.
    spelled_out.ca_key_file = None;
    spelled_out.database.ca_file = None;
    spelled_out.api.certificate_file = None;
    spelled_out.api.key_file = None;
    spelled_out.routing.domain = None;
    let words = |config: &Config| toml::to_string(config).expect("can be written");
    assert_eq!(words(&spelled_out), words(&shown));
    assert_eq!(shown.link.names, ["coordinator.example.net"]);
    let url = shown.database.url.as_ref().expect("a database");
    let config: tokio_postgres::Config = url.parse().expect("a URL");
    assert_eq!(config.get_user(), Some(user_of("webhost-coordinator.service").as_str()));
}
