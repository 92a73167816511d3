//! What a value must be beyond its type.

use std::path::Path;

use super::load::Problem;
use super::{Config, SharedProcess};
use crate::collect::app::names::Family;

impl Config {
    /// Every value that can't be used.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |name: &str, message: String| problems.push(Problem::new(name, message));

        absolute(&mut wrong, "state_dir", &self.state_dir);
        absolute(&mut wrong, "status_socket", &self.status_socket);
        absolute(&mut wrong, "host.disk", &self.host.disk);
        // sun_path holds 108 bytes with the final NUL.
        if self.status_socket.as_os_str().len() > 107 {
            wrong("status_socket", "is longer than the 107 bytes of a unix socket's name".into());
        }
        if !(100..=300_000).contains(&self.interval_ms) {
            wrong(
                "interval_ms",
                format!("{} is not between 100 and 300000 milliseconds", self.interval_ms),
            );
        }
        if !(1..=65_536).contains(&self.spool_mib) {
            wrong("spool_mib", format!("{} is not between 1 and 65536 MiB", self.spool_mib));
        }
        if self.coordinator.address.is_empty() {
            wrong(
                "coordinator.address",
                "is missing; set it in the file or as WEBHOST_AGENT_COORDINATOR_ADDRESS, \
                 for example \"coordinator.example.net:7401\""
                    .into(),
            );
        } else if let Err(message) = host_and_port(&self.coordinator.address) {
            wrong("coordinator.address", message);
        }
        if let Some(address) = &self.coordinator.enrolment_address
            && let Err(message) = host_and_port(address)
        {
            wrong("coordinator.enrolment_address", message);
        }
        if self.containers.enabled {
            absolute(&mut wrong, "containers.socket", &self.containers.socket);
            absolute(&mut wrong, "containers.cgroup_root", &self.containers.cgroup_root);
            if self.containers.label.is_empty() {
                wrong("containers.label", "is empty; name the label with the tenant's id".into());
            }
        }
        if let Some(postgres) = &self.postgres {
            if postgres.url.expose().is_empty() {
                wrong("postgres.url", "is missing; set it or remove the section".into());
            } else {
                match postgres.url.expose().parse::<tokio_postgres::Config>() {
                    Err(_) => {
                        wrong("postgres.url", "is not a PostgreSQL connection string or URL".into())
                    }
                    Ok(config) => {
                        if config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
                            wrong(
                                "postgres.url",
                                "asks for TLS; the agent sits beside its database and uses the \
                                 unix socket or loopback: take sslmode=require out"
                                    .into(),
                            );
                        }
                    }
                }
            }
            if !(1..=86_400).contains(&postgres.survey_interval_s) {
                wrong(
                    "postgres.survey_interval_s",
                    format!("{} is not between 1 and 86400 seconds", postgres.survey_interval_s),
                );
            }
        }
        if let Some(app) = &self.app {
            match reqwest::Url::parse(&app.metrics_url) {
                Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                    wrong("app.metrics_url", "must begin with http:// or https://".into());
                }
                Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                    wrong("app.metrics_url", "must not carry a user or password".into());
                }
                Ok(_) => {}
                Err(error) => wrong("app.metrics_url", format!("is not a URL: {error}")),
            }
            if app.label.is_empty() {
                wrong("app.label", "is empty; name the label with the tenant's id".into());
            }
            for key in app.names.keys() {
                if Family::by_key(key).is_none() {
                    wrong(
                        &format!("app.names.{key}"),
                        format!("is not a metric; the metrics are {}", Family::keys().join(", ")),
                    );
                }
            }
        }
        for (index, process) in self.attribution.shared.iter().enumerate() {
            shared(&mut wrong, self, index, process);
        }
        if self.moves.copy_streams > 4 {
            wrong(
                "moves.copy_streams",
                format!("{} is more than 4; 0 takes half of the cores", self.moves.copy_streams),
            );
        }
        if !(60..=86_400).contains(&self.moves.way_back_verify_s) {
            wrong(
                "moves.way_back_verify_s",
                format!("{} is not 60 to 86400 seconds", self.moves.way_back_verify_s),
            );
        }
        if let Some(hold) = &self.hold {
            if !hold.listen.ip().is_loopback() {
                wrong(
                    "hold.listen",
                    format!("{} is not on loopback; other nodes come by the tunnel", hold.listen),
                );
            }
            if hold.listen == hold.application {
                wrong("hold.application", format!("{} is the hold point itself", hold.listen));
            }
            if !(16..=8_000).contains(&hold.max_connections) {
                wrong(
                    "hold.max_connections",
                    format!("{} is not between 16 and 8000", hold.max_connections),
                );
            }
        }
        if let Some(nginx) = &self.nginx {
            absolute(&mut wrong, "nginx.dir", &nginx.dir);
            absolute(&mut wrong, "nginx.verdict", &nginx.verdict);
            if nginx.worker_shutdown_s > 600 {
                wrong(
                    "nginx.worker_shutdown_s",
                    format!("{} is more than 600 seconds", nginx.worker_shutdown_s),
                );
            }
            if self.hold.is_none() {
                wrong(
                    "nginx",
                    "sends requests to the hold point: it needs a [hold] section".into(),
                );
            }
        }
        self.source_problems(&mut wrong);
        if self.moves.watch_statements_ms > 600_000 {
            wrong(
                "moves.watch_statements_ms",
                format!("{} is more than ten minutes", self.moves.watch_statements_ms),
            );
        }
        for (node, database) in &self.moves.sources {
            // The text may hold a secret: it is not repeated.
            if database.url.expose().parse::<tokio_postgres::Config>().is_err() {
                wrong(
                    "moves.sources",
                    format!("url of node {node} is not a PostgreSQL connection string or URL"),
                );
            }
        }
        if self.tunnel.is_some() && self.postgres.is_none() {
            wrong("tunnel", "leads to the tenants' database: it needs a [postgres] section".into());
        }
        if let Some(tunnel) = &self.tunnel {
            if let Some(advertise) = &tunnel.advertise {
                if let Err(message) = host_and_port(advertise) {
                    wrong("tunnel.advertise", message);
                }
            } else if tunnel.listen.ip().is_unspecified() {
                wrong(
                    "tunnel.advertise",
                    format!(
                        "is needed: no other node can dial {}; say under which name and port \
                         this node is reached",
                        tunnel.listen
                    ),
                );
            }
        }
        problems
    }
}

