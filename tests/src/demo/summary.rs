//! The end of the demo: figures for the person, and the same as JSON.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::roll_back::RolledBack;
use super::timeline::Timeline;
use crate::load::audit::Reckoning;
use crate::load::pause::Pause;

/// `target/demo/summary.json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub tenants: usize,
    pub nodes: usize,
    /// Tenants that run in a container of their own.
    pub containers: usize,
    /// Why there are none.
    pub containers_why: Option<String>,
    /// Reports that the coordinator took in.
    pub reports: u64,
    pub decision: Decision,
    #[serde(rename = "move")]
    pub moved: Move,
    pub rolled_back: RolledBack,
    #[serde(flatten)]
    pub rows: Reckoning,
    pub load_rows_per_second: f64,
    pub agent: Costs,
    pub coordinator: Costs,
    pub seconds: f64,
}

/// What the coordinator decided about the tenant that grew.
#[derive(Debug, Serialize)]
pub struct Decision {
    pub tenant: String,
    pub mode: Value,
    pub plan: Value,
    pub confidence: Value,
    pub reason: Value,
    pub approved_by: Value,
    /// The mean response that the coordinator knew from the agent's reports.
    pub mean_response_ms: f64,
}

/// What became of the move.
#[derive(Debug, Serialize)]
pub struct Move {
    pub id: String,
    pub state: String,
    pub source: String,
    pub target: String,
    /// Rows copied.
    pub rows: u64,
    pub copy_seconds: f64,
    pub keys_drained: u64,
    pub rows_compared: u64,
    /// How long the writers were fenced, as the mover measured it.
    pub fence_ms: f64,
    /// Over the tenant's devices: each one's worst upload around the switch.
    pub pause_ms_p50: f64,
    /// The worst upload of all.
    pub pause_ms_max: f64,
    /// Devices that the two figures were taken from.
    pub pause_devices: usize,
    /// What is usual: the ten seconds before.
    pub usual_ms_p50: f64,
    pub usual_ms_max: f64,
    /// Uploads that were sent again around the switch.
    pub uploads_retried: usize,
    /// From asking to the end.
    pub duration_ms: u64,
}

/// What a process cost.
#[derive(Debug, Default, Serialize)]
pub struct Costs {
    pub rss_mb: f64,
    pub rss_peak_mb: f64,
    /// Percent of one core.
    pub cpu_percent: f64,
}

/// A duration as milliseconds with a fraction.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Move {
    /// Reads the API's view of the move, and adds what the devices felt.
    pub fn read(row: &Value, source: String, target: String, pause: Option<&Pause>) -> Self {
        let result = &row["result"];
        let number = |step: &str, name: &str| result[step][name].as_u64().unwrap_or_default();
        Self {
            id: row["id"].as_str().unwrap_or_default().to_owned(),
            state: row["state"].as_str().unwrap_or_default().to_owned(),
            source,
            target,
            rows: number("copy", "rows"),
            copy_seconds: ms(Duration::from_micros(number("copy", "duration_us"))) / 1000.0,
            keys_drained: number("drain", "keys"),
            rows_compared: number("verify", "rows_compared"),
            fence_ms: ms(Duration::from_micros(number("cut_over", "fence_us"))),
            pause_ms_p50: pause.map_or(0.0, |pause| ms(pause.p50)),
            pause_ms_max: pause.map_or(0.0, |pause| ms(pause.max)),
            pause_devices: pause.map_or(0, |pause| pause.devices),
            usual_ms_p50: pause.map_or(0.0, |pause| ms(pause.usual_p50)),
            usual_ms_max: pause.map_or(0.0, |pause| ms(pause.usual_max)),
            uploads_retried: pause.map_or(0, |pause| pause.retried),
            duration_ms: row["duration_ms"].as_u64().unwrap_or_default(),
        }
    }
}

impl Summary {
    /// Whether the demo shows what it promises; else why not.
    ///
    /// # Errors
    /// With every reason.
    pub fn verdict(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        if self.moved.state != "way_back" {
            wrong.push(format!("the move came to {:?}", self.moved.state));
        }
        if self.rolled_back.state != "kept" {
            wrong.push(format!("the roll back ended as {:?}", self.rolled_back.state));
        }
        if self.moved.pause_devices == 0 || self.rolled_back.pause_devices == 0 {
            wrong.push("no device wrote around a switch".to_owned());
        }
        if !self.rows.clean() {
            wrong.push(format!("the rows don't add up: {}", self.rows.troubles.join("; ")));
        }
        if self.rows.rows_acknowledged == 0 || self.reports == 0 {
            wrong.push("nothing was written or nothing reported".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join(". ")) }
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// As the file system refuses.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }

    /// Shows it.
    pub fn show(&self, timeline: &Timeline) {
        let containers = match &self.containers_why {
            Some(why) => format!("0 with a container of their own ({why})"),
            None => format!("{} with a container of their own", self.containers),
        };
        let (d, m, b, r) = (&self.decision, &self.moved, &self.rolled_back, &self.rows);
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let lines = [
            ("tenants", format!("{} on {} nodes, {containers}", self.tenants, self.nodes)),
            ("reports", format!("{} taken in from the agents", self.reports)),
            (
                "decision",
                format!(
                    "{}: {} on {}, confidence {}, approved by {}",
                    d.tenant,
                    plain(&d.mode),
                    plain(&d.plan),
                    plain(&d.confidence),
                    plain(&d.approved_by)
                ),
            ),
            ("", plain(&d.reason)),
            ("", format!("mean response {:.0} ms, as the agent reported it", d.mean_response_ms)),
            (
                "move",
                format!(
                    "{} to {}, switched in {:.1} s: {} rows copied in {:.1} s, {} keys drained, {} rows compared",
                    m.source,
                    m.target,
                    ms(Duration::from_millis(m.duration_ms)) / 1000.0,
                    m.rows,
                    m.copy_seconds,
                    m.keys_drained,
                    m.rows_compared
                ),
            ),
            (
                "pause",
                format!(
                    "worst upload around the switch: p50 {} ms, max {} ms over {} devices; fenced for {} ms; {} uploads retried",
                    m.pause_ms_p50, m.pause_ms_max, m.pause_devices, m.fence_ms, m.uploads_retried
                ),
            ),
            (
                "",
                format!(
                    "the ten seconds before: p50 {} ms, max {} ms an upload",
                    m.usual_ms_p50, m.usual_ms_max
                ),
            ),
            (
                "roll back",
                format!(
                    "to {}: worst upload around the switch: p50 {} ms, max {} ms over {} devices; fenced for {} ms",
                    b.to, b.pause_ms_p50, b.pause_ms_max, b.pause_devices, b.fence_ms
                ),
            ),
            (
                "rows",
                format!(
                    "{} acknowledged, {} found; lost {}, doubled {}, of a wrong tenant {}, never sent {}",
                    r.rows_acknowledged,
                    r.rows_found,
                    r.rows_lost,
                    r.rows_doubled,
                    r.foreign_rows,
                    r.rows_unknown
                ),
            ),
            ("load", format!("{:.0} rows/s from devices", self.load_rows_per_second)),
            ("agent", self.agent.line()),
            ("coordinator", self.coordinator.line()),
        ];
        timeline.text("");
        for (name, text) in lines {
            timeline.text(&format!("{name:>12}  {text}"));
        }
        timeline.text("");
    }
}

impl Costs {
    fn line(&self) -> String {
        format!(
            "RSS {:.1} MB (peak {:.1}), {:.2} % of a core",
            self.rss_mb, self.rss_peak_mb, self.cpu_percent
        )
    }
}
