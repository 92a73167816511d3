//! A tenant that writes 10,000 rows a second in statements of 50, moved there
//! and back.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;
use webhost_agent::mover::spec::{Done, Step};

use super::a_move;
use crate::measure::figures::{Better, Figures, millis, quantile};
use crate::measure::load::{Load, Plan};
use crate::measure::mover::Mover;
use crate::measure::town::Town;

/// Moves it to a node of its own, and back, four times in all.
///
/// # Errors
/// When a step fails, or a write is lost, stale or doubled.
pub async fn run(town: &mut Town, figures: &mut Figures) -> anyhow::Result<()> {
    let sides = town.sides(0, 0).await?;
    let plan = Plan {
        writers: town
            .vehicles
            .iter()
            .take(4)
            .map(|vehicle| vec![(town.tenant, *vehicle)])
            .collect(),
        rate: 10_000,
        rows: 50,
    };
    let mut run = a_move(town, &sides, true);
    run.tuning.last_leg = 4;
    let mover = Mover::start(run);
    mover.step(Step::Guard).await?;
    let began = Instant::now();
    let load = Load::start(&plan, &sides, 0).await?;
    mover.step(Step::Copy).await?;
    let copied = Instant::now();
    mover.step(Step::Drain).await?;
    let drained = Instant::now();
    mover.step(Step::Verify).await?;
    let mut fences = Vec::new();
    let mut windows = Vec::new();
    let mut keys = 0;
    for number in 0..4 {
        let step = if number % 2 == 0 { Step::CutOver } else { Step::RollBack };
        let from = Instant::now();
        let result = match mover.step(step).await? {
            Done::CutOver(result) | Done::RollBack(result) => result,
            other => bail!("{step}: {other:?}"),
        };
        windows.push((from, Instant::now()));
        fences.push(result.fence_us);
        keys = keys.max(result.keys_in_fence);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    mover.step(Step::Verify).await?;
    let ended = Instant::now();
    let ledger = load.stop().await?;
    let seen = ledger.check(&sides.source).await?;

    let name = |what: &str| format!("10,000 rows/s tenant: {what}");
    let seconds = (ended - began).as_secs_f64();
    let rate = ledger.rows as f64 / seconds;
    figures.add(&name("rows written"), rate, "rows/s", Some(9_500.0), Better::More, "9,985");
    figures.less(&name("copy"), (copied - began).as_secs_f64(), "s", None);
    figures.less(
        &name("drain of what came meanwhile"),
        (drained - copied).as_secs_f64(),
        "s",
        None,
    );
    let all = ledger.between(began, ended);
    let at = |sorted: &[u64], permille| millis(quantile(sorted, permille));
    figures.add(&name("write p50"), at(&all, 500), "ms", None, Better::Less, "3.2");
    figures.add(&name("write p99"), at(&all, 990), "ms", None, Better::Less, "31.7");
    let mut worst: Vec<u64> = windows
        .iter()
        .filter_map(|(from, to)| ledger.between(*from, *to).last().copied())
        .collect();
    worst.sort_unstable();
    fences.sort_unstable();
    figures.add(
        &name("worst write of 4 cut-overs, max"),
        at(&worst, 1000),
        "ms",
        None,
        Better::Less,
        "68",
    );
    figures.add(&name("fence, max"), at(&fences, 1000), "ms", None, Better::Less, "24 to 35");
    figures.less(&name("keys left for the fence, most"), keys as f64, "keys", None);
    figures.more(&name("rows checked, none lost, stale or doubled"), seen as f64, "", None);
    mover.step(Step::Finish).await?;
    drop(mover);
    town.forget(&sides).await?;
    town.drop_target(sides).await
}