fn shared(
    wrong: &mut impl FnMut(&str, String),
    config: &Config,
    index: usize,
    process: &SharedProcess,
) {
    let name = format!("attribution.shared[{index}]");
    let ways = usize::from(process.cgroup.is_some())
        + usize::from(process.pid_file.is_some())
        + usize::from(process.container.is_some());
    if ways != 1 {
        wrong(&name, format!("has {ways} of cgroup, pid_file and container; give exactly one"));
    }
    if process.name.is_empty() {
        wrong(&name, "has an empty name".into());
    }
    if config.attribution.shared.iter().take(index).any(|other| other.name == process.name) {
        wrong(&name, format!("has the name {:?} of an earlier one", process.name));
    }
    if process.container.is_some() && !config.containers.enabled {
        wrong(&name, "names a container, but containers.enabled is false".into());
    }
    if let Some(cgroup) = &process.cgroup
        && (!cgroup.starts_with('/') || cgroup.split('/').any(|part| part == ".."))
    {
        wrong(&name, format!("cgroup {cgroup:?} must begin with / and hold no \"..\""));
    }
    if let Some(path) = &process.pid_file {
        absolute(wrong, &format!("{name}.pid_file"), path);
    }
}

pub(super) fn absolute(wrong: &mut impl FnMut(&str, String), name: &str, path: &Path) {
    if !path.is_absolute() {
        wrong(name, format!("{:?} is not an absolute path", path.display().to_string()));
    }
}

pub(super) fn host_and_port(address: &str) -> Result<(), String> {
    let parts = address.rsplit_once(':');
    match parts {
        Some((host, port))
            if !host.is_empty()
                && !host.contains('/')
                && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(())
        }
        _ => Err(format!("{address:?} is not \"host:port\"")),
    }
}
