//! Overrides by environment: `WEBHOST_AGENT_<SECTION>_<KEY>` for every single
//! value, and the seeds' variables, which say less and therefore yield to the
//! file: `DEPLOYMENT_MODE` chooses between `SHARED_DATABASE_URL` and
//! `DEDICATED_DATABASE_URL` for `[postgres] url`; `MAX_CUSTOMERS`,
//! `TENANT_ISOLATION` and `INFRASTRUCTURE_PROVIDER` concern the coordinator,
//! and are checked here only for a contradiction.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use super::load::Problem;
use super::{
    AccessLog, App, Check, Config, Health, Hold, Nginx, Postgres, Redis, SecretUrl, Slices, Tunnel,
};

const PREFIX: &str = "WEBHOST_AGENT_";

/// Read by the command line, not here.
const OTHERS: [&str; 2] = ["CONFIG", "LOG"];

#[derive(Default)]
struct Seeds {
    mode: Option<String>,
    shared: Option<String>,
    dedicated: Option<String>,
    isolation: Option<String>,
    max_customers: Option<String>,
    provider: Option<String>,
}

impl Config {
    /// Applies the variables; what can't be applied is returned.
    pub(super) fn apply_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seeds = Seeds::default();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let slot = match name {
                "DEPLOYMENT_MODE" => &mut seeds.mode,
                "SHARED_DATABASE_URL" => &mut seeds.shared,
                "DEDICATED_DATABASE_URL" => &mut seeds.dedicated,
                "TENANT_ISOLATION" => &mut seeds.isolation,
                "MAX_CUSTOMERS" => &mut seeds.max_customers,
                "INFRASTRUCTURE_PROVIDER" => &mut seeds.provider,
                _ => {
                    if let Some(key) = name.strip_prefix(PREFIX)
                        && !OTHERS.contains(&key)
                    {
                        let Some(value) = value.to_str() else {
                            problems.push(Problem::new(name, "is not UTF-8"));
                            continue;
                        };
                        if let Err(message) = self.set(key, value) {
                            problems.push(Problem::new(name, message));
                        }
                    }
                    continue;
                }
            };
            match value.into_string() {
                // An empty variable is an unset one, as shells leave them.
                Ok(value) if value.is_empty() => {}
                Ok(value) => *slot = Some(value),
                Err(_) => problems.push(Problem::new(name, "is not UTF-8")),
            }
        }
        problems.extend(seeds.apply(self));
        problems
    }

    /// One override; `key` without the prefix.
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "STATE_DIR" => self.state_dir = value.into(),
            "STATUS_SOCKET" => self.status_socket = value.into(),
            "SPOOL_MIB" => self.spool_mib = parse(value, "MiB")?,
            "INTERVAL_MS" => self.interval_ms = parse(value, "milliseconds")?,
            "COORDINATOR_ADDRESS" => value.clone_into(&mut self.coordinator.address),
            "COORDINATOR_ENROLMENT_ADDRESS" => {
                self.coordinator.enrolment_address = Some(value.into());
            }
            "HOST_DISK" => self.host.disk = value.into(),
            "HOST_CPU_MILLICORES" => {
                self.host.cpu_millicores = Some(parse(value, "thousandths of a core, above 0")?);
            }
            "CONTAINERS_ENABLED" => self.containers.enabled = parse(value, "true or false")?,
            "CONTAINERS_SOCKET" => self.containers.socket = value.into(),
            "CONTAINERS_LABEL" => value.clone_into(&mut self.containers.label),
            "CONTAINERS_CGROUP_ROOT" => self.containers.cgroup_root = value.into(),
            "POSTGRES_URL" => self.postgres_mut().url = SecretUrl::new(value),
            "POSTGRES_PASSWORD_FILE" => self.postgres_mut().password_file = Some(value.into()),
            "POSTGRES_SURVEY_INTERVAL_S" => {
                self.postgres_mut().survey_interval_s = parse(value, "seconds")?;
            }
            "POSTGRES_POINTS_TABLE" => self.postgres_mut().points_table = Some(value.into()),
            "APP_METRICS_URL" => value.clone_into(&mut self.app_mut().metrics_url),
            "APP_LABEL" => value.clone_into(&mut self.app_mut().label),
            "ACCESS_LOG_PATH" => self.access_log_mut().path = value.into(),
            "ACCESS_LOG_DOMAIN" => self.access_log_mut().domain = Some(value.into()),
            "SLICES_PARENT" => value.clone_into(&mut self.slices_mut().parent),
            "SLICES_NAME" => value.clone_into(&mut self.slices_mut().name),
            "REDIS_ADDRESS" => value.clone_into(&mut self.redis_mut().address),
            "REDIS_PASSWORD_FILE" => self.redis_mut().password_file = Some(value.into()),
            "REDIS_PREFIX" => self.redis_mut().prefix = Some(value.into()),
            "HEALTH_EVERY_S" => self.health_mut().every_s = parse(value, "seconds")?,
            // Those of a machine of one tenant, which runs from environment
            // alone; more of a kind need the file.
            "HEALTH_HTTP" => self.check_mut("http").http = Some(value.into()),
            "HEALTH_POSTGRES" => {
                self.check_mut("postgres").postgres = Some(SecretUrl::new(value));
            }
            "HEALTH_REDIS" => self.check_mut("redis").redis = Some(value.into()),
            "MACHINE_TENANT" => self.machine.tenant = Some(parse(value, "a tenant's id")?),
            "TUNNEL_LISTEN" => {
                let listen = parse(value, "an address and port, as 0.0.0.0:7403")?;
                match &mut self.tunnel {
                    Some(tunnel) => tunnel.listen = listen,
                    none => *none = Some(Tunnel { listen, advertise: None }),
                }
            }
            "TUNNEL_ADVERTISE" => match &mut self.tunnel {
                Some(tunnel) => tunnel.advertise = Some(value.into()),
                // The order of variables is not ours to rely on.
                none => {
                    let listen = std::net::SocketAddr::from(([0, 0, 0, 0], 7403));
                    *none = Some(Tunnel { listen, advertise: Some(value.into()) });
                }
            },
            "HOLD_LISTEN" => {
                self.hold_mut().listen = parse(value, "an address and port, as 127.0.0.1:7404")?;
            }
            "HOLD_APPLICATION" => {
                self.hold_mut().application =
                    parse(value, "an address and port, as 127.0.0.1:4000")?;
            }
            "HOLD_ALWAYS" => self.hold_mut().always = parse(value, "true or false")?,
            "HOLD_MAX_CONNECTIONS" => {
                self.hold_mut().max_connections = parse(value, "a number of connections")?;
            }
            "NGINX_DIR" => self.nginx_mut().dir = value.into(),
            "NGINX_VERDICT" => self.nginx_mut().verdict = value.into(),
            "NGINX_WORKER_SHUTDOWN_S" => {
                self.nginx_mut().worker_shutdown_s = parse(value, "seconds")?;
            }
            "MOVES_ENABLED" => self.moves.enabled = parse(value, "true or false")?,
            "MOVES_MAX_ROWS_PER_SECOND" => {
                self.moves.max_rows_per_second = parse(value, "rows per second, 0 for no limit")?;
            }
            "MOVES_COPY_STREAMS" => {
                self.moves.copy_streams = parse(value, "streams of a copy, 0 for as many as help")?;
            }
            "MOVES_WAY_BACK_VERIFY_S" => {
                self.moves.way_back_verify_s = parse(value, "seconds")?;
            }
            "MOVES_IGNORE_TABLES" => self.moves.ignore_tables = words(value),
            "MOVES_REFERENCE_TABLES" => self.moves.reference_tables = words(value),
            _ => {
                return Err(
                    "is not a variable of the agent; a variable is WEBHOST_AGENT_<SECTION>_<KEY> \
                     with a section and key of agent.toml"
                        .into(),
                );
            }
        }
        Ok(())
    }

    fn postgres_mut(&mut self) -> &mut Postgres {
        self.postgres.get_or_insert_with(|| Postgres::at(SecretUrl::default()))
    }

    fn access_log_mut(&mut self) -> &mut AccessLog {
        self.access_log.get_or_insert_with(|| AccessLog {
            path: PathBuf::new(),
            domain: None,
            hosts: BTreeMap::new(),
        })
    }

    fn slices_mut(&mut self) -> &mut Slices {
        self.slices.get_or_insert_with(|| Slices { parent: String::new(), name: String::new() })
    }

    fn redis_mut(&mut self) -> &mut Redis {
        self.redis.get_or_insert_with(|| Redis {
            address: String::new(),
            password_file: None,
            prefix: None,
        })
    }

    fn health_mut(&mut self) -> &mut Health {
        self.health.get_or_insert_with(|| Health { every_s: 10, check: Vec::new() })
    }

    /// The check of this name, which the variables make.
    fn check_mut(&mut self, name: &str) -> &mut Check {
        let checks = &mut self.health_mut().check;
        let at = checks.iter().position(|check| check.name == name).unwrap_or_else(|| {
            checks.push(Check::named(name, true));
            checks.len() - 1
        });
        &mut checks[at]
    }

    fn hold_mut(&mut self) -> &mut Hold {
        self.hold.get_or_insert_with(Hold::default)
    }

    fn nginx_mut(&mut self) -> &mut Nginx {
        self.nginx.get_or_insert_with(Nginx::default)
    }

    fn app_mut(&mut self) -> &mut App {
        self.app.get_or_insert_with(|| App::at(String::new()))
    }
}

