//! Tenants without containers: systemd slices and services, or plain control
//! groups, one a tenant, told by their name.
//!
//! The configuration says where they are and how they are called
//! (`"webhost-{slug}.slice"`, `"tenant-{id}.service"`); the directory is
//! listed again every ten seconds, the values come from held files, as those
//! of containers do. Slices lie where systemd puts them: `webhost-acme.slice`
//! is in `webhost.slice`.

pub mod name;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use self::name::{Pattern, Tells};
use super::access_log::hosts::Database;
use super::cgroup::{Cgroup, Hierarchies, Paths};
use super::container::ContainerTenant;
use super::counter::Counter;
use super::detail::{self, Counts, Group};
use super::source::{Outcome, Source};
use crate::config::Slices;

/// How long one reading may take.
pub const LIMIT: Duration = Duration::from_secs(2);

/// How often the directories are listed.
const RELIST: Duration = Duration::from_secs(10);

/// More groups than this in one directory are no tenants.
const MAX_GROUPS: usize = 10_000;

/// What the tenants' groups use; as of containers.
pub type SlicesReading = BTreeMap<TenantId, ContainerTenant>;

struct Watched {
    tenant: TenantId,
    cgroup: Cgroup,
    cpu: Counter,
    group: Group,
}

/// The source.
pub struct SlicesSource {
    root: PathBuf,
    hierarchies: Hierarchies,
    parent: String,
    pattern: Pattern,
    database: Database,
    /// By the group's name.
    watched: BTreeMap<String, Watched>,
    listed: Option<Instant>,
    /// Totals that outlive groups.
    totals: BTreeMap<TenantId, (u64, Counts)>,
    /// When the details were read, and how often they are.
    looked: Option<Instant>,
    look_every: Duration,
    /// Groups that fit the pattern and belong to nobody we know.
    strangers: Vec<String>,
    buffer: Vec<u8>,
}

impl SlicesSource {
    /// `root`: where the hierarchies are mounted. `database` knows the slugs.
    ///
    /// # Errors
    /// A sentence, when the pattern is none.
    pub fn new(config: &Slices, root: &Path, database: Database) -> Result<Self, String> {
        Ok(Self {
            root: root.to_owned(),
            hierarchies: Hierarchies::new(root),
            parent: config.parent.clone(),
            pattern: Pattern::parse(&config.name)?,
            database,
            watched: BTreeMap::new(),
            listed: None,
            totals: BTreeMap::new(),
            looked: None,
            look_every: detail::EVERY,
            strangers: Vec::new(),
            buffer: Vec::new(),
        })
    }

    fn owner(&self, told: &Tells) -> Option<TenantId> {
        match told {
            Tells::Id(id) => Some(*id),
            Tells::Slug(slug) => {
                let database = self.database.as_ref()?.borrow();
                let tenants = &database.value.as_ref()?.tenants;
                let found = tenants.iter().find(|(_, tenant)| tenant.slug == *slug);
                found.map(|(id, _)| *id)
            }
        }
    }

    fn list(&mut self) -> Result<(), String> {
        let names = groups(&self.root, &self.parent)?;
        let born = self.listed.is_some();
        self.listed = Some(Instant::now());
        self.watched.retain(|name, _| names.contains(name));
        self.strangers.clear();
        for name in names {
            if self.watched.contains_key(&name) {
                continue;
            }
            let Some(told) = self.pattern.read(&name) else { continue };
            let Some(tenant) = self.owner(&told) else {
                self.strangers.push(name);
                continue;
            };
            let path = format!("{}/{name}", self.parent.trim_end_matches('/'));
            // One that is gone again by now comes with the next listing.
            let paths = Paths::everywhere(&path);
            if let Ok(cgroup) = self.hierarchies.open(&paths) {
                let cpu = if born { Counter::born() } else { Counter::default() };
                let group = Group::open(&self.hierarchies, &paths, born);
                self.watched.insert(name, Watched { tenant, cgroup, cpu, group });
            }
        }
        Ok(())
    }

    fn sample(&mut self) -> Outcome<SlicesReading> {
        if self.listed.is_none_or(|at| at.elapsed() >= RELIST)
            && let Err(why) = self.list()
        {
            return Outcome::Failed(why);
        }
        let mut reading = SlicesReading::new();
        let mut words = Vec::new();
        let mut gone = false;
        let now = Instant::now();
        let look = self.looked.is_none_or(|at| now.duration_since(at) >= self.look_every);
        if look {
            self.looked = Some(now);
        }
        let (buffer, totals) = (&mut self.buffer, &mut self.totals);
        self.watched.retain(|name, group| match group.cgroup.read(buffer) {
            Ok(used) => {
                let total = totals.entry(group.tenant).or_default();
                total.0 += group.cpu.observe(used.cpu_us);
                if look {
                    detail::add_counts(&mut total.1, &group.group.look(buffer));
                }
                words.extend(group.group.wrong().map(|why| format!("{name}: {why}")));
                let tenant = reading.entry(group.tenant).or_default();
                tenant.memory_bytes += used.memory_bytes;
                tenant.running += 1;
                detail::add(&mut tenant.detail.tasks, group.group.tasks());
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                words.push(format!("{name}: {error}"));
                true
            }
            Err(_) => {
                // It ended; a new one of its name is found by the listing.
                gone = true;
                false
            }
        });
        if gone {
            // At the next round; until then its total stands.
            self.listed = self.listed.and_then(|at| at.checked_sub(RELIST)).or(self.listed);
        }
        for (tenant, (cpu_us, counts)) in &self.totals {
            let tenant = reading.entry(*tenant).or_default();
            tenant.cpu_us = *cpu_us;
            tenant.detail.counts = *counts;
        }
        if let Some(first) = self.strangers.first() {
            let count = self.strangers.len();
            words.push(format!("{count} groups of no known tenant, as {first}"));
        }
        if words.is_empty() {
            Outcome::Good(reading)
        } else {
            Outcome::Partial(reading, words.join("; "))
        }
    }
}

/// The names of the groups below `parent`, wherever the kernel keeps its CPU
/// time: in the one tree of v2, or in the trees of v1.
fn groups(root: &Path, parent: &str) -> Result<BTreeSet<String>, String> {
    let parent = parent.trim_start_matches('/');
    let trees = ["cpu,cpuacct", "cpuacct", "", "unified"];
    let mut refused = None;
    for tree in trees {
        let dir = root.join(tree).join(parent);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) => {
                refused.get_or_insert(format!("{}: {error}", dir.display()));
                continue;
            }
        };
        let names: BTreeSet<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .take(MAX_GROUPS)
            .collect();
        return Ok(names);
    }
    Err(format!("no control groups below /{parent}: {}", refused.unwrap_or_default()))
}

impl Source for SlicesSource {
    type Reading = SlicesReading;

    async fn read(&mut self) -> Outcome<SlicesReading> {
        self.sample()
    }
}
