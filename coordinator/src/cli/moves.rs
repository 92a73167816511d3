//! `move`: begin, watch and steer moves. What is written here the running
//! service finds within its period.

use std::time::Duration;

use clap::{Args, Subcommand};
use webhost_proto::ids::{MoveId, NodeId, TenantId};

use super::fleet::{MOST, OPERATOR, desk};
use super::{CliError, Format, output, show};
use crate::config::Config;
use crate::decide::Mode;
use crate::evaluate::{Wanted, force};
use crate::moves::{self, Kind, MoveView};
use crate::store::moves::Which;
use crate::store::{Store, nodes, tenants};

#[derive(Debug, Subcommand)]
pub(super) enum MoveCommand {
    /// List the moves, newest first.
    List {
        /// Only those that have not ended.
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        format: Format,
    },
    /// One move on one screen: where it is, what that means, what can be done.
    Show {
        id: MoveId,
        #[command(flatten)]
        format: Format,
    },
    /// Follow a move until it ends or rests: its way back is open, its old
    /// copy is kept, or it waits for a person. Fails where the move failed.
    Watch { id: MoveId },
    /// Look at both sides as a move would, change nothing, print the report.
    /// Fails where the move would be refused. The service must run.
    Preflight {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        format: Format,
    },
    /// Begin a move, whatever the scores say; never against a compliance rule.
    Begin {
        #[command(flatten)]
        what: What,
        /// For the audit trail.
        #[arg(long)]
        reason: Option<String>,
        /// Of a downgrade: so many rows, older than what the target's plan
        /// retains, may stay behind without asking.
        #[arg(long, default_value_t = 0)]
        confirm_rows: u64,
    },
    /// Approve a move that waits for an administrator.
    Approve { id: MoveId },
    /// Refuse one.
    Refuse {
        id: MoveId,
        #[arg(long)]
        reason: String,
    },
    /// Confirm how many rows stay behind.
    Confirm {
        id: MoveId,
        #[arg(long)]
        rows: u64,
    },
    /// Let one begin although the windows of its tenant or nodes are closed.
    BeginNow {
        id: MoveId,
        #[arg(long)]
        reason: String,
    },
    /// Pause one before its switch: a copy, drain or verification stops within
    /// seconds and goes on later; a switch under way can't be interrupted, and
    /// the pause waits for its end. Nothing is undone.
    Pause {
        id: MoveId,
        #[arg(long)]
        reason: String,
    },
    /// Let a paused one go on.
    Resume { id: MoveId },
    /// Cancel one before its point of no return.
    Cancel { id: MoveId },
    /// Bring the tenant back, losing nothing, while the way back is open.
    Rollback {
        id: MoveId,
        #[arg(long)]
        reason: String,
    },
    /// Close the way back before its time.
    CloseWayBack {
        id: MoveId,
        #[arg(long)]
        reason: String,
    },
    /// Delete the old copy before its time; of a forgotten move whose node is
    /// back, what that still holds.
    CleanUp { id: MoveId },
    /// End a move that waits for a node that never comes back: the target of an
    /// abandoned one (clean_target), the old copy's after a switch (way_back,
    /// finish, kept, clean_up). Refused while that node is connected; closes an
    /// open way back.
    Forget {
        id: MoveId,
        /// What the move left there is not waited for any more.
        #[arg(long, required = true)]
        i_know_the_node_is_gone: bool,
    },
}

/// What to move where.
#[derive(Debug, Args)]
pub(super) struct What {
    /// The tenant, by id or slug.
    tenant: String,
    /// upgrade, downgrade, lateral or dedicated.
    #[arg(long)]
    kind: Kind,
    /// The node to take, by id or name; placement chooses without.
    #[arg(long)]
    to: Option<String>,
}

/// How often a followed move is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(
    config: &Config,
    store: &Store,
    command: MoveCommand,
) -> Result<(), CliError> {
    let done = |id: MoveId, what: &str| output::line(&format!("move {id} {what}"));
    match command {
        MoveCommand::List { open, format } => list(store, open, format).await,
        MoveCommand::Show { id, format } => {
            let view = get(store, id).await?;
            if format.json { output::json(&view) } else { output::line(&show::screen(&view)) }
        }
        MoveCommand::Watch { id } => watch(store, id).await,
        MoveCommand::Preflight { what, format } => preflight(config, store, what, format).await,
        MoveCommand::Begin { what, reason, confirm_rows } => {
            let id = begin(config, store, what, reason, confirm_rows, false).await?;
            done(id, "has begun")
        }
        MoveCommand::Approve { id } => {
            moves::approve(store, id, OPERATOR).await?;
            done(id, "is approved")
        }
        MoveCommand::Refuse { id, reason } => {
            moves::refuse(store, id, OPERATOR, &reason).await?;
            done(id, "is refused")
        }
        MoveCommand::Confirm { id, rows } => {
            moves::confirm(store, id, rows, OPERATOR).await?;
            done(id, "goes on; that many rows stay behind")
        }
        MoveCommand::BeginNow { id, reason } => {
            moves::begin_now(store, id, OPERATOR, &reason).await?;
            done(id, "begins when it is its turn, whatever its windows say")
        }
        MoveCommand::Pause { id, reason } => {
            let pausing = moves::pause(store, id, OPERATOR, &reason).await?;
            done(id, &pausing.to_string())
        }
        MoveCommand::Resume { id } => {
            moves::resume(store, id, OPERATOR).await?;
            done(id, "goes on")
        }
        MoveCommand::Cancel { id } => {
            moves::cancel(store, id, OPERATOR).await?;
            done(id, "will be cancelled")
        }
        MoveCommand::Rollback { id, reason } => {
            moves::roll_back(store, id, OPERATOR, &reason).await?;
            done(id, "will be rolled back")
        }
        MoveCommand::CloseWayBack { id, reason } => {
            moves::close_way_back(store, id, OPERATOR, &reason).await?;
            done(id, "closes its way back")
        }
        MoveCommand::CleanUp { id } => {
            moves::clean_up(store, id, OPERATOR).await?;
            done(id, "has its old copy deleted now")
        }
        MoveCommand::Forget { id, i_know_the_node_is_gone: _ } => {
            moves::forget(store, id, OPERATOR).await?;
            done(
                id,
                "goes on without that node; should it return, `move clean-up` deletes what it holds",
            )
        }
    }
}

