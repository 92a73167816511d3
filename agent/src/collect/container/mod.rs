//! Containers that belong to one tenant each, found by their label, and the
//! containers of shared processes, found by name.
//!
//! Docker's API is asked which containers there are, once, and again when its
//! events say that something changed; the values come from the containers'
//! control groups alone, and those of the network from its namespace's
//! `/proc/<pid>/net/dev`. **Invariant:** no call to Docker happens in a round
//! in which no container came, went or changed its health (but for one listing
//! a minute).

mod discovery;
mod lives;
pub mod proxy;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use self::discovery::{Discovery, Found};
use self::lives::Lives;
use super::cgroup::{Cgroup, Hierarchies, Paths};
use super::counter::Counter;
use super::detail::{self, Counts, Detail, Group};
use super::proc::Use;
use super::source::{Outcome, Source};
use crate::config::Containers;

/// How long one reading may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Containers are listed again after this time even without an event.
const RELIST: Duration = Duration::from_secs(60);

/// A tenant without a running container is forgotten after this time: longer
/// than any round, so that what it used was reported.
const FORGET: Duration = Duration::from_secs(900);

/// What a tenant's own containers use together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerTenant {
    /// Total since the agent watches, over containers that are gone too.
    pub cpu_us: u64,
    /// Bytes, of those that run.
    pub memory_bytes: u64,
    /// How many run.
    pub running: u32,
    /// What else is known of them; counts over containers that are gone too.
    pub detail: Detail,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainersReading {
    pub tenants: BTreeMap<TenantId, ContainerTenant>,
    /// Of the containers that shared processes run in, by name; CPU as a
    /// total since the agent watches.
    pub shared: BTreeMap<String, Use>,
}

struct Watched {
    name: String,
    tenant: Option<TenantId>,
    cgroup: Cgroup,
    cpu: Counter,
    /// Of a tenant's container.
    group: Option<Group>,
    healthy: Option<bool>,
}

/// Of one tenant, over containers that are gone too.
struct Totals {
    cpu_us: u64,
    counts: Counts,
    /// When one ran last.
    ran: Instant,
}

/// The source.
pub struct ContainerSource {
    label: String,
    hierarchies: Hierarchies,
    discovery: Discovery,
    /// By the container's id.
    watched: BTreeMap<String, Watched>,
    listed: Option<Instant>,
    lives: Lives,
    /// What outlives containers.
    totals: BTreeMap<TenantId, Totals>,
    /// When their details were read, and how often they are.
    looked: Option<Instant>,
    look_every: Duration,
    proc: PathBuf,
    shared_cpu: BTreeMap<String, u64>,
    /// What the last listing had to leave out.
    notes: Vec<String>,
    buffer: Vec<u8>,
}

impl ContainerSource {
    /// `shared`: names of the containers of shared processes.
    pub fn new(config: &Containers, shared: BTreeSet<String>) -> Self {
        Self {
            label: config.label.clone(),
            hierarchies: Hierarchies::new(&config.cgroup_root),
            discovery: Discovery::new(config.socket.clone(), config.label.clone(), shared),
            watched: BTreeMap::new(),
            listed: None,
            lives: Lives::default(),
            totals: BTreeMap::new(),
            looked: None,
            look_every: detail::EVERY,
            proc: "/proc".into(),
            shared_cpu: BTreeMap::new(),
            notes: Vec::new(),
            buffer: Vec::new(),
        }
    }

    async fn refresh(&mut self) -> Result<(), String> {
        let old = self.listed.is_none_or(|at| at.elapsed() >= RELIST);
        if !self.discovery.changed() && !old {
            return Ok(());
        }
        let found = self.discovery.list().await?;
        self.take(found).await;
        self.listed = Some(Instant::now());
        Ok(())
    }

    /// Watches what is new and lets go of what is gone.
    async fn take(&mut self, found: Vec<Found>) {
        // What appears after the first listing began under our eyes.
        let born = self.listed.is_some();
        self.notes.clear();
        let present: BTreeSet<&str> = found.iter().map(|found| found.id.as_str()).collect();
        self.watched.retain(|id, _| present.contains(id.as_str()));
        for container in found {
            if let Some(watched) = self.watched.get_mut(&container.id) {
                watched.healthy = container.healthy;
                continue;
            }
            let tenant = match container.label.as_deref().map(str::parse::<TenantId>) {
                None => None,
                Some(Ok(tenant)) => Some(tenant),
                Some(Err(_)) => {
                    self.notes.push(format!(
                        "container {}: the label {} is not a tenant's id",
                        container.name, self.label
                    ));
                    continue;
                }
            };
            match self.open(&container).await {
                Ok((cgroup, paths)) => {
                    let cpu = if born { Counter::born() } else { Counter::default() };
                    let group = tenant.map(|tenant| {
                        self.lives.opened(&container.id, tenant, born, Instant::now());
                        let group = Group::open(&self.hierarchies, &paths, born);
                        if container.own_network {
                            group.with_network(&self.hierarchies, &paths, &self.proc)
                        } else {
                            group
                        }
                    });
                    let Found { id, name, healthy, .. } = container;
                    self.watched.insert(id, Watched { name, tenant, cgroup, cpu, group, healthy });
                }
                Err(why) => self.notes.push(format!("container {}: {why}", container.name)),
            }
        }
        for (id, happened) in self.discovery.happened() {
            self.lives.told(&id, happened);
        }
    }

