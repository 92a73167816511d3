//! The machine's own part of a report.

use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::wire;

use super::{Assembler, Sources};

impl Assembler {
    pub(super) fn host_sample(
        &mut self,
        sources: &Sources<'_>,
        now: Instant,
        limit: Duration,
    ) -> wire::HostSample {
        let mut sample = wire::HostSample {
            db_connections: sources.postgres.fresh(now, limit).map_or(0, |p| p.connections_total),
            ..wire::HostSample::default()
        };
        if let Some(host) = &sources.host.value {
            sample.cpu_busy_us = host.cpu_busy_us.saturating_sub(self.host.cpu_busy_us);
            sample.network_rx_bytes =
                host.network_rx_bytes.saturating_sub(self.host.network_rx_bytes);
            sample.network_tx_bytes =
                host.network_tx_bytes.saturating_sub(self.host.network_tx_bytes);
            sample.cpu_count = host.cpu_count;
            sample.load_1m_milli = host.load_1m_milli;
            sample.memory_total_bytes = host.memory_total_bytes;
            sample.memory_used_bytes = host.memory_used_bytes;
            sample.swap_used_bytes = host.swap_used_bytes;
            sample.disk_total_bytes = host.disk_total_bytes;
            sample.disk_used_bytes = host.disk_used_bytes;
            sample.uptime_s = host.uptime_s;
            sample.pressure = host.pressure;
            self.host = host.clone();
        }
        sample
    }

    /// How the database server is, when that was read since the last round.
    pub(super) fn database(&mut self, sources: &Sources<'_>) -> Option<wire::DatabaseSample> {
        let reading = sources.postgres.value.as_ref()?.server.as_ref()?;
        if reading.number == self.server.number {
            return None;
        }
        let before = std::mem::replace(&mut self.server, reading.clone()).sample;
        let mut sample = reading.sample.clone();
        sample.blocks_hit = sample.blocks_hit.saturating_sub(before.blocks_hit);
        sample.blocks_read = sample.blocks_read.saturating_sub(before.blocks_read);
        if let Some(archiving) = &mut sample.archiving {
            let told = before.archiving.map_or(0, |archiving| archiving.failures);
            archiving.failures = archiving.failures.saturating_sub(told);
        }
        Some(sample)
    }
}
