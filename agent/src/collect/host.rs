//! The machine: CPU, memory, disk, network. sysinfo gives what is the same
//! effort anywhere (memory, load, network); CPU time comes from `/proc/stat`,
//! because a share in percent can't be added up over lost reports, and disks
//! from a `statvfs` of those that [`mounts`] names.

pub mod mounts;
pub mod pressure;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sysinfo::{MemoryRefreshKind, Networks, RefreshKind, System};
use webhost_proto::wire;

use self::mounts::Mounts;
use self::pressure::pressure;
use super::counter::Counter;
use super::proc;
use super::source::{Outcome, Source};

/// How long one reading may take.
pub const LIMIT: Duration = Duration::from_secs(2);

/// One reading. CPU and network are totals since the agent watches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostReading {
    pub cpu_busy_us: u64,
    pub network_rx_bytes: u64,
    pub network_tx_bytes: u64,
    pub cpu_count: u32,
    pub load_1m_milli: u32,
    pub memory_total_bytes: u64,
    pub memory_used_bytes: u64,
    pub swap_used_bytes: u64,
    pub disk_total_bytes: u64,
    pub disk_used_bytes: u64,
    pub uptime_s: u64,
    /// `None` where the kernel doesn't measure it.
    pub pressure: Option<wire::Pressure>,
    /// The configured disk first.
    pub mounts: Vec<wire::Mount>,
}

/// The source.
pub struct HostSource {
    disk: PathBuf,
    mounts: Mounts,
    /// Made at the first reading that succeeds.
    system: Option<System>,
    networks: Option<Networks>,
    cpu_count: u32,
    cpu: Counter,
    received: Counter,
    sent: Counter,
    tick_us: u64,
}

impl HostSource {
    /// `disk`: a path on the file system to watch.
    pub fn new(disk: PathBuf) -> Self {
        Self {
            mounts: Mounts::new(&disk),
            disk,
            system: None,
            networks: None,
            cpu_count: cpu_count(),
            cpu: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            tick_us: proc::tick_us(),
        }
    }

    fn sample(&mut self) -> Outcome<HostReading> {
        let mut wrong = Vec::new();
        match std::fs::read_to_string("/proc/stat") {
            Ok(text) => match proc::busy_ticks(&text) {
                Some(ticks) => {
                    self.cpu.observe(ticks * self.tick_us);
                }
                None => wrong.push("/proc/stat has an unknown form".to_owned()),
            },
            Err(error) => wrong.push(format!("/proc/stat: {error}")),
        }
        let (memory_total_bytes, memory_used_bytes, swap_used_bytes) =
            self.memory().unwrap_or_else(|error| {
                wrong.push(format!("memory: {error}"));
                (0, 0, 0)
            });
        if let Err(error) = self.network() {
            wrong.push(format!("network: {error}"));
        }
        let (disk_total_bytes, disk_used_bytes) = match rustix::fs::statvfs(&self.disk) {
            // As df counts: what only root may use is not used.
            Ok(disk) => (
                disk.f_blocks * disk.f_frsize,
                disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize,
            ),
            Err(error) => {
                wrong.push(format!("{}: {error}", self.disk.display()));
                (0, 0)
            }
        };
        let load = System::load_average().map_or_else(
            |error| {
                wrong.push(format!("load: {error}"));
                0.0
            },
            |load| load.one,
        );
        // Not negative, and a load of millions is beyond any machine.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let load_1m_milli = (load * 1000.0).round() as u32;
        let uptime_s = System::uptime().unwrap_or_else(|error| {
            wrong.push(format!("uptime: {error}"));
            0
        });
        let reading = HostReading {
            cpu_busy_us: self.cpu.total(),
            network_rx_bytes: self.received.total(),
            network_tx_bytes: self.sent.total(),
            cpu_count: self.cpu_count,
            load_1m_milli,
            memory_total_bytes,
            memory_used_bytes,
            swap_used_bytes,
            disk_total_bytes,
            disk_used_bytes,
            uptime_s,
            pressure: pressure(Path::new("/proc/pressure")),
            mounts: self.mounts.read(),
        };
        if wrong.is_empty() {
            Outcome::Good(reading)
        } else {
            Outcome::Partial(reading, wrong.join("; "))
        }
    }
}

impl HostSource {
    /// Total, used, and used swap, in bytes.
    fn memory(&mut self) -> Result<(u64, u64, u64), sysinfo::Error> {
        let system = match &mut self.system {
            Some(system) => system,
            none => none.insert(System::new_with_specifics(RefreshKind::nothing())?),
        };
        system.refresh_memory_specifics(MemoryRefreshKind::everything());
        Ok((system.total_memory(), system.used_memory(), system.used_swap()))
    }

    fn network(&mut self) -> Result<(), sysinfo::Error> {
        let networks = match &mut self.networks {
            Some(networks) => {
                networks.refresh(true);
                networks
            }
            none => none.insert(Networks::new_with_refreshed_list()?),
        };
        let (mut received, mut sent) = (0u64, 0u64);
        for (name, data) in networks.iter() {
            // Loopback is no traffic of the machine, and a container's veth
            // is counted again on the interface that it leaves by.
            let name = name.to_string_lossy();
            if name != "lo" && !name.starts_with("veth") && !name.starts_with("br-") {
                received = received.saturating_add(data.total_received());
                sent = sent.saturating_add(data.total_transmitted());
            }
        }
        self.received.observe(received);
        self.sent.observe(sent);
        Ok(())
    }
}

/// CPUs that this process may use.
fn cpu_count() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

impl Source for HostSource {
    type Reading = HostReading;

    async fn read(&mut self) -> Outcome<HostReading> {
        self.sample()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_size() {
        let mut source = HostSource::new("/".into());
        let Outcome::Good(first) = source.sample() else { panic!("the first reading is good") };
        assert!(first.cpu_count > 0 && first.memory_total_bytes > 0 && first.disk_total_bytes > 0);
        assert!(first.memory_used_bytes <= first.memory_total_bytes);
        assert!(first.disk_used_bytes <= first.disk_total_bytes);
        assert_eq!(first.cpu_busy_us, 0, "counters begin with the second reading");
        assert_eq!(first.mounts[0].path, "/");
        assert_eq!(first.mounts[0].total_mib, first.disk_total_bytes >> 20);
    }

    #[test]
    fn a_disk_that_is_not_there_is_named_and_the_rest_is_read() {
        let mut source = HostSource::new("/no/such/path".into());
        let Outcome::Partial(reading, why) = source.sample() else { panic!("partial") };
        assert!(why.contains("/no/such/path"), "{why}");
        assert!(reading.memory_total_bytes > 0);
    }
}
