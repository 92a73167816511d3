//! The windows of tenants and nodes: set by a person, obeyed when a move begins.

use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::GenericClient;
use webhost_proto::ids::NodeId;

use super::window::{Window, all_open, is_open};
use crate::signup::Invalid;
use crate::store::audit::{self, Entry};
use crate::store::moves::Move;
use crate::store::windows::{self, Whose};
use crate::store::{Store, StoreError};

/// The most windows of one tenant or node.
const MOST: usize = 16;

/// Why windows were not set.
#[derive(Debug, thiserror::Error)]
pub enum WindowsError {
    /// One of them is none, or they are too many.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Replaces the windows of a tenant or node that exists, with an audit row;
/// without any, it may be moved at all times.
///
/// # Errors
/// [`WindowsError`]; nothing is written then.
pub async fn set(
    store: &Store,
    whose: Whose,
    texts: &[String],
    actor: &str,
) -> Result<Vec<Window>, WindowsError> {
    if texts.len() > MOST {
        let problem = format!("{} windows are more than {MOST}", texts.len());
        return Err(Invalid::new("windows", problem).into());
    }
    let parse = |text: &String| {
        text.parse::<Window>().map_err(|error| Invalid::new("windows", error.to_string()))
    };
    let mut wanted = texts.iter().map(parse).collect::<Result<Vec<Window>, Invalid>>()?;
    wanted.sort_unstable();
    wanted.dedup();
    let mut client = store.client().await?;
    let tx = (**client).transaction().await.map_err(StoreError::from)?;
    windows::set(&tx, whose, &wanted).await?;
    let (action, subject, subject_id) = match whose {
        Whose::Tenant(id) => ("tenant.windows_set", "tenant", id.to_string()),
        Whose::Node(id) => ("node.windows_set", "node", id.to_string()),
    };
    let shown: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let entry = Entry { actor, action, subject, subject_id, detail: json!({ "windows": shown }) };
    audit::record(&tx, &entry).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(wanted)
}

/// Why a move may not begin at `now`, for a person; none where it may: the
/// windows of its tenant, its source, and its target where that is known, are
/// open, or a person lets it begin all the same. A dry run loads nobody.
///
/// # Errors
/// [`StoreError`].
pub async fn closed(
    client: &impl GenericClient,
    row: &Move,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let durable = &row.durable;
    if durable.outside_window.is_some() || durable.wanted.dry_run {
        return Ok(None);
    }
    let tenant = windows::of(client, Whose::Tenant(row.tenant)).await?;
    let source = windows::of(client, Whose::Node(row.source)).await?;
    let target = match row.target.or(durable.wanted.node) {
        Some(node) => windows::of(client, Whose::Node(node)).await?,
        None => Vec::new(),
    };
    Ok(match all_open(&[&tenant, &source, &target], now) {
        Some(at) if at <= now => None,
        Some(at) => Some(format!("waits for its window, which opens at {at}")),
        None => Some(
            "the windows of the tenant and of its nodes are never open at once: change them, or \
             let the move begin now"
                .to_owned(),
        ),
    })
}

/// The nodes whose windows are closed at `now`: no move that keeps to windows
/// goes there.
///
/// # Errors
/// [`StoreError`].
pub async fn closed_nodes(
    client: &impl GenericClient,
    row: &Move,
    now: Timestamp,
) -> Result<Vec<NodeId>, StoreError> {
    if row.durable.outside_window.is_some() || row.durable.wanted.dry_run {
        return Ok(Vec::new());
    }
    let mut all: std::collections::BTreeMap<NodeId, Vec<Window>> = Default::default();
    for (node, window) in windows::of_nodes(client).await? {
        all.entry(node).or_default().push(window);
    }
    all.retain(|_, windows| !is_open(windows, now));
    Ok(all.into_keys().collect())
}
