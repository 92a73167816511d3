//! What a node's newest reports say of its machine and of its tenants' database
//! server, beyond the load that placement counts.

use serde::Serialize;
use webhost_proto::wire;

/// How much of the last ten seconds somebody (some) or everybody (full) on the
/// node waited, in ten-thousandths.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodePressure {
    pub cpu_some_bp: u32,
    pub memory_some_bp: u32,
    pub memory_full_bp: u32,
    pub io_some_bp: u32,
    pub io_full_bp: u32,
}

/// One file system of a node; free is for others than root.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeMount {
    pub path: String,
    pub total_mib: u64,
    pub free_mib: u64,
}

/// The tenants' database server. Counts are since this coordinator started.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeDatabase {
    pub blocks_hit: u64,
    pub blocks_read: u64,
    pub waiting_locks: u64,
    pub oldest_transaction_us: u64,
    pub standbys: Vec<NodeStandby>,
    /// Statements that take over a second on average; null where the server
    /// doesn't count them.
    pub slow_statements: Option<u64>,
    /// Whether the latest segment of write-ahead log was archived; null without
    /// an archive.
    pub archiving: Option<bool>,
    pub archive_failures: u64,
    pub archive_age_us: Option<u64>,
}

/// A receiver of write-ahead log.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeStandby {
    pub name: String,
    pub state: String,
    pub lag_bytes: u64,
    pub lag_us: Option<u64>,
}

/// Whether what the customer uses on the node is alive: each check, and
/// "healthy", "degraded" (one that is not vital is down, or one just failed) or
/// "down" for all.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeHealth {
    pub overall: &'static str,
    /// When the checks were made, microseconds since the Unix epoch.
    pub at_us: i64,
    pub checks: Vec<NodeCheck>,
}

/// One check: "degraded" after a failure, "down" after three in a row.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeCheck {
    pub name: String,
    pub state: &'static str,
    /// Microseconds until its answer, or its failure.
    pub took_us: u64,
    /// In a row.
    pub failures: u32,
    /// Why it failed; empty when it did not.
    pub message: String,
}

fn health_word(state: i32) -> &'static str {
    match wire::HealthState::try_from(state) {
        Ok(wire::HealthState::Healthy) => "healthy",
        Ok(wire::HealthState::Degraded) => "degraded",
        Ok(wire::HealthState::Down) => "down",
        _ => "unknown",
    }
}

/// The newest of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pressure: Option<wire::Pressure>,
    clock: Option<wire::Clock>,
    mounts: Vec<wire::Mount>,
    database: Option<wire::DatabaseSample>,
    health: Option<(i64, wire::HealthChecks)>,
}

impl Machine {
    /// Takes in one report that ended at `at_us`; gauges only of the `newest`.
    pub(super) fn apply(&mut self, report: &wire::Report, at_us: i64, newest: bool) {
        let before = self.database.clone().unwrap_or_default();
        if let Some(told) = &report.database {
            let kept = if newest { told } else { &before };
            let mut kept = kept.clone();
            kept.blocks_hit = before.blocks_hit.saturating_add(told.blocks_hit);
            kept.blocks_read = before.blocks_read.saturating_add(told.blocks_read);
            if let Some(archiving) = &mut kept.archiving {
                let failures = |of: &wire::DatabaseSample| of.archiving.map_or(0, |a| a.failures);
                archiving.failures = failures(&before).saturating_add(failures(told));
            }
            self.database = Some(kept);
        }
        if !newest {
            return;
        }
        self.mounts.clone_from(&report.mounts);
        if let Some(told) = &report.checks {
            self.health = Some((at_us, told.clone()));
        }
        if let Some(host) = &report.host {
            self.pressure = host.pressure;
            // Told once a session.
            self.clock = host.clock.or(self.clock);
        }
    }

    pub(super) fn pressure(&self) -> Option<NodePressure> {
        self.pressure.map(|told| NodePressure {
            cpu_some_bp: told.cpu_some_bp,
            memory_some_bp: told.memory_some_bp,
            memory_full_bp: told.memory_full_bp,
            io_some_bp: told.io_some_bp,
            io_full_bp: told.io_full_bp,
        })
    }

