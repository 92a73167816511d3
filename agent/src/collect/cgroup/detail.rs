//! What a control group says beyond CPU and memory, where its layout has it:
//!
//! | value | v2 | v1 |
//! |---|---|---|
//! | held back by its limit | `cpu.stat`: `throttled_usec` | `cpu.stat`: `throttled_time` (ns) |
//! | killed for memory | `memory.events`: `oom_kill` | `memory.oom_control`: `oom_kill` |
//! | block devices | `io.stat` | `blkio.throttle.io_service_bytes_recursive` |
//! | tasks | `pids.current` | the same |
//!
//! A hybrid machine has each of them in one of both places. What is in neither
//! is not known, which is not zero.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::{Hierarchies, Paths, field, join, number, text};

/// One reading. All but `tasks` count up since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    pub throttled_us: Option<u64>,
    pub oom_kills: Option<u64>,
    pub read_bytes: Option<u64>,
    pub written_bytes: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// The open files of one control group.
#[derive(Debug, Default)]
pub struct DetailFiles {
    throttled: Option<(File, Throttled)>,
    ooms: Option<File>,
    devices: Option<(File, Devices)>,
    tasks: Option<File>,
}

#[derive(Clone, Copy, Debug)]
enum Throttled {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug)]
enum Devices {
    /// `8:0 Read 4096`, a line for each kind.
    V1,
    /// `8:0 rbytes=4096 wbytes=0 …`, a line for each device.
    V2,
}

impl Hierarchies {
    /// Opens what there is of a group's other files.
    pub fn open_detail(&self, paths: &Paths) -> DetailFiles {
        let v1 = |trees: &[&str], path: &str, file: &str| {
            let mut trees = trees.iter().filter(|_| is_group(path));
            trees.find_map(|tree| File::open(join(&self.root.join(tree), path).join(file)).ok())
        };
        let v2 =
            |file: &str| self.unified(paths).iter().find_map(|dir| File::open(dir.join(file)).ok());
        let cpu = ["cpu,cpuacct", "cpu"];
        let bytes =
            ["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"];
        DetailFiles {
            throttled: v1(&cpu, &paths.limits, "cpu.stat")
                .map(|file| (file, Throttled::V1))
                .or_else(|| v2("cpu.stat").map(|file| (file, Throttled::V2))),
            ooms: v1(&["memory"], &paths.memory, "memory.oom_control")
                .or_else(|| v2("memory.events")),
            devices: bytes
                .iter()
                .find_map(|file| v1(&["blkio"], &paths.devices, file))
                .map(|file| (file, Devices::V1))
                .or_else(|| v2("io.stat").map(|file| (file, Devices::V2))),
            tasks: v1(&["pids"], &paths.tasks, "pids.current").or_else(|| v2("pids.current")),
        }
    }

    /// A process of the group, the first that the kernel names: of a container
    /// its init, as long as that lives.
    pub fn first_process(&self, paths: &Paths) -> Option<u32> {
        let trees = [("memory", &paths.memory), ("pids", &paths.tasks), ("cpuacct", &paths.cpu)];
        let v1 = trees
            .iter()
            .filter(|(_, path)| is_group(path))
            .map(|(tree, path)| join(&self.root.join(tree), path));
        self.unified(paths).into_iter().chain(v1).find_map(|dir| {
            let list = std::fs::read_to_string(dir.join("cgroup.procs")).ok()?;
            // One that this process's namespace doesn't know is called 0.
            list.lines().filter_map(|line| line.parse().ok()).find(|pid| *pid > 0)
        })
    }

    fn unified(&self, paths: &Paths) -> Vec<PathBuf> {
        let trees = [self.root.clone(), self.root.join("unified")];
        let path = &paths.unified;
        trees.iter().filter(|_| is_group(path)).map(|tree| join(tree, path)).collect()
    }
}

/// A container that a hierarchy doesn't keep apart is in its root, whose
/// values are the whole machine's.
fn is_group(path: &str) -> bool {
    !path.trim_matches('/').is_empty()
}

impl DetailFiles {
    /// Reads the values; `buffer` is scratch that callers share.
    ///
    /// # Errors
    /// `ENODEV` when the group is gone; `InvalidData` for an unknown form.
    pub fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Detail> {
        let mut detail = Detail::default();
        if let Some((file, layout)) = &self.throttled {
            let text = text(file, buffer)?;
            // Without the controller the file has the time that was used alone.
            detail.throttled_us = match layout {
                Throttled::V1 => optional(text, "throttled_time ")?.map(|nanos| nanos / 1_000),
                Throttled::V2 => optional(text, "throttled_usec ")?,
            };
        }
        if let Some(file) = &self.ooms {
            // A kernel before 4.13 doesn't count them.
            detail.oom_kills = optional(text(file, buffer)?, "oom_kill ")?;
        }
        if let Some((file, layout)) = &self.devices {
            let (read, written) = match layout {
                Devices::V1 => service_bytes(text(file, buffer)?)?,
                Devices::V2 => io_stat(text(file, buffer)?)?,
            };
            detail.read_bytes = Some(read);
            detail.written_bytes = Some(written);
        }
        if let Some(file) = &self.tasks {
            detail.tasks = Some(number(text(file, buffer)?)?);
        }
        Ok(detail)
    }
}

fn optional(text: &str, key: &str) -> io::Result<Option<u64>> {
    if text.lines().any(|line| line.starts_with(key)) {
        field(text, key).map(Some)
    } else {
        Ok(None)
    }
}

fn service_bytes(text: &str) -> io::Result<(u64, u64)> {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(1);
        let sum = match words.next() {
            Some("Read") => &mut read,
            Some("Write") => &mut written,
            _ => continue,
        };
        *sum = sum.saturating_add(number(words.next().unwrap_or(""))?);
    }
    Ok((read, written))
}

fn io_stat(text: &str) -> io::Result<(u64, u64)> {
    let (mut read, mut written) = (0_u64, 0_u64);
    // A device that was never used may stand there without a word.
    for word in text.split_ascii_whitespace() {
        if let Some(value) = word.strip_prefix("rbytes=") {
            read = read.saturating_add(number(value)?);
        } else if let Some(value) = word.strip_prefix("wbytes=") {
            written = written.saturating_add(number(value)?);
        }
    }
    Ok((read, written))
}

#[cfg(test)]
mod tests;
