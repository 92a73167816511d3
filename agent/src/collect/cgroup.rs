//! CPU and memory of a control group, straight from its files: reading them
//! costs some microseconds, while one call of Docker's stats costs the daemon
//! some milliseconds.
//!
//! Three layouts exist. v2: one tree, `cpu.stat` and `memory.current`. v1: a
//! tree for each controller. Hybrid: v1 trees with a v2 tree under `unified`
//! that may hold some controllers. Each value is looked for where it is, so
//! the layout needs no name.
//!
//! Memory is the working set: what is used without the file pages that the
//! kernel would drop first (as Kubernetes and `docker stats` count it).

pub mod detail;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::proc::Use;

/// Longer than any file of a group on a machine with hundreds of disks.
const MAX_TEXT: usize = 256 * 1024;

/// Where the hierarchies are mounted.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    root: PathBuf,
}

/// A control group's path in each hierarchy, as `/proc/<pid>/cgroup` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    cpu: String,
    memory: String,
    /// Of v1: the CPU's limits, block devices, and the number of tasks.
    limits: String,
    devices: String,
    tasks: String,
    unified: String,
}

impl Paths {
    /// The same path everywhere.
    pub fn everywhere(path: &str) -> Self {
        Self {
            cpu: path.into(),
            memory: path.into(),
            limits: path.into(),
            devices: path.into(),
            tasks: path.into(),
            unified: path.into(),
        }
    }

    /// From the text of `/proc/<pid>/cgroup`.
    pub fn parse(text: &str) -> Self {
        let mut paths = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            if controllers.is_empty() {
                paths.unified = path.to_owned();
            }
            for controller in controllers.split(',') {
                match controller {
                    "cpuacct" => path.clone_into(&mut paths.cpu),
                    "memory" => path.clone_into(&mut paths.memory),
                    "cpu" => path.clone_into(&mut paths.limits),
                    "blkio" => path.clone_into(&mut paths.devices),
                    "pids" => path.clone_into(&mut paths.tasks),
                    _ => {}
                }
            }
        }
        paths
    }
}

/// The open files of one control group.
#[derive(Debug)]
pub struct Cgroup {
    cpu: Cpu,
    memory: Option<Memory>,
}

#[derive(Debug)]
enum Cpu {
    /// `cpuacct.usage`: nanoseconds.
    V1(File),
    /// `cpu.stat`: `usage_usec` microseconds.
    V2(File),
}

#[derive(Debug)]
struct Memory {
    usage: File,
    stat: File,
    /// The key in `stat` of the file pages that go first.
    inactive: &'static str,
}

impl Hierarchies {
    /// `root` is `/sys/fs/cgroup`, or a copy of it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Opens a control group's files.
    ///
    /// # Errors
    /// Of the CPU file, where no layout has it. Memory may be missing (a
    /// kernel can be started without its controller).
    pub fn open(&self, paths: &Paths) -> io::Result<Cgroup> {
        let v1 = |tree: &str, path: &str| join(&self.root.join(tree), path);
        let v2 =
            [join(&self.root, &paths.unified), join(&self.root.join("unified"), &paths.unified)];

        let cpu = ["cpu,cpuacct", "cpuacct"]
            .iter()
            .find_map(|tree| File::open(v1(tree, &paths.cpu).join("cpuacct.usage")).ok())
            .map(Cpu::V1);
        let cpu = match cpu {
            Some(cpu) => cpu,
            None => {
                let first = File::open(v2[0].join("cpu.stat"));
                Cpu::V2(first.or_else(|_| File::open(v2[1].join("cpu.stat")))?)
            }
        };
        let memory = Memory::open(
            &v1("memory", &paths.memory),
            "memory.usage_in_bytes",
            "total_inactive_file ",
        )
        .or_else(|| {
            v2.iter().find_map(|dir| Memory::open(dir, "memory.current", "inactive_file "))
        });
        Ok(Cgroup { cpu, memory })
    }
}

