//! The command line: the service itself, and an operator's commands on its
//! state.
//!
//! The operator's commands work on the state database, the one that the
//! configuration names, or the private one of `--embedded`: over its socket
//! while the service runs, or started for the time of the command. They need
//! no token: who may read the database or its socket is an operator.

mod drain;
mod evaluate;
mod fleet;
mod forecast;
mod moves;
mod open;
mod output;
mod plans;
mod rules;
mod serve;
mod show;
mod tokens;
mod windows;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

pub use open::{OpenError, sealing_key};

use crate::config::{Config, ConfigError};
use crate::decide::plans::NodeKind;

/// Where `make install` wants the service's configuration.
const INSTALLED: &str = "/etc/webhost/coordinator.toml";

/// Decides where each tenant of the fleet lives, and moves those that have
/// outgrown their place.
#[derive(Debug, Parser)]
#[command(name = "webhost-coordinator", version)]
pub struct Cli {
    /// The configuration; without one that of the installed service, where
    /// there is one, and all defaults elsewhere and with --embedded.
    #[arg(long, global = true, env = "WEBHOST_COORDINATOR_CONFIG")]
    config: Option<PathBuf>,
    /// Keep the state in a private PostgreSQL below the state directory.
    #[arg(long, global = true)]
    embedded: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve,
    /// Check the configuration and print what holds.
    CheckConfig,
    /// Tokens of the HTTP API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Nodes, and the tokens by which machines join.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Tenants.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Moves.
    #[command(subcommand)]
    Move(moves::MoveCommand),
    /// What to do about the fleet: empty draining nodes, relieve overloaded
    /// ones, give up those that the rest can do without. Changes nothing
    /// unless --apply is given.
    Plan {
        #[command(flatten)]
        carry: plans::Carry,
    },
    /// How a shared node would be emptied. Changes nothing unless --apply is
    /// given, which also sets the node draining.
    Drain(drain::Given),
    /// Why a tenant lives where it does: every shared node's verdict.
    Explain {
        /// Its slug or id.
        tenant: String,
        #[command(flatten)]
        format: Format,
    },
    /// What an evaluation would decide now of one tenant, or of all, from their
    /// stored usage. Changes nothing.
    Evaluate(evaluate::Given),
    /// How decisions turned out: did tenants stay, did their performance
    /// issues end, how often did we change our mind.
    Accuracy {
        /// Of so many days before now.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=730))]
        days: u32,
        #[command(flatten)]
        format: Format,
    },
    /// When the room of each shared node and of each place ends, if tenants go
    /// on growing as in the last four weeks.
    Forecast(Format),
    /// Simulate how a fleet grows under this configuration. Needs no database.
    Simulate(plans::Simulate),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is printed once, alone, on standard output.
    Create {
        name: String,
        /// admin, app or viewer.
        #[arg(long)]
        role: crate::store::api_tokens::Role,
        /// Days until it expires; never without.
        #[arg(long)]
        expires_days: Option<u32>,
    },
    /// List the tokens, without their secrets.
    List(Format),
    /// Let a token work no longer.
    Revoke { name: String },
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Make a join token for one machine; it is printed once, alone.
    Token {
        name: String,
        /// shared or dedicated.
        #[arg(long, value_parser = kind)]
        kind: NodeKind,
        /// A shape of the catalogue, as ax52.
        #[arg(long)]
        shape: String,
        /// A place by its code, as fra, or a region of the catalogue, as EU.
        #[arg(long)]
        region: String,
        /// Seconds that it may be used for.
        #[arg(long, default_value_t = 900)]
        lifetime_s: u64,
    },
    /// List the nodes.
    List(Format),
    /// Show or set when moves from and to a node may begin. A move that has
    /// begun goes on.
    Windows(windows::Given),
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// List the tenants.
    List(Format),
    /// Show or set where a tenant may and may not live. Plans and new places
    /// keep to it; it moves nobody by itself.
    Rules(rules::Given),
    /// Show or set when moves of a tenant may begin. A move that has begun goes
    /// on.
    Windows(windows::Given),
    /// Let a tenant whose needs no plan satisfies have the largest plan all the
    /// same. The service gives it its place.
    Approve {
        /// Its slug or id.
        tenant: String,
        /// For the audit trail.
        #[arg(long)]
        reason: String,
    },
    /// Adopt the tenants that a node's database carries already; a dry run
    /// unless --apply is given. The service must run.
    Import {
        node: String,
        #[arg(long)]
        apply: bool,
        /// The plan of tenants whose database names none.
        #[arg(long)]
        default_plan: Option<String>,
        #[command(flatten)]
        format: Format,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
struct Format {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn kind(text: &str) -> Result<NodeKind, String> {
    match text {
        "shared" => Ok(NodeKind::Shared),
        "dedicated" => Ok(NodeKind::Dedicated),
        other => Err(format!("{other:?} is no kind; write shared or dedicated")),
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Run(#[from] crate::run::RunError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Move(#[from] crate::moves::MoveRefused),
    #[error(transparent)]
    Force(#[from] crate::evaluate::ForceError),
    #[error(transparent)]
    Import(#[from] crate::signup::import::ImportError),
    #[error(transparent)]
    Join(#[from] crate::link::TokenError),
    #[error(transparent)]
    Authority(#[from] crate::link::authority::AuthorityError),
    #[error(transparent)]
    Invalid(#[from] crate::signup::Invalid),
    /// Standard output is gone.
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
    /// Anything that needs no kind of its own.
    #[error("{0}")]
    Other(String),
}

impl Cli {
    /// Does what was asked. `environment` is the process's.
    ///
    /// # Errors
    /// [`CliError`], for standard error and a failing exit code.
    pub async fn run(self, environment: &[(String, String)]) -> Result<(), CliError> {
        let installed = Path::new(INSTALLED);
        let installed = (!self.embedded && installed.exists()).then_some(installed);
        let config = Config::load(self.config.as_deref().or(installed), environment)?;
        if let Command::CheckConfig = self.command {
            return output::config(&config);
        }
        if let Command::Serve = self.command {
            return serve::serve(config, self.embedded).await;
        }
        if let Command::Simulate(what) = &self.command {
            return plans::simulate(&config, what);
        }
        let state = open::State::open(&config, self.embedded).await?;
        state.store.migrate().await?;
        match self.command {
            Command::Serve | Command::CheckConfig | Command::Simulate(_) => Ok(()),
            Command::Token(command) => tokens::run(&state.store, command).await,
            Command::Node(command) => fleet::node(&config, &state, command).await,
            Command::Tenant(command) => fleet::tenant(&config, &state, command).await,
            Command::Move(command) => moves::run(&config, &state.store, command).await,
            Command::Plan { carry } => plans::plan_all(&config, &state.store, carry).await,
            Command::Drain(given) => drain::run(&config, &state.store, given).await,
            Command::Evaluate(given) => evaluate::run(&config, &state.store, given).await,
            Command::Accuracy { days, format } => {
                plans::accuracy(&config, &state.store, days, format).await
            }
            Command::Forecast(format) => forecast::run(&config, &state.store, format).await,
            Command::Explain { tenant, format } => {
                plans::explain_one(&config, &state.store, &tenant, format).await
            }
        }
    }
}
