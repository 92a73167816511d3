//! Reading `/proc`: pure parsers of its texts, and the tree of processes
//! below one of them.

use std::path::{Path, PathBuf};

/// CPU time and memory of a group of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// CPU time since the processes began, in microseconds; counts up.
    pub cpu_us: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// Busy CPU time of the machine in clock ticks, from the first line of
/// `/proc/stat`: all but idle, waiting for disks, and stolen by the
/// hypervisor. (Guests' time is in user time already.)
pub fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let mut ticks = fields.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || ticks.next()?.ok();
    let (user, nice, system, _idle, _iowait, irq, softirq) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    Some(user + nice + system + irq + softirq)
}

/// CPU time of one process and of its children that ended, in clock ticks,
/// from `/proc/<pid>/stat`. A child's time passes to its parent when it ends,
/// so the sum over a tree counts up even while short-lived children come and
/// go.
pub fn process_ticks(stat: &str) -> Option<u64> {
    // The name may hold anything, blanks and parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let mut sum = 0;
    for _ in 0..4 {
        sum += fields.next()?.ok()?;
    }
    Some(sum)
}

/// Resident memory from `/proc/<pid>/status`, in bytes: what is the process's
/// own, and what it may share with others.
pub fn resident(status: &str) -> (u64, u64) {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.split_ascii_whitespace().next())
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    (field("RssAnon:"), field("RssFile:") + field("RssShmem:"))
}

/// A tree of processes, found anew at each reading.
#[derive(Debug)]
pub struct Tree {
    proc: PathBuf,
    tick_us: u64,
}

impl Tree {
    /// `proc`: where procfs is mounted.
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), tick_us: tick_us() }
    }

    /// CPU and memory of `root` and everything below it. Own memory is
    /// summed; what processes can share (PostgreSQL's buffers, the program
    /// itself) counts once, by the process that holds most of it.
    ///
    /// # Errors
    /// A sentence, when the root is not there.
    pub fn read(&self, root: u32) -> Result<Use, String> {
        let mut use_of_tree = Use::default();
        let mut shared = 0;
        let mut pending = vec![root];
        let mut seen = 0;
        while let Some(pid) = pending.pop() {
            seen += 1;
            if seen > 100_000 {
                return Err(format!("process {root} has more than 100000 descendants"));
            }
            let dir = self.proc.join(pid.to_string());
            let Ok(stat) = std::fs::read_to_string(dir.join("stat")) else {
                if pid == root {
                    return Err(format!("process {root} is not running"));
                }
                // It ended since its parent named it; its time is its
                // parent's now.
                continue;
            };
            if let Some(ticks) = process_ticks(&stat) {
                use_of_tree.cpu_us += ticks * self.tick_us;
            }
            if let Ok(status) = std::fs::read_to_string(dir.join("status")) {
                let (own, sharable) = resident(&status);
                use_of_tree.memory_bytes += own;
                shared = shared.max(sharable);
            }
            self.children(pid, &dir, &mut pending);
        }
        use_of_tree.memory_bytes += shared;
        Ok(use_of_tree)
    }

    /// Adds the children of every thread of a process.
    fn children(&self, pid: u32, dir: &Path, pending: &mut Vec<u32>) {
        let Ok(threads) = std::fs::read_dir(dir.join("task")) else {
            tracing::trace!(pid, proc = %self.proc.display(), "threads can't be listed");
            return;
        };
        for thread in threads.flatten() {
            // Absent when the thread ended meanwhile.
            if let Ok(children) = std::fs::read_to_string(thread.path().join("children")) {
                pending.extend(
                    children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
        }
    }
}

/// Microseconds in a clock tick.
pub fn tick_us() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// The pid in the first line of a pid file.
///
/// # Errors
/// A sentence that names the file.
pub fn pid_file(path: &Path) -> Result<u32, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let line = text.lines().next().unwrap_or("").trim();
    line.parse().map_err(|_| format!("{}: {line:?} is not a pid", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_proc() {
        assert_eq!(busy_ticks("cpu  10 2 3 400 50 6 7 8 0 0\ncpu0 1"), Some(28));
        assert_eq!(busy_ticks("cpu  10 2"), None);
        assert_eq!(busy_ticks(""), None);
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(process_ticks(stat), Some(110));
        assert_eq!(process_ticks("42 (short) S 1"), None);
        assert_eq!(
            resident("Name:\tx\nRssAnon:\t   10 kB\nRssFile:\t 4 kB\nRssShmem:\t 6 kB\n"),
            (10 * 1024, 10 * 1024)
        );
    }

    #[test]
    fn our_own_tree_has_use() {
        let own = Tree::new("/proc").read(std::process::id()).expect("reads");
        assert!(own.memory_bytes > 100_000, "{own:?}");
        let gone = Tree::new("/proc").read(u32::MAX);
        assert!(gone.is_err_and(|why| why.contains("is not running")));
    }
}
