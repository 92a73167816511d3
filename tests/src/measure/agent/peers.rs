//! Other agents on the same machine, for the same time: collectd, which sends
//! every second by its own protocol, and Prometheus's node exporter, asked
//! every second. Debian's packages, started by us and ended with their value;
//! neither of them knows a tenant or a container's label.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::processes::{Look, look};
use crate::harness::api::http_client;
use crate::harness::ports;
use crate::harness::process::Process;

/// What a peer cost in one window.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub cpu_percent: f64,
    pub end: Look,
    /// What it said in the window, in bytes.
    pub bytes: u64,
}

/// Debian's program, if it is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|p| p.is_file())
}

const COLLECTD_PLUGINS: [&str; 8] =
    ["cpu", "memory", "df", "disk", "interface", "load", "processes", "cgroups"];

/// collectd at one second with what it needs for a host.
///
/// # Errors
/// With the end of its log, when it does not run.
pub async fn collectd(program: &Path, window: Duration) -> anyhow::Result<Cost> {
    let dir = tempfile::Builder::new().prefix("wh").tempdir()?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let port = socket.local_addr()?.port();
    let plugins: String =
        COLLECTD_PLUGINS.iter().map(|name| format!("LoadPlugin {name}\n")).collect();
    let text = format!(
        "Hostname \"bench\"\nFQDNLookup false\nInterval 1\nBaseDir {dir:?}\n\
         PIDFile \"{pid}\"\nTypesDB \"/usr/share/collectd/types.db\"\n{plugins}\
         LoadPlugin network\n<Plugin network>\nServer \"127.0.0.1\" \"{port}\"\n</Plugin>\n",
        dir = dir.path(),
        pid = dir.path().join("collectd.pid").display(),
    );
    let config = dir.path().join("collectd.conf");
    std::fs::write(&config, text)?;
    let arguments = ["-f".into(), "-C".into(), config.display().to_string()];
    let log = dir.path().join("log");
    let process = Process::start("collectd", program, &arguments, &[], &log)?;
    let bytes = Arc::new(AtomicU64::new(0));
    let mut listening = JoinSet::new();
    let heard = Arc::clone(&bytes);
    listening.spawn(async move {
        let mut packet = vec![0; 64 * 1024];
        while let Ok(length) = socket.recv(&mut packet).await {
            heard.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    watch(&process, window, &bytes).await
}

/// The node exporter with Debian's defaults, scraped every second.
///
/// # Errors
/// With the end of its log, when it does not answer.
pub async fn node_exporter(program: &Path, window: Duration) -> anyhow::Result<Cost> {
    let dir = tempfile::Builder::new().prefix("wh").tempdir()?;
    let address = ports::free()?;
    let arguments = [format!("--web.listen-address={address}")];
    let log = dir.path().join("log");
    let process = Process::start("node exporter", program, &arguments, &[], &log)?;
    let bytes = Arc::new(AtomicU64::new(0));
    let client = http_client()?;
    let mut asking = JoinSet::new();
    let heard = Arc::clone(&bytes);
    asking.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            let page = async {
                let answer = client.get(format!("http://{address}/metrics")).send().await?;
                answer.bytes().await
            };
            // Before it listens there is no page.
            if let Ok(page) = page.await {
                heard.fetch_add(page.len() as u64, Ordering::Relaxed);
            }
        }
    });
    watch(&process, window, &bytes).await
}

async fn watch(process: &Process, window: Duration, bytes: &AtomicU64) -> anyhow::Result<Cost> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = look(process.pid()).with_context(|| process.log_tail(20))?;
    let said = bytes.load(Ordering::Relaxed);
    tokio::time::sleep(window).await;
    let end = look(process.pid()).with_context(|| process.log_tail(20))?;
    let bytes = bytes.load(Ordering::Relaxed) - said;
    anyhow::ensure!(bytes > 0, "it said nothing:\n{}", process.log_tail(20));
    Ok(Cost { cpu_percent: end.cpu_percent_since(&before), end, bytes })
}
