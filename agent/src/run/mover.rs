//! The part for moves: the supervisor of movers, and the tunnel by which other
//! nodes' movers reach this node's database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webhost_proto::ids::NodeId;

use super::{RunError, hold};
use crate::config::Config;
use crate::hold::moves::Untouched;
use crate::identity::StoredIdentity;
use crate::mover::child::Login;
use crate::mover::spec::Secret;
use crate::mover::supervisor::{Identify, MoveStatus, Patience, Setup, Supervisor, Way};
use crate::mover::tunnel::{Behind, Database, Tickets, TunnelIdentity, serve};
use crate::status::board::Board;
use crate::status::document::Move;

/// Starts what moves need; recovery of what an earlier run left begins at
/// once. All of it ends at `stop`.
pub(super) async fn start(
    config: &Config,
    identity: &StoredIdentity,
    board: &Board,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Supervisor, RunError> {
    let tickets = Arc::new(Tickets::load(&config.state_dir)?);
    let database = config.postgres.as_ref().filter(|_| config.moves.enabled);
    let tunnel_address = match &config.tunnel {
        Some(tunnel) if database.is_some() => {
            listen(config, identity, &tickets, tasks, stop).await?;
            Some(tunnel.advertise.clone().unwrap_or_else(|| tunnel.listen.to_string()))
        }
        _ => None,
    };
    let identify = identify(identity);
    let (prepared, hold) = hold::prepare(config, Arc::clone(&identify)).await?;
    let setup =
        Setup { hold, tunnel_address, shutdown: stop.clone(), ..setup(config, identity, tickets)? };
    let supervisor = Supervisor::load(setup)?;
    // After the supervisor has named the moves that are in doubt.
    if let Some(prepared) = prepared {
        let shown = prepared.hold();
        board.probe(move |document| document.hold = shown.figures());
        prepared.serve(tasks, stop.clone());
    }
    let resuming = supervisor.clone();
    tasks.spawn(async move { resuming.resume().await });
    let shown = supervisor.clone();
    board.probe(move |document| {
        document.moves = shown.status().iter().map(show).collect();
    });
    Ok(supervisor)
}

fn identify(identity: &StoredIdentity) -> Identify {
    let carried = tunnel_identity(identity);
    Arc::new(move || Ok(carried.clone()))
}

/// What the supervisor of this node's moves needs, without a tunnel and a hold
/// point of its own.
pub(super) fn setup(
    config: &Config,
    identity: &StoredIdentity,
    tickets: Arc<Tickets>,
) -> Result<Setup, RunError> {
    let database = config.postgres.as_ref().filter(|_| config.moves.enabled);
    Ok(Setup {
        node: identity.node,
        state_dir: config.state_dir.clone(),
        program: program(),
        arguments: Vec::new(),
        environment: Vec::new(),
        database: database.map(Login::of).transpose().map_err(RunError::Mover)?,
        rules: config.moves.rules(),
        max_rows_per_second: config.moves.max_rows_per_second,
        way: Way::Tunnel(identify(identity)),
        takes_http: config.hold.is_some(),
        hold: Arc::new(Untouched),
        tunnel_address: None,
        tickets,
        copy_part_pages: None,
        copy_streams: config.moves.copy_streams,
        way_back_verify_s: config.moves.way_back_verify_s,
        patience: Patience::of_an_agent(),
        sources: sources(config).map_err(RunError::Mover)?,
        shutdown: CancellationToken::new(),
    })
}

/// The databases of other nodes that this one reaches by itself.
fn sources(config: &Config) -> Result<BTreeMap<NodeId, Login>, String> {
    let all = config.moves.sources.iter();
    all.map(|(node, database)| Ok((*node, Login::across(database)?))).collect()
}

/// Opens the tunnel's listener.
async fn listen(
    config: &Config,
    identity: &StoredIdentity,
    tickets: &Arc<Tickets>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let (Some(tunnel), Some(postgres)) = (&config.tunnel, &config.postgres) else {
        return Ok(());
    };
    let connection =
        postgres.connection().map_err(|problem| RunError::Mover(problem.to_string()))?;
    let database =
        Database::of(&connection).map_err(RunError::Mover)?.on_disk(config.host.disk.clone());
    let listener = TcpListener::bind(tunnel.listen)
        .await
        .map_err(|error| RunError::Mover(format!("tunnel.listen {}: {error}", tunnel.listen)))?;
    let server = identity.tunnel_server().map_err(|error| RunError::Mover(error.to_string()))?;
    let behind = Behind { database, http: config.hold.as_ref().map(|hold| hold.listen) };
    let (tickets, stop) = (Arc::clone(tickets), stop.clone());
    tasks.spawn(async move {
        // Held for as long as the tunnel serves: a renewed certificate will
        // come this way.
        let (_renewals, server) = watch::channel(server);
        if let Err(error) = serve(listener, server, tickets, behind, stop).await {
            tracing::error!(%error, "the tunnel ended: no move can come to this node");
        }
    });
    Ok(())
}

fn tunnel_identity(identity: &StoredIdentity) -> TunnelIdentity {
    TunnelIdentity {
        chain: identity.tls.chain().iter().map(|der| der.to_vec()).collect(),
        key_pkcs8: Secret(identity.tls.key_pkcs8().to_vec()),
        node_authorities: identity.nodes.iter().map(|der| der.to_vec()).collect(),
    }
}

/// Our own binary; as the kernel holds it, when its file was replaced.
fn program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}

fn show(status: &MoveStatus) -> Move {
    let usual = ["running", "recovering", "waiting"];
    let failed = !usual.contains(&status.state.as_str());
    Move {
        id: status.move_id.to_string(),
        tenant_id: status.tenant.to_string(),
        // The supervisor keeps moves that leave this node; of those that come
        // here it knows the ticket alone.
        side: "source".into(),
        step: status.step.to_string(),
        table: status.progress.table.clone(),
        rows_done: status.progress.rows_done,
        rows_total: status.progress.rows_total,
        rows_per_second: status.progress.rows_per_second,
        last_error: failed.then(|| status.state.clone()),
    }
}
