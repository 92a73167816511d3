//! The stand-in application as a process: see `webhost_tests::app`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use webhost_tests::app;

/// Stands for the WebHost application of one node.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// The directory of PostgreSQL's socket.
    #[arg(long)]
    postgres: PathBuf,
    /// Connections to the database.
    #[arg(long, default_value_t = 12)]
    pool: usize,
    /// Knows nothing of moves: answers 500 where the fence refuses.
    #[arg(long)]
    bare: bool,
    /// Written once it listens.
    #[arg(long)]
    pid_file: PathBuf,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    std::fs::write(&arguments.pid_file, format!("{}\n", std::process::id()))?;
    let mut terminated = signal(SignalKind::terminate())?;
    let shutdown = CancellationToken::new();
    let config =
        app::Config { socket_dir: arguments.postgres, pool: arguments.pool, bare: arguments.bare };
    let serve = app::run(config, listener, shutdown.clone());
    tokio::pin!(serve);
    tokio::select! {
        ended = &mut serve => return ended,
        _ = terminated.recv() => shutdown.cancel(),
    }
    // Clients that keep their connection open don't keep us running.
    let grace = std::time::Duration::from_secs(2);
    tokio::time::timeout(grace, serve).await.unwrap_or(Ok(()))
}
