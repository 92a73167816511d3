//! `webhost-agent`: the daemon and its command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use webhost_agent::archives::Ask;
use webhost_agent::config::{Config, DEFAULT_PATH};
use webhost_agent::identity;
use webhost_agent::nginx::reload::Reload;
use webhost_agent::status::cli;
use webhost_proto::ids::MoveId;

/// The agent of a WebHost fleet's machine: collects what each tenant uses,
/// reports it, and moves tenants.
#[derive(Parser)]
#[command(name = "webhost-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent.
    Run {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Makes this machine a node of a fleet, by a join token that the
    /// coordinator's operator made.
    #[command(visible_alias = "enrol")]
    Enroll {
        #[command(flatten)]
        config: ConfigPath,
        /// The file with the token; "-" is standard input. (Never an argument:
        /// every user of the machine could read it.)
        #[arg(long, value_name = "PATH", default_value = "-")]
        token_file: PathBuf,
        /// Replaces the identity that this machine has.
        #[arg(long)]
        force: bool,
    },
    /// Shows how the agent is. Exit code 0: healthy, 1: degraded, 2: not
    /// running or not readable.
    Status {
        #[command(flatten)]
        config: ConfigPath,
        /// The agent's status socket, instead of the configured one.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Prints the status as JSON.
        #[arg(long)]
        json: bool,
        /// Again every SECONDS, until interrupted.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// Looks at this node's moves, and settles them while no agent runs.
    Moves {
        #[command(subcommand)]
        command: Moves,
    },
    /// The data path of one move, as a child of the running agent.
    #[command(hide = true)]
    Mover,
    /// Checks nginx's configuration, reloads it, and writes a verdict for the
    /// agent: for webhost-nginx-reload.service.
    #[command(hide = true)]
    NginxReload {
        /// The agent's directory of routes.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/webhost-agent/routes")]
        routes: PathBuf,
        /// Where the verdict goes.
        #[arg(long, value_name = "PATH", default_value = "/run/webhost-nginx-reload/verdict.json")]
        verdict: PathBuf,
        #[arg(long, value_name = "PATH", default_value = "/usr/sbin/nginx")]
        nginx: PathBuf,
        /// nginx's configuration, where it isn't the built-in one.
        #[arg(long, value_name = "PATH")]
        nginx_config: Option<PathBuf>,
    },
    /// What downgrades left behind on this node: rows that the new plan does
    /// not keep, archived before the old copy was deleted.
    Archives {
        #[command(flatten)]
        config: ConfigPath,
        #[command(subcommand)]
        action: ArchiveAction,
    },
    /// Checks the configuration and prints it as it takes effect, without
    /// secrets. Exit code 0: usable, 1: not.
    CheckConfig {
        #[command(flatten)]
        config: ConfigPath,
    },
}

#[derive(Subcommand)]
enum Moves {
    /// The moves on record.
    List {
        #[command(flatten)]
        config: ConfigPath,
        /// Prints them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Finishes a switch that a dead agent left half done, by the two
    /// databases' fence rows. Exit code 0: settled, 1: not settled, 2: refused,
    /// because an agent runs or there is no such move.
    Recover {
        #[command(flatten)]
        config: ConfigPath,
        /// Only this one; all without it.
        #[arg(value_name = "MOVE")]
        id: Option<uuid::Uuid>,
        /// Undoes what was not switched.
        #[arg(long)]
        undo: bool,
        /// Lets go of a move whose target can't be reached; its rows there stay
        /// until the coordinator has them cleaned up.
        #[arg(long, conflicts_with = "undo", requires = "id")]
        abandon: bool,
        /// Prints what became of them as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum ArchiveAction {
    /// Lists the archives with their tables.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Deletes an archive for good.
    Delete { move_id: MoveId },
    /// Prints what psql has to run to bring an archive's rows back.
    RestoreSql { move_id: MoveId },
}

#[derive(clap::Args)]
struct ConfigPath {
    /// The configuration file.
    #[arg(long, value_name = "PATH", env = "WEBHOST_AGENT_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let worked = match cli.command {
        Command::Run { config } => run(&config.config),
        Command::Enroll { config, token_file, force } => enroll(&config.config, &token_file, force),
        Command::Status { config, socket, json, watch } => {
            let options = cli::Options { json, watch: watch.map(Duration::from_secs) };
            status(&config.config, socket, options)
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
    };
    worked.unwrap_or_else(|error| {
        // A standard error that is closed leaves nobody to tell.
        let _closed = writeln!(std::io::stderr().lock(), "webhost-agent: {error:#}");
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

fn status(path: &Path, socket: Option<PathBuf>, options: cli::Options) -> anyhow::Result<ExitCode> {
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
    use tracing_subscriber::EnvFilter;

    let filter = match std::env::var("WEBHOST_AGENT_LOG") {
        Ok(text) => EnvFilter::try_new(&text)
            .with_context(|| format!("WEBHOST_AGENT_LOG: {text:?} is not a filter, as \"info\""))?,
        Err(_) => EnvFilter::new("info"),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
    Ok(())
}
