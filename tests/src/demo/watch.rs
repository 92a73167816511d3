//! Looking at a move from outside, through the API.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::timeline::Timeline;
use crate::harness::api::{Api, wait_for};
use crate::harness::fleet::items;

/// The tenant's newest move, if there is one.
///
/// # Errors
/// When the API refuses.
pub async fn newest(api: &Api, tenant: Uuid) -> anyhow::Result<Option<Value>> {
    let tenant = tenant.to_string();
    let moves = api.get("/api/moves?limit=100").await?;
    Ok(items(&moves).iter().find(|row| row["tenant_id"] == tenant.as_str()).cloned())
}

/// Waits until there is a move of the tenant.
///
/// # Errors
/// When none appears within `limit`.
pub async fn appears(api: &Api, tenant: Uuid, limit: Duration) -> anyhow::Result<Value> {
    wait_for("a move", limit, async || newest(api, tenant).await).await
}

/// One move with its history.
///
/// # Errors
/// When the API refuses.
pub async fn get(api: &Api, id: &str) -> anyhow::Result<Value> {
    api.get(&format!("/api/moves/{id}")).await
}

/// Whether it is over.
pub fn ended(row: &Value) -> bool {
    !row["ended_at"].is_null()
}

/// Whether it is over but for the old copy, which is kept for a while.
pub fn settled(row: &Value) -> bool {
    ended(row) || row["state"] == "kept"
}

/// Tells of the move as it goes, from the event after those that were `told`,
/// until it ends or comes to `rest`. Answers its last state.
///
/// # Errors
/// When it doesn't come there within `limit`.
pub async fn follow(
    api: &Api,
    timeline: &Timeline,
    id: &str,
    told: &mut usize,
    rest: &str,
    limit: Duration,
) -> anyhow::Result<Value> {
    wait_for(rest, limit, async || {
        let row = get(api, id).await?;
        let events = row["events"].as_array().cloned().unwrap_or_default();
        for event in events.iter().skip(*told) {
            let state = event["state"].as_str().unwrap_or_default();
            let message = event["message"].as_str().unwrap_or_default();
            timeline.say("move", &format!("{state}: {message}"));
        }
        *told = events.len().max(*told);
        if ended(&row) || row["state"] == rest {
            return Ok(Some(row));
        }
        if row["state"] == "copy" {
            timeline.progress("move", &progress(&row["progress"]));
        }
        Ok(None)
    })
    .await
}

fn progress(figures: &Value) -> String {
    let number = |name: &str| figures[name].as_u64().unwrap_or_default();
    let (done, total) = (number("rows_done"), number("rows_total"));
    let percent = (done * 100).checked_div(total).unwrap_or_default().min(100);
    let filled = usize::try_from(percent / 5).unwrap_or_default();
    format!(
        "copy [{:<20}] {percent:>3} %  {done} of about {total} rows, {} rows/s  {}",
        "=".repeat(filled),
        number("rows_per_second"),
        figures["table"].as_str().unwrap_or_default()
    )
}
