//! The tenants of the demo: who they are, and how they come into the fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::wire::{Customer, Vehicle};
use crate::harness::api::{Api, http_client, wait_for};
use crate::harness::fleet::{Fleet, PATIENCE, items};

/// One tenant of the demo.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: Uuid,
    pub name: String,
    pub slug: String,
    pub vehicles: Vec<Vehicle>,
}

const TOWNS: [&str; 20] = [
    "Aachen",
    "Berlin",
    "Celle",
    "Dresden",
    "Erfurt",
    "Fulda",
    "Goslar",
    "Hamburg",
    "Ilmenau",
    "Jena",
    "Kassel",
    "Leipzig",
    "Mainz",
    "Nauen",
    "Oldenburg",
    "Potsdam",
    "Rostock",
    "Speyer",
    "Trier",
    "Ulm",
];
const TRADES: [&str; 2] = ["Couriers", "Haulage"];

impl Tenant {
    /// The tenant of that number; the first one is called Nordwind and will
    /// grow.
    pub fn numbered(number: usize, vehicles: usize) -> Self {
        let name = match number {
            0 => "Nordwind Logistics".to_owned(),
            _ => format!("{} {}", TOWNS[number % TOWNS.len()], TRADES[number / TOWNS.len() % 2]),
        };
        let slug = name.to_lowercase().replace(' ', "-");
        let mut tenant = Self { id: Uuid::now_v7(), name, slug, vehicles: Vec::new() };
        tenant.vehicles = tenant.more_vehicles(vehicles);
        tenant
    }

    /// New vehicles, numbered after those that it has.
    pub fn more_vehicles(&self, count: usize) -> Vec<Vehicle> {
        (self.vehicles.len()..self.vehicles.len() + count)
            .map(|number| Vehicle { id: Uuid::new_v4(), name: format!("Van {:02}", number + 1) })
            .collect()
    }

    fn email(&self) -> String {
        format!("office@{}.example", self.slug)
    }
}

/// Signs a tenant up; answers what the coordinator said.
///
/// # Errors
/// When it is refused.
pub async fn sign_up(api: &Api, tenant: &Tenant, plan: &str) -> anyhow::Result<Value> {
    let body = json!({
        "customer_id": tenant.id,
        "name": tenant.name,
        "slug": tenant.slug,
        "email": tenant.email(),
        "company_name": tenant.name,
        "billing_email": tenant.email(),
        "plan": plan,
    });
    api.post("/api/tenants", &body).await
}

/// Waits until the tenant has a place; answers the node's name. A tenant
/// without one waits at the coordinator, which tries again: all our nodes are
/// one machine, and when that is busy with something else, none has room.
///
/// # Errors
/// When none is found in time.
pub async fn placed(api: &Api, tenant: Uuid) -> anyhow::Result<String> {
    wait_for("a place", PATIENCE * 2, async || {
        let place = api.get(&format!("/api/tenants/{tenant}/place")).await?;
        Ok(place["node"].as_str().map(str::to_owned))
    })
    .await
}

/// What the application does after a signup: sets the customer up in the
/// database of its node.
///
/// # Errors
/// When the application there refuses.
pub async fn set_up(app: &str, tenant: &Tenant, plan: &str) -> anyhow::Result<()> {
    let customer = Customer {
        id: tenant.id,
        name: tenant.name.clone(),
        slug: tenant.slug.clone(),
        email: tenant.email(),
        plan: plan.to_owned(),
        vehicles: tenant.vehicles.clone(),
    };
    let client = http_client()?;
    wait_for("the application", PATIENCE, async || {
        let answer =
            client.post(format!("{app}/internal/customers")).json(&customer).send().await?;
        let status = answer.status();
        anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        Ok(Some(()))
    })
    .await
}

/// Signs up, waits for the place, sets up. Answers the node's name.
///
/// # Errors
/// As its parts.
pub async fn move_in(fleet: &Fleet, tenant: &Tenant, plan: &str) -> anyhow::Result<String> {
    sign_up(&fleet.api, tenant, plan).await?;
    let node = placed(&fleet.api, tenant.id).await?;
    let places = fleet.places();
    let app = places.get(&node).with_context(|| format!("no application on {node}"))?;
    set_up(app, tenant, plan).await?;
    Ok(node)
}

/// Waits until every one of `tenants` is active: reported by the agent of the
/// node that it was promised.
///
/// # Errors
/// With those that are not.
pub async fn all_active(api: &Api, tenants: &[Tenant]) -> anyhow::Result<()> {
    let mut missing = String::new();
    let waited = wait_for("all tenants active", PATIENCE, async || {
        let answer = api.get("/api/tenants?limit=1000").await?;
        let states: BTreeMap<&str, &str> = items(&answer)
            .iter()
            .filter_map(|tenant| Some((tenant["id"].as_str()?, tenant["state"].as_str()?)))
            .collect();
        let waiting: Vec<String> = tenants
            .iter()
            .map(|tenant| (tenant, states.get(tenant.id.to_string().as_str()).copied()))
            .filter(|(_, state)| *state != Some("active"))
            .map(|(tenant, state)| format!("{} is {}", tenant.slug, state.unwrap_or("unknown")))
            .collect();
        missing = waiting.join(", ");
        Ok(waiting.is_empty().then_some(()))
    })
    .await;
    waited.with_context(|| missing)
}

/// Where every tenant lives, by the coordinator's word.
///
/// # Errors
/// When the coordinator doesn't know a place.
pub async fn homes(api: &Api, tenants: &[Tenant]) -> anyhow::Result<BTreeMap<Uuid, String>> {
    let mut homes = BTreeMap::new();
    for tenant in tenants {
        let place = api.get(&format!("/api/tenants/{}/place", tenant.id)).await?;
        let node = place["node"].as_str().with_context(|| format!("place {place}"))?;
        homes.insert(tenant.id, node.to_owned());
    }
    Ok(homes)
}

/// The tenant's measured usage, as the API shows it.
///
/// # Errors
/// When the API refuses.
pub async fn usage(api: &Api, tenant: Uuid) -> anyhow::Result<Value> {
    Ok(api.get(&format!("/api/tenants/{tenant}/usage")).await?["usage_metrics"].take())
}

/// Two seconds: how long a person reads a page.
pub const READING: Duration = Duration::from_secs(2);
