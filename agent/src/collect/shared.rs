//! The processes that all tenants share: what they use as a whole. Those in
//! containers are read with the containers; control groups and process trees
//! are read here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::cgroup::{Cgroup, Hierarchies, Paths};
use super::counter::Counter;
use super::proc::{self, Tree, Use};
use super::source::{Outcome, Source};
use crate::config::{Config, SharedProcess};

/// How long one reading may take.
pub const LIMIT: Duration = Duration::from_secs(2);

/// By the name of the process; CPU as a total since the agent watches.
pub type SharedReading = BTreeMap<String, Use>;

enum Place {
    Cgroup { path: String, open: Option<Cgroup> },
    PidFile { path: PathBuf, pid: Option<u32> },
}

/// Whether it is the process of the last look.
enum Identity {
    Same,
    Another,
    /// The value itself will tell.
    Unknown,
}

struct Process {
    name: String,
    place: Place,
    cpu: Counter,
}

/// The source.
pub struct SharedSource {
    hierarchies: Hierarchies,
    tree: Tree,
    processes: Vec<Process>,
    buffer: Vec<u8>,
}

impl SharedSource {
    /// The processes of `[attribution]` that are found by control group or
    /// pid file.
    pub fn new(config: &Config) -> Self {
        let place = |process: &SharedProcess| match (&process.cgroup, &process.pid_file) {
            (Some(path), _) => Some(Place::Cgroup { path: path.clone(), open: None }),
            (_, Some(path)) => Some(Place::PidFile { path: path.clone(), pid: None }),
            _ => None,
        };
        let processes = config.attribution.shared.iter().filter_map(|process| {
            Some(Process {
                name: process.name.clone(),
                place: place(process)?,
                cpu: Counter::default(),
            })
        });
        Self {
            hierarchies: Hierarchies::new(&config.containers.cgroup_root),
            tree: Tree::new("/proc"),
            processes: processes.collect(),
            buffer: Vec::new(),
        }
    }

    fn sample(&mut self) -> Outcome<SharedReading> {
        if self.processes.is_empty() {
            return Outcome::Good(SharedReading::new());
        }
        let mut reading = SharedReading::new();
        let mut wrong = Vec::new();
        for process in &mut self.processes {
            let used = process.place.read(&self.hierarchies, &self.tree, &mut self.buffer);
            match used {
                Ok((used, identity)) => {
                    match identity {
                        // What came up in its place began at zero.
                        Identity::Another => process.cpu.rebase(0),
                        // A child that nobody waited for took its time along.
                        Identity::Same if process.cpu.last() > Some(used.cpu_us) => {
                            process.cpu.rebase(used.cpu_us);
                        }
                        Identity::Same | Identity::Unknown => {}
                    }
                    process.cpu.observe(used.cpu_us);
                    let cpu_us = process.cpu.total();
                    reading.insert(process.name.clone(), Use { cpu_us, ..used });
                }
                Err(why) => wrong.push(format!("{}: {why}", process.name)),
            }
        }
        match (reading.is_empty(), wrong.is_empty()) {
            (_, true) => Outcome::Good(reading),
            (false, false) => Outcome::Partial(reading, wrong.join("; ")),
            (true, false) => Outcome::Failed(wrong.join("; ")),
        }
    }
}

impl Place {
    fn read(
        &mut self,
        hierarchies: &Hierarchies,
        tree: &Tree,
        buffer: &mut Vec<u8>,
    ) -> Result<(Use, Identity), String> {
        match self {
            Self::Cgroup { path, open } => {
                let failed = |error: std::io::Error| format!("control group {path}: {error}");
                let cgroup = match open.take() {
                    Some(cgroup) => cgroup,
                    None => hierarchies.open(&Paths::everywhere(path)).map_err(failed)?,
                };
                let used = cgroup.read(buffer).map_err(failed)?;
                // Not kept after an error: a unit that restarted has a new
                // group of the same name.
                *open = Some(cgroup);
                Ok((used, Identity::Unknown))
            }
            Self::PidFile { path, pid } => {
                let now = proc::pid_file(path)?;
                let used = tree.read(now)?;
                let identity = match pid.replace(now) {
                    None => Identity::Unknown,
                    Some(before) if before == now => Identity::Same,
                    Some(_) => Identity::Another,
                };
                Ok((used, identity))
            }
        }
    }
}

impl Source for SharedSource {
    type Reading = SharedReading;

    async fn read(&mut self) -> Outcome<SharedReading> {
        self.sample()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SplitBy;

    #[test]
    fn processes_are_found_by_either_way_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid_file = dir.path().join("pid");
        std::fs::write(&pid_file, format!("{}\n/data\n", std::process::id())).expect("writes");
        let text = "[coordinator]\naddress = \"c:1\"\n";
        let mut config = Config::from_parts("x".as_ref(), text, []).expect("loads");
        config.containers.cgroup_root =
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/collect/testdata/cgroup/v2").into();
        let process = |name: &str| SharedProcess {
            name: name.into(),
            split_by: SplitBy::App,
            cgroup: None,
            pid_file: None,
            container: None,
        };
        config.attribution.shared = vec![
            SharedProcess { pid_file: Some(pid_file), ..process("ours") },
            SharedProcess {
                cgroup: Some("/system.slice/docker-c0ffee.scope".into()),
                ..process("group")
            },
            SharedProcess { pid_file: Some("/no/such.pid".into()), ..process("gone") },
            SharedProcess { container: Some("elsewhere".into()), ..process("boxed") },
        ];
        let mut source = SharedSource::new(&config);
        let Outcome::Partial(reading, why) = source.sample() else { panic!("partial") };
        assert_eq!(reading.keys().collect::<Vec<_>>(), ["group", "ours"]);
        assert_eq!(reading["group"].memory_bytes, 80_000_000);
        assert!(reading["ours"].memory_bytes > 0);
        assert!(why.starts_with("gone: /no/such.pid: "), "{why}");
    }
}
