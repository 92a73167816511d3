//! What the status says of the machine, its database server and the tenants'
//! containers beyond the figures of every round, and how people read it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use webhost_proto::wire;

use super::document::{Document, Tenant};
use super::table::{bytes, thousandths};
use crate::collect::detail::{
    Counts, Detail, OOM_KILLS, READ, RECEIVED, RESTARTS, SENT, THROTTLED, WRITTEN,
};

/// A disk with less than this part free is named as a problem.
const FULL_PART: u64 = 20;

/// How much of the last ten seconds somebody (some) or everybody (full) waited,
/// in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu_some_bp: u32,
    pub memory_some_bp: u32,
    pub memory_full_bp: u32,
    pub io_some_bp: u32,
    pub io_full_bp: u32,
}

/// One file system; free is for others than root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub path: String,
    pub total_mib: u64,
    pub free_mib: u64,
}

/// The tenants' database server. Counts are since the agent watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    pub blocks_hit: u64,
    pub blocks_read: u64,
    pub waiting_locks: u64,
    pub oldest_transaction_us: u64,
    pub standbys: Vec<Standby>,
    /// Statements that take over a second on average; absent without
    /// pg_stat_statements.
    pub slow_statements: Option<u64>,
    /// Whether the latest segment was archived; absent without an archive.
    pub archiving: Option<bool>,
    pub archive_failures: u64,
    /// Since the latest archived segment.
    pub archive_age_us: Option<u64>,
}

/// A receiver of write-ahead log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    pub name: String,
    pub state: String,
    pub lag_bytes: u64,
    pub lag_us: Option<u64>,
}

/// A tenant's own containers and control groups. Counts are since the agent
/// watches; absent is what nothing here tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    pub cpu_throttled_us: Option<u64>,
    pub oom_kills: Option<u64>,
    pub io_read_bytes: Option<u64>,
    pub io_written_bytes: Option<u64>,
    pub network_rx_bytes: Option<u64>,
    pub network_tx_bytes: Option<u64>,
    pub restarts: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Containers whose own health check fails.
    pub unhealthy: Option<u64>,
}

impl Groups {
    /// Of counts since the agent watches, and the gauges of `now`; none where
    /// nothing is known.
    pub fn of(counted: &Counts, now: &Detail) -> Option<Self> {
        let groups = Self {
            cpu_throttled_us: counted[THROTTLED],
            oom_kills: counted[OOM_KILLS],
            io_read_bytes: counted[READ],
            io_written_bytes: counted[WRITTEN],
            network_rx_bytes: counted[RECEIVED],
            network_tx_bytes: counted[SENT],
            restarts: counted[RESTARTS],
            tasks: now.tasks,
            unhealthy: now.unhealthy,
        };
        (groups != Self::default()).then_some(groups)
    }

