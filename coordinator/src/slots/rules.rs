//! Rules about single tenants: pinned to a node, only in some places, apart from
//! others. A person sets them; placement, plans and moves keep to them. A rule
//! that is set moves nobody by itself.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::GenericClient;
use webhost_proto::ids::{NodeId, TenantId};

use super::Slots;
use crate::decide::{Catalog, Region};
use crate::fleet::{NodeState, Rules};
use crate::signup::Invalid;
use crate::store::audit::{self, Entry};
use crate::store::{Store, StoreError, nodes, rules};

/// The most labels or places of one tenant.
const MOST: usize = 16;

/// Rules as a person writes them. What is absent holds no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wish {
    /// A node by its id or name: there and nowhere else.
    pub pinned: Option<String>,
    /// Places by their codes, or regions of the catalogue: best there.
    pub near: Vec<String>,
    /// There and nowhere else, by contract or law.
    pub only: Vec<String>,
    /// Labels: not on one node with another tenant that has one of them.
    pub apart: Vec<String>,
}

/// Why rules are not set.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A field can't be taken.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn places(
    field: &'static str,
    names: &[String],
    catalog: &Catalog,
) -> Result<Vec<Region>, Invalid> {
    let mut places = Vec::new();
    for name in names.iter().take(MOST + 1) {
        let problem = || format!("{name:?} is neither a region nor a place");
        let place = catalog.region(name).ok_or_else(|| Invalid::new(field, problem()))?;
        if !places.contains(&place) {
            places.push(place);
        }
    }
    match names.len() {
        0..=MOST => Ok(places),
        many => Err(Invalid::new(field, format!("{many} are more than {MOST}"))),
    }
}

fn labels(wish: &Wish) -> Result<Vec<String>, Invalid> {
    let is_label = |label: &String| {
        let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(part)
    };
    if let Some(odd) = wish.apart.iter().find(|label| !is_label(label)) {
        let problem = format!("{odd:?} is not 1 to 63 of a-z, 0-9 and hyphens");
        return Err(Invalid::new("apart", problem));
    }
    let mut labels = wish.apart.clone();
    labels.sort_unstable();
    labels.dedup();
    match labels.len() {
        0..=MOST => Ok(labels),
        many => Err(Invalid::new("apart", format!("{many} labels are more than {MOST}"))),
    }
}

/// Sets the rules of a tenant, with an audit row.
///
/// # Errors
/// [`RulesError`]; nothing is written then.
pub async fn set(
    store: &Store,
    catalog: &Catalog,
    tenant: TenantId,
    wish: &Wish,
    actor: &str,
) -> Result<Rules, RulesError> {
    let mut client = store.client().await?;
    let tx = (**client).transaction().await.map_err(StoreError::from)?;
    let pinned = match &wish.pinned {
        None => None,
        Some(name) => {
            let found = match name.parse::<NodeId>() {
                Ok(id) => nodes::get(&tx, id).await?,
                Err(_) => nodes::by_name(&tx, name).await?,
            };
            let none = || Invalid::new("pinned", format!("there is no node {name:?}"));
            Some(found.ok_or_else(none)?.id)
        }
    };
    let wanted = Rules {
        pinned,
        near: places("near", &wish.near, catalog)?,
        only: places("only", &wish.only, catalog)?,
        apart: labels(wish)?,
    };
    rules::set(&tx, tenant, &wanted).await?;
    let entry = Entry {
        actor,
        action: "tenant.rules_set",
        subject: "tenant",
        subject_id: tenant.to_string(),
        detail: json!(wanted),
    };
    audit::record(&tx, &entry).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(wanted)
}

/// The rules of a tenant; empty where it has none.
///
/// # Errors
/// [`StoreError`].
pub async fn get(client: &impl GenericClient, tenant: TenantId) -> Result<Rules, StoreError> {
    Ok(rules::of(client, &[tenant.0]).await?.remove(&tenant).unwrap_or_default())
}

impl Slots {
    /// The nodes of `fleet` where a tenant with `rules` may not live.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forbidden(
        &self,
        client: &impl GenericClient,
        tenant: TenantId,
        rules: &Rules,
        fleet: &[NodeState],
    ) -> Result<Vec<NodeId>, StoreError> {
        let taken = if rules.apart.is_empty() {
            Vec::new()
        } else {
            rules::nodes_with(client, tenant, &rules.apart).await?
        };
        let out = |node: &&NodeState| {
            rules.pinned.is_some_and(|pinned| pinned != node.id)
                || (!rules.only.is_empty() && !rules.only.contains(&node.region))
                || taken.contains(&node.id)
        };
        Ok(fleet.iter().filter(out).map(|node| node.id).collect())
    }
}
