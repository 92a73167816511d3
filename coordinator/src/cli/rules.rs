//! `tenant rules`: where a tenant may and may not live.

use clap::Args;
use webhost_proto::ids::TenantId;

use super::fleet::OPERATOR;
use super::{CliError, Format, output};
use crate::config::Config;
use crate::fleet::Rules;
use crate::slots::rules::{self, RulesError, Wish};
use crate::store::{Store, nodes, tenants};

/// Without any of --pin, --near, --only, --apart and --clear the rules are
/// shown; else those that are given replace all that there are.
#[derive(Clone, Debug, Args)]
pub(super) struct Given {
    /// Its slug or id.
    tenant: String,
    /// On this node and no other, by name or id.
    #[arg(long)]
    pin: Option<String>,
    /// Best in this place (as fra) or region (as EU); may be repeated.
    #[arg(long)]
    near: Vec<String>,
    /// In this place or region and no other; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Not on one node with another tenant that has this label; may be
    /// repeated.
    #[arg(long)]
    apart: Vec<String>,
    /// Forget all rules.
    #[arg(long, conflicts_with_all = ["pin", "near", "only", "apart"])]
    clear: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(config: &Config, store: &Store, given: Given) -> Result<(), CliError> {
    let client = store.client().await?;
    let found = match given.tenant.parse::<TenantId>() {
        Ok(id) => tenants::get(&**client, id).await?,
        Err(_) => tenants::by_slug(&**client, &given.tenant).await?,
    };
    let none = || CliError::Other(format!("there is no tenant {:?}", given.tenant));
    let tenant = found.ok_or_else(none)?.id;
    let wish = Wish { pinned: given.pin, near: given.near, only: given.only, apart: given.apart };
    let rules = if given.clear || wish != Wish::default() {
        rules::set(store, &config.catalog, tenant, &wish, OPERATOR).await.map_err(|error| {
            match error {
                RulesError::Invalid(error) => error.into(),
                RulesError::Store(error) => CliError::from(error),
            }
        })?
    } else {
        rules::get(&**client, tenant).await?
    };
    if given.format.json {
        return output::json(&rules);
    }
    if rules == Rules::default() {
        return output::line("no rules: it may live anywhere");
    }
    let pinned = match rules.pinned {
        None => String::new(),
        Some(id) => nodes::get(&**client, id).await?.map_or_else(|| id.to_string(), |n| n.name),
    };
    let names = |regions: Vec<crate::decide::Region>| {
        regions.into_iter().map(|region| region.0).collect::<Vec<_>>().join(", ")
    };
    let row = vec![pinned, names(rules.near), names(rules.only), rules.apart.join(", ")];
    output::table(&["PINNED TO", "NEAR", "ONLY", "APART"], vec![row])
}
