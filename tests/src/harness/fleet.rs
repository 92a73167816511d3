//! A whole fleet: one coordinator, and nodes with database, application and
//! agent.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use webhost_coordinator::embedded::Options;

use super::api::{Api, wait_for};
use super::cluster::Cluster;
use super::nginx::{self, Nginx};
use super::ports;
use super::process::{Process, program};
use super::settings::{AgentSettings, CoordinatorSettings, Front};
use crate::schema;

/// How long the start of anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One node that is to be.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: String,
    /// "shared" or "dedicated".
    pub kind: &'static str,
    pub shape: &'static str,
    pub region: &'static str,
    /// Rows per second that a copy from here may reach; 0 is unlimited.
    pub max_rows_per_second: u64,
    /// The engine whose containers its agent looks at.
    pub containers: Option<PathBuf>,
    /// For the agent alone, as the mover's fail points need it.
    pub environment: Vec<(String, String)>,
    /// Its application knows nothing of moves.
    pub bare: bool,
    /// Its agent has a hold point.
    pub hold: bool,
    /// nginx stands before its application, and is told of moves.
    pub nginx: bool,
}

impl NodeSpec {
    /// A shared node of the default shape.
    pub fn shared(name: &str) -> Self {
        Self {
            name: name.into(),
            kind: "shared",
            shape: "ax52",
            region: "fra",
            max_rows_per_second: 0,
            containers: None,
            environment: Vec::new(),
            bare: false,
            hold: false,
            nginx: false,
        }
    }

    /// A dedicated node of starter's shape.
    pub fn dedicated(name: &str) -> Self {
        Self { kind: "dedicated", shape: "shared-cpu-512", region: "iad", ..Self::shared(name) }
    }
}

/// What a fleet is to be.
#[derive(Clone, Debug)]
pub struct Spec {
    pub nodes: Vec<NodeSpec>,
    /// How the nodes' PostgreSQL runs.
    pub postgres: Options,
    pub report_interval_ms: u32,
    pub usage_window_s: u64,
    pub min_gap_s: u64,
    /// How long a way back is open after a switch; 0 opens none.
    pub way_back_s: u64,
    /// How long an old copy is kept after that.
    pub keep_old_copy_s: u64,
    /// The most tenants of a shared node, as `MAX_CUSTOMERS`.
    pub max_customers: u32,
    /// Filters of the logs, as `RUST_LOG`.
    pub log: &'static str,
}

/// A running node.
pub struct Node {
    pub spec: NodeSpec,
    pub cluster: Cluster,
    pub app: SocketAddr,
    pub nginx: Option<Nginx>,
    dir: PathBuf,
    config: PathBuf,
    app_process: Process,
    agent: Option<Process>,
}

/// A running fleet. Ends when dropped.
pub struct Fleet {
    pub api: Api,
    pub admin_token: String,
    pub nodes: BTreeMap<String, Node>,
    pub addresses: CoordinatorSettings,
    coordinator: Option<Process>,
    coordinator_config: PathBuf,
    max_customers: u32,
    log: &'static str,
    dir: TempDir,
}