async fn get(store: &Store, id: MoveId) -> Result<MoveView, CliError> {
    let view = moves::get(store, id).await?;
    view.ok_or_else(|| moves::MoveRefused::UnknownMove(id).into())
}

async fn list(store: &Store, open: bool, format: Format) -> Result<(), CliError> {
    let which = Which { tenant: None, open, before: None };
    let listed = moves::list(store, which, MOST).await?;
    if format.json {
        return output::json(&listed);
    }
    let rows = listed.into_iter().map(|one| {
        vec![
            one.id.to_string(),
            one.tenant_id.to_string(),
            one.kind,
            one.state,
            one.created_at.to_string(),
            one.error.unwrap_or(one.reason),
        ]
    });
    output::table(&["ID", "TENANT", "KIND", "STATE", "SINCE", "WHY"], rows.collect())
}

async fn begin(
    config: &Config,
    store: &Store,
    what: What,
    reason: Option<String>,
    confirm_rows: u64,
    dry_run: bool,
) -> Result<MoveId, CliError> {
    let client = store.client().await?;
    let found = match what.tenant.parse::<TenantId>() {
        Ok(id) => tenants::get(&**client, id).await?,
        Err(_) => tenants::by_slug(&**client, &what.tenant).await?,
    };
    let tenant =
        found.ok_or_else(|| CliError::Other(format!("there is no tenant {:?}", what.tenant)))?.id;
    let target = match &what.to {
        None => None,
        Some(name) => {
            let found = match name.parse::<NodeId>() {
                Ok(id) => nodes::get(&**client, id).await?,
                Err(_) => nodes::by_name(&**client, name).await?,
            };
            let none = || CliError::Other(format!("there is no node {name:?}"));
            Some(found.ok_or_else(none)?.id)
        }
    };
    drop(client);
    let mode: Mode = what.kind.target_mode();
    let kind = Some(what.kind);
    let wanted = Wanted { tenant, mode, kind, target, reason, confirm_rows, dry_run };
    Ok(force(store, &desk(config, store).slots, wanted, OPERATOR).await?.move_id)
}

async fn preflight(
    config: &Config,
    store: &Store,
    what: What,
    format: Format,
) -> Result<(), CliError> {
    let reason = Some("a preflight was asked for".to_owned());
    let id = begin(config, store, what, reason, 0, true).await?;
    let mut told = String::new();
    let view = loop {
        let view = get(store, id).await?;
        if view.ended_at.is_some() {
            break view;
        }
        let why = view.error.clone().unwrap_or_default();
        if !format.json && why != told {
            output::line(&format!("{}: {why}", view.state))?;
            told = why;
        }
        tokio::time::sleep(LOOK).await;
    };
    if format.json {
        output::json(&view)?;
    } else {
        output::line(&show::report(&view))?;
    }
    if view.state == "checked" {
        return Ok(());
    }
    Err(CliError::Other("the preflight does not pass: a move would be refused".into()))
}

/// Where a move rests until a person or a day has passed.
const RESTS: [&str; 5] =
    ["awaiting_approval", "awaiting_confirmation", "paused", "way_back", "kept"];

async fn watch(store: &Store, id: MoveId) -> Result<(), CliError> {
    let (mut told, mut progress) = (0, String::new());
    loop {
        let view = get(store, id).await?;
        for event in view.events.iter().skip(told) {
            output::line(&format!("{}  {:<16} {}", event.at, event.state, event.message))?;
        }
        told = told.max(view.events.len());
        if let Some(line) = show::progress(&view).filter(|line| *line != progress) {
            output::line(&line)?;
            progress = line;
        }
        match view.state.as_str() {
            "failed" | "cancelled" | "refused" => {
                let why = view.error.unwrap_or_default();
                return Err(CliError::Other(format!("move {id} is {}: {why}", view.state)));
            }
            rest if view.ended_at.is_some() || RESTS.contains(&rest) => return Ok(()),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}
