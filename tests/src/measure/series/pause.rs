//! Cut-overs there and back under load: what writers feel.

use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::time::Instant;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::spec::{CutOver, Done, Step};

use super::a_move;
use crate::measure::figures::{Better, Figures, millis, quantile};
use crate::measure::hogs::Hogs;
use crate::measure::load::{Load, Plan};
use crate::measure::mover::Mover;
use crate::measure::relay::Relay;
use crate::measure::town::Town;

/// One series.
pub struct Series {
    pub name: &'static str,
    /// There and back: an even number, so that the tenant ends at home.
    pub cut_overs: u32,
    /// Whether the target serves nobody else.
    pub dedicated: bool,
    pub hogs: u32,
    /// Added to every round trip between mover and target.
    pub round_trip: Duration,
    /// Milliseconds: worst write p50 and max, fence p50 where there is one.
    pub goals: Option<[f64; 3]>,
    /// The prototype's, in words: worst write p50/max, fence p50/max.
    pub prototype: [&'static str; 2],
}

/// Everybody's load before and between the moves, in rows per second: the
/// moved tenant's share, and the others'.
const MINE: u32 = 100;
const OTHERS: u32 = 400;

struct Switch {
    began: Instant,
    ended: Instant,
    fence_us: u64,
}

/// Moves the tenant there and back again under load.
///
/// # Errors
/// When a step fails, or a write is lost, stale or doubled.
pub async fn run(town: &mut Town, figures: &mut Figures, series: &Series) -> anyhow::Result<()> {
    ensure!(series.cut_overs.is_multiple_of(2), "an even number of cut-overs");
    let strangers = if series.dedicated { 0 } else { 10 };
    let sides = town.sides(strangers, 1_000).await?;
    let mine = Plan {
        writers: town
            .vehicles
            .iter()
            .take(4)
            .map(|vehicle| vec![(town.tenant, *vehicle)])
            .collect(),
        rate: MINE,
        rows: 1,
    };
    let count = town.others.len().div_ceil(8).max(1);
    let others = Plan {
        writers: town.others.chunks(count).map(<[_]>::to_vec).collect(),
        rate: OTHERS,
        rows: 1,
    };
    let _hogs = Hogs::start(series.hogs)?;
    let mine = Load::start(&mine, &sides, 0).await?;
    let others = Load::start(&others, &sides, 0).await?;
    let calm = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;

    let moving = Instant::now();
    let mut run = a_move(town, &sides, series.dedicated);
    run.tuning.last_leg = u64::from(series.cut_overs);
    let relay = if series.round_trip.is_zero() {
        None
    } else {
        Some(Relay::start(sides.target_socket()?, series.round_trip).await?)
    };
    if let Some(relay) = &relay {
        let mut over = tokio_postgres::Config::new();
        over.host(relay.address.ip().to_string()).port(relay.address.port());
        let [_, config] = sides.mover();
        over.user(config.get_user().unwrap_or_default());
        over.dbname(config.get_dbname().unwrap_or_default());
        run.target = Endpoint::Local(Box::new(over));
    }
    let mover = Mover::start(run);
    mover.steps(&[Step::Guard, Step::Copy, Step::Drain, Step::Verify]).await?;
    let prepared = Instant::now();
    let mut switches = Vec::new();
    for number in 0..series.cut_overs {
        let step = if number % 2 == 0 { Step::CutOver } else { Step::RollBack };
        let result = match mover.step(step).await? {
            Done::CutOver(result) | Done::RollBack(result) => result,
            other => bail!("{step}: {other:?}"),
        };
        let CutOver { fence_us, activated_at_us, .. } = result;
        ensure!(!result.recovered, "a cut-over was only recovered");
        let ended = Instant::now();
        let since = jiff::Timestamp::now().as_microsecond() - activated_at_us;
        let activated = ended - Duration::from_micros(u64::try_from(since).unwrap_or(0));
        let began = activated - Duration::from_micros(fence_us);
        switches.push(Switch { began, ended: activated, fence_us });
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    mover.step(Step::Verify).await?;
    let done = Instant::now();
    let (mine, others) = (mine.stop().await?, others.stop().await?);
    let seen = mine.check(&sides.source).await? + others.check(&sides.source).await?;

    let name = |what: &str| format!("{}: {what}", series.name);
    let mut worst: Vec<u64> = Vec::new();
    let mut felt: Vec<u64> = Vec::new();
    let mut theirs: Vec<u64> = Vec::new();
    for switch in &switches {
        // What met the fence or its end, with its retry.
        let mut near = mine.between(switch.began, switch.ended + Duration::from_millis(5));
        worst.extend(near.last());
        felt.append(&mut near);
        let near = others.between(switch.began, switch.ended + Duration::from_millis(5));
        theirs.extend(near.last());
    }
    let mut fences: Vec<u64> = switches.iter().map(|switch| switch.fence_us).collect();
    for sorted in [&mut worst, &mut felt, &mut theirs, &mut fences] {
        sorted.sort_unstable();
    }
    let at = |sorted: &[u64], permille| millis(quantile(sorted, permille));
    let goal = |at: usize| {
        series.goals.and_then(|goals| goals.get(at).copied()).filter(|goal| goal.is_finite())
    };
    let [pause, fence] = series.prototype;
    figures.add(&name("cut-overs"), switches.len() as f64, "", None, Better::More, "");
    figures.add(
        &name("worst write of each, p50"),
        at(&worst, 500),
        "ms",
        goal(0),
        Better::Less,
        pause,
    );
    figures.less(&name("worst write of each, max"), at(&worst, 1000), "ms", goal(1));
    figures.add(&name("fence p50"), at(&fences, 500), "ms", goal(2), Better::Less, fence);
    figures.less(&name("fence max"), at(&fences, 1000), "ms", None);
    figures.less(
        &name("others' worst write in the same windows, p50"),
        at(&theirs, 500),
        "ms",
        None,
    );
    figures.less(
        &name("others' worst write in the same windows, max"),
        at(&theirs, 1000),
        "ms",
        None,
    );
    let before = others.between(calm, moving);
    let copying = others.between(moving, prepared);
    let after = others.between(prepared, done);
    let usual = at(&before, 990);
    figures.less(&name("others' p99 before"), usual, "ms", None);
    let more = |sorted: &[u64]| (at(sorted, 990) - usual).max(0.0);
    let limit = series.goals.map(|_| 5.0);
    figures.less(
        &name("others' p99, more while guards, copy and drain run"),
        more(&copying),
        "ms",
        limit,
    );
    figures.less(&name("others' p99, more during the cut-overs"), more(&after), "ms", limit);
    let own = at(&mine.between(calm, moving), 990);
    figures.less(&name("own p99 before"), own, "ms", None);
    let own = |sorted: &[u64]| at(sorted, 990);
    figures.less(
        &name("own p99 while guards, copy and drain run"),
        own(&mine.between(moving, prepared)),
        "ms",
        None,
    );
    figures.less(
        &name("own p99 over all cut-overs"),
        own(&mine.between(prepared, done)),
        "ms",
        None,
    );
    figures.more(&name("writes checked, none lost, stale or doubled"), seen as f64, "", None);

    mover.step(Step::Finish).await?;
    drop(mover);
    town.forget(&sides).await?;
    town.drop_target(sides).await
}
