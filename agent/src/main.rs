//! `webhost-agent`: the daemon and its command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use webhost_agent::archives::Ask;
use webhost_agent::cli::{ArchiveAction, Cli, Command, Moves};
use webhost_agent::collect::container::proxy;
use webhost_agent::collect::postgres::grants;
use webhost_agent::config::Config;
use webhost_agent::identity;
use webhost_agent::nginx::reload::Reload;
use webhost_agent::status::cli;
use webhost_proto::ids::MoveId;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let worked = match cli.command {
        Command::Run { config } => run(&config.config),
        Command::Enroll { config, token_file, force } => enroll(&config.config, &token_file, force),
        Command::Status { config, socket, json, watch, tenant, by, top } => {
            let watch = watch.map(Duration::from_secs);
            status(&config.config, socket, &cli::Options { json, watch, tenant, by, top })
        }
        Command::Moves { command } => moves(command),
        Command::Mover => mover(),
        Command::NginxReload { routes, verdict, nginx, nginx_config } => nginx_reload(&Reload {
            routes: &routes,
            verdict: &verdict,
            nginx: &nginx,
            config: nginx_config.as_deref(),
        }),
        Command::Archives { config, action } => archives(&config.config, &action),
        Command::CheckConfig { config } => check_config(&config.config),
        Command::PostgresGrants { role, owner, read_only } => {
            print_all(grants::sql(&role, &owner, read_only).map_err(anyhow::Error::msg))
        }
        Command::DockerProxy { listen, engine } => docker_proxy(&listen, &engine),
        Command::Completions { shell } => print_all(Ok(webhost_agent::cli::completions(shell))),
        Command::Man { dir } => man(&dir),
    };
    worked.unwrap_or_else(|error| {
        // A standard error that is closed leaves nobody to tell.
        let words = webhost_proto::words::chain(error.as_ref());
        let _closed = writeln!(std::io::stderr().lock(), "webhost-agent: {words}");
        ExitCode::FAILURE
    })
}

fn run(path: &Path) -> anyhow::Result<ExitCode> {
    log()?;
    let config = Config::load(path)?;
    block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let running = webhost_agent::run::run(config, stop.clone());
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        Ok(running.await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn enroll(path: &Path, token_file: &Path, force: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let address = config.enrolment_address()?;
    let token = identity::read_token(token_file)?;
    let enrolled =
        block_on(async { Ok(identity::enrol(&address, &token, &config.state_dir, force).await?) })?;
    writeln!(
        std::io::stdout().lock(),
        "enrolled as {} ({}); start the agent: systemctl start webhost-agent",
        enrolled.node_name,
        enrolled.node
    )?;
    Ok(ExitCode::SUCCESS)
}

fn status(
    path: &Path,
    socket: Option<PathBuf>,
    options: &cli::Options,
) -> anyhow::Result<ExitCode> {
    let socket = match socket {
        Some(socket) => socket,
        // Whoever asks may not be allowed to read the configuration.
        None => Config::load(path)
            .map_or_else(|_| Config::default_status_socket(), |config| config.status_socket),
    };
    Ok(ExitCode::from(block_on(async { Ok(cli::run(&socket, options).await?) })?))
}

fn moves(command: Moves) -> anyhow::Result<ExitCode> {
    use webhost_agent::mover::operator::{self, Remedy};
    use webhost_agent::run::{RunError, locked_supervisor, supervisor};

    log()?;
    let stdout = &mut std::io::stdout().lock();
    match command {
        Moves::List { config, json } => {
            let supervisor = supervisor(&Config::load(&config.config)?)?;
            Ok(ExitCode::from(operator::print(stdout, &operator::list(&supervisor), json)?))
        }
        Moves::Recover { config, id, undo, abandon, json } => {
            let (_lock, supervisor) = match locked_supervisor(&Config::load(&config.config)?) {
                Err(error @ RunError::State(_)) => {
                    writeln!(std::io::stderr().lock(), "webhost-agent: {error}")?;
                    return Ok(ExitCode::from(operator::REFUSED));
                }
                other => other?,
            };
            let remedy = match (undo, abandon) {
                (true, _) => Remedy::Undo,
                (_, true) => Remedy::Abandon,
                _ => Remedy::Settle,
            };
            let which = id.map(MoveId);
            let outcomes =
                block_on(async { Ok(operator::settle(&supervisor, which, remedy).await) })?;
            if let (Some(id), []) = (id, outcomes.as_slice()) {
                writeln!(
                    std::io::stderr().lock(),
                    "webhost-agent: no move {id} is on record here"
                )?;
                return Ok(ExitCode::from(operator::REFUSED));
            }
            Ok(ExitCode::from(operator::print(stdout, &outcomes, json)?))
        }
    }
}

/// Orders come on standard input, answers go to standard output.
fn mover() -> anyhow::Result<ExitCode> {
    log()?;
    block_on(async { Ok(webhost_agent::mover::child::main().await?) })?;
    Ok(ExitCode::SUCCESS)
}

/// A bad verdict is no failure of the unit: who asked reads it.
fn nginx_reload(reload: &Reload<'_>) -> anyhow::Result<ExitCode> {
    let verdict = webhost_agent::nginx::reload::run(reload)
        .with_context(|| reload.verdict.display().to_string())?;
    let words = if verdict.good { "reloaded" } else { verdict.message.as_str() };
    writeln!(std::io::stdout().lock(), "generation {}: {words}", verdict.generation)?;
    Ok(ExitCode::SUCCESS)
}

fn archives(path: &Path, action: &ArchiveAction) -> anyhow::Result<ExitCode> {
    let ask = match *action {
        ArchiveAction::List { json } => Ask::List { json },
        ArchiveAction::Delete { move_id } => Ask::Delete(move_id),
        ArchiveAction::RestoreSql { move_id } => Ask::RestoreSql(move_id),
    };
    webhost_agent::archives::run(
        &Config::load(path)?.state_dir,
        ask,
        &mut std::io::stdout().lock(),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn print_all(text: anyhow::Result<String>) -> anyhow::Result<ExitCode> {
    std::io::stdout().lock().write_all(text?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn docker_proxy(listen: &Path, engine: &Path) -> anyhow::Result<ExitCode> {
    log()?;
    block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let serving = proxy::run(listen, engine, stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            _ = terminate.recv() => {}
        }
        stop.cancel();
        Ok(serving.await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn man(dir: &Path) -> anyhow::Result<ExitCode> {
    let written = webhost_agent::cli::man(dir).with_context(|| dir.display().to_string())?;
    writeln!(std::io::stdout().lock(), "{written} pages in {}", dir.display())?;
    Ok(ExitCode::SUCCESS)
}

fn check_config(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let text = toml::to_string(&config).context("the configuration can't be written as TOML")?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// One thread serves the agent: it waits far more than it works.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(work)
}

/// To standard error; journald adds the time by itself.
fn log() -> anyhow::Result<()> {
    use std::io::IsTerminal;
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    // By level and module alone: filters by spans and fields would bring a
    // regular expression engine, which is larger than the rest of the log.
    let filter: Targets = match std::env::var("WEBHOST_AGENT_LOG") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("WEBHOST_AGENT_LOG: {text:?} is not a filter, as \"info\""))?,
        Err(_) => Targets::new().with_default(LevelFilter::INFO),
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().finish().with(filter).init();
    } else {
        builder.finish().with(filter).init();
    }
    Ok(())
}
