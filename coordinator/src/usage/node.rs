//! What is kept of one node: the load of its host, over the same short window
//! as its tenants' rates.

use serde::Serialize;
use webhost_proto::ids::NodeId;
use webhost_proto::wire;

use super::machine::{Machine, NodeDatabase, NodeHealth, NodeMount, NodePressure};

const SLOTS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    index: i64,
    covered_us: u64,
    busy_us: u64,
}

/// One node, as reports come in.
#[derive(Clone, Debug)]
pub struct TrackedNode {
    at_us: i64,
    slot_us: i64,
    slots: [Slot; SLOTS],
    host: wire::HostSample,
    machine: Machine,
    sources: Vec<wire::SourceHealth>,
    reports: u64,
}

impl TrackedNode {
    /// Nothing known yet.
    pub fn new(window_us: i64) -> Self {
        Self {
            at_us: 0,
            slot_us: (window_us / SLOTS as i64).max(1_000_000),
            slots: [Slot::default(); SLOTS],
            host: wire::HostSample::default(),
            machine: Machine::default(),
            sources: Vec::new(),
            reports: 0,
        }
    }

    /// Takes in one report that ended at `at_us`.
    pub fn apply(&mut self, report: &wire::Report, at_us: i64, interval_us: u64) {
        self.reports += 1;
        self.machine.apply(report, at_us, at_us >= self.at_us);
        if let Some(host) = &report.host {
            let index = at_us / self.slot_us;
            let slot =
                &mut self.slots[usize::try_from(index.rem_euclid(SLOTS as i64)).unwrap_or(0)];
            if slot.index < index {
                *slot = Slot { index, ..Slot::default() };
            }
            if slot.index == index {
                slot.covered_us += interval_us;
                slot.busy_us += host.cpu_busy_us;
            }
            if at_us >= self.at_us {
                self.host = *host;
            }
        }
        if at_us >= self.at_us {
            self.at_us = at_us;
            self.sources.clone_from(&report.sources);
        }
    }

    /// What is known at `now_us`.
    pub fn usage(&self, node: NodeId, now_us: i64) -> NodeUsage {
        let now_slot = now_us / self.slot_us;
        let (mut covered, mut busy) = (0_u64, 0_u64);
        for slot in &self.slots {
            if slot.index > now_slot - SLOTS as i64 && slot.index <= now_slot {
                covered += slot.covered_us;
                busy += slot.busy_us;
            }
        }
        let millicores = (covered > 0).then(|| {
            u64::try_from(u128::from(busy) * 1000 / u128::from(covered)).unwrap_or(u64::MAX)
        });
        let cpus = u64::from(self.host.cpu_count);
        NodeUsage {
            node,
            at_us: self.at_us,
            reports: self.reports,
            cpu_millicores: millicores,
            cpu_count: self.host.cpu_count,
            cpu_bp: millicores.filter(|_| cpus > 0).map(|used| {
                // Counters of two clocks may disagree by a little.
                (used * 10 / cpus).min(10_000)
            }),
            load_1m_milli: self.host.load_1m_milli,
            memory_used_bytes: self.host.memory_used_bytes,
            memory_total_bytes: self.host.memory_total_bytes,
            disk_used_bytes: self.host.disk_used_bytes,
            disk_total_bytes: self.host.disk_total_bytes,
            db_connections: self.host.db_connections,
            uptime_s: self.host.uptime_s,
            pressure: self.machine.pressure(),
            clock_offset_us: self.machine.clock().map(|(offset, _)| offset),
            clock_error_us: self.machine.clock().map(|(_, error)| error),
            mounts: self.machine.mounts(),
            database: self.machine.database(),
            health: self.machine.health(),
            sources: self
                .sources
                .iter()
                .map(|source| Source {
                    name: source.source.clone(),
                    state: match wire::SourceState::try_from(source.state) {
                        Ok(wire::SourceState::Ok) => "ok",
                        Ok(wire::SourceState::Degraded) => "degraded",
                        Ok(wire::SourceState::Off) => "off",
                        _ => "unknown",
                    },
                    message: source.message.clone(),
                })
                .collect(),
        }
    }
}

/// What is known of a node at one moment.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeUsage {
    #[schema(value_type = String)]
    pub node: NodeId,
    /// When its newest report was made, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Reports applied since this coordinator started.
    pub reports: u64,
    /// Busy, over the window, in thousandths of a core.
    pub cpu_millicores: Option<u64>,
    pub cpu_count: u32,
    /// Busy, in ten-thousandths of the machine.
    pub cpu_bp: Option<u64>,
    pub load_1m_milli: u32,
    pub memory_used_bytes: u64,
    pub memory_total_bytes: u64,
    pub disk_used_bytes: u64,
    pub disk_total_bytes: u64,
    pub db_connections: u64,
    pub uptime_s: u64,
    /// Null where the node's kernel doesn't measure it.
    pub pressure: Option<NodePressure>,
    /// How far its clock was before this coordinator's when its session began,
    /// and by how much that may be wrong.
    pub clock_offset_us: Option<i64>,
    pub clock_error_us: Option<u64>,
    /// Its file systems on disks.
    pub mounts: Vec<NodeMount>,
    /// Its tenants' database server; null before it was read.
    pub database: Option<NodeDatabase>,
    /// Of the checks that its agent is told to make; null where there are none.
    pub health: Option<NodeHealth>,
    pub sources: Vec<Source>,
}

/// The health of one source of metrics on a node.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Source {
    pub name: String,
    pub state: &'static str,
    pub message: String,
}
