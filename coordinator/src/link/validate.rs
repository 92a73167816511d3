//! What a message of an agent must be like before anybody else sees it: every
//! count and size has a bound. Pure.

use std::collections::HashSet;

use webhost_proto::ids::TenantId;
use webhost_proto::wire::{self, Basis, Metric, SourceState};
use webhost_proto::{MAX_COUNTRIES, PROTOCOL_VERSION};

/// Histogram buckets included.
pub const MAX_COLUMNS: usize = webhost_proto::short::MAX_COLUMNS;
/// Sources of one agent.
pub const MAX_SOURCES: usize = 16;
/// File systems of a node.
pub const MAX_MOUNTS: usize = webhost_proto::short::MAX_MOUNTS;
/// Health checks of a node.
pub const MAX_CHECKS: usize = 32;
/// Receivers of a node's write-ahead log.
pub const MAX_STANDBYS: usize = 32;
/// Bytes of a path or a name.
const MAX_WORD: usize = 255;
/// One value, and one number of the host: what a signed 64-bit sum of many
/// still holds.
pub const MAX_VALUE: u64 = 1 << 53;
/// An agent that was away merges reports; none covers more than a day.
pub const MAX_INTERVAL_MS: u32 = 24 * 3600 * 1000;

/// The dictionary that a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// As the agent numbered it.
    pub version: u32,
    /// How many tenants it names.
    pub tenants: usize,
}

/// What a sound report asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it on; the session holds this dictionary from now on.
    Apply(Held),
    /// It refers to a dictionary that the session doesn't hold.
    NeedDictionary,
}

/// Checks a report against the bounds and the dictionary that is held.
///
/// # Errors
/// What is wrong, naming the field; the session ends.
pub fn validate_report(
    report: &wire::Report,
    max_tenants: usize,
    held: Option<Held>,
) -> Result<Verdict, String> {
    if report.epoch == 0 || i64::try_from(report.epoch).is_err() {
        return Err(format!("report.epoch {} is out of range", report.epoch));
    }
    if report.sequence == 0 || i64::try_from(report.sequence).is_err() {
        return Err(format!("report.sequence {} is out of range", report.sequence));
    }
    if report.collected_at_us <= 0 {
        return Err("report.collected_at_us must be positive".into());
    }
    if report.interval_ms == 0 || report.interval_ms > MAX_INTERVAL_MS {
        return Err(format!("report.interval_ms {} is out of range", report.interval_ms));
    }
    host(report.host.as_ref())?;
    sources(&report.sources)?;
    let carried = report.dictionary.as_ref().map(|sent| dictionary(sent, max_tenants));
    let held = carried.transpose()?.or(held);
    let Some(held) = held.filter(|held| held.version == report.dictionary_version) else {
        if report.dictionary.is_some() {
            return Err("report.dictionary has another version than dictionary_version".into());
        }
        return Ok(Verdict::NeedDictionary);
    };
    columns(report, held.tenants)?;
    mounts(&report.mounts)?;
    report.database.as_ref().map_or(Ok(()), database)?;
    minutes(&report.minutes, held.tenants)?;
    report.checks.as_ref().map_or(Ok(()), checks)?;
    Ok(Verdict::Apply(held))
}

fn dictionary(sent: &wire::TenantDictionary, max_tenants: usize) -> Result<Held, String> {
    if sent.tenants.len() > max_tenants {
        let found = sent.tenants.len();
        return Err(format!("the dictionary names {found} tenants, at most {max_tenants} may be"));
    }
    let mut seen = HashSet::with_capacity(sent.tenants.len());
    for tenant in &sent.tenants {
        let id = TenantId::from_wire(&tenant.tenant_id).map_err(|error| error.to_string())?;
        if !seen.insert(id) {
            return Err(format!("the dictionary names tenant {id} twice"));
        }
        if tenant.slug.len() > 128 {
            return Err(format!("the slug of tenant {id} is longer than 128 bytes"));
        }
    }
    Ok(Held { version: sent.version, tenants: sent.tenants.len() })
}

