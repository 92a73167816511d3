//! Starts the sources and makes their rounds.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_proto::wire;

use super::access_log::hosts::Hosts;
use super::access_log::{self, AccessReading, AccessSource};
use super::app::{self, AppReading, AppSource};
use super::checks::{self, ChecksReading, ChecksSource};
use super::container::{self, ContainerSource, ContainersReading};
use super::host::{self, HostReading, HostSource};
use super::postgres::{self, PostgresReading, PostgresSource};
use super::redis::{self, RedisReading, RedisSource};
use super::round::{Assembler, Round, SharedPlan, Sources};
use super::shared::{self, SharedReading, SharedSource};
use super::slices::{self, SlicesReading, SlicesSource};
use super::source::{Published, Source, drive};
use crate::config::Config;

/// The most that a round waits for its sources; who is slower belongs to the
/// next one.
const GRACE: Duration = Duration::from_secs(1);

/// The sources, each on its task, and the state between rounds.
pub struct Collector {
    rounds: watch::Sender<u64>,
    host: watch::Receiver<Published<HostReading>>,
    containers: watch::Receiver<Published<ContainersReading>>,
    postgres: watch::Receiver<Published<PostgresReading>>,
    app: watch::Receiver<Published<AppReading>>,
    shared: watch::Receiver<Published<SharedReading>>,
    slices: watch::Receiver<Published<SlicesReading>>,
    access: watch::Receiver<Published<AccessReading>>,
    redis: watch::Receiver<Published<RedisReading>>,
    checks: watch::Receiver<Published<ChecksReading>>,
    assembler: Assembler,
}

/// Spawns the tasks of sources.
struct Starter<'a> {
    tracker: &'a TaskTracker,
    stop: &'a CancellationToken,
    rounds: watch::Receiver<u64>,
}

impl Starter<'_> {
    fn start<S: Source>(
        &self,
        source: S,
        limit: Duration,
    ) -> watch::Receiver<Published<S::Reading>> {
        let (publish, published) = watch::channel(Published::waiting());
        let (rounds, stop) = (self.rounds.clone(), self.stop.clone());
        self.tracker.spawn(drive(source, limit, rounds, publish, stop));
        published
    }
}

fn off<T>(why: &str) -> watch::Receiver<Published<T>> {
    // A receiver keeps its last value after the sender is gone.
    watch::channel(Published::off(why)).1
}