/// Below `root`; absolute paths of groups are relative to their hierarchy.
fn join(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

impl Memory {
    fn open(dir: &Path, usage: &str, inactive: &'static str) -> Option<Self> {
        let usage = File::open(dir.join(usage)).ok()?;
        let stat = File::open(dir.join("memory.stat")).ok()?;
        Some(Self { usage, stat, inactive })
    }
}

impl Cgroup {
    /// Reads the values; `buffer` is scratch that callers share.
    ///
    /// # Errors
    /// `ENODEV` when the group is gone; `InvalidData` for an unknown form.
    pub fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Use> {
        let cpu_us = match &self.cpu {
            Cpu::V1(file) => number(text(file, buffer)?)? / 1_000,
            Cpu::V2(file) => field(text(file, buffer)?, "usage_usec ")?,
        };
        let memory_bytes = match &self.memory {
            None => 0,
            Some(memory) => {
                let used = number(text(&memory.usage, buffer)?)?;
                used.saturating_sub(field(text(&memory.stat, buffer)?, memory.inactive)?)
            }
        };
        Ok(Use { cpu_us, memory_bytes })
    }
}

fn text<'a>(file: &File, buffer: &'a mut Vec<u8>) -> io::Result<&'a str> {
    buffer.resize(buffer.len().max(8 * 1024), 0);
    let mut filled = 0;
    loop {
        let read = file.read_at(&mut buffer[filled..], filled as u64)?;
        filled += read;
        // The kernel hands out at most a page at a time, so only an empty
        // read is the end.
        if read == 0 {
            break;
        }
        if filled == MAX_TEXT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a cgroup file is too long"));
        }
        if filled == buffer.len() {
            buffer.resize((filled * 2).min(MAX_TEXT), 0);
        }
    }
    std::str::from_utf8(&buffer[..filled])
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a cgroup file is not UTF-8"))
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{:?} is not a number", text.trim()))
    })
}

fn field(text: &str, key: &str) -> io::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("no {:?} in a cgroup file", key.trim()))
    })?;
    number(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(layout: &str) -> Hierarchies {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/collect/testdata/cgroup/");
        Hierarchies::new(format!("{dir}{layout}"))
    }

    #[test]
    fn every_layout_gives_the_same_kind_of_values() {
        let mut buffer = Vec::new();
        for (layout, paths, expected) in [
            (
                "v2",
                Paths::everywhere("/system.slice/docker-c0ffee.scope"),
                Use { cpu_us: 123_456, memory_bytes: 80_000_000 },
            ),
            (
                "v1",
                Paths::everywhere("/docker/c0ffee"),
                Use { cpu_us: 987_654, memory_bytes: 40_000_000 },
            ),
            (
                "hybrid",
                Paths::parse(
                    "12:pids:/docker/c0ffee\n4:cpu,cpuacct:/docker/c0ffee\n0::/docker/c0ffee\n",
                ),
                Use { cpu_us: 5_000, memory_bytes: 7_000_000 },
            ),
            ("no-memory", Paths::everywhere("/a"), Use { cpu_us: 42, memory_bytes: 0 }),
        ] {
            let cgroup = recorded(layout).open(&paths).expect(layout);
            assert_eq!(cgroup.read(&mut buffer).expect(layout), expected, "{layout}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_or_odd_is_an_error() {
        let mut buffer = Vec::new();
        assert!(recorded("v2").open(&Paths::everywhere("/gone")).is_err());
        let odd = recorded("v2").open(&Paths::everywhere("/odd")).expect("opens");
        let error = odd.read(&mut buffer).expect_err("refused");
        assert!(error.to_string().contains("usage_usec"), "{error}");
    }

    #[test]
    fn paths_by_controller() {
        let paths = Paths::parse("4:cpu,cpuacct:/a\n3:memory:/b:c\n0::/d\nnonsense\n");
        let expected = Paths {
            cpu: "/a".into(),
            limits: "/a".into(),
            memory: "/b:c".into(),
            unified: "/d".into(),
            ..Paths::default()
        };
        assert_eq!(paths, expected);
    }
}