    /// Where Docker and Podman put a container, else where its first process
    /// says that it is.
    async fn open(&self, container: &Found) -> Result<(Cgroup, Paths), String> {
        let id = &container.id;
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope"),
        ] {
            let paths = Paths::everywhere(&path);
            if let Ok(cgroup) = self.hierarchies.open(&paths) {
                return Ok((cgroup, paths));
            }
        }
        let pid = self.discovery.pid(id).await?;
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        let paths = Paths::parse(&text);
        match self.hierarchies.open(&paths) {
            Ok(cgroup) => Ok((cgroup, paths)),
            Err(error) => Err(format!("its control group can't be read: {error}")),
        }
    }

    /// Reads every watched container. The second value: what could not be
    /// read, in words.
    fn values(&mut self) -> (ContainersReading, Vec<String>) {
        let mut reading = ContainersReading::default();
        let mut notes = Vec::new();
        let mut gone = false;
        let now = Instant::now();
        let look = self.looked.is_none_or(|at| now.duration_since(at) >= self.look_every);
        if look {
            self.looked = Some(now);
        }
        let buffer = &mut self.buffer;
        let (totals, shared_cpu, lives) = (&mut self.totals, &mut self.shared_cpu, &mut self.lives);
        self.watched.retain(|id, container| {
            let used = match container.cgroup.read(buffer) {
                Ok(used) => used,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    notes.push(format!("container {}: {error}", container.name));
                    return true;
                }
                Err(_) => {
                    // It ended; its event is on the way.
                    gone = true;
                    return false;
                }
            };
            let increase = container.cpu.observe(used.cpu_us);
            let Some(tenant) = container.tenant else {
                *shared_cpu.entry(container.name.clone()).or_default() += increase;
                let entry = reading.shared.entry(container.name.clone()).or_default();
                entry.memory_bytes += used.memory_bytes;
                return true;
            };
            let total = totals.entry(tenant).or_insert_with(|| Totals::at(now));
            total.cpu_us += increase;
            total.ran = now;
            let mut ooms = 0;
            if let Some(group) = container.group.as_mut().filter(|_| look) {
                let mut counts = group.look(buffer);
                // The same kills may be told by an event.
                ooms = counts[detail::OOM_KILLS].as_mut().map_or(0, std::mem::take);
                detail::add_counts(&mut total.counts, &counts);
            }
            if let Some(why) = container.group.as_ref().and_then(Group::wrong) {
                notes.push(format!("container {}: {why}", container.name));
            }
            lives.read(id, ooms, now);
            let entry = reading.tenants.entry(tenant).or_default();
            entry.memory_bytes += used.memory_bytes;
            entry.running += 1;
            let tasks = container.group.as_ref().and_then(Group::tasks);
            detail::add(&mut entry.detail.tasks, tasks);
            let unhealthy = container.healthy.map(|healthy| u64::from(!healthy));
            detail::add(&mut entry.detail.unhealthy, unhealthy);
            true
        });
        if gone {
            self.discovery.look_again();
        }
        for (tenant, news) in lives.news(now, FORGET) {
            let counts = &mut totals.entry(tenant).or_insert_with(|| Totals::at(now)).counts;
            detail::add(&mut counts[detail::OOM_KILLS], Some(news.ooms));
            detail::add(&mut counts[detail::RESTARTS], Some(news.restarts));
        }
        self.totals.retain(|_, total| now.duration_since(total.ran) < FORGET);
        for (tenant, total) in &self.totals {
            // A tenant whose last container ended keeps the total that it
            // used; without a running one it has no gauge.
            let entry = reading.tenants.entry(*tenant).or_default();
            entry.cpu_us = total.cpu_us;
            entry.detail.counts = total.counts;
        }
        for (name, used) in &mut reading.shared {
            used.cpu_us = self.shared_cpu.get(name).copied().unwrap_or(0);
        }
        (reading, notes)
    }
}

impl Totals {
    fn at(now: Instant) -> Self {
        let mut counts = Counts::default();
        // That nothing began again is known of every container.
        counts[detail::RESTARTS] = Some(0);
        Self { cpu_us: 0, counts, ran: now }
    }
}

impl Source for ContainerSource {
    type Reading = ContainersReading;

    async fn read(&mut self) -> Outcome<ContainersReading> {
        let refused = self.refresh().await.err();
        if let Some(why) = &refused
            && self.watched.is_empty()
        {
            // A machine without Docker is an ordinary one.
            return if self.listed.is_none() && !self.discovery.socket_exists() {
                Outcome::Off(why.clone())
            } else {
                Outcome::Failed(why.clone())
            };
        }
        let (reading, notes) = self.values();
        let words: Vec<String> =
            refused.into_iter().chain(self.notes.iter().cloned()).chain(notes).collect();
        if words.is_empty() {
            Outcome::Good(reading)
        } else {
            Outcome::Partial(reading, words.join("; "))
        }
    }

    fn abandoned(&mut self) {
        self.discovery.disconnect();
    }
}