impl Collector {
    /// Starts the sources that `config` asks for; they end at `stop`.
    ///
    /// # Errors
    /// A sentence, when a source can't even be prepared.
    pub fn start(
        config: &Config,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, String> {
        let (rounds, receiver) = watch::channel(0);
        let starter = Starter { tracker, stop, rounds: receiver };
        let plans: Vec<SharedPlan> = config
            .attribution
            .shared
            .iter()
            .map(|process| SharedPlan {
                name: process.name.clone(),
                split_by: process.split_by,
                container: process.container.clone(),
            })
            .collect();
        let boxed: BTreeSet<String> =
            plans.iter().filter_map(|plan| plan.container.clone()).collect();

        let containers = if config.containers.enabled {
            let source = ContainerSource::new(&config.containers, boxed);
            starter.start(source, container::LIMIT)
        } else {
            off("containers.enabled is false")
        };
        let postgres = match &config.postgres {
            Some(section) => {
                let source = PostgresSource::new(section.clone(), config.app.is_none());
                starter.start(source, postgres::LIMIT)
            }
            None => off("no [postgres] section"),
        };
        let app = match &config.app {
            Some(section) => {
                let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
                starter.start(AppSource::new(section, now_ms)?, app::LIMIT)
            }
            None => off("no [app] section"),
        };
        let shared = if plans.is_empty() {
            off("no [[attribution.shared]] process")
        } else {
            starter.start(SharedSource::new(config), shared::LIMIT)
        };
        let slugs = config.postgres.is_some().then(|| postgres.clone());
        let slices = match &config.slices {
            Some(section) => {
                let root = &config.containers.cgroup_root;
                let source = SlicesSource::new(section, root, slugs.clone())?;
                starter.start(source, slices::LIMIT)
            }
            None => off("no [slices] section"),
        };
        let access = match &config.access_log {
            Some(section) => {
                let hosts = Hosts::new(section, slugs.clone());
                starter.start(AccessSource::new(section, hosts), access_log::LIMIT)
            }
            None => off("no [access_log] section"),
        };
        let redis = match &config.redis {
            Some(section) => starter.start(RedisSource::new(section, slugs)?, redis::LIMIT),
            None => off("no [redis] section"),
        };
        let checks = match &config.health {
            Some(section) => {
                let every = Duration::from_secs(section.every_s.into());
                starter.start(ChecksSource::new(&section.check, every)?, checks::LIMIT)
            }
            None => off("no [health] section"),
        };
        let assembler = Assembler::new(plans, config.postgres.is_some(), config.app.is_some())
            .of_machine(config.machine.tenant);
        Ok(Self {
            host: starter.start(HostSource::new(config.host.disk.clone()), host::LIMIT),
            containers,
            postgres,
            app,
            shared,
            slices,
            access,
            redis,
            checks,
            assembler,
            rounds,
        })
    }

    /// Has every source read once, and waits for them until the grace ends.
    pub async fn read(&mut self, interval: Duration) {
        let mut round = 0;
        self.rounds.send_modify(|number| {
            *number += 1;
            round = *number;
        });
        let all = async {
            tokio::join!(
                settled(&mut self.host, round),
                settled(&mut self.containers, round),
                settled(&mut self.postgres, round),
                settled(&mut self.app, round),
                settled(&mut self.shared, round),
                settled(&mut self.slices, round),
                settled(&mut self.access, round),
                settled(&mut self.redis, round),
                settled(&mut self.checks, round),
            )
        };
        // Late sources are no error here; their health says how they are.
        let _late = tokio::time::timeout(GRACE.min(interval / 2), all).await;
    }

    /// Makes a round of what has been read. The increases in it are consumed:
    /// it must be reported. The second value: the sources' ages in
    /// milliseconds, in the report's order.
    pub fn assemble(&mut self, interval: Duration) -> (Round, Vec<Option<u64>>) {
        let now = Instant::now();
        let (host, containers) = (self.host.borrow(), self.containers.borrow());
        let (postgres, app) = (self.postgres.borrow(), self.app.borrow());
        let (shared, slices) = (self.shared.borrow(), self.slices.borrow());
        let (access, redis) = (self.access.borrow(), self.redis.borrow());
        let checks = self.checks.borrow();
        let sources = Sources {
            host: &host,
            containers: &containers,
            postgres: &postgres,
            app: &app,
            shared: &shared,
            slices: &slices,
            access: &access,
            redis: &redis,
            checks: &checks,
        };
        let at_us = Timestamp::now().as_microsecond();
        let round = self.assembler.assemble(&sources, now, at_us, interval);
        let ages = [
            host.taken,
            containers.taken,
            postgres.taken,
            app.taken,
            shared.taken,
            slices.taken,
            access.taken,
            redis.taken,
            checks.taken,
        ];
        let age = |taken: Option<Instant>| {
            let age = now.saturating_duration_since(taken?);
            Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        };
        (round, ages.map(age).to_vec())
    }

    /// A view of what this machine has; of CPU, what it `offers` where that is
    /// given, in thousandths of a core.
    pub fn capacity(&self, offers: Option<NonZeroU64>) -> CapacitySource {
        CapacitySource { host: self.host.clone(), postgres: self.postgres.clone(), offers }
    }
}

/// What this machine has, as it is known when asked.
pub struct CapacitySource {
    host: watch::Receiver<Published<HostReading>>,
    postgres: watch::Receiver<Published<PostgresReading>>,
    offers: Option<NonZeroU64>,
}

impl CapacitySource {
    /// Zero where nothing is known (yet).
    pub fn capacity(&self) -> wire::Capacity {
        let host = self.host.borrow();
        let postgres = self.postgres.borrow();
        let mut capacity = wire::Capacity {
            db_connections: postgres.value.as_ref().map_or(0, |reading| reading.connections_max),
            ..wire::Capacity::default()
        };
        if let Some(host) = &host.value {
            let all = u64::from(host.cpu_count) * 1_000;
            capacity.cpu_millicores = self.offers.map_or(all, NonZeroU64::get);
            capacity.memory_bytes = host.memory_total_bytes;
            capacity.disk_bytes = host.disk_total_bytes;
        }
        capacity
    }
}

/// Waits until a source has tried in this round.
async fn settled<T>(published: &mut watch::Receiver<Published<T>>, round: u64) {
    // An error means that its task has ended: then there is nothing to wait
    // for, and its last words stand.
    let _ended = published.wait_for(|published| published.round >= round).await.is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_offers_what_it_has_or_what_it_is_told_to() {
        let mut measured = Published::waiting();
        measured.value = Some(HostReading {
            cpu_count: 4,
            memory_total_bytes: 8 << 30,
            ..HostReading::default()
        });
        let (_host, host) = watch::channel(measured);
        let (_postgres, postgres) = watch::channel(Published::waiting());
        for (offers, expected) in [(None, 4_000), (NonZeroU64::new(1_500), 1_500)] {
            let source = CapacitySource { host: host.clone(), postgres: postgres.clone(), offers };
            let capacity = source.capacity();
            assert_eq!((capacity.cpu_millicores, capacity.memory_bytes), (expected, 8 << 30));
        }
    }
}
