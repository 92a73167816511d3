use std::ffi::OsString;
use std::path::Path;

use super::*;

const LEAST: &str = "[coordinator]\naddress = \"c.example:7401\"\n";

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    Config::from_parts(Path::new("/etc/agent.toml"), text, variables)
        .map_err(|error| error.to_string())
}

#[test]
fn the_least_file_is_enough() {
    let config = load(LEAST, &[]).expect("loads");
    assert_eq!(config.interval_ms, 5_000);
    assert_eq!(config.spool_mib, 64);
    assert!(config.postgres.is_none() && config.app.is_none());
}

#[test]
fn mistakes_are_named_with_file_line_and_key() {
    for (text, expected) in [
        (
            "interval = 5\n[coordinator]\naddress='a:1'",
            "/etc/agent.toml:1: interval: unknown field",
        ),
        (
            "[coordinator]\naddress='a:1'\n\n[postgres]\nurll = \"postgres://u:geheim@h/d\"",
            "/etc/agent.toml:5: urll: unknown field",
        ),
        ("interval_ms = \"5 s\"", "/etc/agent.toml:1: interval_ms: invalid type"),
        ("[coordinator\n", "/etc/agent.toml:1: [coordinator: "),
        ("", "coordinator.address: is missing"),
        ("spool_mib = 0\n[coordinator]\naddress='a:1'", "spool_mib: 0 is not between"),
        ("interval_ms = 5\n[coordinator]\naddress='a:1'", "interval_ms: 5 is not between"),
        ("[coordinator]\naddress='a'", "coordinator.address: \"a\" is not \"host:port\""),
        (
            "[coordinator]\naddress='a:1'\n[app]\nmetrics_url='ftp://x/'\n[app.names]\ngps='x'",
            "app.metrics_url: must begin with http",
        ),
        (
            "[coordinator]\naddress='a:1'\n[app]\nmetrics_url='http://x/'\n[app.names]\ngps='x'",
            "app.names.gps: is not a metric; the metrics are gps_points",
        ),
        (
            "[coordinator]\naddress='a:1'\n[[attribution.shared]]\nname='x'\nsplit_by='app'",
            "attribution.shared[0]: has 0 of cgroup, pid_file and container",
        ),
        (
            "[coordinator]\naddress='a:1'\n[postgres]\nurl='postgres://u:geheim@h/d?sslmode=require'",
            "postgres.url: asks for TLS",
        ),
        (
            "[coordinator]\naddress='a:1'\n[moves]\nway_back_verify_s=5",
            "moves.way_back_verify_s: 5 is not 60 to 86400 seconds",
        ),
        (
            "[coordinator]\naddress='a:1'\n[tunnel]\nlisten='0.0.0.0:7403'",
            "tunnel.advertise: is needed",
        ),
    ] {
        let error = load(text, &[]).expect_err(text);
        assert!(error.contains(expected), "{text:?}\n  gave {error:?}\n  not  {expected:?}");
        assert!(!error.contains("geheim"), "{error}");
    }
}

