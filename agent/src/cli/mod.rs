//! The command line: its words, and what is generated of them.
//!
//! Exit codes: 0 it worked, 1 it did not (standard error says why), 2 the
//! words were not understood. `status`, `check-config` and `moves recover`
//! give 0, 1, 2 and 3 meanings of their own, which their help says.

mod pages;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use webhost_proto::ids::MoveId;

pub use pages::{completions, man};

use crate::config::DEFAULT_PATH;
use crate::status::top::By;

/// The agent of a WebHost fleet's machine: collects what each tenant uses,
/// reports it, and moves tenants.
#[derive(Parser)]
#[command(name = "webhost-agent", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
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
    /// running or not readable, 3: no such tenant here.
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
        /// One tenant alone, by slug or id.
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// By what the tenants are sorted.
        #[arg(long, value_enum, default_value_t = By::Cpu)]
        by: By,
        /// How many tenants are shown; 0 shows all of them.
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
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
    /// Prints the SQL that a superuser runs once in the tenants' database: the
    /// agent's role, and what it may read. Changes nothing by itself.
    PostgresGrants {
        /// The agent's role.
        #[arg(long, value_name = "ROLE", default_value = "webhost-agent")]
        role: String,
        /// The role that owns the tenants' tables.
        #[arg(long, value_name = "ROLE", default_value = "webhost_app")]
        owner: String,
        /// Only what measuring needs: the node takes part in no move.
        #[arg(long)]
        read_only: bool,
    },
    /// Stands between the agent and Docker: lets through the four questions
    /// that the agent has, and nothing that changes or tells more.
    DockerProxy {
        /// The socket that the agent is to use ([containers] socket).
        #[arg(long, value_name = "PATH", default_value = "/run/webhost-docker-proxy/docker.sock")]
        listen: PathBuf,
        /// Docker's own.
        #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
        engine: PathBuf,
    },
    /// Prints what makes a shell complete this command's words.
    Completions { shell: clap_complete::Shell },
    /// Writes the manual pages, one for each command.
    Man {
        /// The directory; it must exist.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Checks the configuration and prints it as it takes effect, without
    /// secrets. Exit code 0: usable, 1: not.
    CheckConfig {
        #[command(flatten)]
        config: ConfigPath,
    },
}

#[derive(Subcommand)]
pub enum Moves {
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
pub enum ArchiveAction {
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
pub struct ConfigPath {
    /// The configuration file.
    #[arg(long, value_name = "PATH", env = "WEBHOST_AGENT_CONFIG", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}