    /// How far its clock is before ours, and within what, in microseconds.
    pub(super) fn clock(&self) -> Option<(i64, u64)> {
        self.clock.map(|told| (told.offset_us, told.error_us))
    }

    pub(super) fn mounts(&self) -> Vec<NodeMount> {
        let mount = |told: &wire::Mount| NodeMount {
            path: told.path.clone(),
            total_mib: told.total_mib,
            free_mib: told.free_mib,
        };
        self.mounts.iter().map(mount).collect()
    }

    pub(super) fn health(&self) -> Option<NodeHealth> {
        let (at_us, told) = self.health.as_ref()?;
        let check = |told: &wire::HealthCheck| NodeCheck {
            name: told.name.clone(),
            state: health_word(told.state),
            took_us: told.took_us,
            failures: told.failures,
            message: told.message.clone(),
        };
        let checks = told.checks.iter().map(check).collect();
        Some(NodeHealth { overall: health_word(told.overall), at_us: *at_us, checks })
    }

    pub(super) fn database(&self) -> Option<NodeDatabase> {
        let told = self.database.as_ref()?;
        let standby = |told: &wire::Standby| NodeStandby {
            name: told.name.clone(),
            state: told.state.clone(),
            lag_bytes: told.lag_bytes,
            lag_us: told.lag_us,
        };
        Some(NodeDatabase {
            blocks_hit: told.blocks_hit,
            blocks_read: told.blocks_read,
            waiting_locks: told.waiting_locks,
            oldest_transaction_us: told.oldest_transaction_us,
            standbys: told.standbys.iter().map(standby).collect(),
            slow_statements: told.slow_statements,
            archiving: told.archiving.map(|archiving| archiving.working),
            archive_failures: told.archiving.map_or(0, |archiving| archiving.failures),
            archive_age_us: told.archiving.and_then(|archiving| archiving.age_us),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_gauges_are_the_newest_ones() {
        let report = |hit, locks, failures, clock| wire::Report {
            host: Some(wire::HostSample { clock, ..Default::default() }),
            mounts: vec![wire::Mount { path: "/".into(), total_mib: 9, free_mib: locks }],
            database: Some(wire::DatabaseSample {
                blocks_hit: hit,
                waiting_locks: locks,
                archiving: Some(wire::Archiving { failures, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let checks = |overall: wire::HealthState| {
            let check = wire::HealthCheck { name: "app".into(), ..Default::default() };
            Some(wire::HealthChecks { overall: overall.into(), checks: vec![check] })
        };
        let told = |overall| wire::Report { checks: checks(overall), ..Default::default() };
        let clock = Some(wire::Clock { offset_us: -5, error_us: 2 });
        let mut machine = Machine::default();
        machine.apply(&report(10, 1, 1, clock), 10, true);
        machine.apply(&report(20, 2, 0, None), 20, true);
        // Of an hour that is over, out of the spool.
        machine.apply(&report(30, 3, 5, None), 15, false);
        machine.apply(&wire::Report::default(), 16, false);
        machine.apply(&told(wire::HealthState::Down), 30, true);
        machine.apply(&told(wire::HealthState::Healthy), 17, false);
        // The next report has no checks: they are made less often.
        machine.apply(&report(0, 2, 0, None), 40, true);
        let health = machine.health().expect("told");
        assert_eq!((health.overall, health.at_us), ("down", 30));
        assert_eq!((health.checks[0].name.as_str(), health.checks[0].state), ("app", "unknown"));
        let database = machine.database().expect("told");
        assert_eq!((database.blocks_hit, database.waiting_locks), (60, 2));
        assert_eq!(database.archive_failures, 6);
        assert_eq!(machine.mounts()[0].free_mib, 2);
        assert_eq!(machine.clock(), Some((-5, 2)), "the session's");
        assert!(machine.pressure().is_none());
    }
}
