//! What real containers do that is known beforehand, beside what the agent says
//! of it: half a core and what holds it there, the network of a namespace, a
//! kill for memory, a restart, health.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HealthConfig, HostConfig};
use futures_util::StreamExt;
use tokio::time::Instant;
use webhost_agent::collect::container::ContainerTenant;
use webhost_agent::collect::detail;

use super::*;

/// How long something may take that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

struct Watched {
    engine: Engine,
    source: ContainerSource,
    _dir: tempfile::TempDir,
}

impl Watched {
    /// None where no engine can run, for a reason that is said.
    async fn start() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("wh").tempdir().expect("a directory");
        let engine = engine(dir.path()).await?;
        let config = Containers { socket: engine.socket(), ..Containers::default() };
        let mut source = ContainerSource::new(&config, BTreeSet::new());
        // From now on a container that appears is watched from its beginning.
        assert!(matches!(source.read().await, Outcome::Good(_)));
        Some(Self { engine, source, _dir: dir })
    }

    async fn run(
        &self,
        tenant: Uuid,
        name: &str,
        change: impl FnOnce(&mut ContainerCreateBody),
    ) -> String {
        let small = Appetite { memory_mb: 8, busy_ms: 0, burn_ms: 0 };
        self.engine.run_tenant_with(tenant, name, small, change).await.expect("starts")
    }

    async fn pid(&self, id: &str) -> i64 {
        let seen = self.engine.docker().inspect_container(id, None).await.expect("is known");
        seen.state.and_then(|state| state.pid).expect("has a process")
    }

    async fn now(&mut self, tenant: Uuid) -> ContainerTenant {
        match self.source.read().await {
            Outcome::Good(reading) => {
                reading.tenants.get(&TenantId(tenant)).cloned().unwrap_or_default()
            }
            other => panic!("not good: {other:?}"),
        }
    }

    /// What the agent says of `tenant` once it is as `wanted`.
    async fn until(
        &mut self,
        tenant: Uuid,
        what: &str,
        wanted: impl Fn(&ContainerTenant) -> bool,
    ) -> ContainerTenant {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let own = self.now(tenant).await;
            if wanted(&own) {
                return own;
            }
            assert!(Instant::now() < deadline, "never {what}: {own:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn host(body: &mut ContainerCreateBody) -> &mut HostConfig {
    body.host_config.get_or_insert_default()
}

/// On a CPU so far, by the scheduler's own count.
fn burnt_us(pid: i64) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    let nanos = text.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    nanos.expect("a number") / 1_000
}

#[tokio::test]
async fn half_a_core_is_half_a_core_and_what_holds_it_there_is_told() {
    let _one = ONE.lock().await;
    let Some(mut node) = Watched::start().await else { return };
    let tenant = Uuid::new_v4();
    // It wants a whole core, and the kernel gives it half of one.
    let greedy = Appetite { memory_mb: 8, busy_ms: 0, burn_ms: 3_600_000 };
    let half = |body: &mut ContainerCreateBody| host(body).nano_cpus = Some(500_000_000);
    let id = node.engine.run_tenant_with(tenant, "half", greedy, half).await.expect("starts");
    let pid = node.pid(&id).await;
    node.until(tenant, "seen", |own| own.running == 1).await;
    // What is said lies between what was burnt before and after it was asked.
    let (began, before) = (Instant::now(), burnt_us(pid));
    let first = node.now(tenant).await;
    let after = burnt_us(pid);
    while burnt_us(pid) < after + 2_000_000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let least = burnt_us(pid) - after;
    let last = node.now(tenant).await;
    let (most, wall) = (burnt_us(pid) - before, began.elapsed());
    let told = last.cpu_us - first.cpu_us;
    let is_held = |own: &ContainerTenant| own.detail.counts[detail::THROTTLED] > Some(0);
    let held = node.until(tenant, "held back", is_held).await;
    node.engine.stop().await;
    eprintln!(
        "burnt {least} to {most} us in {} us, {:.3} of a core; the agent says {told}, and that it \
         was held back for {:?} us",
        wall.as_micros(),
        most as f64 / wall.as_micros() as f64,
        held.detail.counts[detail::THROTTLED]
    );
    // The kernel's two counts are a tick or two apart.
    assert!(told * 100 >= least * 98 && told * 98 <= most * 100, "{told}: {least} to {most}");
}

/// The addresses of our end of a cable and of the other one, this process's own:
/// in the range that is for measurements.
fn addresses() -> [String; 2] {
    let own = std::process::id();
    let [third, fourth] = [own >> 6 & 255, (own & 63) << 2];
    [1, 2].map(|end| format!("198.18.{third}.{}", fourth + end))
}