#[test]
fn all_unusable_values_are_named_at_once() {
    let error = load("interval_ms = 1\nstate_dir = \"x\"", &[]).expect_err("refused");
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn the_environment_overrides_and_is_checked_as_strictly() {
    let config = load(
        LEAST,
        &[
            ("WEBHOST_AGENT_INTERVAL_MS", "1000"),
            ("WEBHOST_AGENT_POSTGRES_URL", "host=/run/postgresql dbname=webhost user=a"),
            ("WEBHOST_AGENT_MOVES_IGNORE_TABLES", "public.oban_jobs, public.cache"),
            ("WEBHOST_AGENT_TUNNEL_ADVERTISE", "n1.example:7403"),
            ("WEBHOST_AGENT_CONFIG", "/elsewhere"),
            ("HOME", "/root"),
        ],
    )
    .expect("loads");
    assert_eq!(config.interval_ms, 1000);
    assert_eq!(config.moves.ignore_tables, ["public.oban_jobs", "public.cache"]);
    assert_eq!(config.postgres.expect("a section").survey_interval_s, 300);
    assert!(config.tunnel.is_some());

    for (name, value, expected) in [
        ("WEBHOST_AGENT_INTERVALL_MS", "1", "WEBHOST_AGENT_INTERVALL_MS: is not a variable"),
        ("WEBHOST_AGENT_INTERVAL_MS", "soon", "WEBHOST_AGENT_INTERVAL_MS: \"soon\" is not"),
        ("DEPLOYMENT_MODE", "both", "DEPLOYMENT_MODE: \"both\" is neither"),
        ("MAX_CUSTOMERS", "0", "MAX_CUSTOMERS: \"0\" is not"),
        ("TENANT_ISOLATION", "none", "TENANT_ISOLATION: \"none\" is not one of"),
    ] {
        let error = load(LEAST, &[(name, value)]).expect_err(name);
        assert!(error.contains(expected), "{error}");
    }
    let coordinator = load("", &[("WEBHOST_AGENT_COORDINATOR_ADDRESS", "c:7401")]);
    assert_eq!(coordinator.expect("loads").coordinator.address, "c:7401");
}

#[test]
fn the_seeds_variables_choose_the_database() {
    let shared = ("SHARED_DATABASE_URL", "postgres://a:geheim@shared/w");
    let dedicated = ("DEDICATED_DATABASE_URL", "postgres://a:geheim@dedicated/w");
    for (variables, expected) in [
        (vec![("DEPLOYMENT_MODE", "multi_tenant"), shared, dedicated], Ok("host=shared")),
        (vec![("DEPLOYMENT_MODE", "single_tenant"), shared, dedicated], Ok("host=dedicated")),
        (vec![shared], Ok("host=shared")),
        (vec![dedicated], Ok("host=dedicated")),
        (vec![shared, dedicated], Err("DEPLOYMENT_MODE: is needed to choose")),
    ] {
        let got = load(LEAST, &variables);
        match (got, expected) {
            (Ok(config), Ok(host)) => {
                let place = config.postgres.expect("a section").url.place();
                assert!(place.starts_with(host), "{place}");
            }
            (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
            (got, _) => panic!("{variables:?}: {got:?}"),
        }
    }
    let file = format!("{LEAST}[postgres]\nurl = \"host=file\"\n");
    let config = load(&file, &[shared]).expect("loads");
    assert_eq!(config.postgres.expect("a section").url.place(), "host=file");
}

#[test]
fn a_password_is_never_shown() {
    let file = format!("{LEAST}[postgres]\nurl = \"postgres://agent:geheim@h:5433/webhost\"\n");
    let config = load(&file, &[]).expect("loads");
    let shown = format!("{config:?}{}", toml::to_string(&config).expect("serialises"));
    assert!(!shown.contains("geheim"), "{shown}");
    assert!(shown.contains("host=h port=5433 user=agent dbname=webhost"), "{shown}");
}

#[test]
fn sections_of_sources_and_their_mistakes() {
    let text = format!(
        "{LEAST}[access_log]\npath='/var/log/a.json'\n\
         [access_log.hosts]\n'a.example'='00000000-0000-0000-0000-000000000001'\n\
         [slices]\nparent='/webhost.slice'\nname='t-{{id}}.slice'\n\
         [redis]\naddress='/run/redis.sock'\nprefix='customer:{{id}}:'\n\
         [health]\n[[health.check]]\nname='app'\nhttp='http://127.0.0.1:4000/health'\n"
    );
    let config = load(&text, &[]).expect("loads");
    assert_eq!(config.health.expect("a section").check.len(), 1);

    for (text, expected) in [
        ("[access_log]\npath='a'\n", "access_log.path: \"a\" is not an absolute path"),
        ("[access_log]\npath='/a'\n", "access_log: names nobody's host"),
        ("[access_log]\npath='/a'\ndomain='x'\n", "access_log.domain: needs [postgres]"),
        ("[slices]\nparent='x'\nname='{id}'\n", "slices.parent: \"x\" must begin with /"),
        ("[slices]\nparent='/x'\nname='a'\n", "slices.name: \"a\" must hold {slug} or {id}"),
        ("[slices]\nparent='/x'\nname='{slug}'\n", "slices.name: {slug} needs [postgres]"),
        ("[redis]\naddress='x'\n", "redis.address: \"x\" is neither"),
        ("[redis]\naddress='h:1'\nprefix='x'\n", "redis.prefix: \"x\" must hold"),
        ("[health]\nevery_s=0\n", "health.every_s: 0 is not between"),
        ("[[health.check]]\nname='a'\n", "health.check[0]: has 0 of http, postgres"),
        (
            "[[health.check]]\nname='a'\nhttp='http://u:geheim@h/'\n",
            "health.check[0]: http must not hold a user or password",
        ),
        (
            "[machine]\ntenant='00000000-0000-0000-0000-000000000001'\n\
             [[attribution.shared]]\nname='x'\nsplit_by='app'\npid_file='/x'\n",
            "machine.tenant: says that all of this machine",
        ),
    ] {
        let error = load(&format!("{LEAST}{text}"), &[]).expect_err(text);
        assert!(error.contains(expected), "{text:?}\n  gave {error:?}\n  not  {expected:?}");
        assert!(!error.contains("geheim"), "{error}");
    }
}

#[test]
fn a_machine_of_one_tenant_needs_no_file() {
    let config = load(
        "",
        &[
            ("WEBHOST_AGENT_COORDINATOR_ADDRESS", "c.example:7401"),
            ("WEBHOST_AGENT_MACHINE_TENANT", "00000000-0000-0000-0000-000000000001"),
            ("WEBHOST_AGENT_HEALTH_HTTP", "http://127.0.0.1:4000/health"),
            ("WEBHOST_AGENT_HEALTH_REDIS", "127.0.0.1:6379"),
            ("DEPLOYMENT_MODE", "single_tenant"),
            ("DEDICATED_DATABASE_URL", "postgres://webhost@/webhost"),
        ],
    )
    .expect("loads");
    assert!(config.machine.tenant.is_some() && config.postgres.is_some());
    let names: Vec<String> =
        config.health.expect("a section").check.into_iter().map(|check| check.name).collect();
    assert_eq!(names, ["http", "redis"]);
}
