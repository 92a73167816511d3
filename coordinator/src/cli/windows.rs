//! `tenant windows` and `node windows`: when moves may begin.

use clap::Args;
use webhost_proto::ids::{NodeId, TenantId};

use super::fleet::OPERATOR;
use super::{CliError, Format, output};
use crate::moves::windows::{self, WindowsError};
use crate::store::windows::{Whose, of};
use crate::store::{Store, nodes, tenants};

/// Without --open and --clear the windows are shown; else those that are given
/// replace all that there are.
#[derive(Clone, Debug, Args)]
pub(super) struct Given {
    /// Its name, slug or id.
    name: String,
    /// Moves may begin then, as "mon-fri 22:00-04:00 +01:00": weekdays or
    /// "daily", two times of the day, an offset from UTC; may be repeated.
    #[arg(long)]
    open: Vec<String>,
    /// Forget all windows: moves may begin at any time.
    #[arg(long, conflicts_with = "open")]
    clear: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn tenant(store: &Store, given: Given) -> Result<(), CliError> {
    let client = store.client().await?;
    let found = match given.name.parse::<TenantId>() {
        Ok(id) => tenants::get(&**client, id).await?,
        Err(_) => tenants::by_slug(&**client, &given.name).await?,
    };
    let none = || CliError::Other(format!("there is no tenant {:?}", given.name));
    let id = found.ok_or_else(none)?.id;
    drop(client);
    run(store, Whose::Tenant(id), &given).await
}

pub(super) async fn node(store: &Store, given: Given) -> Result<(), CliError> {
    let client = store.client().await?;
    let found = match given.name.parse::<NodeId>() {
        Ok(id) => nodes::get(&**client, id).await?,
        Err(_) => nodes::by_name(&**client, &given.name).await?,
    };
    let none = || CliError::Other(format!("there is no node {:?}", given.name));
    let id = found.ok_or_else(none)?.id;
    drop(client);
    run(store, Whose::Node(id), &given).await
}

async fn run(store: &Store, whose: Whose, given: &Given) -> Result<(), CliError> {
    let found = if given.clear || !given.open.is_empty() {
        windows::set(store, whose, &given.open, OPERATOR).await.map_err(|error| match error {
            WindowsError::Invalid(error) => CliError::from(error),
            WindowsError::Store(error) => error.into(),
        })?
    } else {
        of(&**store.client().await?, whose).await?
    };
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    if given.format.json {
        return output::json(&texts);
    }
    if texts.is_empty() {
        return output::line("no windows: moves may begin at any time");
    }
    texts.iter().try_for_each(|text| output::line(text))
}
