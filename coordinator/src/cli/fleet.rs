//! `node` and `tenant`: an operator's look at the fleet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use webhost_proto::ids::TenantId;

use super::drain::minute;
use super::open::{State, sealing_key};
use super::{CliError, NodeCommand, TenantCommand, output};
use crate::api::fleet::promise;
use crate::config::Config;
use crate::link::authority::{Authority, Leaves};
use crate::link::{Signal, Signals, create_join_token};
use crate::signup::{Desk, request};
use crate::slots::Slots;
use crate::store::{Store, nodes, tenants};
use crate::usage::Book;

pub(super) const OPERATOR: &str = "operator";
pub(super) const MOST: i64 = 100_000;

pub(super) async fn node(
    config: &Config,
    state: &State,
    command: NodeCommand,
) -> Result<(), CliError> {
    match command {
        NodeCommand::Token { name, kind, shape, region, lifetime_s } => {
            let promise = promise(&config.catalog, name, kind, shape, &region)?;
            let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            let key = sealing_key(config, credentials.as_deref(), state.embedded)?;
            let authority =
                Authority::load_or_create(&state.store, &key, Leaves::default()).await?;
            let lifetime = Duration::from_secs(lifetime_s);
            let token =
                create_join_token(&state.store, &authority, &promise, lifetime, OPERATOR).await?;
            output::line(token.expose())
        }
        NodeCommand::Windows(given) => super::windows::node(&state.store, given).await,
        NodeCommand::List(format) => {
            let nodes = nodes::list(&**state.store.client().await?, None, MOST).await?;
            if format.json {
                return output::json(&nodes);
            }
            let rows = nodes.into_iter().map(|node| {
                vec![
                    node.name,
                    node.kind.as_str().to_owned(),
                    node.shape,
                    node.region,
                    node.drain_by.map_or_else(
                        || node.state.to_string(),
                        |by| format!("{}, by {}", node.state, minute(Some(by))),
                    ),
                    node.connected_at.map_or("no", |_| "yes").to_owned(),
                    node.agent_version,
                    node.id.to_string(),
                ]
            });
            let headings = ["NAME", "KIND", "SHAPE", "REGION", "STATE", "CONNECTED", "AGENT", "ID"];
            output::table(&headings, rows.collect())
        }
    }
}

pub(super) async fn tenant(
    config: &Config,
    state: &State,
    command: TenantCommand,
) -> Result<(), CliError> {
    match command {
        TenantCommand::List(format) => {
            let tenants = tenants::list(&**state.store.client().await?, None, None, MOST).await?;
            if format.json {
                return output::json(&tenants);
            }
            let rows = tenants.into_iter().map(|tenant| {
                vec![
                    tenant.slug,
                    tenant.plan,
                    tenant.state.to_string(),
                    tenant.epoch.to_string(),
                    tenant.id.to_string(),
                    tenant.state_reason,
                ]
            });
            let headings = ["SLUG", "PLAN", "STATE", "EPOCH", "ID", "REASON"];
            output::table(&headings, rows.collect())
        }
        TenantCommand::Windows(given) => super::windows::tenant(&state.store, given).await,
        TenantCommand::Rules(given) => super::rules::run(config, &state.store, given).await,
        TenantCommand::Approve { tenant, reason } => {
            let client = state.store.client().await?;
            let found = match tenant.parse::<TenantId>() {
                Ok(id) => tenants::get(&**client, id).await?,
                Err(_) => tenants::by_slug(&**client, &tenant).await?,
            };
            drop(client);
            let none = || CliError::Other(format!("there is no tenant {tenant:?}"));
            let id = found.ok_or_else(none)?.id;
            let approved = desk(config, &state.store)
                .approve(id, OPERATOR, &reason, Timestamp::now())
                .await
                .map_err(|error| CliError::Other(error.to_string()))?;
            for unmet in &approved.unmet {
                output::line(&format!("stays unmet: {unmet}"))?;
            }
            output::line("it gets its place as soon as there is one")
        }
        TenantCommand::Import { node, apply, default_plan, format } => {
            if let Some(plan) = &default_plan {
                request::plan(plan, &config.catalog)?;
            }
            let found = nodes::by_name(&**state.store.client().await?, &node).await?;
            let found =
                found.ok_or_else(|| CliError::Other(format!("there is no node {node:?}")))?;
            let outcome = desk(config, &state.store)
                .import(&Signals::default(), &found, apply, default_plan.as_deref(), OPERATOR)
                .await?;
            if format.json {
                return output::json(&outcome);
            }
            let rows = outcome.tenants.iter().map(|one| {
                vec![
                    one.slug.clone(),
                    one.plan.clone(),
                    format!("{:?}", one.verdict).to_lowercase(),
                    one.customer_id.clone(),
                    one.reason.clone(),
                ]
            });
            output::table(&["SLUG", "PLAN", "VERDICT", "ID", "REASON"], rows.collect())?;
            if !outcome.applied {
                output::line("a dry run: nothing was written; add --apply to adopt them")?;
            }
            Ok(())
        }
    }
}

pub(super) fn desk(config: &Config, store: &Store) -> Desk {
    let silence = SignedDuration::from_secs(i64::from(config.link.silence_s));
    Desk {
        store: store.clone(),
        slots: Slots {
            book: Arc::new(Book::new(config.usage_window())),
            catalog: Arc::new(config.catalog.clone()),
            silence,
        },
        mode: config.mode,
        reservation: SignedDuration::from_secs(
            i64::try_from(config.signup.reservation_ttl_s).unwrap_or(i64::MAX),
        ),
        reserved_slugs: Arc::new(config.signup.reserved_slugs.iter().cloned().collect()),
        changed: Signal::default(),
        queue: crate::signup::Queue::default(),
    }
}