fn columns(report: &wire::Report, tenants: usize) -> Result<(), String> {
    let found = report.columns.len() + report.more_columns.len();
    if found > MAX_COLUMNS {
        return Err(format!("{found} columns, at most {MAX_COLUMNS} may be"));
    }
    let mut seen = HashSet::with_capacity(found);
    let first = report.columns.iter().map(|column| (false, column));
    for (later, column) in first.chain(report.more_columns.iter().map(|column| (true, column))) {
        let metric = Metric::try_from(column.metric)
            .ok()
            .filter(|metric| *metric != Metric::Unspecified)
            .ok_or_else(|| format!("metric {} is unknown", column.metric))?;
        let name = metric.as_str_name();
        if webhost_proto::short::is_later(metric) != later {
            return Err(format!("{name} stands among the wrong columns"));
        }
        let basis = Basis::try_from(column.basis)
            .ok()
            .filter(|basis| *basis != Basis::Unspecified)
            .ok_or_else(|| format!("{name}: basis {} is unknown", column.basis))?;
        if column.bound != 0 && metric != Metric::RequestDurationBucket {
            return Err(format!("{name} has a bound, which only buckets have"));
        }
        if !seen.insert((metric, basis, column.bound)) {
            return Err(format!("{name} comes twice with one basis and bound"));
        }
        let expected = present(column, tenants).map_err(|what| format!("{name}: {what}"))?;
        if column.values.len() != expected {
            let found = column.values.len();
            return Err(format!("{name} has {found} values where {expected} were announced"));
        }
        if let Some(value) = column.values.iter().find(|value| **value > MAX_VALUE) {
            return Err(format!("{name} has the value {value}, beyond {MAX_VALUE}"));
        }
    }
    Ok(())
}

/// How many values the column's bitmap announces.
fn present(column: &wire::Column, tenants: usize) -> Result<usize, String> {
    if column.present.is_empty() {
        return Ok(tenants);
    }
    let bytes = tenants.div_ceil(8);
    if column.present.len() != bytes {
        let found = column.present.len();
        return Err(format!("its bitmap has {found} bytes where {bytes} fit the dictionary"));
    }
    let spare = bytes * 8 - tenants;
    let last = column.present.last().copied().unwrap_or(0);
    if spare > 0 && last >> (8 - spare) != 0 {
        return Err("its bitmap marks tenants beyond the dictionary".into());
    }
    Ok(column.present.iter().map(|byte| byte.count_ones() as usize).sum())
}

fn host(host: Option<&wire::HostSample>) -> Result<(), String> {
    let host = host.ok_or("report.host is missing")?;
    let numbers = [
        host.cpu_busy_us,
        host.network_rx_bytes,
        host.network_tx_bytes,
        host.memory_total_bytes,
        host.memory_used_bytes,
        host.swap_used_bytes,
        host.disk_total_bytes,
        host.disk_used_bytes,
        host.db_connections,
        host.uptime_s,
    ];
    let clock = host.clock.unwrap_or_default();
    let numbers = numbers.into_iter().chain([clock.offset_us.unsigned_abs(), clock.error_us]);
    bounded("report.host", numbers)?;
    let pressure = host.pressure.unwrap_or_default();
    let shares = [
        pressure.cpu_some_bp,
        pressure.memory_some_bp,
        pressure.memory_full_bp,
        pressure.io_some_bp,
        pressure.io_full_bp,
    ];
    match shares.iter().find(|share| **share > 10_000) {
        Some(share) => Err(format!("report.host.pressure has the share {share}, beyond 10000")),
        None => Ok(()),
    }
}

fn bounded(what: &str, numbers: impl IntoIterator<Item = u64>) -> Result<(), String> {
    match numbers.into_iter().find(|number| *number > MAX_VALUE) {
        Some(number) => Err(format!("{what} has the number {number}, beyond {MAX_VALUE}")),
        None => Ok(()),
    }
}

/// A word that people are shown.
fn word(what: &str, text: &str) -> Result<(), String> {
    if text.len() > MAX_WORD || text.chars().any(char::is_control) {
        return Err(format!("{what} must have at most {MAX_WORD} printable bytes"));
    }
    Ok(())
}

fn mounts(mounts: &[wire::Mount]) -> Result<(), String> {
    if mounts.len() > MAX_MOUNTS {
        return Err(format!("{} mounts, at most {MAX_MOUNTS} may be", mounts.len()));
    }
    for mount in mounts {
        word("the path of a mount", &mount.path)?;
        bounded("a mount", [mount.total_mib, mount.free_mib])?;
    }
    Ok(())
}

