//! A Docker engine of our own for the demo's containers, and the one image
//! that runs in it.
//!
//! Theory of operation: `dockerd` runs with its own socket, data, state and
//! containerd namespace, without a bridge and without touching iptables or
//! forwarding, so that a system-wide Docker beside it notices nothing. The
//! image is one static binary on nothing, compiled by plain rustc from
//! `tests/container/tenant.rs` and imported as a tar: no registry is asked.
//!
//! **Invariant:** nothing outlives the owner. [`Engine::stop`] removes the
//! containers, ends the engine and takes away its mounts and cgroups; when the
//! owner is killed instead, the kernel sends the engine a SIGTERM, at which it
//! ends its containers (they die of SIGKILL at once) and itself.
//!
//! Where an engine can't run (no root, no `dockerd`, no writable cgroups) the
//! error says why, and the demo goes on without containers.

mod daemon;
mod image;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use uuid::Uuid;

use daemon::Daemon;

/// The label that says whose container it is; the agent's default.
pub const TENANT_LABEL: &str = "webhost.customer_id";

/// A private engine with the tenants' image in it.
pub struct Engine {
    docker: Docker,
    daemon: Daemon,
}

/// How much a tenant's container is to use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appetite {
    /// MiB held, at most 256.
    pub memory_mb: u32,
    /// Milliseconds of CPU burnt about five times a second, at most 50.
    pub busy_ms: u32,
    /// Milliseconds of CPU burnt at once, and none afterwards; 0 is not this.
    pub burn_ms: u32,
}

impl Engine {
    /// Starts an engine whose files are all below `dir` and makes the image.
    /// `dir` should be short: a unix socket's path may have 107 bytes.
    ///
    /// # Errors
    /// In words for the person at the terminal, why there are no containers;
    /// nothing is left running then.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let mut daemon = Daemon::start(dir)?;
        let docker = match connect(&mut daemon).await {
            Ok(docker) => docker,
            Err(error) => {
                daemon.stop().await;
                return Err(error);
            }
        };
        let engine = Self { docker, daemon };
        if let Err(error) = image::import(&engine.docker, dir).await {
            engine.stop().await;
            return Err(error);
        }
        Ok(engine)
    }

    /// The engine's API, for the agent's `[containers] socket`.
    pub fn socket(&self) -> PathBuf {
        self.daemon.socket()
    }

    /// The engine's client, for whatever a test wants to look at.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Starts a container that belongs to `tenant`; returns its id.
    ///
    /// # Errors
    /// What the engine said.
    pub async fn run_tenant(
        &self,
        tenant: Uuid,
        name: &str,
        appetite: Appetite,
    ) -> anyhow::Result<String> {
        self.run_tenant_with(tenant, name, appetite, |_| {}).await
    }

    /// As [`run_tenant`](Self::run_tenant), with something changed of what the
    /// engine is asked for.
    ///
    /// # Errors
    /// What the engine said.
    pub async fn run_tenant_with(
        &self,
        tenant: Uuid,
        name: &str,
        appetite: Appetite,
        change: impl FnOnce(&mut ContainerCreateBody),
    ) -> anyhow::Result<String> {
        let labels = HashMap::from([(TENANT_LABEL.into(), tenant.to_string())]);
        self.run(labels, name, appetite, change).await
    }

    /// Starts a container that belongs to nobody; returns its id.
    ///
    /// # Errors
    /// What the engine said.
    pub async fn run_shared(&self, name: &str, appetite: Appetite) -> anyhow::Result<String> {
        self.run(HashMap::new(), name, appetite, |_| {}).await
    }

    async fn run(
        &self,
        labels: HashMap<String, String>,
        name: &str,
        appetite: Appetite,
        change: impl FnOnce(&mut ContainerCreateBody),
    ) -> anyhow::Result<String> {
        let mut body = ContainerCreateBody {
            image: Some(image::NAME.into()),
            labels: Some(labels),
            env: Some(vec![
                format!("TENANT_MEMORY_MB={}", appetite.memory_mb),
                format!("TENANT_BUSY_MS={}", appetite.busy_ms),
                format!("TENANT_BURN_MS={}", appetite.burn_ms),
            ]),
            // The first process of a container ignores SIGTERM; waiting ten
            // seconds for each of them would be waiting for nothing.
            stop_signal: Some("SIGKILL".into()),
            host_config: Some(HostConfig {
                network_mode: Some("none".into()),
                memory: Some(512 << 20),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        change(&mut body);
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let created = self
            .docker
            .create_container(Some(options), body)
            .await
            .with_context(|| format!("container {name} not created"))?;
        self.docker
            .start_container(&created.id, None)
            .await
            .with_context(|| format!("container {name} not started"))?;
        Ok(created.id)
    }

    /// Ends and removes a container.
    ///
    /// # Errors
    /// What the engine said.
    pub async fn remove(&self, id: &str) -> anyhow::Result<()> {
        let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.docker.remove_container(id, Some(force)).await;
        removed.with_context(|| format!("container {id} not removed"))
    }

    /// Removes every container and ends the engine. What can't be removed
    /// through the API ends with the engine.
    pub async fn stop(self) {
        let all = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.docker.list_containers(Some(all)).await.unwrap_or_default();
        for id in containers.into_iter().filter_map(|container| container.id) {
            let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            // Its end takes the container with it in any case.
            let _ends_with_the_engine = self.docker.remove_container(&id, Some(force)).await;
        }
        self.daemon.stop().await;
    }
}

/// Waits until the engine answers, or has ended.
async fn connect(daemon: &mut Daemon) -> anyhow::Result<Docker> {
    let socket = daemon.socket();
    let address = socket.to_str().context("the engine's directory has a name that isn't UTF-8")?;
    for _ in 0..300 {
        if let Some(words) = daemon.ended() {
            anyhow::bail!("dockerd ended at once: {words}");
        }
        if socket.exists() {
            let docker = Docker::connect_with_unix(address, 30, bollard::API_DEFAULT_VERSION)?;
            if docker.ping().await.is_ok() {
                // An older engine refuses the version that the client prefers.
                return docker.negotiate_version().await.context("dockerd's version");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("dockerd did not answer on {address} within 30 s: {}", daemon.log_tail())
}
