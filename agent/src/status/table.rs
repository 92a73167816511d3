//! The status for people: a few lines, then a table of tenants.

use std::fmt::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::document::{Document, Figure, Health, Tenant};
use super::machine;
use super::top::{By, sparkline, top};
use crate::collect::checks::State;

/// The whole status as text, with the `count` tenants (0: all) that have the
/// most of `by`.
pub fn render(document: &Document, by: By, count: usize) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _infallible = head(&mut text, document);
    if !document.tenants.is_empty() {
        let (shown, left) = top(&document.tenants, by, count);
        let _infallible = writeln!(text, "\n{}", tenants(&shown));
        if left > 0 {
            let _infallible = writeln!(text, "and {left} more; --top 0 shows all of them");
        }
        text.push_str("~ split from what all tenants use together, by work\n");
        let _infallible = machine::troubled(&mut text, &document.tenants);
    }
    text
}

/// One tenant, with its last rounds.
pub fn render_one(tenant: &Tenant) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _infallible = one(&mut text, tenant);
    text
}

fn one(text: &mut String, tenant: &Tenant) -> std::fmt::Result {
    let slug = if tenant.slug.is_empty() { "-" } else { &tenant.slug };
    writeln!(text, "tenant       {slug} ({})", tenant.id)?;
    let trend = &tenant.trend;
    let lines = [
        ("cpu", figure(tenant.cpu_milli, cores), &trend.cpu_milli),
        ("memory", figure(tenant.memory_bytes, bytes), &trend.memory_kib),
        (
            "gps/s",
            figure(tenant.gps_points_per_s_milli, thousandths),
            &trend.gps_points_per_s_milli,
        ),
        (
            "connections",
            figure(tenant.db_connections, |count| count.to_string()),
            &trend.db_connections,
        ),
    ];
    for (name, value, values) in lines {
        writeln!(text, "{name:<12} {value:>12}  {}", rounds(&value, values))?;
    }
    writeln!(text, "{:<12} {:>12}", "storage", figure(tenant.storage_bytes, bytes))?;
    let count = |count: u64| count.to_string();
    writeln!(text, "{:<12} {:>12}", "clients", optional(tenant.client_connections, count))?;
    writeln!(text, "{:<12} {:>12}", "vehicles", optional(tenant.vehicles, count))?;
    writeln!(text, "{:<12} {:>12}", "api/s", optional(tenant.api_calls_per_s_milli, thousandths))?;
    let ms = |us: u64| format!("{} ms", thousandths(us));
    writeln!(text, "{:<12} {:>12}", "response", optional(tenant.mean_response_us, ms))?;
    if let (Some(p50), Some(p99)) = (tenant.p50_response_us, tenant.p99_response_us) {
        writeln!(text, "{:<12} {:>12}  p99 {}", "p50", ms(p50), ms(p99))?;
    }
    if let Some(groups) = &tenant.groups {
        machine::one(text, groups)?;
    }
    if let Some((keys, error)) = tenant.redis_keys {
        writeln!(text, "{:<12} {:>12}  ± {error}", "redis keys", format!("~{keys}"))?;
    }
    for (country, requests) in &tenant.countries {
        writeln!(text, "{:<12} {requests:>12}  requests", country)?;
    }
    Ok(())
}

