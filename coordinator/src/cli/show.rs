//! A move as an operator reads it at three in the morning: where it is, what
//! that means, since when, what the system does, and what can be done. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::moves::MoveView;
use crate::moves::runbook;

/// How a duration reads: "3.2 s", "4 min 10 s", "2 h 05 min".
fn took(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        ..10 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How far the step under way is; none where no figures came yet.
pub(super) fn progress(view: &MoveView) -> Option<String> {
    let number = |name: &str| view.progress[name].as_u64();
    let (done, total) = (number("rows_done")?, number("rows_total")?);
    if view.progress["step"] != view.state.as_str() {
        return None;
    }
    let mut text = format!("{done} of about {total} rows");
    let rate = number("rows_per_second").unwrap_or_default();
    let bytes = number("bytes_done").unwrap_or_default();
    // Writing to a String can't fail.
    let _infallible = write!(text, ", {} MB, {rate} rows/s", bytes / 1_000_000);
    if let Some(left) = view.seconds_left.and_then(|left| i64::try_from(left).ok()) {
        let _infallible = write!(text, ", about {} left", took(left.saturating_mul(1000)));
    }
    if let Some(table) = view.progress["table"].as_str().filter(|table| !table.is_empty()) {
        let _infallible = write!(text, ", in {table}");
    }
    Some(text)
}

/// One move on one screen.
pub(super) fn screen(view: &MoveView) -> String {
    let mut lines = vec![format!("move {}", view.id)];
    let mut line = |name: &str, text: String| lines.push(format!("{name:>12}  {text}"));
    let dry = if view.dry_run { ", a dry run" } else { "" };
    line("tenant", format!("{} ({}{dry})", view.tenant_id, view.kind));
    let target = view.target_node_id.map_or("a node to be found".to_owned(), |id| id.to_string());
    line("way", format!("from {} to {target}", view.source_node_id));
    line("asked", format!("{} by {}: {}", view.created_at, view.requested_by, view.reason));
    if let Some(by) = &view.approved_by {
        line("approved", format!("by {by}"));
    }
    line("state", format!("{}, since {}", view.state, view.updated_at));
    if let Some(why) = &view.error {
        line("why", why.clone());
    }
    if let Some(pausing) = &view.pausing {
        line("pause", format!("it {pausing}"));
    }
    for finding in view.result["guard"]["findings"].as_array().into_iter().flatten() {
        let text = |name: &str| finding[name].as_str().unwrap_or_default();
        line(text("level"), format!("{}: {}", text("text"), text("way_out")));
    }
    if let Some(progress) = progress(view) {
        line("progress", progress);
    }
    if let Some(percent) = view.percent {
        line("", format!("{percent} % of the way to the switch"));
    }
    for (name, time) in [
        ("patience to", &view.deadline),
        ("rows from", &view.retain_from),
        ("way back to", &view.way_back_until),
        ("copy kept to", &view.keep_until),
    ] {
        if let Some(time) = time {
            line(name, time.to_string());
        }
    }
    if view.rows_left_behind > 0 {
        line("left behind", format!("{} older rows", view.rows_left_behind));
    }
    if let Some(page) = runbook::page(&view.state) {
        lines.push(String::new());
        lines.push(page.to_owned());
    }
    lines.push(String::new());
    lines.push(format!("{:<22} {:>12} {:>6}", "STEP", "TOOK", "TRIES"));
    for step in &view.steps {
        let now = if step.ended.is_none() { "…" } else { "" };
        let took = format!("{}{now}", took(step.milliseconds));
        lines.push(format!("{:<22} {took:>12} {:>6}", step.state, step.tries));
    }
    lines.join("\n")
}

/// The report of a preflight.
pub(super) fn report(view: &MoveView) -> String {
    let found = &view.result["preflight"];
    let mut lines = vec![format!("preflight of tenant {} ({})", view.tenant_id, view.kind)];
    let texts = |name: &str| -> Vec<String> {
        let texts = found[name].as_array().cloned().unwrap_or_default();
        texts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let tables = found["tables"].as_array().cloned().unwrap_or_default();
    if !tables.is_empty() {
        lines.push(format!("{:<10} {:<32} {:>12}  {}", "VERDICT", "TABLE", "ROWS", "WHY"));
    }
    for table in &tables {
        let text = |name: &str| table[name].as_str().unwrap_or_default().to_owned();
        let rows = number(&table["rows_estimated"]);
        let (verdict, name, why) = (text("verdict"), text("table"), text("reason"));
        lines.push(format!("{verdict:<10} {name:<32} {rows:>12}  {why}"));
    }
    let findings = found["findings"].as_array().cloned().unwrap_or_default();
    for finding in &findings {
        let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let (level, topic, what) = (text("level"), text("topic"), text("text"));
        lines.push(format!("{level:<10} {topic:<14} {what}"));
        if !text("way_out").is_empty() {
            lines.push(format!("{:<25} what to do: {}", "", text("way_out")));
        }
    }
    if findings.is_empty() {
        lines.extend(texts("warnings").into_iter().map(|warning| format!("warning: {warning}")));
    }
    if view.state == "checked" {
        let (rows, bytes) = (number(&found["rows_estimated"]), number(&found["bytes_estimated"]));
        let mut size = format!("about {rows} rows, {} MB", bytes / 1_000_000);
        let micros = found["duration_estimated_us"].as_i64().filter(|micros| *micros > 0);
        if let Some(micros) = micros {
            // Writing to a String can't fail.
            let _infallible = write!(size, ", {} to copy and verify", took(micros / 1000));
        }
        lines.push(size);
        if let Some(from) = &view.retain_from {
            let behind = view.rows_left_behind;
            lines.push(format!("{behind} rows from before {from} stay behind"));
        }
        lines.push("the preflight passes; nothing was changed".to_owned());
    } else {
        let why = view.error.as_deref().unwrap_or("no reason was given");
        lines.push(format!("refused: {why}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
