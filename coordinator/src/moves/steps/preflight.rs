//! Both sides are looked at before anything is changed. Nothing to undo.

use serde_json::{Value, json};
use webhost_proto::wire::{self, FindingLevel, MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Preflight)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let Some(move_step_done::Result::Preflight(found)) = step_done(reply, MoveStepKind::Preflight)?
    else {
        return None;
    };
    let message = format!(
        "preflight passed: {} tables, about {} rows, {} warnings",
        found.tables.len(),
        found.rows_estimated,
        found.warnings.len()
    );
    Some(Learned {
        rows_left_behind: Some(found.rows_left_behind),
        ..Learned::saying(message).with(report(found))
    })
}

/// What a preflight that refused found all the same.
pub(super) fn refused(failed: &wire::Failed) -> Option<Learned> {
    let found = failed.preflight.as_ref()?;
    Some(Learned::saying(failed.message.clone()).with(report(found)))
}

/// The report, as API and command line show it.
fn report(found: &wire::PreflightResult) -> Value {
    let tables: Vec<_> = found
        .tables
        .iter()
        .map(|table| {
            json!({
                "table": table.table,
                "verdict": table.verdict,
                "reason": table.reason,
                "rows_estimated": table.rows_estimated,
            })
        })
        .collect();
    let findings: Vec<_> = found.findings.iter().map(finding).collect();
    json!({
        "tables": tables,
        "findings": findings,
        "warnings": found.warnings,
        "rows_estimated": found.rows_estimated,
        "bytes_estimated": found.bytes_estimated,
        "rows_left_behind": found.rows_left_behind,
        "duration_estimated_us": found.duration_estimated_us,
        "disk_free_bytes": found.disk_free_bytes,
        "disk_needed_bytes": found.disk_needed_bytes,
    })
}

/// One finding, of any step.
pub(super) fn finding(finding: &wire::Finding) -> Value {
    json!({
        "level": level(finding.level()),
        "topic": finding.topic,
        "text": finding.text,
        "way_out": finding.way_out,
    })
}

const fn level(level: FindingLevel) -> &'static str {
    match level {
        FindingLevel::Unspecified => "unknown",
        FindingLevel::Fact => "fact",
        FindingLevel::Warning => "warning",
        FindingLevel::Problem => "problem",
    }
}
