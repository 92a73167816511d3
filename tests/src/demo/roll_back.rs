//! The way back, as an operator goes it: by the command line.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::summary::ms;
use super::timeline::Timeline;
use super::watch;
use crate::harness::fleet::Fleet;
use crate::load::ledger::Upload;
use crate::load::pause::{Pause, pause};

const LONG: Duration = Duration::from_secs(90);
const REASON: &str = "the reports are wrong there";

/// What became of the roll back.
#[derive(Debug, Serialize)]
pub struct RolledBack {
    pub state: String,
    /// Where the tenant lives again.
    pub to: String,
    /// How long the writers were fenced, as the mover measured it.
    pub fence_ms: f64,
    /// Over the tenant's devices: each one's worst upload around the switch.
    pub pause_ms_p50: f64,
    /// The worst upload of all.
    pub pause_ms_max: f64,
    /// Devices that the two figures were taken from.
    pub pause_devices: usize,
}

/// Rolls the move back and shows what the operator types and sees; `told` is
/// how many of its events were shown before. Answers the move.
///
/// # Errors
/// When it does not come home.
pub async fn play(
    timeline: &Timeline,
    fleet: &Fleet,
    id: &str,
    told: &mut usize,
) -> anyhow::Result<Value> {
    command(timeline, fleet, &["move", "rollback", id, "--reason", REASON]).await?;
    // It keeps what is the old copy now.
    let row = watch::follow(&fleet.api, timeline, id, told, "kept", LONG).await?;
    ensure!(row["result"]["roll_back"].is_object(), "it was not rolled back: {row}");
    command(timeline, fleet, &["move", "show", id]).await?;
    Ok(row)
}

async fn command(timeline: &Timeline, fleet: &Fleet, arguments: &[&str]) -> anyhow::Result<()> {
    let typed: Vec<String> = arguments
        .iter()
        .map(|one| if one.contains(' ') { format!("{one:?}") } else { (*one).to_owned() })
        .collect();
    timeline.text(&format!("\n$ webhost-coordinator {}", typed.join(" ")));
    timeline.text(&fleet.coordinator_cli(arguments).await?);
    Ok(())
}

/// What the devices felt of the switch back to `home`, after the one there.
pub fn felt(uploads: &[Upload], tenant: Uuid, there: Option<&Pause>, home: &str) -> Option<Pause> {
    let switched = there?.switched;
    let later: Vec<Upload> =
        uploads.iter().filter(|upload| upload.started > switched).cloned().collect();
    pause(&later, tenant, home)
}

impl RolledBack {
    /// Reads the API's view of the move, and adds what the devices felt.
    pub fn read(row: &Value, to: String, pause: Option<&Pause>) -> Self {
        let fence_us = row["result"]["roll_back"]["fence_us"].as_u64().unwrap_or_default();
        Self {
            state: row["state"].as_str().unwrap_or_default().to_owned(),
            to,
            fence_ms: ms(Duration::from_micros(fence_us)),
            pause_ms_p50: pause.map_or(0.0, |pause| ms(pause.p50)),
            pause_ms_max: pause.map_or(0.0, |pause| ms(pause.max)),
            pause_devices: pause.map_or(0, |pause| pause.devices),
        }
    }
}
