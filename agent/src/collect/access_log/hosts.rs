//! Whose host name it is: those of the configuration, then slugs before the
//! domain that all tenants share.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::watch;
use webhost_proto::ids::TenantId;

use crate::collect::postgres::PostgresReading;
use crate::collect::source::Published;
use crate::config::AccessLog;

/// Names that are remembered between rounds, known and unknown ones.
const REMEMBERED: usize = 4_096;

/// What the tenants' database says of slugs, where there is one.
pub type Database = Option<watch::Receiver<Published<PostgresReading>>>;

/// Finds owners; remembers what it found until the database is surveyed anew.
pub struct Hosts {
    named: BTreeMap<String, TenantId>,
    /// ".tracking.example.net"
    suffix: Option<String>,
    database: Database,
    remembered: HashMap<String, Option<TenantId>>,
    seen_round: u64,
}

impl Hosts {
    /// By the configuration, and the slugs of `database`.
    pub fn new(config: &AccessLog, database: Database) -> Self {
        Self {
            named: config.hosts.iter().map(|(name, id)| (name.to_lowercase(), *id)).collect(),
            suffix: config.domain.as_ref().map(|domain| format!(".{}", domain.to_lowercase())),
            database,
            remembered: HashMap::new(),
            seen_round: 0,
        }
    }

    /// Forgets what a newer word of the database may have changed.
    pub fn refresh(&mut self) {
        let Some(database) = &self.database else { return };
        let round = database.borrow().value_round;
        if round != self.seen_round {
            self.seen_round = round;
            self.remembered.clear();
        }
    }

    /// The tenant whose host name this is.
    pub fn owner(&mut self, host: &str) -> Option<TenantId> {
        if let Some(known) = self.remembered.get(host) {
            return *known;
        }
        let found = self.find(&host.to_lowercase());
        // Long names are nobody's, and strangers choose them.
        if host.len() <= 253 && self.remembered.len() < REMEMBERED {
            self.remembered.insert(host.to_owned(), found);
        }
        found
    }

    fn find(&self, host: &str) -> Option<TenantId> {
        if let Some(tenant) = self.named.get(host) {
            return Some(*tenant);
        }
        let slug = host.strip_suffix(self.suffix.as_deref()?)?;
        let database = self.database.as_ref()?.borrow();
        let tenants = &database.value.as_ref()?.tenants;
        let found = tenants.iter().find(|(_, tenant)| tenant.slug == slug);
        found.map(|(id, _)| *id)
    }
}
