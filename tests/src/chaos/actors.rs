//! The matrix over the real thing: coordinator, source's agent and target's
//! agent as processes, and one of them killed (-9) and started again at each
//! step of a move that goes there, back, and is cleaned up.
//!
//! One such walk comes by every step of the coordinator's: [`moment`] says, by
//! an exhaustive match, how each is met, so that a new step can't be left out.
//! Devices write all the time and a watcher looks at both fence rows; after
//! each death the tenant must write on, and at the end every acknowledged row
//! is looked for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;
use webhost_agent::mover::fail::{MARKER, RELEASED, marker, points};
use webhost_agent::mover::spec;
use webhost_coordinator::embedded::{Options, SUPERUSER};
use webhost_coordinator::moves::state::Step;

use super::Sides;
use crate::demo::town::{self, Tenant};
use crate::demo::watch;
use crate::harness::api::wait_for;
use crate::harness::fleet::{Fleet, NodeSpec, Spec};
use crate::load::audit::{Reckoning, reckon};
use crate::load::client::World;
use crate::load::device::Load;

const SHARED: &str = "shared-1";
const DEDICATED: &str = "dedicated-1";
/// Ends what hangs; nothing is measured by it.
const LONG: Duration = Duration::from_secs(120);
/// Rows of the tenant's history.
const ROWS: usize = 2_000;
/// Uploads after which the tenant counts as served again.
const UPLOADS: usize = 3;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    Coordinator,
    SourceAgent,
    TargetAgent,
}

impl Actor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Coordinator, Self::SourceAgent, Self::TargetAgent];

    /// For tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::SourceAgent => "source's agent",
            Self::TargetAgent => "target's agent",
        }
    }
}

/// Where in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    Before,
    Middle,
    After,
}

impl When {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Before, Self::Middle, Self::After];

    /// For tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Middle => "in the middle of",
            Self::After => "after",
        }
    }
}

/// How a step is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A mover stands still at this point.
    At(&'static str),
    /// The step asks the target's agent, which is away.
    TargetAway,
    /// The step waits for a person.
    Resting,
}

/// How `step` is met. What the coordinator does alone, and the tunnel's end,
/// have no mover: they are met as the step before them has done its work and
/// not told of it yet.
pub fn moment(step: Step, when: When) -> Moment {
    let at = |step: spec::Step, when: When| {
        let points = points(step);
        Moment::At(match when {
            When::Before => points[0],
            When::Middle => points[(points.len() - 1) / 2],
            When::After => points[points.len() - 1],
        })
    };
    match step {
        Step::OpenTunnel => Moment::TargetAway,
        Step::Preflight => at(spec::Step::Preflight, when),
        Step::Guard => at(spec::Step::Guard, when),
        Step::Copy => at(spec::Step::Copy, when),
        Step::Drain => at(spec::Step::Drain, when),
        Step::Verify => at(spec::Step::Verify, when),
        Step::CutOver => at(spec::Step::CutOver, when),
        Step::Route => at(spec::Step::CutOver, When::After),
        // It is ended by the roll back: nothing comes by its last point.
        Step::WayBack => at(spec::Step::WayBack, when.min(When::Middle)),
        Step::RollBack => at(spec::Step::RollBack, when),
        Step::RouteBack => at(spec::Step::RollBack, When::After),
        Step::Finish => at(spec::Step::Finish, when),
        Step::Kept => Moment::Resting,
        Step::CleanUp => at(spec::Step::CleanUp, when),
        Step::CloseTunnel => at(spec::Step::CleanUp, When::After),
    }
}

/// One death.
#[derive(Clone, Debug)]
pub struct Death {
    pub step: Step,
    pub actor: Actor,
    pub at: Moment,
    /// From the death until the tenant's devices were acknowledged again.
    pub served_after: Duration,
}

/// A fleet whose one tenant goes there and back, any number of times.
pub struct Walks {
    fleet: Fleet,
    hero: Tenant,
    load: Load,
    sides: Sides,
}