impl Fleet {
    /// Starts everything; when it returns, every agent is connected.
    ///
    /// # Errors
    /// With the end of the log of what failed.
    pub async fn start(spec: Spec) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("webhost-").tempdir()?;
        // PostgreSQL runs as another user when we are root.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        let addresses = CoordinatorSettings {
            api: ports::free()?,
            link: ports::free()?,
            enrolment: ports::free()?,
            report_interval_ms: spec.report_interval_ms,
            usage_window_s: spec.usage_window_s,
            scan_interval_s: 1,
            min_gap_s: spec.min_gap_s,
            way_back_s: spec.way_back_s,
            keep_old_copy_s: spec.keep_old_copy_s,
        };
        let coordinator_dir = dir.path().join("coordinator");
        std::fs::create_dir(&coordinator_dir)?;
        let coordinator_config = dir.path().join("coordinator.toml");
        std::fs::write(&coordinator_config, addresses.toml(&coordinator_dir))?;
        let mut fleet = Self {
            api: Api::new(format!("http://{}", addresses.api), String::new())?,
            admin_token: String::new(),
            nodes: BTreeMap::new(),
            addresses,
            coordinator: None,
            coordinator_config,
            max_customers: spec.max_customers,
            log: spec.log,
            dir,
        };
        // The nodes' databases don't need the coordinator.
        let mut clusters = JoinSet::new();
        for node in spec.nodes {
            let node_dir = fleet.dir.path().join(&node.name);
            std::fs::create_dir(&node_dir)?;
            let options = spec.postgres.clone();
            clusters.spawn(async move {
                let cluster =
                    Cluster::start(&node_dir.join("postgres"), options, schema::WEBHOST).await?;
                anyhow::Ok((node, node_dir, cluster))
            });
        }
        fleet.start_coordinator().await?;
        fleet.admin_token = fleet
            .coordinator_cli(&["token", "create", "harness", "--role", "admin"])
            .await?
            .trim()
            .to_owned();
        fleet.api = Api::new(fleet.api.base().to_owned(), fleet.admin_token.clone())?;
        while let Some(started) = clusters.join_next().await {
            let (node, node_dir, cluster) = started??;
            fleet.add_node(node, node_dir, cluster).await?;
        }
        for name in fleet.nodes.keys() {
            fleet.wait_connected(name).await?;
        }
        Ok(fleet)
    }

    /// The directory that holds everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The coordinator's configuration file.
    pub fn coordinator_config(&self) -> &Path {
        &self.coordinator_config
    }

    /// Runs the coordinator's CLI; answers what it printed.
    ///
    /// # Errors
    /// With what it said, when it failed.
    pub async fn coordinator_cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let config = self.coordinator_config.display().to_string();
        let mut all: Vec<&str> = arguments.to_vec();
        all.extend(["--config", &config, "--embedded"]);
        run(&program("webhost-coordinator")?, &all, "").await
    }

    /// Starts the coordinator and waits until it answers.
    ///
    /// # Errors
    /// With the end of its log.
    pub async fn start_coordinator(&mut self) -> anyhow::Result<()> {
        let config = self.coordinator_config.display().to_string();
        let arguments = ["serve".into(), "--embedded".into(), "--config".into(), config];
        let process = Process::start(
            "coordinator",
            &program("webhost-coordinator")?,
            &arguments,
            &[
                ("WEBHOST_COORDINATOR_LOG".into(), self.log.into()),
                ("MAX_CUSTOMERS".into(), self.max_customers.to_string()),
            ],
            &self.dir.path().join("coordinator.log"),
        )?;
        let api = self.api.clone();
        let answers = wait_for("the coordinator's answer", PATIENCE, async || {
            anyhow::ensure!(
                process.ended().is_none(),
                "the coordinator ended:\n{}",
                process.log_tail(20)
            );
            let (status, _) = api.call(reqwest::Method::GET, "/healthz", None).await?;
            Ok((status == 200).then_some(()))
        });
        answers.await.with_context(|| process.log_tail(20))?;
        self.coordinator = Some(process);
        Ok(())
    }

    /// kill -9 of the coordinator.
    pub fn kill_coordinator(&mut self) {
        if let Some(process) = self.coordinator.take() {
            process.kill();
        }
    }

    /// kill -9 of a node's agent.
    pub fn kill_agent(&mut self, name: &str) {
        if let Some(agent) = self.nodes.get_mut(name).and_then(|node| node.agent.take()) {
            agent.kill();
        }
    }

    async fn add_node(
        &mut self,
        spec: NodeSpec,
        dir: PathBuf,
        cluster: Cluster,
    ) -> anyhow::Result<()> {
        let app = ports::free()?;
        let hold = if spec.hold { Some(ports::free()?) } else { None };
        let places = match hold {
            Some(hold) if spec.nginx => Some(nginx::Places {
                listen: ports::free()?,
                application: app,
                hold,
                routes: dir.join("routes"),
                verdict: dir.join("verdict.json"),
            }),
            _ => None,
        };
        let settings = AgentSettings {
            link: self.addresses.link,
            enrolment: self.addresses.enrolment,
            tunnel: ports::free()?,
            app,
            interval_ms: self.addresses.report_interval_ms,
            postgres: cluster.socket_dir(),
            postgres_pid_file: cluster.pid_file(),
            app_pid_file: dir.join("app.pid"),
            containers: spec.containers.clone(),
            max_rows_per_second: spec.max_rows_per_second,
            front: Front { hold, nginx: places.clone() },
        };
        let config = dir.join("agent.toml");
        let state = dir.join("agent");
        std::fs::create_dir(&state)?;
        std::fs::write(&config, settings.toml(&state, &dir.join("status.sock")))?;
        let mut arguments: Vec<String> = [
            ["--listen".into(), app.to_string()],
            ["--postgres".into(), settings.postgres.display().to_string()],
            ["--pid-file".into(), settings.app_pid_file.display().to_string()],
        ]
        .concat();
        if spec.bare {
            arguments.push("--bare".into());
        }
        let nginx = match places {
            Some(places) => Some(Nginx::start(&dir.join("nginx"), places).await?),
            None => None,
        };
        let app_process = Process::start(
            &format!("{} application", spec.name),
            &program("webhost-app")?,
            &arguments,
            &[],
            &dir.join("app.log"),
        )?;
        let token = self
            .coordinator_cli(&[
                "node",
                "token",
                &spec.name,
                "--kind",
                spec.kind,
                "--shape",
                spec.shape,
                "--region",
                spec.region,
            ])
            .await?;
        let config_text = config.display().to_string();
        run(&program("webhost-agent")?, &["enroll", "--config", &config_text], token.trim())
            .await?;
        let name = spec.name.clone();
        let node = Node { spec, cluster, app, nginx, dir, config, app_process, agent: None };
        self.nodes.insert(name.clone(), node);
        self.start_agent(&name)
    }

    /// Starts a node's agent.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let log = self.log;
        let node = self.nodes.get_mut(name).with_context(|| format!("no node {name}"))?;
        let arguments = ["run".into(), "--config".into(), node.config.display().to_string()];
        let mut environment = node.spec.environment.clone();
        environment.push(("WEBHOST_AGENT_LOG".into(), log.into()));
        node.agent = Some(Process::start(
            &format!("{name} agent"),
            &program("webhost-agent")?,
            &arguments,
            &environment,
            &node.dir.join("agent.log"),
        )?);
        Ok(())
    }

    /// Waits until the coordinator counts the node as active.
    ///
    /// # Errors
    /// With the end of the agent's log.
    pub async fn wait_connected(&self, name: &str) -> anyhow::Result<()> {
        let node = self.nodes.get(name).with_context(|| format!("no node {name}"))?;
        let what = format!("{name}'s connection");
        let connected = wait_for(&what, PATIENCE, async || {
            let nodes = self.api.get("/api/nodes").await?;
            Ok(items(&nodes)
                .iter()
                .any(|node| node["name"] == name && node["state"] == "active")
                .then_some(()))
        });
        connected.await.with_context(|| {
            node.agent.as_ref().map(|agent| agent.log_tail(20)).unwrap_or_default()
        })
    }

    /// Runs `webhost-agent status` on a node; answers what it printed.
    ///
    /// # Errors
    /// When it fails otherwise than by telling of a degraded agent.
    pub async fn agent_status(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        // 1 says that the agent is degraded: an answer, too.
        self.agent_cli(name, &[&["status"], arguments].concat(), &[0, 1]).await
    }

    /// Runs a command of `webhost-agent` on a node; answers its standard output.
    ///
    /// # Errors
    /// When it ends with another exit code than the `good` ones.
    pub async fn agent_cli(
        &self,
        name: &str,
        arguments: &[&str],
        good: &[i32],
    ) -> anyhow::Result<String> {
        let node = self.nodes.get(name).with_context(|| format!("no node {name}"))?;
        let config = node.config.display().to_string();
        let all = [arguments, &["--config", &config]].concat();
        run_with(&program("webhost-agent")?, &all, "", good).await
    }

    /// The agent's pid, for looking at its costs.
    pub fn agent_pid(&self, name: &str) -> Option<u32> {
        self.nodes.get(name)?.agent.as_ref().map(Process::pid)
    }

    /// The coordinator's pid.
    pub fn coordinator_pid(&self) -> Option<u32> {
        self.coordinator.as_ref().map(Process::pid)
    }

    /// A node's agent configuration file.
    pub fn agent_config(&self, name: &str) -> Option<&Path> {
        self.nodes.get(name).map(|node| node.config.as_path())
    }

    /// The applications' addresses by node name.
    pub fn places(&self) -> BTreeMap<String, String> {
        self.nodes
            .iter()
            .map(|(name, node)| (name.clone(), format!("http://{}", node.app)))
            .collect()
    }

    /// The nodes' databases by node name.
    pub fn clusters(&self) -> BTreeMap<String, &Cluster> {
        self.nodes.iter().map(|(name, node)| (name.clone(), &node.cluster)).collect()
    }

    /// The first process that ended by itself, with the end of its log.
    pub fn casualty(&self) -> Option<String> {
        self.processes().find_map(|process| {
            let status = process.ended()?;
            Some(format!("{} ended ({status}):\n{}", process.name(), process.log_tail(20)))
        })
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nodes
            .values()
            .flat_map(|node| node.agent.iter().chain([&node.app_process]))
            .chain(&self.coordinator)
    }

    /// The ends of all logs.
    pub fn logs(&self, lines: usize) -> String {
        self.processes()
            .map(|process| format!("--- {}\n{}\n", process.name(), process.log_tail(lines)))
            .collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nothing is left to be done when even that can't be written.
            let _unwritable = writeln!(std::io::stderr().lock(), "{}", self.logs(40));
        }
        // All are told first, so that they end side by side.
        for process in self.processes() {
            process.terminate();
        }
        for node in self.nodes.values_mut() {
            node.agent = None;
        }
        self.coordinator = None;
    }
}

/// The list in an answer of the API.
pub fn items(answer: &Value) -> &[Value] {
    let list = answer.as_array().or_else(|| answer["items"].as_array());
    list.map_or(&[], Vec::as_slice)
}

/// Runs a program to its end with `input`; answers its standard output.
///
/// # Errors
/// With what it said, when it fails or takes too long.
pub async fn run(program: &Path, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    run_with(program, arguments, input, &[0]).await
}

async fn run_with(
    program: &Path,
    arguments: &[&str],
    input: &str,
    good: &[i32],
) -> anyhow::Result<String> {
    let told = || format!("{} {}", program.display(), arguments.join(" "));
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(told)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that needs no input may have ended already.
        let _not_read = stdin.write_all(format!("{input}\n").as_bytes()).await;
    }
    let output =
        tokio::time::timeout(PATIENCE, child.wait_with_output()).await.with_context(told)??;
    anyhow::ensure!(
        output.status.code().is_some_and(|code| good.contains(&code)),
        "{} failed ({}): {}{}",
        told(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
