//! One case from its beginning to its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use webhost_agent::command::Handler;
use webhost_agent::mover::child::Login;
use webhost_agent::mover::fail::{MARKER, RELEASED};
use webhost_agent::mover::spec::{Spec, Step};
use webhost_agent::mover::supervisor::{Patience, Supervisor};
use webhost_proto::wire::{FailureKind, command_reply::Outcome};

use super::case::{Case, Fault};
use super::leftovers::{leftovers, objects, state_files};
use super::relay::{Flow, Relay};
use super::sides::{Sides, standing};
use super::stage::{Stage, a_move, end, login, order, path, setup};
use crate::writers::{Crash, Findings, Isolation, Mix, World, Writers, check, table_hashes};

/// Writers of a case, one in each level.
const LEVELS: [Isolation; 3] =
    [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable];
/// Ends what hangs; nothing is measured by it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than a fence may idle (3 s) before the databases let go of it.
const FROZEN: Duration = Duration::from_millis(3_500);
/// How long the way to the target carries nothing before it breaks.
const SILENT: Duration = Duration::from_millis(400);

/// How long a way back is open that is asked for.
const WAY_BACK_MS: i64 = 1_500;

/// How a case went.
#[derive(Clone, Copy, Debug)]
pub struct Played {
    /// From the fault's end until exactly one side was active; none where the
    /// fault ends with the step's answer.
    pub recovery: Option<Duration>,
    /// Writes that were acknowledged meanwhile.
    pub writes: usize,
    /// Commits whose answer was lost, and looked up.
    pub in_doubt: u64,
}

/// Plays one case.
///
/// # Errors
/// What did not hold, with case and seed.
pub async fn play(stage: &Stage, case: Case, seed: u64) -> anyhow::Result<Played> {
    let world = stage.world(300).await?;
    let played = timeout(3 * DEADLINE, played(stage, &world, case, seed)).await;
    let played =
        played.unwrap_or_else(|_| bail!("it did not end within {:?}", 3 * DEADLINE)).with_context(
            || format!("{case}, seed {seed}, database {:?}", world.source.get_dbname()),
        )?;
    stage.give_back(world).await;
    Ok(played)
}

async fn played(stage: &Stage, world: &World, case: Case, seed: u64) -> anyhow::Result<Played> {
    let before = [objects(&world.source).await?, objects(&world.target).await?];
    let neighbours = table_hashes(&world.source, world.neighbour).await?;
    let foreigners = table_hashes(&world.target, world.foreigner).await?;
    let mix = Mix { crashes: true, ..Mix::default() };
    let writers = Writers::with(world, &LEVELS, Duration::from_millis(8), seed, mix);
    let sides = Sides::watch([world.source.clone(), world.target.clone()], world.tenant);

    let mut cast = Cast::new(stage, world, case)?;
    for step in path(case.step) {
        cast.carry_out(step).await.with_context(|| format!("in step {step}"))?;
    }
    ensure!(cast.done, "the fault was never met: {}", cast.marker().display());
    // The end of the last step is not the end of the writers.
    sleep(Duration::from_millis(50)).await;

    let ledger = writers.stop().await?;
    let (looks, both) = sides.end().await;
    ensure!(looks > 0 && both == 0, "two active sides were seen {both} of {looks} times");
    let end = end(case.step);
    let home = standing(world).await?.one().context("not one active side")?;
    ensure!(home == end.home, "the tenant is at home on side {home}");
    let found = check(world, &ledger, home).await?;
    ensure!(found == Findings::default(), "{found:?}, {:?}", ledger.kinds);
    ensure!(
        foreigners == table_hashes(&world.target, world.foreigner).await?,
        "the target's other tenant was touched"
    );
    for (table, hash) in &table_hashes(&world.source, world.neighbour).await? {
        // The writers give positions to the neighbour themselves.
        let same = table == "gps_positions" || neighbours.get(table) == Some(hash);
        ensure!(same, "the source's other tenant was touched in {table}");
    }
    for (side, config) in [&world.source, &world.target].into_iter().enumerate() {
        let left = leftovers(&before[side], &objects(config).await?, end.tombstone[side]);
        ensure!(left.is_empty(), "left on side {side}: {left:?}");
    }
    let files = state_files(cast.dir.path());
    ensure!(files.is_empty(), "left in the state directory: {files:?}");
    Ok(Played { recovery: cast.recovery, writes: ledger.writes.len(), in_doubt: ledger.in_doubt })
}

