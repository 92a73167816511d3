//! A real nginx in front of a node, with the documented configuration, and the
//! reloading unit's work done whenever the agent asks for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use super::process::{Process, program};

/// Where the addresses of one node are.
#[derive(Clone, Debug)]
pub struct Places {
    pub listen: SocketAddr,
    pub application: SocketAddr,
    pub hold: SocketAddr,
    /// The agent's files.
    pub routes: PathBuf,
    pub verdict: PathBuf,
}

/// A running nginx; ends when dropped.
pub struct Nginx {
    pub places: Places,
    _reloader: JoinSet<()>,
    _process: Process,
}

const PROGRAM: &str = "/usr/sbin/nginx";
const DOCUMENTED: &str = include_str!("../../../systemd/nginx.conf");

/// How long old workers keep their connections, in seconds: longer than any
/// request of a test takes.
pub const WORKER_SHUTDOWN_S: u64 = 6;

/// The documented configuration with the node's own addresses and files.
fn configuration(dir: &Path, places: &Places) -> String {
    let text = DOCUMENTED
        .replace("127.0.0.1:4000", &places.application.to_string())
        .replace("127.0.0.1:7404", &places.hold.to_string())
        .replace("/var/lib/webhost-agent/routes", &places.routes.display().to_string())
        .replace("listen 8080", &format!("listen {}", places.listen))
        .replace(".tracking.example.net", "_")
        .replace("timeout 30s;", &format!("timeout {WORKER_SHUTDOWN_S}s;"));
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let text = text.replace("http {\n", &format!("http {{\n    access_log off;\n{temporary}"));
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {dir}/nginx.pid;\n\
         error_log {dir}/error.log info;\n{text}"
    )
}

impl Nginx {
    /// Starts nginx with its files in `dir`.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start(dir: &Path, places: Places) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        std::fs::create_dir_all(&places.routes)?;
        let config = dir.join("nginx.conf");
        std::fs::write(&config, configuration(dir, &places))?;
        let arguments = ["-c".to_owned(), config.display().to_string()];
        let process =
            Process::start("nginx", Path::new(PROGRAM), &arguments, &[], &dir.join("nginx.log"))?;
        let agent = program("webhost-agent")?;
        let mut reloader = JoinSet::new();
        reloader.spawn(reloads(agent, places.clone(), config));
        super::api::wait_for("nginx", Duration::from_secs(30), async || {
            anyhow::ensure!(process.ended().is_none(), "nginx ended:\n{}", process.log_tail(20));
            Ok(tokio::net::TcpStream::connect(places.listen).await.ok().map(drop))
        })
        .await
        .with_context(|| process.log_tail(20))?;
        Ok(Self { places, _reloader: reloader, _process: process })
    }
}

/// What `webhost-nginx-reload.path` and its service do.
async fn reloads(agent: PathBuf, places: Places, config: PathBuf) {
    let generation = places.routes.join(webhost_agent::nginx::GENERATION);
    let mut last = Vec::new();
    loop {
        let now = std::fs::read(&generation).unwrap_or_default();
        if now != last && !now.is_empty() {
            last = now;
            let run = tokio::process::Command::new(&agent)
                .arg("nginx-reload")
                .arg("--routes")
                .arg(&places.routes)
                .arg("--verdict")
                .arg(&places.verdict)
                .args(["--nginx", PROGRAM, "--nginx-config"])
                .arg(&config)
                .kill_on_drop(true)
                .status()
                .await;
            if !run.is_ok_and(|status| status.success()) {
                tracing::error!("the reload failed");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
