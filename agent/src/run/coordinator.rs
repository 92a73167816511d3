//! The agent's side of the coordinator: identity, link and commands, wired
//! together and shown on the status board.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_proto::wire;

use super::RunError;
use crate::collect::collector::CapacitySource;
use crate::collect::postgres::list::ListTenants;
use crate::command::{CommandName, Journal, Registry, Tracker};
use crate::config::Config;
use crate::identity::StoredIdentity;
use crate::link::report::CollectedReport;
use crate::link::{HelloFacts, Link, LinkState, LinkStatus, Options, Orders};
use crate::mover::supervisor::Supervisor;
use crate::status::board::Board;
use crate::status::document::{Certificate, Command, Document};

/// What the rounds need of it.
pub(super) struct Coordinator {
    pub(super) reports: mpsc::Sender<CollectedReport>,
    pub(super) orders: watch::Receiver<Orders>,
    commands: Tracker,
}

impl Coordinator {
    /// Starts link and commands; they end at `stop`.
    pub(super) fn start(
        config: &Config,
        identity: StoredIdentity,
        capacity: CapacitySource,
        mover: &Supervisor,
        board: &Board,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, RunError> {
        let list = Arc::new(ListTenants::new(config.postgres.clone()));
        let mut registry = Registry::default().with(CommandName::ListTenants, list);
        // What the configuration forbids is not even in the list.
        if config.moves.enabled {
            for name in [CommandName::OpenTunnel, CommandName::CloseTunnel, CommandName::MoveStep] {
                registry = registry.with(name, Arc::new(mover.clone()));
            }
        }
        let journal = Journal::open(&config.state_dir)?;
        let (commands, replies) = Tracker::new(registry, journal, stop.clone());

        let facts = facts(config);
        let hello = Arc::new(move || HelloFacts { capacity: capacity.capacity(), ..facts.clone() });
        let options = Options {
            address: config.coordinator.address.clone(),
            identity,
            state_dir: config.state_dir.clone(),
            spool_bytes: u64::from(config.spool_mib) * 1024 * 1024,
        };
        let (link, handles) = Link::new(options, hello, commands.clone(), replies)?;
        tasks.spawn(link.run(stop.clone()));

        let (status, running) = (handles.status, commands.clone());
        board.expect_link();
        board.probe(move |document| {
            show_link(document, &status.borrow());
            document.commands.running = running
                .running()
                .into_iter()
                .map(|command| Command {
                    id: command.id.to_string(),
                    kind: command.name.to_string(),
                    since: time(command.since_us).unwrap_or_default(),
                    outcome: None,
                })
                .collect();
        });
        Ok(Self { reports: handles.reports, orders: handles.orders, commands })
    }

    /// Waits until the running commands have ended, after `stop`.
    pub(super) async fn ended(&self) {
        self.commands.wait().await;
    }
}

/// What does not change while the agent runs.
fn facts(config: &Config) -> HelloFacts {
    let capabilities = [
        ("containers", config.containers.enabled),
        ("postgres", config.postgres.is_some()),
        ("app", config.app.is_some()),
        ("move", config.moves.enabled && config.postgres.is_some()),
    ];
    let tunnel = config.tunnel.as_ref();
    HelloFacts {
        boot_id: boot_id(),
        capabilities: capabilities
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| name.to_owned())
            .collect(),
        capacity: wire::Capacity::default(),
        tunnel_address: tunnel.map_or_else(String::new, |tunnel| {
            tunnel.advertise.clone().unwrap_or_else(|| tunnel.listen.to_string())
        }),
    }
}

fn boot_id() -> String {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    std::fs::read_to_string(&path).map_or_else(
        |error| {
            tracing::warn!(%error, path = %path.display(), "the boot has no id");
            String::new()
        },
        |text| text.trim().to_owned(),
    )
}

fn show_link(document: &mut Document, status: &LinkStatus) {
    let connection = &mut document.connection;
    connection.state = match status.state {
        LinkState::Waiting => "waiting",
        LinkState::Connecting => "connecting",
        LinkState::Connected => "connected",
    }
    .into();
    connection.coordinator.clone_from(&status.address);
    connection.since = time(status.since_us);
    connection.last_error.clone_from(&status.last_error);
    connection.clock = status.clock.map(|clock| (clock.offset_us, clock.error_us));
    document.certificate = Some(Certificate {
        node_id: status.node.to_string(),
        node_name: status.node_name.clone(),
        not_after: Timestamp::from_second(status.certificate_not_after_s)
            .map_or_else(|_| String::new(), |at| at.to_string()),
    });
    document.spool.reports = u64::try_from(status.spooled).unwrap_or(u64::MAX);
    document.spool.bytes = status.spool_bytes;
    document.spool.oldest_at = status.spool_oldest_us.and_then(time);
    document.spool.problem.clone_from(&status.spool_problem);
    document.spool.last_acknowledged_at = status.last_ack_us.and_then(time);
}

fn time(us: i64) -> Option<String> {
    Timestamp::from_microsecond(us).ok().map(|at| at.to_string())
}
