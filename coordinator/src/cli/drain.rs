//! `drain`: how a shared node would be emptied, by a time where there is one.

use std::collections::HashMap;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use webhost_proto::ids::NodeId;

use super::fleet::{MOST, OPERATOR, desk};
use super::plans::{Carry, begin};
use super::{CliError, output};
use crate::config::Config;
use crate::moves::Rules;
use crate::moves::drains::{self, Drain};
use crate::store::Store;
use crate::store::nodes::{self, Draining};
use crate::usage::rollup;

/// Which node, and by when.
#[derive(Clone, Debug, Args)]
pub(super) struct Given {
    /// Its name or id.
    node: String,
    /// It is to be empty by then: a time as 2026-11-23T06:00:00Z, or from now
    /// on, as "8h" or "2h 30m". With --apply it is kept, and somebody is told
    /// once when what is left no longer fits. Without it, the time that the
    /// node has already.
    #[arg(long, value_parser = time)]
    by: Option<Timestamp>,
    #[command(flatten)]
    carry: Carry,
}

fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is no time; write 2026-11-23T06:00:00Z, or 8h from now on");
    match text.parse::<Timestamp>() {
        Ok(at) => Ok(at),
        Err(_) => {
            let from_now: SignedDuration = text.parse().map_err(|_| wrong())?;
            Timestamp::now().checked_add(from_now).map_err(|_| wrong())
        }
    }
}

pub(super) async fn run(config: &Config, store: &Store, given: Given) -> Result<(), CliError> {
    let slots = desk(config, store).slots;
    let now = Timestamp::now();
    let Given { node: name, by, carry } = given;
    let by = by.map(|by| drains::deadline(by, now)).transpose()?;
    rollup::reload(store, &slots.book, now).await?;
    let mut client = store.client().await?;
    let node = match name.parse::<NodeId>() {
        Ok(id) => nodes::get(&**client, id).await?,
        Err(_) => nodes::by_name(&**client, &name).await?,
    };
    let none = || CliError::Other(format!("there is no node {name:?}; `node list` names them"));
    let node = node.ok_or_else(none)?;
    let by = by.or(node.drain_by);
    let (drain, steps) =
        drains::look(&**client, &slots, &Rules::from(&config.moves), node.id, by, now)
            .await
            .map_err(|error| CliError::Other(error.to_string()))?;
    if carry.format.json {
        output::json(&drain)?;
    } else {
        let all = nodes::list(&**client, None, MOST).await?;
        let names = all.into_iter().map(|node| (node.id, node.name)).collect();
        print(&node.name, &drain, &names, now)?;
    }
    if !carry.apply {
        let left = !steps.is_empty() && !carry.format.json;
        return if left { output::line(super::plans::NOT_APPLIED) } else { Ok(()) };
    }
    let tx = client.transaction().await.map_err(|error| CliError::Other(error.to_string()))?;
    let draining = Draining { by, moves_from: Some(now) };
    if !drains::set(&*tx, node.id, Some(draining), OPERATOR).await? {
        let problem = format!("node {name} is not active, so it can't be drained");
        return Err(CliError::Other(problem));
    }
    tx.commit().await.map_err(|error| CliError::Other(error.to_string()))?;
    drop(client);
    let slug = |id| {
        let known = drain.tenants.iter().find(|one| one.tenant == id);
        known.map_or_else(|| id.to_string(), |one| one.slug.clone())
    };
    begin(store, &slots, &steps, slug, carry).await
}

/// A time for a person, to the minute.
pub(super) fn minute(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "–".to_owned(), |at| at.strftime("%a %d %b %H:%M").to_string())
}

/// When windows are open next.
pub(super) fn window(at: Option<Timestamp>, now: Timestamp) -> String {
    match at {
        Some(at) if at <= now => "now".to_owned(),
        Some(at) => minute(Some(at)),
        None => "never".to_owned(),
    }
}

fn print(
    name: &str,
    drain: &Drain,
    names: &HashMap<NodeId, String>,
    now: Timestamp,
) -> Result<(), CliError> {
    if drain.tenants.is_empty() {
        return output::line(&format!("nobody lives on {name}"));
    }
    let rows = drain.tenants.iter().map(|one| {
        let planned = one.begins.is_some() || one.ends.is_some();
        let to = one.to.map(|to| names.get(&to).cloned().unwrap_or_else(|| to.to_string()));
        vec![
            one.slug.clone(),
            to.unwrap_or_default(),
            one.disk.to_string(),
            match (one.begins.is_some() || one.move_id.is_none(), planned) {
                (true, true) => window(one.window, now),
                _ => String::new(),
            },
            if planned && one.begins.is_none() { "under way".into() } else { minute(one.begins) },
            minute(one.ends),
            match (&one.why, one.late) {
                (Some(why), false) => format!("waits: {why}"),
                // Nobody has to do anything, but there is too little time.
                (Some(why), true) if one.until.is_some() => format!("too late: {why}"),
                (Some(why), true) => why.clone(),
                (None, true) => "too late".to_owned(),
                (None, false) => String::new(),
            },
        ]
    });
    let headings = ["TENANT", "TO", "MIB", "NEXT WINDOW", "BEGINS (UTC)", "ENDS (UTC)", ""];
    output::table(&headings, rows.collect())?;
    let (late, all) = (drain.late, drain.tenants.len());
    let end = match (drain.ends, drain.by) {
        (Some(ends), None) => format!("{name} is empty at {}", minute(Some(ends))),
        (Some(ends), Some(by)) if late == 0 => {
            format!("{name} is empty at {}, by {} as wanted", minute(Some(ends)), minute(Some(by)))
        }
        (Some(ends), Some(by)) => format!(
            "{late} of {all} tenants are still on {name} at {}; it is empty at {}",
            minute(Some(by)),
            minute(Some(ends))
        ),
        (None, None) => format!("{late} of {all} tenants can't leave {name} by this plan"),
        (None, Some(by)) => {
            format!("{late} of {all} tenants are still on {name} at {}", minute(Some(by)))
        }
    };
    output::line(&end)?;
    if drain.waiting > 0 {
        let waiting = drain.waiting;
        output::line(&format!("{waiting} wait for something that ends by itself in time"))?;
    }
    output::line("times are estimates; old copies stay until the ways back are over")
}
