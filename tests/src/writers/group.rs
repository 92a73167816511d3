//! A group of running writers.

use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use webhost_coordinator::embedded::SUPERUSER;

use super::ledger::{Isolation, Ledger};
use super::world::World;
use super::writer::Writer;
use crate::schema;

/// What writers do beyond their usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mix {
    /// Transactions pause between their statements, up to 10 ms each.
    pub think: bool,
    /// Some transactions are prepared first, and some of those then undone.
    pub two_phase: bool,
    /// Servers and connections may break: a commit whose answer is lost is
    /// looked up by its transaction's number.
    pub crashes: bool,
}

/// A group of running writers.
pub struct Writers {
    tasks: JoinSet<anyhow::Result<Ledger>>,
    stop: CancellationToken,
}

impl Writers {
    /// Starts one writer per entry of `levels`; each pauses up to `pause`
    /// between two transactions.
    pub fn start(world: &World, levels: &[Isolation], pause: Duration, seed: u64) -> Self {
        Self::launch(world, levels, pause, seed, schema::APP, Mix::default())
    }

    /// The same with more in it.
    pub fn with(world: &World, levels: &[Isolation], pause: Duration, seed: u64, mix: Mix) -> Self {
        Self::launch(world, levels, pause, seed, schema::APP, mix)
    }

    fn launch(
        world: &World,
        levels: &[Isolation],
        pause: Duration,
        seed: u64,
        role: &'static str,
        mix: Mix,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (number, &level) in levels.iter().enumerate() {
            let world = world.clone();
            let stop = stop.clone();
            let seed = seed + number as u64;
            tasks.spawn(async move {
                let written = async {
                    let mut writer = Writer::connect(world, level, seed, role, mix).await?;
                    while !stop.is_cancelled() {
                        writer.step().await?;
                        let pause = writer.random.random_range(0..=pause.as_micros().max(1));
                        tokio::time::sleep(Duration::from_micros(u64::try_from(pause)?)).await;
                    }
                    anyhow::Ok(writer.ledger)
                };
                written.await.with_context(|| format!("writer {number}, {level:?}, seed {seed}"))
            });
        }
        Self { tasks, stop }
    }

    /// Writers whose statements fire no trigger: what the guards are for.
    pub fn unguarded(world: &World, levels: &[Isolation], pause: Duration, seed: u64) -> Self {
        let mut world = world.clone();
        // Only a superuser may, which is the point.
        world.source.options("-c session_replication_role=replica");
        Self::launch(&world, levels, pause, seed, SUPERUSER, Mix::default())
    }

    /// Ends all writers after their transaction in hand; answers what was
    /// acknowledged.
    ///
    /// # Errors
    /// The first writer's that gave up.
    pub async fn stop(mut self) -> anyhow::Result<Ledger> {
        self.stop.cancel();
        let mut all = Ledger::default();
        while let Some(ended) = self.tasks.join_next().await {
            all.merge(ended??);
        }
        Ok(all)
    }
}