impl Walks {
    /// Starts it; the tenant is written to.
    ///
    /// # Errors
    /// As its parts.
    pub async fn start() -> anyhow::Result<Self> {
        let fleet = Fleet::start(Spec {
            nodes: vec![NodeSpec::shared(SHARED), NodeSpec::dedicated(DEDICATED)],
            postgres: Options::throwaway(),
            report_interval_ms: 500,
            usage_window_s: 10,
            min_gap_s: 1,
            way_back_s: 3_600,
            keep_old_copy_s: 3_600,
            max_customers: 150,
            log: "info",
        })
        .await?;
        let hero = Tenant::numbered(0, 3);
        let node = town::move_in(&fleet, &hero, "hobby").await?;
        ensure!(node == SHARED, "a small tenant goes to a shared node, not {node}");
        let load = Load::new(World::new(fleet.api.clone(), fleet.places())?);
        load.import(hero.id, &hero.vehicles, ROWS).await?;
        load.drive(hero.id, &hero.vehicles, Duration::from_millis(50));
        town::all_active(&fleet.api, std::slice::from_ref(&hero)).await?;
        let database = |node: &str| fleet.nodes[node].cluster.config(SUPERUSER);
        let sides = Sides::watch([database(SHARED), database(DEDICATED)], hero.id);
        Ok(Self { fleet, hero, load, sides })
    }

    /// One move there and back, `who` of which dies at each step.
    ///
    /// # Errors
    /// With the step, and the ends of all logs, when it does not go on.
    pub async fn walk(
        &mut self,
        when: When,
        who: impl Fn(usize) -> Actor,
    ) -> anyhow::Result<Vec<Death>> {
        self.hold_at(when).await?;
        // Nobody lets the mover in until the first step was met.
        self.fleet.kill_agent(DEDICATED);
        let body = json!({ "customer_id": self.hero.id, "target_mode": "single_tenant" });
        let begun = self.post("/api/admin/deployment/migrate", &body).await?;
        let id = begun["move_id"].as_str().context("no move_id")?.to_owned();
        let mut deaths = Vec::new();
        for (number, step) in Step::ALL.into_iter().enumerate() {
            let (actor, at) = (who(number), moment(step, when));
            let served_after = self.die(&id, step, actor, at).await;
            let served_after = served_after.with_context(|| {
                format!(
                    "{} killed {} {} ({at:?})\n{}",
                    actor.as_str(),
                    when.as_str(),
                    step.as_str(),
                    self.fleet.logs(40)
                )
            })?;
            deaths.push(Death { step, actor, at, served_after });
        }
        let ended = wait_for("the move's end", LONG, async || {
            let row = watch::get(&self.fleet.api, &id).await?;
            Ok(watch::ended(&row).then_some(row))
        });
        let ended = ended.await.with_context(|| self.fleet.logs(40))?;
        ensure!(ended["state"] == "rolled_back", "the move ended otherwise: {ended}");
        Ok(deaths)
    }

    /// Meets the step, kills who is to die, lets go what was held, and starts
    /// the dead again.
    async fn die(
        &mut self,
        id: &str,
        step: Step,
        actor: Actor,
        at: Moment,
    ) -> anyhow::Result<Duration> {
        match step {
            Step::RollBack => {
                let why = json!({ "reason": "the walk goes back" });
                self.post(&format!("/api/moves/{id}/roll-back"), &why).await?;
            }
            Step::CleanUp => {
                self.post(&format!("/api/moves/{id}/clean-up"), &json!({})).await?;
            }
            _ => {}
        }
        let held = match at {
            Moment::At(point) => Some(self.met(point).await?),
            Moment::TargetAway | Moment::Resting => {
                self.reaches(id, step.as_str()).await?;
                None
            }
        };
        match actor {
            Actor::Coordinator => self.fleet.kill_coordinator(),
            Actor::SourceAgent => self.fleet.kill_agent(SHARED),
            Actor::TargetAgent => self.fleet.kill_agent(DEDICATED),
        }
        let dead = Instant::now();
        if let Some(held) = held {
            std::fs::write(format!("{}{RELEASED}", held.display()), "")?;
        }
        // The tenant is not to wait for the dead.
        let (started, served) = tokio::join!(start(&mut self.fleet, actor, at), served(&self.load));
        started?;
        Ok(served?.duration_since(dead))
    }

