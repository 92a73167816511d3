//! The environment's part of the configuration.
//!
//! | variable | sets |
//! |---|---|
//! | `DATABASE_URL`, `WEBHOST_COORDINATOR_DATABASE_URL` | `database.url`; the second wins |
//! | `WEBHOST_COORDINATOR_DATABASE_CA_FILE` | `database.ca_file` |
//! | `WEBHOST_COORDINATOR_DATABASE_CONNECTIONS` | `database.connections` |
//! | `WEBHOST_COORDINATOR_STATE_DIR` | `state_dir` |
//! | `WEBHOST_COORDINATOR_CA_KEY_FILE` | `ca_key_file` |
//! | `WEBHOST_COORDINATOR_API_LISTEN` | `api.listen` |
//! | `WEBHOST_COORDINATOR_LINK_LISTEN` | `link.listen` |
//! | `WEBHOST_COORDINATOR_ENROLMENT_LISTEN` | `link.enrolment_listen` |
//! | `WEBHOST_COORDINATOR_LINK_NAMES` | `link.names`, by commas |
//!
//! `WEBHOST_COORDINATOR_CONFIG` and `WEBHOST_COORDINATOR_LOG` are read by the
//! command line. Any other `WEBHOST_COORDINATOR_*` is refused.
//!
//! The variables of the WebHost application, where they concern the fleet:
//!
//! | variable | what the coordinator makes of it |
//! |---|---|
//! | `DEPLOYMENT_MODE` | `multi_tenant` or `single_tenant`: only this mode is offered; both when unset |
//! | `INFRASTRUCTURE_PROVIDER` | `hetzner` or `flyio`: must go with the mode |
//! | `TENANT_ISOLATION` | `database_level` or `infrastructure_level`: must go with the mode |
//! | `MAX_CUSTOMERS` | the most tenants of every shared shape; must be 1 in `single_tenant` |
//! | `AUTO_UPGRADE_THRESHOLD` | `catalog.thresholds.auto_upgrade_threshold`, as 0.8 |
//! | `POOL_SIZE` | `database.connections`, unless our own variable sets it |
//! | `SHARED_DATABASE_URL`, `DEDICATED_DATABASE_URL` | read by the application, and by the agent of the node in its `[postgres] url`; here only checked against the mode |

use std::path::PathBuf;
use std::str::FromStr;

use super::{Config, ConfigError};
use crate::decide::plans::NodeKind;
use crate::decide::{Hundredths, Mode};

const PREFIX: &str = "WEBHOST_COORDINATOR_";

fn wrong(name: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Environment { name: name.to_owned(), problem: problem.into() }
}

fn read<T: FromStr>(name: &str, value: &str, what: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| wrong(name, format!("{value:?} is not {what}")))
}

/// Applies `environment` (name and value) to `config`.
///
/// # Errors
/// [`ConfigError::Environment`] with the variable's name.
pub(super) fn apply(
    config: &mut Config,
    environment: &[(String, String)],
) -> Result<(), ConfigError> {
    let get = |name: &str| {
        environment
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    };
    if let Some(url) = get("DATABASE_URL") {
        config.database.url = Some(url.to_owned());
    }
    if let Some(size) = get("POOL_SIZE") {
        config.database.connections = read("POOL_SIZE", size, "a number of connections")?;
    }
    seeds(config, &get)?;
    for (name, value) in environment {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        match key {
            "CONFIG" | "LOG" => {}
            "DATABASE_URL" => config.database.url = Some(value.clone()),
            "DATABASE_CA_FILE" => config.database.ca_file = Some(PathBuf::from(value)),
            "DATABASE_CONNECTIONS" => {
                config.database.connections = read(name, value, "a number of connections")?;
            }
            "STATE_DIR" => config.state_dir = PathBuf::from(value),
            "CA_KEY_FILE" => config.ca_key_file = Some(PathBuf::from(value)),
            "API_LISTEN" => config.api.listen = read(name, value, "an address:port")?,
            "LINK_LISTEN" => config.link.listen = read(name, value, "an address:port")?,
            "ENROLMENT_LISTEN" => {
                config.link.enrolment_listen = read(name, value, "an address:port")?;
            }
            "LINK_NAMES" => {
                config.link.names = value.split(',').map(|name| name.trim().to_owned()).collect();
            }
            _ => {
                return Err(wrong(
                    name,
                    "is unknown; known: WEBHOST_COORDINATOR_ with CONFIG, LOG, DATABASE_URL, \
                     DATABASE_CA_FILE, DATABASE_CONNECTIONS, STATE_DIR, CA_KEY_FILE, API_LISTEN, \
                     LINK_LISTEN, ENROLMENT_LISTEN, LINK_NAMES",
                ));
            }
        }
    }
    Ok(())
}

/// The application's variables.
fn seeds<'a>(
    config: &mut Config,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<(), ConfigError> {
    if let Some(mode) = get("DEPLOYMENT_MODE") {
        let mode: Mode = mode.parse().map_err(|error: crate::decide::plans::ModeError| {
            wrong("DEPLOYMENT_MODE", error.to_string())
        })?;
        config.mode = Some(mode);
    }
    let pairs = [
        ("INFRASTRUCTURE_PROVIDER", "hetzner", "flyio"),
        ("TENANT_ISOLATION", "database_level", "infrastructure_level"),
    ];
    for (name, multi, single) in pairs {
        let Some(value) = get(name) else { continue };
        let means = if value == multi {
            Mode::MultiTenant
        } else if value == single {
            Mode::SingleTenant
        } else {
            return Err(wrong(name, format!("{value:?} is unknown; write {multi} or {single}")));
        };
        agrees(config, name, value, means)?;
    }
    for (name, means) in
        [("SHARED_DATABASE_URL", Mode::MultiTenant), ("DEDICATED_DATABASE_URL", Mode::SingleTenant)]
    {
        if get(name).is_some() {
            // The value is a secret of the application's.
            agrees(config, name, "a URL", means)?;
        }
    }
    if let Some(text) = get("MAX_CUSTOMERS") {
        let most: u32 = read("MAX_CUSTOMERS", text, "a number of tenants")?;
        if most == 0 {
            return Err(wrong("MAX_CUSTOMERS", "must be at least 1"));
        }
        if config.mode == Some(Mode::SingleTenant) {
            if most != 1 {
                let problem = format!("{most} contradicts DEPLOYMENT_MODE=single_tenant; it is 1");
                return Err(wrong("MAX_CUSTOMERS", problem));
            }
        } else {
            for shape in &mut config.catalog.shapes {
                if shape.kind == NodeKind::Shared {
                    shape.max_tenants = most;
                }
            }
        }
    }
    if let Some(text) = get("AUTO_UPGRADE_THRESHOLD") {
        config.catalog.thresholds.auto_upgrade_threshold = Hundredths::from_decimal(text)
            .map_err(|error| wrong("AUTO_UPGRADE_THRESHOLD", error.to_string()))?;
    }
    Ok(())
}

fn agrees(config: &Config, name: &str, value: &str, means: Mode) -> Result<(), ConfigError> {
    match config.mode {
        Some(mode) if mode != means => {
            Err(wrong(name, format!("{value} contradicts DEPLOYMENT_MODE={mode}")))
        }
        _ => Ok(()),
    }
}
