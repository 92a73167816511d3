//! Where cases are played: a pair of clusters, and supervisors on a world of
//! theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;
use webhost_agent::mover::catalog::Rules;
use webhost_agent::mover::child::Login;
use webhost_agent::mover::spec::{Spec, Step};
use webhost_agent::mover::supervisor::{Patience, Setup, Way};
use webhost_agent::mover::tunnel::Tickets;
use webhost_coordinator::embedded::Options;
use webhost_proto::ids::{MoveId, NodeId, TenantId};
use webhost_proto::wire::{self, command};

use crate::schema;
use crate::writers::{Clusters, World};

/// A pair of clusters for any number of cases, one after the other.
pub struct Stage {
    pub clusters: Clusters,
    /// The mover's own program.
    pub program: PathBuf,
    worlds: std::sync::atomic::AtomicU32,
    /// What the last case left; none where it failed, so that it can be
    /// looked at.
    used: tokio::sync::Mutex<Option<World>>,
}

impl Stage {
    /// Starts both clusters, so that what is acknowledged survives a crash of
    /// the server (if not of the machine). Blocks.
    ///
    /// # Errors
    /// When PostgreSQL is missing or doesn't start.
    pub fn start(program: PathBuf) -> anyhow::Result<Self> {
        let options = Options::throwaway()
            .with("synchronous_commit", "on")
            .with("full_page_writes", "on")
            .with("max_connections", "60")
            .with("max_prepared_transactions", "5")
            .with("deadlock_timeout", "20ms");
        Ok(Self {
            clusters: Clusters::start(&options)?,
            program,
            worlds: 0.into(),
            used: tokio::sync::Mutex::default(),
        })
    }

    /// A world for the next case.
    ///
    /// # Errors
    /// What the databases say.
    pub async fn world(&self, points: u32) -> anyhow::Result<World> {
        if let Some(used) = self.used.lock().await.take() {
            return used.renew().await;
        }
        let number = self.worlds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        World::create(&self.clusters, &format!("case_{number}"), schema::WEBHOST, points).await
    }

    /// Gives a world back after a case that held.
    pub(super) async fn give_back(&self, world: World) {
        *self.used.lock().await = Some(world);
    }
}

/// A supervisor that waits for a mover however long a fault takes, so that it
/// is the fault that a case shows.
const PATIENT: Patience =
    Patience { silent: Duration::from_secs(600), fence: Duration::from_secs(600) };

/// How long a move's way back is open unless it is asked for.
const WAY_BACK_US: i64 = 600_000_000;

/// The move of the world's tenant.
pub(super) fn a_move(world: &World) -> anyhow::Result<Spec> {
    Ok(Spec::from_wire(&wire::MoveSpec {
        move_id: MoveId::generate().to_wire(),
        tenant_id: TenantId(world.tenant).to_wire(),
        epoch: 1,
        source_node_id: NodeId::generate().to_wire(),
        target_node_id: NodeId::generate().to_wire(),
        target_place: "node-b.example".into(),
        source_place: "node-a.example".into(),
        way_back_until_us: jiff::Timestamp::now().as_microsecond() + WAY_BACK_US,
        ..wire::MoveSpec::default()
    })?)
}

/// How the mover logs in to the database of `config`, through the socket in
/// `dir`.
pub fn login(config: &Config, dir: &Path) -> Login {
    Login {
        url: format!(
            "host={} user={} dbname={}",
            dir.display(),
            schema::AGENT,
            config.get_dbname().unwrap_or_default()
        ),
        password: None,
    }
}

/// What the source's supervisor is made of; the mover fails at `fail_at`.
///
/// # Errors
/// When the state directory can't be used.
pub fn setup(
    spec: &Spec,
    program: &Path,
    dir: &Path,
    [source, target]: [Login; 2],
    fail_at: Option<&str>,
) -> anyhow::Result<Setup> {
    Ok(Setup {
        node: spec.source_node,
        state_dir: dir.into(),
        program: program.into(),
        arguments: Vec::new(),
        environment: fail_at
            .map(|point| ("WEBHOST_FAIL_AT".into(), point.into()))
            .into_iter()
            .collect(),
        database: Some(source),
        rules: Rules::default(),
        max_rows_per_second: 0,
        way: Way::Direct(target),
        tunnel_address: None,
        hold: Arc::new(webhost_agent::hold::moves::Untouched),
        takes_http: false,
        tickets: Arc::new(Tickets::load(dir)?),
        copy_part_pages: Some(32),
        copy_streams: 0,
        way_back_verify_s: 0,
        patience: PATIENT,
        sources: std::collections::BTreeMap::new(),
        shutdown: CancellationToken::new(),
    })
}

/// The command for one step, as the coordinator sends it.
pub fn order(spec: &Spec, step: wire::MoveStepKind) -> command::Kind {
    command::Kind::MoveStep(wire::MoveStep {
        spec: Some(wire::MoveSpec {
            move_id: spec.move_id.to_wire(),
            tenant_id: spec.tenant.to_wire(),
            epoch: spec.epoch.0,
            source_node_id: spec.source_node.to_wire(),
            target_node_id: spec.target_node.to_wire(),
            target_tunnel: spec.target_tunnel.clone(),
            ticket: spec.ticket.0.clone(),
            target_place: spec.target_place.clone(),
            source_place: spec.source_place.clone(),
            way_back_until_us: spec.way_back_until_us,
            max_rows_per_second: spec.max_rows_per_second,
            ..wire::MoveSpec::default()
        }),
        step: step.into(),
    })
}

/// The steps of a whole move that comes by `step`.
pub(super) fn path(step: Step) -> Vec<Step> {
    let mut path = vec![Step::Preflight, Step::Guard, Step::Copy, Step::Drain];
    path.extend(match step {
        Step::Preflight
        | Step::Guard
        | Step::Copy
        | Step::Drain
        | Step::Verify
        | Step::CutOver
        | Step::Finish
        | Step::CleanUp
        // A recovery comes by itself, after the cut-over lost its agent.
        | Step::Recover => vec![Step::Verify, Step::CutOver, Step::Finish, Step::CleanUp],
        Step::WayBack => vec![Step::CutOver, Step::WayBack, Step::Finish, Step::CleanUp],
        Step::RollBack => vec![Step::CutOver, Step::RollBack, Step::Finish, Step::CleanUp],
        Step::Undo => vec![Step::Undo],
        Step::Abandon => vec![Step::Abandon, Step::CleanUp],
    });
    path
}

/// How it must stand after a path was walked to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Which side serves the tenant; 0 is the source.
    pub(super) home: usize,
    /// Our schema and the fence row stay, by side.
    pub(super) tombstone: [bool; 2],
}

/// The end of the path that comes by `step`.
pub(super) fn end(step: Step) -> End {
    match step {
        Step::Preflight
        | Step::Guard
        | Step::Copy
        | Step::Drain
        | Step::Verify
        | Step::CutOver
        | Step::WayBack
        | Step::Finish
        | Step::CleanUp
        | Step::Recover => End { home: 1, tombstone: [true; 2] },
        Step::RollBack => End { home: 0, tombstone: [true; 2] },
        Step::Abandon => End { home: 0, tombstone: [false, true] },
        Step::Undo => End { home: 0, tombstone: [false; 2] },
    }
}
