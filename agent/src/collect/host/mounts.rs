//! The file systems that can fill up: the configured one, and every other one
//! on a disk of this machine, each once however often it is mounted.
//!
//! File systems of other machines are left out: asking for the free space of
//! one whose server is gone waits for ever.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::wire::Mount;

/// How often the table of mounts is read again.
const RELIST: Duration = Duration::from_secs(60);

/// The most that are reported, and the longest path of one in bytes.
const MAX_MOUNTS: usize = 16;
const MAX_PATH: usize = 255;

/// What lies on a disk.
const ON_DISKS: [&str; 8] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"];

/// The file systems to look at.
#[derive(Debug)]
pub struct Mounts {
    first: PathBuf,
    paths: Vec<String>,
    listed: Option<Instant>,
}

impl Mounts {
    /// `first`: a path on the file system that comes first.
    pub fn new(first: &Path) -> Self {
        Self { first: first.to_owned(), paths: Vec::new(), listed: None }
    }

    /// Size and free space of each; one that can't be asked is left out.
    pub fn read(&mut self) -> Vec<Mount> {
        if self.listed.is_none_or(|at| at.elapsed() >= RELIST) {
            self.listed = Some(Instant::now());
            self.paths = self.list();
        }
        self.paths.iter().filter_map(|path| look(path)).collect()
    }

    fn list(&self) -> Vec<String> {
        let mut paths = vec![self.first.display().to_string()];
        let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return paths };
        let mut devices: BTreeSet<u64> = device(&self.first).into_iter().collect();
        for path in on_disks(&table) {
            // Another one may lie over it, as where systemd hides /home.
            if let Some((told, path)) = path.split_device()
                && device(Path::new(&path)) == Some(told)
                && devices.insert(told)
                && paths.len() < MAX_MOUNTS
            {
                paths.push(path);
            }
        }
        paths
    }
}

fn device(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|stat| stat.st_dev)
}

fn look(path: &str) -> Option<Mount> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let mib = |blocks: u64| blocks.saturating_mul(disk.f_frsize) >> 20;
    Some(Mount { path: path.into(), total_mib: mib(disk.f_blocks), free_mib: mib(disk.f_bavail) })
}

/// One line of the table of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// "major:minor"
    device: String,
    path: String,
}

impl Line {
    fn split_device(self) -> Option<(u64, String)> {
        let (major, minor) = self.device.split_once(':')?;
        let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        Some((device, self.path))
    }
}

/// The mounts of disks in the text of `/proc/<pid>/mountinfo`, of each disk the
/// one with the shortest path, in the order of their paths.
fn on_disks(table: &str) -> Vec<Line> {
    let mut found: Vec<(&str, Line)> = Vec::new();
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let before: Vec<&str> = before.split(' ').collect();
        let mut after = after.split(' ');
        let (Some(device), Some(path)) = (before.get(2), before.get(4)) else { continue };
        let (Some(kind), Some(source)) = (after.next(), after.next()) else { continue };
        let path = plain(path);
        let fits = path.len() <= MAX_PATH && !path.chars().any(char::is_control);
        if !ON_DISKS.contains(&kind) || !fits {
            continue;
        }
        let line = Line { device: (*device).to_owned(), path };
        // Parts of one btrfs have devices of their own, but one source.
        match found.iter_mut().find(|(of, _)| *of == source) {
            Some((_, kept)) if kept.path.len() <= line.path.len() => {}
            Some((_, kept)) => *kept = line,
            None => found.push((source, line)),
        }
    }
    let mut lines: Vec<Line> = found.into_iter().map(|(_, line)| line).collect();
    lines.sort_by(|a, b| a.path.cmp(&b.path));
    lines
}

/// A path as the kernel writes it, with `\040` for a space.
fn plain(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                text.push(char::from(code));
                rest = after.get(3..).unwrap_or("");
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_table() {
        let table = include_str!("../testdata/mountinfo");
        let lines: Vec<(String, String)> =
            on_disks(table).into_iter().map(|line| (line.device, line.path)).collect();
        let expected = [("8:1", "/"), ("0:44", "/srv/my data"), ("253:3", "/var/lib/postgresql")];
        assert_eq!(lines, expected.map(|(device, path)| (device.to_owned(), path.to_owned())));
    }

    #[test]
    fn paths_of_the_table() {
        for (path, expected) in
            [(r"/a\040b", "/a b"), (r"/a\134b", r"/a\b"), (r"/a\9", r"/a\9"), (r"/a\", r"/a\")]
        {
            assert_eq!(plain(path), expected);
        }
    }

    #[test]
    fn here_the_configured_one_comes_first_and_none_twice() {
        let mut mounts = Mounts::new(Path::new("/"));
        let read = mounts.read();
        assert_eq!(read[0].path, "/");
        assert!(read.iter().all(|mount| mount.total_mib > 0 && mount.free_mib <= mount.total_mib));
        let devices: BTreeSet<_> =
            read.iter().map(|mount| device(Path::new(&mount.path))).collect();
        assert_eq!(devices.len(), read.len(), "{read:?}");
    }
}