fn serves(text: &mut String, health: &Health) -> std::fmt::Result {
    let word = |state: State| match state {
        State::Healthy => "healthy",
        State::Degraded => "degraded",
        State::Down => "down",
    };
    writeln!(text, "serves       {}", word(health.overall))?;
    for check in &health.checks {
        let took = thousandths(check.took_us);
        write!(text, "check        {:<12} {} in {took} ms", check.name, word(check.state))?;
        if !check.message.is_empty() {
            write!(text, ": {}", check.message)?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn head(text: &mut String, document: &Document) -> std::fmt::Result {
    let health = if document.healthy { "healthy" } else { "degraded" };
    writeln!(text, "webhost-agent {} (pid {}), {health}", document.version, document.pid)?;
    for problem in &document.problems {
        writeln!(text, "  ! {problem}")?;
    }
    let connection = &document.connection;
    write!(text, "coordinator  {} {}", connection.coordinator, connection.state)?;
    match &connection.since {
        Some(since) => writeln!(text, " since {since}")?,
        None => writeln!(text)?,
    }
    if let Some(certificate) = &document.certificate {
        writeln!(
            text,
            "certificate  {} ({}), until {}",
            certificate.node_name, certificate.node_id, certificate.not_after
        )?;
    }
    let host = &document.host;
    writeln!(
        text,
        "host         {} of {} cores, {} of {} memory, {} of {} disk, {} database connections",
        cores(host.cpu_milli),
        host.cpu_count,
        bytes(host.memory_used_bytes),
        bytes(host.memory_total_bytes),
        bytes(host.disk_used_bytes),
        bytes(host.disk_total_bytes),
        host.db_connections
    )?;
    machine::head(text, document)?;
    if let Some(here) = &document.machine {
        writeln!(
            text,
            "machine      {} {} of {} in {}",
            here.provider, here.id, here.app, here.region
        )?;
    }
    if let Some(checked) = &document.health {
        serves(text, checked)?;
    }
    if let Some(redis) = &document.redis {
        writeln!(
            text,
            "redis        {} of {} memory, {} clients, {} keys, {} evicted",
            bytes(redis.used_memory_bytes),
            if redis.max_memory_bytes == 0 { "-".into() } else { bytes(redis.max_memory_bytes) },
            redis.clients,
            redis.keys,
            redis.evicted_keys
        )?;
    }
    for source in &document.sources {
        write!(text, "source       {:<12} {}", source.name, source.state)?;
        if !source.message.is_empty() {
            write!(text, ": {}", source.message)?;
        }
        writeln!(text)?;
    }
    for shared in &document.shared {
        writeln!(
            text,
            "shared       {:<12} {} cores split, {} idle, {} memory",
            shared.name,
            cores(shared.cpu_milli),
            cores(shared.cpu_idle_milli),
            bytes(shared.memory_bytes)
        )?;
    }
    writeln!(
        text,
        "spool        {} reports, {} on disk{}{}",
        document.spool.reports,
        bytes(document.spool.bytes),
        match &document.spool.oldest_at {
            Some(at) => format!(", the oldest of {at}"),
            None => String::new(),
        },
        match &document.spool.last_acknowledged_at {
            Some(at) => format!(", last acknowledged {at}"),
            None => String::new(),
        }
    )?;
    for command in &document.commands.running {
        writeln!(text, "running      {} {} since {}", command.kind, command.id, command.since)?;
    }
    for command in document.commands.recent.iter().take(5) {
        let outcome = command.outcome.as_deref().unwrap_or("");
        writeln!(text, "done         {} {} {outcome}", command.kind, command.id)?;
    }
    for moved in &document.moves {
        write!(
            text,
            "move         {} of {} as {}: {}",
            moved.id, moved.tenant_id, moved.side, moved.step
        )?;
        if moved.rows_total > 0 {
            write!(
                text,
                " {} {}/{} rows, {}/s",
                moved.table, moved.rows_done, moved.rows_total, moved.rows_per_second
            )?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn tenants(tenants: &[&Tenant]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "TENANT", "CPU", "", "MEMORY", "STORAGE", "DB CONN", "CLIENTS", "VEHICLES", "GPS/S", "",
        "API/S", "RESPONSE",
    ]);
    for tenant in tenants {
        let name = if tenant.slug.is_empty() { &tenant.id } else { &tenant.slug };
        let cpu = figure(tenant.cpu_milli, cores);
        let gps = figure(tenant.gps_points_per_s_milli, thousandths);
        table.add_row([
            name.clone(),
            cpu.clone(),
            rounds(&cpu, &tenant.trend.cpu_milli),
            figure(tenant.memory_bytes, bytes),
            figure(tenant.storage_bytes, bytes),
            figure(tenant.db_connections, |count| count.to_string()),
            optional(tenant.client_connections, |count| count.to_string()),
            optional(tenant.vehicles, |count| count.to_string()),
            gps.clone(),
            rounds(&gps, &tenant.trend.gps_points_per_s_milli),
            optional(tenant.api_calls_per_s_milli, thousandths),
            optional(tenant.mean_response_us, |us| format!("{} ms", thousandths(us))),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn figure(figure: Figure, show: impl Fn(u64) -> String) -> String {
    match figure.sum() {
        None => "-".into(),
        // A part that was split makes the sum an estimate.
        Some(sum) if figure.attributed.is_some_and(|part| part > 0) => format!("~{}", show(sum)),
        Some(sum) => show(sum),
    }
}

/// The last rounds of a figure; nothing where it is not known.
fn rounds(figure: &str, values: &[u64]) -> String {
    if figure == "-" { String::new() } else { sparkline(values) }
}

fn optional(value: Option<u64>, show: impl Fn(u64) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

/// Thousandths with one decimal.
pub(super) fn thousandths(milli: u64) -> String {
    let tenths = milli.saturating_add(50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Thousandths of a core with three decimals.
fn cores(milli: u64) -> String {
    format!("{}.{:03}", milli / 1_000, milli % 1_000)
}

/// Bytes in the largest binary unit that leaves at least one.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = count;
    let mut rest = 0;
    while scaled >= 1024 && unit + 1 < units.len() {
        rest = scaled % 1024;
        scaled /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{scaled} B")
    } else {
        format!("{scaled}.{} {}", rest * 10 / 1024, units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")]
        {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(cores(1_050), "1.050");
        assert_eq!(thousandths(12_349), "12.3");
        let split = Figure { measured: Some(1), attributed: Some(2) };
        assert_eq!(figure(split, |n| n.to_string()), "~3");
        let unknown = figure(Figure::default(), |n| n.to_string());
        assert_eq!((unknown.as_str(), rounds(&unknown, &[0, 0])), ("-", String::new()));
        assert_eq!(rounds("0.000", &[0, 0]), "▁▁");
    }
}
