//! The plot of the demo.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use webhost_coordinator::embedded::Options;

use super::costs::{Look, look};
use super::roll_back::{self, RolledBack};
use super::summary::{Costs, Decision, Move, Summary};
use super::timeline::Timeline;
use super::town::{self, READING, Tenant};
use super::watch;
use crate::containers::{Appetite, Engine};
use crate::harness::api::wait_for;
use crate::harness::fleet::{Fleet, NodeSpec, Spec, items};
use crate::harness::process::program;
use crate::load::audit::reckon;
use crate::load::client::World;
use crate::load::device::Load;
use crate::load::pause::pause;

const TENANTS: usize = 40;
/// Slots of a shared node: so few that the tenants need both.
const SLOTS: u32 = 24;
/// Vehicles of each tenant at its signup.
const VEHICLES: usize = 3;
/// A position from each of their vehicles, this often.
const PERIOD: Duration = Duration::from_millis(1000);
/// Nordwind's vehicles report more often.
const BUSY_PERIOD: Duration = Duration::from_millis(200);
/// Positions of Nordwind's past.
const HISTORY: usize = 250_000;
/// Vehicles that Nordwind buys.
const BOUGHT: usize = 13;
/// Tenants with a container of their own, where there is an engine.
const CONTAINERS: usize = 3;
/// The seeds' limit of a mean response.
const SLOW_MS: f64 = 200.0;
/// How long the way back is open: until the demo goes it.
const WAY_BACK_S: u64 = 3600;
/// How long the old copy is kept: longer than the demo takes.
const KEEP_S: u64 = 3600;
const LONG: Duration = Duration::from_secs(90);

const SHARED: [&str; 2] = ["shared-1", "shared-2"];
const DEDICATED: &str = "dedicated-1";

/// Plays the whole; `engine` runs containers, or says why there are none.
/// Answers the fleet, still running, and what happened.
///
/// # Errors
/// When any part of the plot doesn't happen, with the logs' ends.
pub async fn play(
    timeline: &Timeline,
    engine: Result<&Engine, String>,
) -> anyhow::Result<(Fleet, Summary)> {
    match &engine {
        Ok(_) => timeline.say("demo", "a container engine of its own is running"),
        Err(why) => timeline.say("demo", &format!("no tenant gets a container: {why}")),
    }
    let mut nodes: Vec<NodeSpec> = SHARED.iter().map(|name| NodeSpec::shared(name)).collect();
    nodes[0].containers = engine.as_ref().ok().map(|engine| engine.socket());
    nodes.push(NodeSpec::dedicated(DEDICATED));
    let spec = Spec {
        nodes,
        // As on a server that has run for a while, statistics are fresh.
        postgres: Options::durable().with("autovacuum_naptime", "3s"),
        report_interval_ms: 1000,
        usage_window_s: 15,
        min_gap_s: 5,
        way_back_s: WAY_BACK_S,
        keep_old_copy_s: KEEP_S,
        max_customers: SLOTS,
        log: "info",
    };
    let fleet = Fleet::start(spec).await?;
    timeline.say("coordinator", &format!("serves at {}", fleet.api.base()));
    for name in fleet.nodes.keys() {
        timeline.say(name, "agent enrolled with a join token, connected over mTLS");
    }
    match act(timeline, &fleet, engine).await {
        Ok(summary) => Ok((fleet, summary)),
        Err(error) => {
            timeline.text(&fleet.casualty().unwrap_or_else(|| fleet.logs(15)));
            Err(error)
        }
    }
}