/// Who takes part: the agent's supervisor, the way to the target, the fault.
struct Cast<'a> {
    stage: &'a Stage,
    world: &'a World,
    case: Case,
    spec: Spec,
    dir: tempfile::TempDir,
    relay: Relay,
    supervisor: Supervisor,
    dies: tokio_util::sync::CancellationToken,
    done: bool,
    recovery: Option<Duration>,
}

/// The point at which the agent dies so that another has to recover.
const BEFORE_RECOVERY: &str = "after_moved";

impl<'a> Cast<'a> {
    fn new(stage: &'a Stage, world: &'a World, case: Case) -> anyhow::Result<Self> {
        let spec = a_move(world)?;
        let dir = tempfile::tempdir()?;
        let relay = Relay::open(&stage.clusters.socket_dir(1))?;
        let fail_at = match (case.step, case.fault.deed()) {
            (Step::Recover, _) => Some(format!("hold:{BEFORE_RECOVERY}")),
            (_, deed) => deed.map(|deed| format!("{deed}{}", case.point)),
        };
        let (supervisor, dies) =
            load(stage, world, &spec, dir.path(), &relay, fail_at.as_deref(), case.fault)?;
        Ok(Self {
            stage,
            world,
            case,
            spec,
            dir,
            relay,
            supervisor,
            dies,
            done: false,
            recovery: None,
        })
    }

    fn marker_of(&self, point: &str) -> PathBuf {
        self.dir.path().join("moves").join(format!("{MARKER}{point}"))
    }

    fn marker(&self) -> PathBuf {
        self.marker_of(self.case.point)
    }

