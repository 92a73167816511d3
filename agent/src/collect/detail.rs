//! What a tenant's own containers and control groups do beyond CPU and memory:
//! throttling, kills for memory, block devices, network, tasks, restarts,
//! health.
//!
//! None of it decides within a second, so it is read every [`EVERY`] instead of
//! every round. What a group did since its last look is lost with it, as its
//! files are; the engine's word for a kill for memory is not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use webhost_proto::wire::Metric;

use super::cgroup::detail::DetailFiles;
use super::cgroup::{Hierarchies, Paths};
use super::counter::Counter;

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(5);

/// The longest `/proc/<pid>/net/dev` that is read: hundreds of interfaces.
const MAX_DEV: usize = 64 * 1024;

/// The counters, in the order in which [`Detail`] has them.
pub const COUNTED: [Metric; 7] = [
    Metric::CpuThrottledUs,
    Metric::OomKills,
    Metric::IoReadBytes,
    Metric::IoWrittenBytes,
    Metric::NetworkRxBytes,
    Metric::NetworkTxBytes,
    Metric::Restarts,
];
/// Their places.
pub const THROTTLED: usize = 0;
pub const OOM_KILLS: usize = 1;
pub const READ: usize = 2;
pub const WRITTEN: usize = 3;
pub const RECEIVED: usize = 4;
pub const SENT: usize = 5;
pub const RESTARTS: usize = 6;

/// Counters by their place in [`COUNTED`]; what nobody says is `None`.
pub type Counts = [Option<u64>; COUNTED.len()];

/// Of one tenant: totals since the agent watches (or increases, in a round),
/// and gauges over what runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    pub counts: Counts,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Containers whose own health check fails; `None` where none has one.
    pub unhealthy: Option<u64>,
}

impl Detail {
    /// Whether anything was killed or began again.
    pub fn fell(&self) -> bool {
        [OOM_KILLS, RESTARTS].iter().any(|at| self.counts[*at].is_some_and(|count| count > 0))
    }
}

/// Adds what is known.
pub fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

/// Adds every count that is known.
pub fn add_counts(sums: &mut Counts, values: &Counts) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| add(sum, *value));
}

/// What `now` counts more than `before`, which becomes `now`. A count that
/// fell began anew.
pub fn increases(now: &Counts, before: &mut Counts) -> Counts {
    let mut increase = Counts::default();
    for ((more, now), before) in increase.iter_mut().zip(now).zip(before) {
        if let Some(now) = *now {
            *more = Some(now.checked_sub(before.unwrap_or(0)).unwrap_or(now));
            *before = Some(now);
        }
    }
    increase
}

/// The files of one group, and what was counted of them.
#[derive(Debug)]
pub struct Group {
    files: DetailFiles,
    network: Option<Network>,
    counters: [Counter; COUNTED.len()],
    tasks: Option<u64>,
    wrong: Option<String>,
}

impl Group {
    /// `born`: it appeared under our eyes, so all that it counts is new.
    pub fn open(hierarchies: &Hierarchies, paths: &Paths, born: bool) -> Self {
        let counter = if born { Counter::born() } else { Counter::default() };
        Self {
            files: hierarchies.open_detail(paths),
            network: None,
            counters: [counter; COUNTED.len()],
            tasks: None,
            wrong: None,
        }
    }

    /// Reads the network of the group's first process, too. Only for a group
    /// with a network of its own. `proc` is `/proc`, or a copy of it.
    pub fn with_network(mut self, hierarchies: &Hierarchies, paths: &Paths, proc: &Path) -> Self {
        self.network = Network::open(hierarchies, paths, proc);
        self
    }

    /// Looks again; what grew since the last look. Nothing of a group that is
    /// gone, which its CPU's file tells as well, and nothing where a file has
    /// an unknown form, which [`wrong`](Self::wrong) tells.
    pub fn look(&mut self, buffer: &mut Vec<u8>) -> Counts {
        match self.try_look(buffer) {
            Ok(counts) => {
                self.wrong = None;
                counts
            }
            Err(error) => {
                let odd = error.kind() == io::ErrorKind::InvalidData;
                self.wrong = odd.then(|| error.to_string());
                Counts::default()
            }
        }
    }

    /// Why the last look saw nothing.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    fn try_look(&mut self, buffer: &mut Vec<u8>) -> io::Result<Counts> {
        let read = self.files.read(buffer)?;
        self.tasks = read.tasks;
        let mut values = Counts::default();
        values[THROTTLED] = read.throttled_us;
        values[OOM_KILLS] = read.oom_kills;
        values[READ] = read.read_bytes;
        values[WRITTEN] = read.written_bytes;
        if let Some(network) = &self.network {
            let (received, sent) = network.read(buffer)?;
            values[RECEIVED] = Some(received);
            values[SENT] = Some(sent);
        }
        let mut increase = Counts::default();
        for ((more, counter), value) in increase.iter_mut().zip(&mut self.counters).zip(values) {
            *more = value.map(|value| counter.observe(value));
        }
        Ok(increase)
    }

    /// Processes and threads at the last look.
    pub fn tasks(&self) -> Option<u64> {
        self.tasks
    }
}