async fn act(
    timeline: &Timeline,
    fleet: &Fleet,
    engine: Result<&Engine, String>,
) -> anyhow::Result<Summary> {
    let api = &fleet.api;
    let (tenants, homes) = settle(timeline, fleet).await?;
    let hero = &tenants[0];
    let containers = contain(timeline, engine.as_ref().ok().copied(), &tenants, &homes).await?;

    let load = Load::new(World::new(api.clone(), fleet.places())?);
    for tenant in &tenants {
        let period = if tenant.id == hero.id { BUSY_PERIOD } else { PERIOD };
        load.drive(tenant.id, &tenant.vehicles, period);
        load.browse(tenant.id, format!("{}-office", tenant.slug), "vehicles", READING * 3);
    }
    let devices_since = Instant::now();
    timeline.say("load", "devices of all tenants send positions, people look at their pages");
    town::all_active(api, &tenants).await?;
    timeline.say("coordinator", "all tenants are active: their nodes' agents report them");
    let source = homes.get(&hero.id).context("Nordwind's home")?.clone();
    let costs = Watched::begin(fleet, &source)?;

    let rows = load.import(hero.id, &hero.vehicles, HISTORY).await?;
    timeline.say("load", &format!("{} imported {rows} positions of its past", hero.name));
    load.browse(hero.id, "dispatcher".into(), "reports/mileage", READING);
    timeline.say("load", "its dispatcher looks at mileage reports over all of it");
    let mean = slow(timeline, fleet, hero).await?;
    timeline.say(&source, &format!("reports a mean response of {mean:.0} ms for {}", hero.name));

    let bought = hero.more_vehicles(BOUGHT);
    load.register(hero.id, &bought).await?;
    load.drive(hero.id, &bought, BUSY_PERIOD);
    let vehicles = hero.vehicles.len() + bought.len();
    timeline.say("load", &format!("{} now has {vehicles} vehicles; hobby is for 5", hero.name));
    let open = watch::appears(api, hero.id, LONG).await?;
    let id = open["id"].as_str().context("the move's id")?.to_owned();
    let decision = decision(timeline, fleet, hero, &open, mean).await?;
    // Costs are taken before the move: the mover is a process of its own, and
    // what the agent costs every day is the question.
    let (agent, coordinator) = costs.end(fleet, &source)?;
    let mut told = 0;
    let moved = watch::follow(api, timeline, &id, &mut told, "way_back", LONG).await?;
    // What comes after a switch is watched for a while, too.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let homes = town::homes(api, &tenants).await?;
    let target = homes.get(&hero.id).context("Nordwind's home")?.clone();
    timeline.say("demo", &format!("an operator wants {} back on {source}", hero.name));
    let back = roll_back::play(timeline, fleet, &id, &mut told).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let devices_for = devices_since.elapsed().as_secs_f64();
    let ledger = load.stop(Duration::from_secs(10)).await;
    anyhow::ensure!(ledger.refused.is_empty(), "refused for good: {:?}", ledger.refused);
    timeline.say("demo", "the load has ended; every acknowledged row is looked for");
    let homes = town::homes(api, &tenants).await?;
    let home = homes.get(&hero.id).context("Nordwind's home")?.clone();
    anyhow::ensure!(home == source, "{} was rolled back and lives on {home}", hero.name);
    let rows = reckon(&ledger, &homes, &fleet.clusters()).await?;
    let pause = pause(&ledger.uploads, hero.id, &target);
    let felt = roll_back::felt(&ledger.uploads, hero.id, pause.as_ref(), &home);
    Ok(Summary {
        tenants: tenants.len(),
        nodes: fleet.nodes.len(),
        containers,
        containers_why: engine.err(),
        reports: reports(fleet).await?,
        decision,
        moved: Move::read(&moved, source, target, pause.as_ref()),
        rolled_back: RolledBack::read(&back, home, felt.as_ref()),
        rows,
        load_rows_per_second: (ledger.uploads.len() as f64 / devices_for * 10.0).round() / 10.0,
        agent,
        coordinator,
        seconds: (timeline.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    })
}

/// Signs all tenants up and sets them up where they were placed.
async fn settle(
    timeline: &Timeline,
    fleet: &Fleet,
) -> anyhow::Result<(Vec<Tenant>, BTreeMap<uuid::Uuid, String>)> {
    let tenants: Vec<Tenant> = (0..TENANTS).map(|n| Tenant::numbered(n, VEHICLES)).collect();
    // All sign up at once, as after a campaign; then each is set up.
    let mut signups = JoinSet::new();
    for tenant in tenants.clone() {
        let api = fleet.api.clone();
        signups.spawn(async move { town::sign_up(&api, &tenant, "hobby").await });
    }
    while let Some(answer) = signups.join_next().await {
        answer??;
    }
    let mut homes = BTreeMap::new();
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    let places = fleet.places();
    for tenant in &tenants {
        let node = town::placed(&fleet.api, tenant.id).await?;
        let app = places.get(&node).with_context(|| format!("no application on {node}"))?;
        town::set_up(app, tenant, "hobby").await?;
        *per_node.entry(node.clone()).or_default() += 1;
        homes.insert(tenant.id, node);
        timeline.progress("coordinator", &format!("{} tenants placed", homes.len()));
    }
    let spread: Vec<String> =
        per_node.iter().map(|(node, count)| format!("{count} on {node}")).collect();
    timeline.say(
        "coordinator",
        &format!(
            "{} tenants signed up, each with a decision and a slot: {}",
            tenants.len(),
            spread.join(", ")
        ),
    );
    Ok((tenants, homes))
}

/// Gives a few tenants of the first node a container of their own.
async fn contain(
    timeline: &Timeline,
    engine: Option<&Engine>,
    tenants: &[Tenant],
    homes: &BTreeMap<uuid::Uuid, String>,
) -> anyhow::Result<usize> {
    let Some(engine) = engine else { return Ok(0) };
    let own: Vec<&Tenant> = tenants
        .iter()
        .skip(1)
        .filter(|tenant| homes.get(&tenant.id).is_some_and(|home| home == SHARED[0]))
        .take(CONTAINERS)
        .collect();
    for (index, tenant) in own.iter().enumerate() {
        let memory_mb = 16 + 16 * u32::try_from(index)?;
        let appetite = Appetite { memory_mb, busy_ms: 2, burn_ms: 0 };
        engine.run_tenant(tenant.id, &tenant.slug, appetite).await?;
    }
    anyhow::ensure!(!own.is_empty(), "no tenant on {} to give a container to", SHARED[0]);
    timeline.say(SHARED[0], &format!("{} tenants run in containers of their own", own.len()));
    Ok(own.len())
}

/// Waits until the coordinator knows that the tenant's requests are slow.
async fn slow(timeline: &Timeline, fleet: &Fleet, hero: &Tenant) -> anyhow::Result<f64> {
    wait_for("slow requests in the agent's reports", LONG, async || {
        let usage = town::usage(&fleet.api, hero.id).await?;
        let mean = usage["average_response_time_ms"].as_f64().unwrap_or_default();
        timeline.progress("coordinator", &format!("mean response of {}: {mean:.0} ms", hero.name));
        Ok((mean > SLOW_MS).then_some(mean))
    })
    .await
}

/// Tells what was decided, from the record.
async fn decision(
    timeline: &Timeline,
    fleet: &Fleet,
    hero: &Tenant,
    open: &Value,
    mean_response_ms: f64,
) -> anyhow::Result<Decision> {
    let records = fleet.api.get(&format!("/api/decisions?tenant={}", hero.id)).await?;
    let record = items(&records)
        .iter()
        .find(|record| record["id"] == open["decision_id"])
        .with_context(|| format!("the decision of {open} in {records}"))?;
    let decided = &record["decision"];
    let recommended =
        if decided["recommended"].is_object() { &decided["recommended"] } else { decided };
    let decision = Decision {
        tenant: hero.name.clone(),
        mode: recommended["mode"].clone(),
        plan: recommended["plan"].clone(),
        confidence: recommended["confidence"].clone(),
        reason: recommended["reason"].clone(),
        approved_by: open["approved_by"].clone(),
        mean_response_ms,
    };
    timeline.say(
        "coordinator",
        &format!(
            "decided for {}: {} on {}, confidence {}",
            hero.name, decision.mode, decision.plan, decision.confidence
        ),
    );
    timeline.say("coordinator", &format!("because {}", decision.reason));
    timeline.say("coordinator", &format!("approved by {}", decision.approved_by));
    Ok(decision)
}

async fn reports(fleet: &Fleet) -> anyhow::Result<u64> {
    let nodes = fleet.api.get("/api/nodes").await?;
    Ok(items(&nodes).iter().filter_map(|node| node["usage"]["reports"].as_u64()).sum())
}

/// The costs of an agent and the coordinator between two moments.
struct Watched {
    agent: Look,
    coordinator: Look,
}

impl Watched {
    fn begin(fleet: &Fleet, node: &str) -> anyhow::Result<Self> {
        Ok(Self {
            agent: look(fleet.agent_pid(node).context("the agent's pid")?)?,
            coordinator: look(fleet.coordinator_pid().context("the coordinator's pid")?)?,
        })
    }

    fn end(&self, fleet: &Fleet, node: &str) -> anyhow::Result<(Costs, Costs)> {
        let now = Self::begin(fleet, node)?;
        Ok((costs(&self.agent, &now.agent), costs(&self.coordinator, &now.coordinator)))
    }
}

fn costs(before: &Look, now: &Look) -> Costs {
    let mb = |bytes: u64| (bytes as f64 / 100_000.0).round() / 10.0;
    Costs {
        rss_mb: mb(now.rss),
        rss_peak_mb: mb(now.rss_peak),
        cpu_percent: (now.cpu_percent_since(before) * 100.0).round() / 100.0,
    }
}

/// What to type for a look around.
///
/// # Errors
/// When a program isn't where it was.
pub fn look_around(fleet: &Fleet) -> anyhow::Result<String> {
    let agent = program("webhost-agent")?;
    let config = fleet.agent_config(SHARED[0]).context("the agent's configuration")?;
    let hero = "nordwind-logistics";
    let (base, token) = (fleet.api.base(), &fleet.admin_token);
    let mut text = format!(
        "\nThe fleet keeps running until Ctrl-C. In another terminal:\n\n  \
         {agent} status --config {config}\n  \
         export WEBHOST='{base}' TOKEN='{token}'\n  \
         curl -sH \"Authorization: Bearer $TOKEN\" $WEBHOST/api/nodes\n  \
         curl -sH \"Authorization: Bearer $TOKEN\" $WEBHOST/api/tenants/{hero}\n  \
         curl -sH \"Authorization: Bearer $TOKEN\" $WEBHOST/api/tenants/{hero}/usage\n  \
         curl -sH \"Authorization: Bearer $TOKEN\" $WEBHOST/api/moves\n",
        agent = agent.display(),
        config = config.display(),
    );
    for (name, node) in &fleet.nodes {
        text.push_str(&format!(
            "  psql -h {} -U postgres {}    # the database of {name}\n",
            node.cluster.socket_dir().display(),
            crate::schema::DATABASE
        ));
    }
    Ok(text)
}