    /// Both agents' movers stand still wherever `when` says.
    async fn hold_at(&mut self, when: When) -> anyhow::Result<()> {
        let points: Vec<&str> = Step::ALL
            .into_iter()
            .filter_map(|step| match moment(step, when) {
                Moment::At(point) => Some(point),
                Moment::TargetAway | Moment::Resting => None,
            })
            .collect();
        let wish = format!("hold:{}", points.join(","));
        for name in [SHARED, DEDICATED] {
            self.fleet.kill_agent(name);
            for entry in std::fs::read_dir(self.moves_dir(name)).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(MARKER) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            let node = self.fleet.nodes.get_mut(name).context("the node")?;
            node.spec.environment = vec![("WEBHOST_FAIL_AT".into(), wish.clone())];
            self.fleet.start_agent(name)?;
        }
        self.fleet.wait_connected(SHARED).await
    }

    fn moves_dir(&self, node: &str) -> PathBuf {
        self.fleet.dir().join(node).join("agent").join("moves")
    }

    /// Waits until a mover of either agent stands at `point`.
    async fn met(&self, point: &str) -> anyhow::Result<PathBuf> {
        let places = [SHARED, DEDICATED].map(|node| marker(&self.moves_dir(node), point));
        wait_for(&format!("a mover at {point}"), LONG, async || {
            Ok(places.iter().find(|place| place.exists()).cloned())
        })
        .await
    }

    async fn reaches(&self, id: &str, state: &str) -> anyhow::Result<()> {
        wait_for(&format!("state {state}"), LONG, async || {
            let row = watch::get(&self.fleet.api, id).await?;
            ensure!(!watch::ended(&row), "it ended before: {row}");
            Ok((row["state"] == state).then_some(()))
        })
        .await
    }

    /// As an operator asks: again, until it is the time for it.
    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let asked = wait_for(path, LONG, async || self.fleet.api.post(path, body).await.map(Some));
        asked.await
    }

    /// Ends the load and reckons: everything acknowledged is found at home, and
    /// never were two sides active.
    ///
    /// # Errors
    /// What is wrong, with the ends of all logs.
    pub async fn finish(self) -> anyhow::Result<Reckoning> {
        let ledger = self.load.stop(Duration::from_secs(20)).await;
        ensure!(ledger.refused.is_empty(), "refused for good: {:?}", ledger.refused);
        let homes = town::homes(&self.fleet.api, std::slice::from_ref(&self.hero)).await?;
        ensure!(homes[&self.hero.id] == SHARED, "the tenant lives at {homes:?}");
        let found = reckon(&ledger, &homes, &self.fleet.clusters()).await?;
        ensure!(found.clean(), "{found:?}\n{}", self.fleet.logs(40));
        let (looks, both) = self.sides.end().await;
        ensure!(looks > 20, "the watcher looked only {looks} times");
        ensure!(both == 0, "two active sides were seen {both} of {looks} times");
        Ok(found)
    }
}

/// Starts who died, and the target's agent where it was kept away.
async fn start(fleet: &mut Fleet, actor: Actor, at: Moment) -> anyhow::Result<()> {
    match actor {
        Actor::Coordinator => fleet.start_coordinator().await?,
        Actor::SourceAgent => fleet.start_agent(SHARED)?,
        Actor::TargetAgent => fleet.start_agent(DEDICATED)?,
    }
    if at == Moment::TargetAway && actor != Actor::TargetAgent {
        fleet.start_agent(DEDICATED)?;
    }
    Ok(())
}

/// Waits until the tenant's devices are acknowledged again; answers when.
async fn served(load: &Load) -> anyhow::Result<Instant> {
    let count = || load.world().ledger.snapshot().uploads.len();
    let before = count();
    wait_for("uploads", LONG, async || Ok((count() >= before + UPLOADS).then_some(Instant::now())))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_met_at_a_point_of_its_own_or_the_one_before() {
        for when in When::ALL {
            let mut met = Vec::new();
            for step in Step::ALL {
                if let Moment::At(point) = moment(step, when) {
                    let known = spec::Step::ALL.into_iter().any(|s| points(s).contains(&point));
                    assert!(known, "{point}");
                    met.push(point);
                }
            }
            assert_eq!(met.len(), Step::ALL.len() - 2, "{when:?}");
            met.dedup();
            let ends = [Step::Route, Step::RouteBack, Step::CloseTunnel].len();
            let shared = if when == When::After { ends } else { 0 };
            assert_eq!(met.len() + shared, Step::ALL.len() - 2, "{when:?}");
        }
    }
}