/// A network namespace, by `/proc/<pid>/net/dev` of a process in it.
#[derive(Debug)]
struct Network {
    dev: File,
}

impl Network {
    fn open(hierarchies: &Hierarchies, paths: &Paths, proc: &Path) -> Option<Self> {
        let pid = hierarchies.first_process(paths)?;
        let dev = File::open(proc.join(pid.to_string()).join("net/dev")).ok()?;
        // Its number may have gone to another process before the file was
        // open; afterwards the file stays that of the first one's namespace.
        (hierarchies.first_process(paths) == Some(pid)).then_some(Self { dev })
    }

    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<(u64, u64)> {
        buffer.resize(MAX_DEV, 0);
        let mut filled = 0;
        loop {
            let read = self.dev.read_at(&mut buffer[filled..], filled as u64)?;
            filled += read;
            if read == 0 || filled == buffer.len() {
                break;
            }
        }
        let text = std::str::from_utf8(&buffer[..filled]).unwrap_or("");
        interfaces(text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "net/dev has an unknown form")
        })
    }
}

/// Bytes received and sent over all interfaces but loopback, from the text of
/// `/proc/<pid>/net/dev`: the first and the ninth number of each.
fn interfaces(text: &str) -> Option<(u64, u64)> {
    let (mut received, mut sent) = (0_u64, 0_u64);
    for line in text.lines().skip(2) {
        let (name, numbers) = line.split_once(':')?;
        if name.trim() == "lo" {
            continue;
        }
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse::<u64>);
        received = received.saturating_add(numbers.next()?.ok()?);
        sent = sent.saturating_add(numbers.nth(7)?.ok()?);
    }
    Some((received, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:  900 3 0 0 0 0 0 0  900 3 0 0 0 0 0 0
  eth0: 1500 9 0 0 0 0 0 0  700 4 0 0 0 0 0 0
  eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0
";

    #[test]
    fn texts_of_net_dev() {
        assert_eq!(interfaces(DEV), Some((1_505, 706)));
        assert_eq!(interfaces("Inter-|\n face |\n"), Some((0, 0)));
        for odd in ["a\nb\neth0 1 2", "a\nb\neth0: 1 2 3", "a\nb\neth0: x 0 0 0 0 0 0 0 0"] {
            assert_eq!(interfaces(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn counts_by_table() {
        let some = |value| {
            let mut counts = Counts::default();
            counts[READ] = Some(value);
            counts
        };
        let mut before = Counts::default();
        assert_eq!(increases(&some(7), &mut before), some(7));
        assert_eq!(increases(&Counts::default(), &mut before), Counts::default());
        assert_eq!(increases(&some(9), &mut before), some(2), "what was not told is not lost");
        assert_eq!(increases(&some(4), &mut before), some(4), "a count that fell began anew");
        let mut sum = Counts::default();
        add_counts(&mut sum, &some(u64::MAX));
        add_counts(&mut sum, &some(5));
        assert_eq!(sum, some(u64::MAX));
    }

    #[test]
    fn a_group_is_counted_from_the_first_look_or_from_its_birth() {
        let dir = tempfile::tempdir().expect("a directory");
        let (group, proc) = (dir.path().join("a"), dir.path().join("proc/7/net"));
        std::fs::create_dir_all(&group).expect("a group");
        std::fs::create_dir_all(&proc).expect("a process");
        let write =
            |file: &str, text: &str| std::fs::write(group.join(file), text).expect("writes");
        write("cgroup.procs", "0\n7\n");
        write("pids.current", "3\n");
        write("io.stat", "8:0 rbytes=100 wbytes=10\n");
        std::fs::write(proc.join("dev"), DEV).expect("writes");
        let (hierarchies, paths) = (Hierarchies::new(dir.path()), Paths::everywhere("/a"));
        let open = |born| {
            let group = Group::open(&hierarchies, &paths, born);
            group.with_network(&hierarchies, &paths, &dir.path().join("proc"))
        };
        let (mut old, mut new) = (open(false), open(true));
        let mut buffer = Vec::new();
        let first = old.look(&mut buffer);
        assert_eq!((first[READ], first[RECEIVED], first[THROTTLED]), (Some(0), Some(0), None));
        assert_eq!(old.tasks(), Some(3));
        let first = new.look(&mut buffer);
        assert_eq!(
            (first[READ], first[RECEIVED], first[SENT]),
            (Some(100), Some(1_505), Some(706))
        );
        // A counter that begins again, as after `blkio.reset_stats`.
        write("io.stat", "8:0 rbytes=30 wbytes=15\n");
        let next = old.look(&mut buffer);
        assert_eq!((next[READ], next[WRITTEN]), (Some(30), Some(5)));
        write("io.stat", "8:0 rbytes=x\n");
        assert_eq!(old.look(&mut buffer), Counts::default());
        assert!(old.wrong().is_some_and(|why| why.contains('x')), "{:?}", old.wrong());
        write("io.stat", "8:0 rbytes=31 wbytes=15\n");
        assert_eq!(old.look(&mut buffer)[READ], Some(1));
        assert_eq!(old.wrong(), None);
    }
}
