//! Both sides are looked at before anything is changed. Nothing to undo.

use serde_json::json;
use webhost_proto::wire::{MoveStepKind, command_reply, move_step_done};

use super::{Context, Learned, Outgoing, move_step, step_done};

pub(super) fn command(context: &Context<'_>) -> Outgoing {
    move_step(context, MoveStepKind::Preflight)
}

pub(super) fn done(reply: &command_reply::Outcome) -> Option<Learned> {
    let Some(move_step_done::Result::Preflight(found)) = step_done(reply, MoveStepKind::Preflight)?
    else {
        return None;
    };
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
    let message = format!(
        "preflight passed: {} tables, about {} rows, {} warnings",
        tables.len(),
        found.rows_estimated,
        found.warnings.len()
    );
    Some(Learned::saying(message).with(json!({
        "tables": tables,
        "warnings": found.warnings,
        "rows_estimated": found.rows_estimated,
        "bytes_estimated": found.bytes_estimated,
    })))
}
