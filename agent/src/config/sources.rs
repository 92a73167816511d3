//! The sections of sources that not every node has. Each is off without its
//! section.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use webhost_proto::ids::TenantId;

use super::check::{absolute, host_and_port};
use super::{Config, SecretUrl};
use crate::collect::redis::prefix::Prefix;
use crate::collect::redis::wire::Place;
use crate::collect::slices::name::Pattern;

/// nginx's access log in JSON (`systemd/nginx.conf` has the format).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    pub path: PathBuf,
    /// Tenants' host names are their slug before this; needs `[postgres]`,
    /// which knows the slugs.
    pub domain: Option<String>,
    /// Host names that belong to one tenant.
    #[serde(default)]
    pub hosts: BTreeMap<String, TenantId>,
}

/// Tenants in control groups of their own, without containers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Slices {
    /// The group that they lie in, "/webhost.slice".
    pub parent: String,
    /// How theirs are called: "webhost-{slug}.slice", "tenant-{id}.service".
    pub name: String,
}

/// Redis beside the application.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// "host:port", or the path of its socket.
    pub address: String,
    /// Holds "password" or "user password".
    pub password_file: Option<PathBuf>,
    /// How tenants' keys begin: "customer:{id}:". Without it nobody's keys
    /// are looked at.
    pub prefix: Option<String>,
}

/// What a dedicated node's customer uses, asked as a client would.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Seconds between two rounds of checks.
    #[serde(default = "default_every_s")]
    pub every_s: u32,
    #[serde(default)]
    pub check: Vec<Check>,
}

/// One check: a name, and exactly one of http, postgres, redis and tcp.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub name: String,
    /// Without it the customer is not served.
    #[serde(default = "default_vital")]
    pub vital: bool,
    /// A URL that answers with 2xx or 3xx.
    pub http: Option<String>,
    /// A libpq connection string or URL, without TLS.
    pub postgres: Option<SecretUrl>,
    /// As `redis.address`.
    pub redis: Option<String>,
    /// "host:port" that takes a connection.
    pub tcp: Option<String>,
    /// For postgres and redis.
    pub password_file: Option<PathBuf>,
}

impl Check {
    /// One that asks nothing yet.
    pub fn named(name: &str, vital: bool) -> Self {
        Self {
            name: name.into(),
            vital,
            http: None,
            postgres: None,
            redis: None,
            tcp: None,
            password_file: None,
        }
    }
}

/// A machine that is one tenant's alone.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Whose it is: all that the machine uses is this tenant's, measured.
    pub tenant: Option<TenantId>,
}

impl Config {
    /// Every value of these sections that can't be used.
    pub(super) fn source_problems(&self, wrong: &mut impl FnMut(&str, String)) {
        if let Some(log) = &self.access_log {
            absolute(wrong, "access_log.path", &log.path);
            if log.domain.is_none() && log.hosts.is_empty() {
                wrong("access_log", "names nobody's host: set domain or hosts".into());
            }
            if log.domain.is_some() && self.postgres.is_none() {
                wrong("access_log.domain", "needs [postgres], which knows the slugs".into());
            }
        }
        if let Some(slices) = &self.slices {
            if !slices.parent.starts_with('/') || slices.parent.split('/').any(|p| p == "..") {
                let parent = &slices.parent;
                wrong("slices.parent", format!("{parent:?} must begin with / and hold no \"..\""));
            }
            match Pattern::parse(&slices.name) {
                Err(why) => wrong("slices.name", why),
                Ok(_) if slices.name.contains("{slug}") && self.postgres.is_none() => {
                    wrong("slices.name", "{slug} needs [postgres], which knows the slugs".into());
                }
                Ok(_) => {}
            }
        }
        if let Some(redis) = &self.redis {
            if let Err(why) = Place::parse(&redis.address) {
                wrong("redis.address", why);
            }
            file(wrong, "redis.password_file", redis.password_file.as_deref());
            match redis.prefix.as_deref().map(Prefix::parse) {
                Some(Err(why)) => wrong("redis.prefix", why),
                Some(Ok(_))
                    if redis.prefix.as_ref().is_some_and(|text| text.contains("{slug}"))
                        && self.postgres.is_none() =>
                {
                    wrong("redis.prefix", "{slug} needs [postgres], which knows the slugs".into());
                }
                _ => {}
            }
        }
        if let Some(health) = &self.health {
            if !(1..=3_600).contains(&health.every_s) {
                let every = health.every_s;
                wrong("health.every_s", format!("{every} is not between 1 and 3600 seconds"));
            }
            if health.check.len() > 32 {
                let count = health.check.len();
                wrong("health.check", format!("{count} checks, at most 32 may be"));
            }
            for (index, check) in health.check.iter().enumerate() {
                check.problems(&format!("health.check[{index}]"), wrong);
            }
        }
        if self.machine.tenant.is_some() && !self.attribution.shared.is_empty() {
            wrong(
                "machine.tenant",
                "says that all of this machine is one tenant's: take [[attribution.shared]] out, \
                 its processes would count twice"
                    .into(),
            );
        }
    }
}

impl Check {
    fn problems(&self, name: &str, wrong: &mut impl FnMut(&str, String)) {
        let ways = usize::from(self.http.is_some())
            + usize::from(self.postgres.is_some())
            + usize::from(self.redis.is_some())
            + usize::from(self.tcp.is_some());
        if ways != 1 {
            wrong(name, format!("has {ways} of http, postgres, redis and tcp; give exactly one"));
        }
        if self.name.is_empty() || self.name.len() > 64 {
            wrong(name, "needs a name of 1 to 64 bytes".into());
        }
        if let Some(url) = &self.http {
            match reqwest::Url::parse(url) {
                Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                    wrong(name, "http must begin with http:// or https://".into());
                }
                // The text may hold a secret: it is not repeated.
                Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                    wrong(name, "http must not hold a user or password".into());
                }
                Ok(_) => {}
                Err(error) => wrong(name, format!("http is not a URL: {error}")),
            }
        }
        if let Some(url) = &self.postgres
            && url.expose().parse::<tokio_postgres::Config>().is_err()
        {
            wrong(name, "postgres is not a PostgreSQL connection string or URL".into());
        }
        if let Some(Err(why)) = self.redis.as_deref().map(Place::parse) {
            wrong(name, format!("redis: {why}"));
        }
        if let Some(Err(why)) = self.tcp.as_deref().map(host_and_port) {
            wrong(name, format!("tcp: {why}"));
        }
        file(wrong, &format!("{name}.password_file"), self.password_file.as_deref());
    }
}

fn file(wrong: &mut impl FnMut(&str, String), name: &str, path: Option<&Path>) {
    if let Some(path) = path {
        absolute(wrong, name, path);
    }
}

fn default_every_s() -> u32 {
    10
}

fn default_vital() -> bool {
    true
}