    /// What a person has to know, in words; empty when all is well.
    fn trouble(&self) -> String {
        let told = [
            (self.oom_kills, "killed for memory"),
            (self.restarts, "restarts"),
            (self.unhealthy, "unhealthy"),
        ];
        let words = told.iter().filter_map(|(count, what)| {
            count.filter(|count| *count > 0).map(|count| format!("{count} {what}"))
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

impl Pressure {
    /// As the kernel's files had it.
    pub fn of(told: wire::Pressure) -> Self {
        Self {
            cpu_some_bp: told.cpu_some_bp,
            memory_some_bp: told.memory_some_bp,
            memory_full_bp: told.memory_full_bp,
            io_some_bp: told.io_some_bp,
            io_full_bp: told.io_full_bp,
        }
    }
}

impl Mount {
    /// As it was read.
    pub fn of(read: &wire::Mount) -> Self {
        Self { path: read.path.clone(), total_mib: read.total_mib, free_mib: read.free_mib }
    }
}

impl Database {
    /// As it was read.
    pub fn of(read: &wire::DatabaseSample) -> Self {
        let standby = |standby: &wire::Standby| Standby {
            name: standby.name.clone(),
            state: standby.state.clone(),
            lag_bytes: standby.lag_bytes,
            lag_us: standby.lag_us,
        };
        Self {
            blocks_hit: read.blocks_hit,
            blocks_read: read.blocks_read,
            waiting_locks: read.waiting_locks,
            oldest_transaction_us: read.oldest_transaction_us,
            standbys: read.standbys.iter().map(standby).collect(),
            slow_statements: read.slow_statements,
            archiving: read.archiving.map(|archiving| archiving.working),
            archive_failures: read.archiving.map_or(0, |archiving| archiving.failures),
            archive_age_us: read.archiving.and_then(|archiving| archiving.age_us),
        }
    }
}

/// What is wrong with the machine and its database, in sentences.
pub(super) fn problems(document: &Document) -> impl Iterator<Item = String> + '_ {
    let full =
        document.host.mounts.iter().filter(|mount| mount.free_mib < mount.total_mib / FULL_PART);
    let full = full.map(|mount| {
        let free = bytes(mount.free_mib << 20);
        format!("disk {}: {free} of {} are free", mount.path, bytes(mount.total_mib << 20))
    });
    let archive = document.database.as_ref().filter(|found| found.archiving == Some(false));
    full.chain(archive.map(|_| {
        "postgres: write-ahead log is not archived, so backups end here: \
         select * from pg_stat_archiver says since when"
            .to_owned()
    }))
}

/// The lines of the machine and its database.
pub(super) fn head(text: &mut String, document: &Document) -> std::fmt::Result {
    if let Some(pressure) = &document.host.pressure {
        let percent = |bp: u32| thousandths(u64::from(bp) * 10);
        writeln!(
            text,
            "pressure     cpu {} %, memory {} % (all {} %), disk {} % (all {} %)",
            percent(pressure.cpu_some_bp),
            percent(pressure.memory_some_bp),
            percent(pressure.memory_full_bp),
            percent(pressure.io_some_bp),
            percent(pressure.io_full_bp),
        )?;
    }
    for mount in document.host.mounts.iter().skip(1) {
        let (free, total) = (bytes(mount.free_mib << 20), bytes(mount.total_mib << 20));
        writeln!(text, "disk         {:<12} {free} of {total} free", mount.path)?;
    }
    if let Some((offset_us, error_us)) = document.connection.clock {
        let sign = if offset_us < 0 { "behind" } else { "before" };
        let (offset, error) = (thousandths(offset_us.unsigned_abs()), thousandths(error_us));
        writeln!(text, "clock        {offset} ms {sign} the coordinator's, within {error} ms")?;
    }
    if let Some(database) = &document.database {
        lines(text, database)?;
    }
    Ok(())
}

fn lines(text: &mut String, database: &Database) -> std::fmt::Result {
    let asked = database.blocks_hit + database.blocks_read;
    let hit = (database.blocks_hit.saturating_mul(100_000)).checked_div(asked);
    let hit = hit.map_or_else(|| "-".into(), |share| format!("{} %", thousandths(share)));
    write!(
        text,
        "database     {hit} from cache, {} wait for locks, oldest transaction {} s",
        database.waiting_locks,
        thousandths(database.oldest_transaction_us / 1_000)
    )?;
    if let Some(slow) = database.slow_statements {
        write!(text, ", {slow} slow statements")?;
    }
    match (database.archiving, database.archive_age_us) {
        (Some(true), Some(age)) => {
            write!(text, ", archived {} s ago", thousandths(age / 1_000))?;
        }
        (Some(true), None) => write!(text, ", nothing archived yet")?,
        (Some(false), _) => {
            write!(text, ", {} attempts to archive failed", database.archive_failures)?
        }
        (None, _) => {}
    }
    writeln!(text)?;
    for standby in &database.standbys {
        let lag = standby.lag_us.map(|us| format!(", {} s", thousandths(us / 1_000)));
        let behind = bytes(standby.lag_bytes);
        writeln!(
            text,
            "standby      {:<12} {}, {behind} behind{}",
            standby.name,
            standby.state,
            lag.unwrap_or_default()
        )?;
    }
    Ok(())
}

/// Tenants whose containers are in trouble, below the table.
pub(super) fn troubled(text: &mut String, tenants: &[Tenant]) -> std::fmt::Result {
    for tenant in tenants {
        let trouble = tenant.groups.as_ref().map(Groups::trouble).unwrap_or_default();
        if !trouble.is_empty() {
            let name = if tenant.slug.is_empty() { &tenant.id } else { &tenant.slug };
            writeln!(text, "! {name}: {trouble} (since the agent watches)")?;
        }
    }
    Ok(())
}

/// The lines of one tenant.
pub(super) fn one(text: &mut String, groups: &Groups) -> std::fmt::Result {
    let shown = [
        ("throttled", groups.cpu_throttled_us.map(|us| format!("{} s", thousandths(us / 1_000)))),
        ("oom kills", groups.oom_kills.map(|count| count.to_string())),
        ("restarts", groups.restarts.map(|count| count.to_string())),
        ("unhealthy", groups.unhealthy.map(|count| count.to_string())),
        ("tasks", groups.tasks.map(|count| count.to_string())),
        ("disk read", groups.io_read_bytes.map(bytes)),
        ("written", groups.io_written_bytes.map(bytes)),
        ("received", groups.network_rx_bytes.map(bytes)),
        ("sent", groups.network_tx_bytes.map(bytes)),
    ];
    for (name, value) in shown {
        if let Some(value) = value {
            writeln!(text, "{name:<12} {value:>12}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::Host;

    fn database() -> Database {
        Database {
            blocks_hit: 995,
            blocks_read: 5,
            waiting_locks: 2,
            oldest_transaction_us: 61_200_000,
            standbys: vec![Standby {
                name: "replica".into(),
                state: "streaming".into(),
                lag_bytes: 2_048,
                lag_us: None,
            }],
            slow_statements: Some(3),
            archiving: Some(true),
            archive_failures: 0,
            archive_age_us: Some(5_000_000),
        }
    }

    #[test]
    fn the_machines_lines() {
        let mut document = Document {
            host: Host {
                pressure: Some(Pressure { cpu_some_bp: 1_030, ..Pressure::default() }),
                mounts: vec![
                    Mount { path: "/".into(), total_mib: 1_000, free_mib: 500 },
                    Mount { path: "/srv".into(), total_mib: 4_096, free_mib: 100 },
                ],
                ..Host::default()
            },
            database: Some(database()),
            ..Document::default()
        };
        document.connection.clock = Some((-1_500, 250));
        let mut text = String::new();
        head(&mut text, &document).expect("a text");
        assert_eq!(
            text,
            "pressure     cpu 10.3 %, memory 0.0 % (all 0.0 %), disk 0.0 % (all 0.0 %)\n\
             disk         /srv         100.0 MiB of 4.0 GiB free\n\
             clock        1.5 ms behind the coordinator's, within 0.3 ms\n\
             database     99.5 % from cache, 2 wait for locks, oldest transaction 61.2 s, \
             3 slow statements, archived 5.0 s ago\n\
             standby      replica      streaming, 2.0 KiB behind\n"
        );
        let wrong: Vec<String> = problems(&document).collect();
        assert_eq!(wrong, ["disk /srv: 100.0 MiB of 4.0 GiB are free"]);
        document.host.mounts.clear();
        document.database = Some(Database { archiving: Some(false), ..database() });
        let wrong: Vec<String> = problems(&document).collect();
        assert!(wrong.len() == 1 && wrong[0].contains("not archived"), "{wrong:?}");
    }

    #[test]
    fn a_tenants_trouble_is_told_and_health_is_not() {
        let mut counted = Counts::default();
        assert_eq!(Groups::of(&counted, &Detail::default()), None);
        counted[OOM_KILLS] = Some(2);
        counted[RESTARTS] = Some(0);
        counted[SENT] = Some(4_096);
        let now = Detail { unhealthy: Some(1), ..Detail::default() };
        let groups = Groups::of(&counted, &now).expect("known");
        let tenants = [
            Tenant { slug: "acme".into(), groups: Some(groups), ..Tenant::default() },
            Tenant { slug: "well".into(), ..Tenant::default() },
        ];
        let mut text = String::new();
        troubled(&mut text, &tenants).expect("a text");
        assert_eq!(text, "! acme: 2 killed for memory, 1 unhealthy (since the agent watches)\n");
        text.clear();
        one(&mut text, &groups).expect("a text");
        assert!(text.contains("sent              4.0 KiB") && !text.contains("tasks"), "{text}");
    }
}
