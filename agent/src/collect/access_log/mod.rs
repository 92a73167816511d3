//! nginx's access log in JSON: requests, failures, response times and clients
//! of each tenant, told by host name. For nodes whose application has no
//! metrics of its own; where it has, its figures are the truth.
//!
//! [`follow`] reads what was written since the last round, through rotation
//! and truncation; [`line`] reads one entry; [`hosts`] says whose host name it
//! is; [`sketch`] keeps response times so that they can be merged, and
//! [`distinct`] counts clients without keeping them.
//!
//! **Invariant:** memory is bounded by the number of known tenants. A host name
//! that nobody has is counted, never kept: names come from strangers.

pub mod distinct;
pub mod follow;
pub mod hosts;
pub mod line;
pub mod sketch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use self::distinct::Distinct;
use self::follow::Follower;
use self::hosts::Hosts;
use self::sketch::Sketch;
use super::source::{Outcome, Source};
use crate::config::AccessLog;

/// How long one reading may take.
pub const LIMIT: Duration = Duration::from_secs(2);

/// Response times and clients are of the last one to two of these.
const WINDOW: Duration = Duration::from_secs(60);

/// The most countries that are told apart for a tenant; the rest are "other".
const MAX_COUNTRIES: usize = 32;

/// What the log has said of one tenant since the agent watches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessTenant {
    /// Requests.
    pub calls: u64,
    /// Of those, answered with 500 or above.
    pub errors: u64,
    pub duration_us: u64,
    pub bytes: u64,
    /// Response times of the last minute or two.
    pub recent: Sketch,
    /// Different client addresses in the last minute or two; an estimate.
    pub clients: u64,
    /// Requests by what the log calls a country; empty where it has none.
    pub countries: BTreeMap<String, u64>,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessReading {
    pub tenants: BTreeMap<TenantId, AccessTenant>,
    /// Requests for host names of no known tenant.
    pub unknown: u64,
}

#[derive(Debug, Default)]
struct Tenant {
    totals: AccessTenant,
    /// This window's and the last one's.
    times: [Sketch; 2],
    clients: [Distinct; 2],
}

/// The source.
pub struct AccessSource {
    follower: Follower,
    hosts: Hosts,
    tenants: BTreeMap<TenantId, Tenant>,
    unknown: u64,
    turned: Instant,
}

impl AccessSource {
    /// Follows the log from its present end.
    pub fn new(config: &AccessLog, hosts: Hosts) -> Self {
        Self {
            follower: Follower::new(config.path.clone()),
            hosts,
            tenants: BTreeMap::new(),
            unknown: 0,
            turned: Instant::now(),
        }
    }

    fn sample(&mut self) -> Outcome<AccessReading> {
        if self.turned.elapsed() >= WINDOW {
            self.turned = Instant::now();
            for tenant in self.tenants.values_mut() {
                tenant.turn();
            }
        }
        self.hosts.refresh();
        let mut refused = Refused::default();
        let (hosts, tenants, unknown) = (&mut self.hosts, &mut self.tenants, &mut self.unknown);
        let followed = self.follower.read(|text| match line::entry(text) {
            Ok(entry) => match hosts.owner(&entry.host) {
                Some(tenant) => tenants.entry(tenant).or_default().take(&entry),
                None => *unknown += 1,
            },
            Err(why) => refused.add(why),
        });
        let state = match followed {
            Ok(state) => state,
            Err(why) => return Outcome::Failed(why),
        };
        let reading = AccessReading {
            tenants: self.tenants.iter().map(|(id, tenant)| (*id, tenant.shown())).collect(),
            unknown: self.unknown,
        };
        let mut words: Vec<String> = refused.words().into_iter().collect();
        if state.too_long > 0 {
            words.push(format!("{} entries were longer than a line may be", state.too_long));
        }
        if state.behind > 0 {
            words.push(format!("{} bytes behind the log's end", state.behind));
        }
        if words.is_empty() {
            Outcome::Good(reading)
        } else {
            Outcome::Partial(reading, words.join("; "))
        }
    }
}

impl Source for AccessSource {
    type Reading = AccessReading;

    async fn read(&mut self) -> Outcome<AccessReading> {
        self.sample()
    }
}

impl Tenant {
    fn take(&mut self, entry: &line::Entry<'_>) {
        let totals = &mut self.totals;
        totals.calls += 1;
        totals.errors += u64::from(entry.status >= 500);
        totals.duration_us = totals.duration_us.saturating_add(entry.duration_us);
        totals.bytes = totals.bytes.saturating_add(entry.bytes);
        self.times[0].add(entry.duration_us);
        if !entry.client.is_empty() {
            self.clients[0].add(&entry.client);
        }
        // nginx writes a dash for what it doesn't know.
        if !matches!(entry.country.as_ref(), "" | "-") {
            let country = entry.country.as_ref();
            match totals.countries.get_mut(country) {
                Some(count) => *count += 1,
                None => {
                    // What stands in a country's place may be anything.
                    let strange = country.len() > 64 || country.chars().any(char::is_control);
                    let full = totals.countries.len() >= MAX_COUNTRIES;
                    let name = if full || strange { "other" } else { country };
                    *totals.countries.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
    }

    fn turn(&mut self) {
        self.times[1] = std::mem::take(&mut self.times[0]);
        self.clients[1] = std::mem::take(&mut self.clients[0]);
    }

    fn shown(&self) -> AccessTenant {
        let mut recent = self.times[0].clone();
        recent.merge(&self.times[1]);
        let mut clients = self.clients[0].clone();
        clients.merge(&self.clients[1]);
        AccessTenant { recent, clients: clients.estimate(), ..self.totals.clone() }
    }
}

/// Entries that could not be read.
#[derive(Default)]
struct Refused {
    count: u64,
    first: Option<String>,
}

impl Refused {
    fn add(&mut self, why: String) {
        self.count += 1;
        self.first.get_or_insert(why);
    }

    fn words(self) -> Option<String> {
        let first = self.first?;
        Some(format!("{} entries could not be read, the first: {first}", self.count))
    }
}
