//! `webhost-coordinator`: the service and its operator's commands.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use webhost_coordinator::cli::Cli;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone there is nobody left to tell.
            let words = webhost_proto::words::chain(error.as_ref());
            let _nobody = writeln!(std::io::stderr().lock(), "webhost-coordinator: {words}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    webhost_proto::tls::install_provider();
    let filter = std::env::var("WEBHOST_COORDINATOR_LOG").unwrap_or_else(|_| "info".into());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        anyhow::anyhow!("environment variable WEBHOST_COORDINATOR_LOG: {error}")
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The journal knows the time.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(cli.run(&environment))?;
    Ok(())
}
