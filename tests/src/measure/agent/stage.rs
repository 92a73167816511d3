//! One agent on its stage: enrolled, reporting every second, looked at for a
//! while.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use uuid::Uuid;

use super::meter::{Carried, Meter};
use super::page::Page;
use super::processes::{Docker, Look, look};
use super::sink::{Heard, Sink};
use crate::harness::process::Process;

/// How long the agent may take until its reports are complete.
const READY: Duration = Duration::from_secs(60);

/// What the agent finds on its machine.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The engine's socket.
    pub containers: Option<PathBuf>,
    /// The tenants of the application's page; empty without an application.
    pub page: Vec<Uuid>,
    /// A container that all tenants of the page share.
    pub shared: Option<String>,
    /// How to connect to the tenants' database; none without one.
    pub database: Option<String>,
    /// So many values have to be in a report before it is looked at.
    pub values: u64,
}

/// What was seen in one window.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub cpu_percent: f64,
    pub docker_percent: f64,
    /// At its end.
    pub end: Look,
    /// In it.
    pub carried: Carried,
    pub heard: Heard,
}

impl Seen {
    /// Bytes from the agent for each value of a tenant.
    pub fn bytes_per_value(&self) -> f64 {
        self.carried.there as f64 / self.heard.values.max(1) as f64
    }

    /// The same of the acknowledgements.
    pub fn bytes_back_per_value(&self) -> f64 {
        self.carried.back as f64 / self.heard.values.max(1) as f64
    }
}

fn config(
    scene: &Scene,
    dir: &Path,
    link: SocketAddr,
    enrolment: SocketAddr,
    page: &str,
) -> String {
    let containers = match &scene.containers {
        Some(socket) => format!("enabled = true\nsocket = {socket:?}\n"),
        None => "enabled = false\n".to_owned(),
    };
    let mut text = format!(
        "state_dir = {:?}\nstatus_socket = {:?}\ninterval_ms = 1000\n\
         [coordinator]\naddress = \"{link}\"\nenrolment_address = \"{enrolment}\"\n\
         [containers]\n{containers}[moves]\nenabled = false\n",
        dir.join("state"),
        dir.join("status.sock"),
    );
    if !scene.page.is_empty() {
        text.push_str(&format!("[app]\nmetrics_url = \"{page}\"\n"));
    }
    if let Some(url) = &scene.database {
        text.push_str(&format!("[postgres]\nurl = {url:?}\n"));
    }
    if let Some(name) = &scene.shared {
        text.push_str(&format!(
            "[[attribution.shared]]\nname = \"webhost\"\nsplit_by = \"app\"\ncontainer = {name:?}\n"
        ));
    }
    text
}

/// An agent that reports to a sink of its own; all of it ends with this value.
pub struct Running {
    pub process: Process,
    sink: Sink,
    meter: Meter,
    _page: Page,
    _dir: tempfile::TempDir,
}

impl Running {
    /// Starts `agent` on the scene; when it returns, reports are complete.
    ///
    /// # Errors
    /// With the end of its log, when it does not report what the scene has.
    pub async fn start(agent: &Path, scene: &Scene) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("wh").tempdir()?;
        std::fs::create_dir(dir.path().join("state"))?;
        let sink = Sink::start().await?;
        let meter = Meter::start(sink.link).await?;
        let page = Page::start(&scene.page).await?;
        let file = dir.path().join("agent.toml");
        let text = config(scene, dir.path(), meter.address, sink.enrolment, &page.url());
        std::fs::write(&file, text)?;
        let token = dir.path().join("token");
        std::fs::write(&token, sink.token("bench").await?)?;
        enrol(agent, &file, &token).await?;
        let arguments = ["run".into(), "--config".into(), file.display().to_string()];
        let log = dir.path().join("agent.log");
        let process = Process::start("agent", agent, &arguments, &allocator(), &log)?;
        let running = Self { process, sink, meter, _page: page, _dir: dir };
        ready(&running.sink, &running.process, scene).await?;
        Ok(running)
    }

    /// What the agent reported so far.
    pub fn heard(&self) -> Heard {
        self.sink.heard()
    }
}

/// Runs `agent` on the scene, lets it settle, and looks at it for `window`.
///
/// # Errors
/// With the end of its log, when it does not report what the scene has.
pub async fn run(agent: &Path, scene: &Scene, window: Duration) -> anyhow::Result<Seen> {
    let running = Running::start(agent, scene).await?;
    // What the start allocated is given back or used by now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    running.watch(window).await
}

impl Running {
    /// Looks at it for `window`.
    ///
    /// # Errors
    /// When it ended, or does not report once a second.
    pub async fn watch(&self, window: Duration) -> anyhow::Result<Seen> {
        let Running { process, sink, meter, .. } = self;
        let (before, docker) = (look(process.pid())?, Docker::look());
        let (carried, heard) = (meter.carried(), sink.heard());
        tokio::time::sleep(window).await;
        let (end, docker_end) = (look(process.pid())?, Docker::look());
        let (carried_end, heard_end) = (meter.carried(), sink.heard());
        ensure!(process.ended().is_none(), "the agent ended:\n{}", process.log_tail(20));
        let seen = Seen {
            cpu_percent: end.cpu_percent_since(&before),
            docker_percent: docker_end.cpu_percent_since(&docker),
            end,
            carried: Carried {
                there: carried_end.there - carried.there,
                back: carried_end.back - carried.back,
            },
            heard: Heard {
                reports: heard_end.reports - heard.reports,
                values: heard_end.values - heard.values,
                columns: heard_end.columns,
            },
        };
        let seconds = window.as_secs();
        ensure!(
            seen.heard.reports + 2 >= seconds && seen.heard.reports <= seconds + 2,
            "{} reports in {seconds} s, not one a second",
            seen.heard.reports
        );
        Ok(seen)
    }
}

/// What the unit sets for the allocator; read from it, so that the two can't
/// differ.
fn allocator() -> Vec<(String, String)> {
    include_str!("../../../../systemd/webhost-agent.service")
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

async fn enrol(agent: &Path, config: &Path, token: &Path) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(agent);
    command.arg("enroll").arg("--config").arg(config).arg("--token-file").arg(token);
    let output = command.output().await.with_context(|| agent.display().to_string())?;
    ensure!(
        output.status.success(),
        "the agent did not enrol: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Waits for a report with all values of the scene.
async fn ready(sink: &Sink, process: &Process, scene: &Scene) -> anyhow::Result<()> {
    let complete = async {
        let mut before = sink.heard();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = sink.heard();
            if now.reports == before.reports + 1 && now.values - before.values >= scene.values {
                return;
            }
            before = now;
        }
    };
    tokio::time::timeout(READY, complete).await.map_err(|_| {
        let heard = sink.heard();
        anyhow::anyhow!(
            "no report with {} values within {} s ({heard:?}); the agent said:\n{}",
            scene.values,
            READY.as_secs(),
            process.log_tail(20)
        )
    })
}
