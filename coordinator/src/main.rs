//! `webhost-coordinator`: the service and its operator's commands.

use std::io::IsTerminal;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use webhost_coordinator::cli::Cli;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    webhost_proto::tls::install_provider();
    let filter = std::env::var("WEBHOST_COORDINATOR_LOG").unwrap_or_else(|_| "info".into());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        anyhow::anyhow!("environment variable WEBHOST_COORDINATOR_LOG: {error}")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(cli.run(&environment))?;
    Ok(())
}
