use super::*;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("coordinator.toml");
    std::fs::write(&path, text).expect("writes");
    let environment: Vec<_> =
        environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Config::load(Some(&path), &environment)
}

#[test]
fn an_empty_file_is_the_default() {
    let config = load("", &[]).expect("loads");
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.catalog, Catalog::default());
    assert_eq!(config.mode, None);
}

#[test]
fn mistakes_are_named_with_file_line_and_key() {
    for (text, line, words) in [
        ("state_dri = \"/x\"\n", 1, "state_dri"),
        ("[api]\nlisten = \"127.0.0.1:1\"\nlistn = 1\n", 3, "listn"),
        ("\n\n[api]\nlisten = \"nowhere\"\n", 4, "address"),
        ("[catalog.thresholds]\nplace_limt = 0.5\n", 2, "place_limt"),
        ("[api\n", 1, ""),
    ] {
        let error = load(text, &[]).expect_err(text).to_string();
        assert!(error.contains("coordinator.toml"), "{error}");
        assert!(error.contains(&format!("line {line}:")), "{text:?}: {error}");
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn values_out_of_range_are_named() {
    for (text, words) in [
        ("[database]\nconnections = 1\n", "database.connections"),
        ("[api]\nkey_file = \"/k\"\n", "api.certificate_file"),
        ("[usage]\nwindow_s = 1\n", "usage.window_s"),
        ("[records]\naudit_days = 3\n", "records.audit_days"),
        ("[records]\nusage_hourly_days = 61\n", "records.usage_hourly_days"),
        ("[moves]\nmax_per_source = 0\n", "moves.max_per_source"),
        ("[moves]\nway_back_s = 31622401\n", "moves.way_back_s"),
        ("[moves.auto_rollback]\nlatency_factor = 1\n", "moves.auto_rollback.latency_factor"),
        ("[catalog.thresholds]\nplace_limit = 0\n", "catalog.thresholds"),
        ("[catalog.thresholds]\nretention_grace_days = 367\n", "retention_grace_days"),
    ] {
        let error = load(text, &[]).expect_err(text).to_string();
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn the_environment_wins() {
    let config = load(
        "state_dir = \"/file\"\n[database]\nurl = \"host=/file\"\n",
        &[
            ("DATABASE_URL", "host=/generic"),
            ("WEBHOST_COORDINATOR_DATABASE_URL", "host=/own"),
            ("WEBHOST_COORDINATOR_STATE_DIR", "/env"),
            ("POOL_SIZE", "20"),
            ("MAX_CUSTOMERS", "40"),
            ("AUTO_UPGRADE_THRESHOLD", "0.7"),
            ("DEPLOYMENT_MODE", "multi_tenant"),
            ("INFRASTRUCTURE_PROVIDER", "hetzner"),
            ("TENANT_ISOLATION", "database_level"),
            ("SHARED_DATABASE_URL", "postgres://u:hush@db/x"),
        ],
    )
    .expect("loads");
    assert_eq!(config.database.url.as_deref(), Some("host=/own"));
    assert_eq!(config.state_dir, PathBuf::from("/env"));
    assert_eq!(config.database.connections, 20);
    assert_eq!(config.mode, Some(Mode::MultiTenant));
    let shared = config.catalog.shapes.iter().find(|shape| shape.name == "ax52").expect("ax52");
    assert_eq!(shared.max_tenants, 40);
    assert_eq!(config.catalog.thresholds.auto_upgrade_threshold.to_string(), "0.70");
}

#[test]
fn contradictions_are_refused_without_secrets() {
    for (environment, name) in [
        (&[("DEPLOYMENT_MODE", "both")][..], "DEPLOYMENT_MODE"),
        (
            &[("DEPLOYMENT_MODE", "multi_tenant"), ("INFRASTRUCTURE_PROVIDER", "flyio")],
            "INFRASTRUCTURE_PROVIDER",
        ),
        (
            &[("DEPLOYMENT_MODE", "single_tenant"), ("TENANT_ISOLATION", "database_level")],
            "TENANT_ISOLATION",
        ),
        (&[("DEPLOYMENT_MODE", "single_tenant"), ("MAX_CUSTOMERS", "150")], "MAX_CUSTOMERS"),
        (&[("MAX_CUSTOMERS", "0")], "MAX_CUSTOMERS"),
        (
            &[
                ("DEPLOYMENT_MODE", "multi_tenant"),
                ("DEDICATED_DATABASE_URL", "postgres://u:hush@db/x"),
            ],
            "DEDICATED_DATABASE_URL",
        ),
        (&[("INFRASTRUCTURE_PROVIDER", "aws")], "INFRASTRUCTURE_PROVIDER"),
        (&[("WEBHOST_COORDINATOR_DATABSE_URL", "x")], "WEBHOST_COORDINATOR_DATABSE_URL"),
        (&[("WEBHOST_COORDINATOR_API_LISTEN", "7400")], "WEBHOST_COORDINATOR_API_LISTEN"),
    ] {
        let error = load("", environment).expect_err(name).to_string();
        assert!(error.contains(name) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn the_debug_form_holds_no_password() {
    let config = load("[database]\nurl = \"postgres://u:hush@db/x\"\n", &[]).expect("loads");
    assert!(!format!("{config:?}").contains("hush"));
}