    /// One step until it is done, as the coordinator repeats it.
    async fn carry_out(&mut self, step: Step) -> anyhow::Result<()> {
        if step == Step::CutOver && self.case.step == Step::Recover && !self.done {
            self.lose_agent_past_the_point().await?;
        }
        if step == Step::CleanUp && end(self.case.step).home == 0 {
            return self.clean_up_the_target().await;
        }
        if step == Step::WayBack {
            let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(WAY_BACK_MS);
            self.spec.way_back_until_us = soon.as_microsecond();
        }
        let until = Instant::now() + DEADLINE;
        loop {
            let outcome = self.ask(step).await?;
            match outcome {
                Some(Outcome::MoveStepDone(_)) => break,
                Some(Outcome::Failed(failed)) if failed.kind() != FailureKind::Refused => {
                    ensure!(Instant::now() < until, "not done in time: {}", failed.message);
                }
                // The agent died, and its answer with it.
                None => {}
                Some(other) => bail!("answered {other:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        if step == self.case.step && self.case.fault == Fault::Twice && !self.done {
            self.done = true;
            // The end of a move is forgotten; the rest answers the same.
            match self.ask(step).await? {
                Some(Outcome::MoveStepDone(_)) => {}
                other => bail!("the second time it answered {other:?}"),
            }
        }
        Ok(())
    }

    /// What serves nobody lies on the target: its own agent deletes it.
    async fn clean_up_the_target(&self) -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let [source, target] = logins(self.stage, self.world, &self.relay);
        let mut setup = setup(&self.spec, &self.stage.program, dir.path(), [target, source], None)?;
        setup.node = self.spec.target_node;
        let order = order(&self.spec, Step::CleanUp.to_wire());
        match Supervisor::load(setup)?.handle(order, watch::channel(None).0).await {
            Outcome::MoveStepDone(_) => Ok(()),
            other => bail!("the target's agent answered {other:?}"),
        }
    }

    /// Asks for the step once, and does the fault when its moment comes. None
    /// where nobody was left to answer.
    async fn ask(&mut self, step: Step) -> anyhow::Result<Option<Outcome>> {
        let supervisor = self.supervisor.clone();
        let (progress, _) = watch::channel(None);
        let mut asked = Box::pin(supervisor.handle(order(&self.spec, step.to_wire()), progress));
        if self.done || step != self.case.step || self.case.fault == Fault::Twice {
            return Ok(Some(asked.await));
        }
        let marker = self.marker();
        let met = async {
            while !marker.exists() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = met => {}
            outcome = &mut asked => {
                if marker.exists() {
                    self.done = true;
                    // A death that the supervisor was quick to mend; what
                    // follows an error, the coordinator asks for.
                    if self.case.fault != Fault::Error {
                        self.measure().await?;
                    }
                }
                return Ok(Some(outcome));
            }
        }
        self.done = true;
        if self.case.fault == Fault::AgentKilled {
            self.dies.cancel();
            let _died = asked.await;
            self.another_agent(None).await?;
            return Ok(None);
        }
        let fault = self.inflict(step, &marker);
        // The step goes on while the fault is done, as far as it can.
        let (outcome, inflicted) = tokio::join!(asked, fault);
        self.recovery = inflicted?;
        Ok(Some(outcome))
    }

    /// Does the fault to whoever it is for; answers the time from its end
    /// until one side was active.
    async fn inflict(&self, step: Step, marker: &Path) -> anyhow::Result<Option<Duration>> {
        let release = || std::fs::write(format!("{}{RELEASED}", marker.display()), "");
        match self.case.fault {
            // They happen by themselves.
            Fault::Error | Fault::Twice | Fault::MoverKilled | Fault::AgentKilled => {}
            Fault::AskedAgain => {
                let again = self
                    .supervisor
                    .handle(order(&self.spec, step.to_wire()), watch::channel(None).0);
                let free = async {
                    sleep(Duration::from_millis(50)).await;
                    release()
                };
                let (again, freed) = tokio::join!(again, free);
                freed?;
                // It runs behind the first; whether it is still of use then,
                // the step says.
                if let Outcome::Failed(failed) = &again {
                    ensure!(!failed.message.is_empty(), "{again:?}");
                }
            }
            Fault::MoverFrozen => {
                let pid = pid_in(marker)?;
                kill_process(pid, Signal::STOP)?;
                release()?;
                sleep(FROZEN).await;
                kill_process(pid, Signal::CONT)?;
            }
            Fault::MoverFrozenForGood => {
                let pid = pid_in(marker)?;
                kill_process(pid, Signal::STOP)?;
                release()?;
                let recovery = one_active(self.world).await?;
                // A step without hurry may be far from its end by now.
                let until = Instant::now() + DEADLINE;
                while test_kill_process(pid).is_ok() {
                    ensure!(Instant::now() < until, "the frozen mover {pid:?} is still there");
                    sleep(Duration::from_millis(10)).await;
                }
                return one_active(self.world).await.map(|again| Some(recovery.max(again)));
            }
            Fault::SourceCrashed | Fault::TargetCrashed => {
                let side = usize::from(self.case.fault == Fault::TargetCrashed);
                let how = if self.case.point.len().is_multiple_of(2) {
                    Crash::Immediate
                } else {
                    Crash::Killed
                };
                tokio::task::block_in_place(|| self.stage.clusters.crash(side, how))?;
                release()?;
            }
            Fault::TargetCut => {
                self.relay.set(Flow::Cut);
                release()?;
                sleep(SILENT).await;
                self.relay.set(Flow::Open);
            }
            Fault::TargetSilent => {
                self.relay.set(Flow::Silent);
                release()?;
                sleep(SILENT).await;
                self.relay.set(Flow::Cut);
                sleep(Duration::from_millis(100)).await;
                self.relay.set(Flow::Open);
            }
        }
        one_active(self.world).await.map(Some)
    }

    async fn measure(&mut self) -> anyhow::Result<()> {
        self.recovery = Some(one_active(self.world).await?);
        Ok(())
    }

    /// Another agent takes over: what it does by itself is the recovery.
    async fn another_agent(&mut self, fail_at: Option<&str>) -> anyhow::Result<()> {
        let (supervisor, dies) = load(
            self.stage,
            self.world,
            &self.spec,
            self.dir.path(),
            &self.relay,
            fail_at,
            self.case.fault,
        )?;
        (self.supervisor, self.dies) = (supervisor, dies);
        let resumed = timeout(DEADLINE, self.supervisor.resume());
        let (resumed, recovery) = tokio::join!(resumed, one_active(self.world));
        resumed.context("the agent never came to an end with its recovery")?;
        self.recovery = Some(recovery?);
        Ok(())
    }

    /// The first agent dies past the point of no return; the next one's
    /// recovery meets the fault.
    async fn lose_agent_past_the_point(&mut self) -> anyhow::Result<()> {
        let marker = self.marker_of(BEFORE_RECOVERY);
        let supervisor = self.supervisor.clone();
        let asked =
            supervisor.handle(order(&self.spec, Step::CutOver.to_wire()), watch::channel(None).0);
        let dies = self.dies.clone();
        let met = async {
            while !marker.exists() {
                sleep(Duration::from_millis(1)).await;
            }
            dies.cancel();
        };
        timeout(DEADLINE, async { tokio::join!(asked, met) }).await.context("the first agent")?;
        let fail_at = self.case.fault.deed().map(|deed| format!("{deed}{}", self.case.point));
        if self.case.fault == Fault::Twice {
            self.done = true;
            self.another_agent(None).await?;
            return self.another_agent(None).await;
        }
        let (supervisor, dies) = load(
            self.stage,
            self.world,
            &self.spec,
            self.dir.path(),
            &self.relay,
            fail_at.as_deref(),
            self.case.fault,
        )?;
        (self.supervisor, self.dies) = (supervisor.clone(), dies);
        let marker = self.marker();
        let met = async {
            while !marker.exists() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let mut resumed = Box::pin(supervisor.resume());
        tokio::select! {
            biased;
            () = met => {}
            () = &mut resumed => {}
        }
        self.done = true;
        if self.case.fault == Fault::AgentKilled {
            self.dies.cancel();
            resumed.await;
            return self.another_agent(None).await;
        }
        // Asked again, the coordinator asks for the cut-over itself.
        let fault = self.inflict(Step::CutOver, &marker);
        let (inflicted, ()) =
            tokio::join!(fault, async { timeout(DEADLINE, resumed).await.unwrap_or_default() });
        self.recovery = inflicted?;
        Ok(())
    }
}

/// Whom a marker names.
fn pid_in(marker: &Path) -> anyhow::Result<Pid> {
    let text = std::fs::read_to_string(marker)?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.with_context(|| format!("the marker holds {text:?}"))
}

/// The source's database, and the target's by the way that can be cut.
fn logins(stage: &Stage, world: &World, relay: &Relay) -> [Login; 2] {
    [login(&world.source, &stage.clusters.socket_dir(0)), login(&world.target, relay.dir())]
}

fn load(
    stage: &Stage,
    world: &World,
    spec: &Spec,
    dir: &Path,
    relay: &Relay,
    fail_at: Option<&str>,
    fault: Fault,
) -> anyhow::Result<(Supervisor, tokio_util::sync::CancellationToken)> {
    let logins =
        [login(&world.source, &stage.clusters.socket_dir(0)), login(&world.target, relay.dir())];
    let mut setup = setup(spec, &stage.program, dir, logins, fail_at)?;
    if fault == Fault::MoverFrozenForGood {
        // It is the supervisor that mends this one.
        setup.patience = Patience::default();
    }
    let dies = setup.shutdown.clone();
    Ok((Supervisor::load(setup)?, dies))
}

/// Waits until exactly one side is active; answers how long that took.
async fn one_active(world: &World) -> anyhow::Result<Duration> {
    let since = Instant::now();
    loop {
        if let Ok(standing) = standing(world).await
            && standing.one().is_some()
        {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < DEADLINE, "no side became active within {DEADLINE:?}");
        sleep(Duration::from_millis(2)).await;
    }
}