impl Seeds {
    fn apply(self, config: &mut Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        let single = match self.mode.as_deref() {
            None => None,
            Some("multi_tenant") => Some(false),
            Some("single_tenant") => Some(true),
            Some(other) => {
                problems.push(Problem::new(
                    "DEPLOYMENT_MODE",
                    format!("{other:?} is neither multi_tenant nor single_tenant"),
                ));
                None
            }
        };
        check_word(
            &mut problems,
            "INFRASTRUCTURE_PROVIDER",
            self.provider.as_deref(),
            &["hetzner", "flyio"],
        );
        check_word(
            &mut problems,
            "TENANT_ISOLATION",
            self.isolation.as_deref(),
            &["database_level", "infrastructure_level"],
        );
        if let Some(count) = &self.max_customers {
            match count.parse::<u32>() {
                Ok(1..) => {}
                _ => problems.push(Problem::new(
                    "MAX_CUSTOMERS",
                    format!("{count:?} is not a number of 1 or more"),
                )),
            }
        }
        // The file and WEBHOST_AGENT_POSTGRES_URL say exactly what the agent
        // shall use, so they win.
        if config.postgres.as_ref().is_some_and(|section| !section.url.expose().is_empty()) {
            return problems;
        }
        let (name, url) = match (single, self.shared, self.dedicated) {
            (Some(false), Some(url), _) => ("SHARED_DATABASE_URL", url),
            (Some(true), _, Some(url)) => ("DEDICATED_DATABASE_URL", url),
            (None, Some(url), None) => ("SHARED_DATABASE_URL", url),
            (None, None, Some(url)) => ("DEDICATED_DATABASE_URL", url),
            (None, Some(_), Some(_)) => {
                problems.push(Problem::new(
                    "DEPLOYMENT_MODE",
                    "is needed to choose between SHARED_DATABASE_URL and DEDICATED_DATABASE_URL",
                ));
                return problems;
            }
            _ => return problems,
        };
        if url.parse::<tokio_postgres::Config>().is_err() {
            problems.push(Problem::new(name, "is not a PostgreSQL connection string or URL"));
        }
        config.postgres_mut().url = SecretUrl::new(url);
        problems
    }
}

fn check_word(problems: &mut Vec<Problem>, name: &str, value: Option<&str>, allowed: &[&str]) {
    if let Some(value) = value
        && !allowed.contains(&value)
    {
        problems
            .push(Problem::new(name, format!("{value:?} is not one of {}", allowed.join(", "))));
    }
}

fn parse<T: FromStr>(value: &str, what: &str) -> Result<T, String> {
    value.trim().parse().map_err(|_| format!("{value:?} is not {what}"))
}

fn words(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