/// Two ends of a cable, one in the namespace of a process; ours by its name.
fn cable(pid: i64) -> Result<String, String> {
    let [here, there] = addresses().map(|address| format!("{address}/30"));
    let name = format!("wh{}", std::process::id());
    let run = |command: &[&str]| -> Result<(), String> {
        let (program, arguments) = command.split_first().ok_or("nothing to run")?;
        let output = Command::new(program).args(arguments).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
    };
    let pid = pid.to_string();
    let inside = ["nsenter", "-t", &pid, "-n"];
    run(&["ip", "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    run(&["ip", "addr", "add", &here, "dev", &name])?;
    run(&["ip", "link", "set", &name, "up"])?;
    run(&[&inside[..], &["ip", "addr", "add", &there, "dev", "eth0"]].concat())?;
    run(&[&inside[..], &["ip", "link", "set", "eth0", "up"]].concat())?;
    Ok(name)
}

/// What our end of the cable counted: "tx_bytes" or "rx_bytes".
fn carried(cable: &str, what: &str) -> u64 {
    let file = format!("/sys/class/net/{cable}/statistics/{what}");
    std::fs::read_to_string(file).expect("it lies there").trim().parse().expect("a number")
}

#[tokio::test]
async fn the_network_of_a_container_is_that_of_its_namespace() {
    let _one = ONE.lock().await;
    let Some(mut node) = Watched::start().await else { return };
    let tenant = Uuid::new_v4();
    let id = node.run(tenant, "wired", |_| {}).await;
    let received = |own: &ContainerTenant| own.detail.counts[detail::RECEIVED];
    let alone = node.until(tenant, "seen", |own| received(own).is_some()).await;
    assert_eq!(received(&alone), Some(0), "loopback is no network");
    let cable = match cable(node.pid(&id).await) {
        Ok(cable) => cable,
        Err(why) => {
            eprintln!("no cable can be laid here: {why}");
            node.engine.stop().await;
            return;
        }
    };
    let [here, there] = addresses();
    let socket = UdpSocket::bind((here, 0)).expect("binds");
    let deadline = Instant::now() + PATIENCE;
    // Until they know each other, most are dropped before the cable.
    while carried(&cable, "tx_bytes") < 500_000 {
        for _ in 0..10 {
            socket.send_to(&[0; 1_000], (there.as_str(), 9)).expect("sends");
        }
        assert!(Instant::now() < deadline, "the cable carries nothing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (there, back) = (carried(&cable, "tx_bytes"), carried(&cable, "rx_bytes"));
    let own = node.until(tenant, "received", |own| received(own) >= Some(there)).await;
    let (there_now, back_now) = (carried(&cable, "tx_bytes"), carried(&cable, "rx_bytes"));
    node.engine.stop().await;
    let (received, sent) = (received(&own), own.detail.counts[detail::SENT]);
    eprintln!(
        "our end of the cable sent {there} to {there_now} bytes and received {back} to {back_now}; \
         the agent says {received:?} and {sent:?}"
    );
    assert!(received <= Some(there_now), "{own:?}");
    assert!((Some(back)..=Some(back_now)).contains(&sent), "{own:?}");
}

#[tokio::test]
async fn a_kill_for_memory_is_told_once() {
    let _one = ONE.lock().await;
    let Some(mut node) = Watched::start().await else { return };
    let tenant = Uuid::new_v4();
    let id = node
        .run(tenant, "greedy", |body| {
            let host = host(body);
            (host.memory, host.memory_swap) = (Some(48 << 20), Some(48 << 20));
        })
        .await;
    let seen = node.until(tenant, "seen", |own| own.detail.tasks == Some(1)).await;
    assert_eq!(seen.detail.counts[detail::OOM_KILLS].unwrap_or(0), 0);
    // A second process in it that wants more than there is; the first one lives.
    let exec = ExecConfig {
        cmd: Some(vec!["/tenant".into()]),
        env: Some(vec!["TENANT_MEMORY_MB=200".into()]),
        attach_stdout: Some(true),
        ..ExecConfig::default()
    };
    let docker = node.engine.docker();
    let exec = docker.create_exec(&id, exec).await.expect("is made").id;
    if let StartExecResults::Attached { mut output, .. } =
        docker.start_exec(&exec, None).await.expect("starts")
    {
        while output.next().await.is_some() {}
    }
    let ended = docker.inspect_exec(&exec).await.expect("is known").exit_code;
    let own =
        node.until(tenant, "killed", |own| own.detail.counts[detail::OOM_KILLS] > Some(0)).await;
    // Docker tells it as well: neither the control group's next look nor its
    // event counts it again.
    let looks = Instant::now() + 2 * detail::EVERY;
    while Instant::now() < looks {
        node.now(tenant).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let later = node.now(tenant).await;
    node.engine.stop().await;
    assert_eq!(ended, Some(137), "killed by SIGKILL");
    eprintln!(
        "1 process was killed for memory, the agent says {:?}",
        later.detail.counts[detail::OOM_KILLS]
    );
    assert_eq!(later.detail.counts[detail::OOM_KILLS], Some(1), "{own:?}");
    assert_eq!((later.running, later.detail.counts[detail::RESTARTS]), (1, Some(0)));
}

#[tokio::test]
async fn restarts_and_health_are_docker_s_own() {
    let _one = ONE.lock().await;
    let Some(mut node) = Watched::start().await else { return };
    let tenant = Uuid::new_v4();
    let mut ids = Vec::new();
    for (name, sick) in [("well", "0"), ("sick", "1")] {
        let id = node
            .run(tenant, name, |body| {
                body.env.get_or_insert_default().push(format!("TENANT_SICK={sick}"));
                body.healthcheck = Some(HealthConfig {
                    test: Some(["CMD", "/tenant", "check"].map(str::to_owned).into()),
                    interval: Some(200_000_000),
                    timeout: Some(30_000_000_000),
                    retries: Some(1),
                    ..HealthConfig::default()
                });
            })
            .await;
        ids.push(id);
    }
    let own = node.until(tenant, "sick", |own| own.detail.unhealthy == Some(1)).await;
    assert_eq!(own.running, 2);
    for restarts in 1..=3 {
        node.engine.docker().restart_container(&ids[0], None).await.expect("restarts");
        let again = |own: &ContainerTenant| {
            own.running == 2 && own.detail.counts[detail::RESTARTS] >= Some(restarts)
        };
        let own = node.until(tenant, "restarted", again).await;
        assert_eq!(own.detail.counts[detail::RESTARTS], Some(restarts), "{own:?}");
    }
    let own = node.now(tenant).await;
    node.engine.stop().await;
    eprintln!("3 restarts and 1 of 2 unhealthy, the agent says {own:?}");
    assert_eq!(own.detail.unhealthy, Some(1));
}