fn database(database: &wire::DatabaseSample) -> Result<(), String> {
    if database.standbys.len() > MAX_STANDBYS {
        let found = database.standbys.len();
        return Err(format!("{found} standbys, at most {MAX_STANDBYS} may be"));
    }
    let archiving = database.archiving.unwrap_or_default();
    let numbers = [
        database.blocks_hit,
        database.blocks_read,
        database.waiting_locks,
        database.oldest_transaction_us,
        database.slow_statements.unwrap_or(0),
        archiving.failures,
        archiving.age_us.unwrap_or(0),
    ];
    bounded("report.database", numbers)?;
    for standby in &database.standbys {
        word("the name of a standby", &standby.name)?;
        word("the state of a standby", &standby.state)?;
        bounded("a standby", [standby.lag_bytes, standby.lag_us.unwrap_or(0)])?;
    }
    Ok(())
}

fn minutes(minutes: &[wire::TenantMinute], tenants: usize) -> Result<(), String> {
    let mut seen = vec![false; tenants];
    for told in minutes {
        let seen = seen.get_mut(told.tenant as usize);
        let seen = seen.ok_or_else(|| {
            format!("a minute of tenant {}, but the dictionary names {tenants}", told.tenant)
        })?;
        if std::mem::replace(seen, true) {
            return Err(format!("two minutes of tenant {}", told.tenant));
        }
        // "other" comes besides.
        if told.countries.len() > MAX_COUNTRIES + 1 {
            let found = told.countries.len();
            return Err(format!("{found} countries, at most {} may be", MAX_COUNTRIES + 1));
        }
        for counted in &told.countries {
            word("a country", &counted.country)?;
            bounded("a country", [counted.requests])?;
        }
        let response = told.response.unwrap_or_default();
        let cache = told.cache.unwrap_or_default();
        let numbers = [response.p50_us, response.p95_us, response.p99_us, cache.keys, cache.error];
        bounded("a minute", numbers)?;
    }
    Ok(())
}

fn checks(checks: &wire::HealthChecks) -> Result<(), String> {
    if checks.checks.len() > MAX_CHECKS {
        return Err(format!("{} checks, at most {MAX_CHECKS} may be", checks.checks.len()));
    }
    for check in &checks.checks {
        word("the name of a check", &check.name)?;
        word("the message of a check", &check.message)?;
        bounded("a check", [check.took_us])?;
    }
    Ok(())
}

fn sources(sources: &[wire::SourceHealth]) -> Result<(), String> {
    if sources.len() > MAX_SOURCES {
        return Err(format!("{} sources, at most {MAX_SOURCES} may be", sources.len()));
    }
    let mut seen = HashSet::new();
    for source in sources {
        if source.source.is_empty() || source.source.len() > 32 {
            return Err("a source's name must have 1 to 32 bytes".into());
        }
        if source.message.len() > 1024 {
            return Err(format!("source {}: message longer than 1024 bytes", source.source));
        }
        if !SourceState::try_from(source.state).is_ok_and(|s| s != SourceState::Unspecified) {
            return Err(format!("source {}: state {} is unknown", source.source, source.state));
        }
        if !seen.insert(source.source.as_str()) {
            return Err(format!("source {} comes twice", source.source));
        }
    }
    Ok(())
}

/// Checks the first message of a session.
///
/// # Errors
/// What is wrong, naming the field.
pub fn validate_hello(hello: &wire::Hello) -> Result<(), String> {
    if hello.protocol_version != PROTOCOL_VERSION {
        return Err(format!(
            "the agent speaks protocol version {}, this coordinator {PROTOCOL_VERSION}: \
             install matching versions",
            hello.protocol_version
        ));
    }
    let texts = [
        ("agent_version", &hello.agent_version, 64),
        ("boot_id", &hello.boot_id, 64),
        ("tunnel_address", &hello.tunnel_address, 261),
    ];
    for (field, text, limit) in texts {
        if text.len() > limit || text.chars().any(char::is_control) {
            return Err(format!("hello.{field} must have at most {limit} printable bytes"));
        }
    }
    if hello.capabilities.len() > 16 || hello.capabilities.iter().any(|text| text.len() > 32) {
        return Err("hello.capabilities: at most 16 of at most 32 bytes".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
