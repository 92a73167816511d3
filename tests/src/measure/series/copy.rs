//! Copy and drain, beside a bare pipe of the same rows.

use anyhow::{bail, ensure};
use tokio::time::Instant;
use webhost_agent::mover::spec::{Copied, Done, Step};

use super::a_move;
use crate::measure::bare;
use crate::measure::figures::{Better, Figures, per_second};
use crate::measure::mover::Mover;
use crate::measure::town::{Sides, Town};
use crate::measure::tunnel::Tunnel;
use crate::writers::session;

/// Our copy and the bare pipes, with the indexes in place and built
/// afterwards, over sockets and through the agent's tunnel. Each comes twice,
/// in turns, so that what else the machine does falls on all of them; the
/// better time of each counts.
///
/// # Errors
/// When a step fails, or the two sides differ.
pub async fn copy(town: &mut Town, figures: &mut Figures) -> anyhow::Result<()> {
    let rows = town.rows;
    for through in [false, true] {
        let way = if through { "TLS tunnel" } else { "sockets" };
        for dedicated in [true, false] {
            let place = if dedicated { "indexes afterwards" } else { "indexes in place" };
            let mut best = [u64::MAX; 3];
            let mut whole = u64::MAX;
            for _ in 0..2 {
                let ours = ours(town, dedicated, through).await?;
                best[0] = best[0].min(ours.piped_us);
                whole = whole.min(ours.piped_us + ours.indexes_us);
                let (handed, _) = pipe(town, dedicated, Some(through)).await?;
                best[1] = best[1].min(handed);
                if !through {
                    let (psql, _) = pipe(town, dedicated, None).await?;
                    best[2] = best[2].min(psql);
                }
            }
            let [ours, handed, psql] = best.map(|micros| per_second(rows, micros));
            let name = |what: &str| format!("copy, {place}, {way}: {what}");
            let prototype = match (dedicated, through) {
                (true, false) => "230,000",
                (false, false) => "77,000",
                _ => "",
            };
            figures.add(&name("rows"), ours, "rows/s", None, Better::More, prototype);
            figures.more(&name("least that a client can do"), handed, "rows/s", None);
            figures.more(&name("against it"), ours / handed, "ratio", Some(0.95));
            if !through {
                figures.more(&name("psql | psql"), psql, "rows/s", None);
                figures.more(&name("against it (psql)"), ours / psql, "ratio", Some(0.95));
            }
            if dedicated {
                let whole = per_second(rows, whole);
                let goal = Some(200_000.0);
                figures.add(
                    &name("with the indexes built"),
                    whole,
                    "rows/s",
                    goal,
                    Better::More,
                    "180,000 to 204,000",
                );
            }
        }
    }
    Ok(())
}

/// A fresh target: a node of the tenant's own, or one with others on it.
async fn place(town: &mut Town, dedicated: bool) -> anyhow::Result<Sides> {
    if dedicated { town.sides(0, 0).await } else { town.sides(3, 20_000).await }
}

async fn ours(town: &mut Town, dedicated: bool, through: bool) -> anyhow::Result<Copied> {
    let sides = place(town, dedicated).await?;
    let mut run = a_move(town, &sides, dedicated);
    run.spec.max_rows_per_second = 0;
    let tunnel = if through {
        let dir = tempfile::tempdir_in(town.scratch())?;
        let tunnel = Tunnel::start(&mut run.spec, &sides.mover()[1], dir.path()).await?;
        run.target = tunnel.endpoint(&run.spec)?;
        Some(tunnel)
    } else {
        None
    };
    let mover = Mover::start(run);
    mover.step(Step::Guard).await?;
    let Done::Copy(copied) = mover.step(Step::Copy).await? else { bail!("no copy") };
    ensure!(copied.rows >= town.rows, "{} of {} rows", copied.rows, town.rows);
    mover.steps(&[Step::Verify, Step::Undo]).await?;
    drop(mover);
    drop(tunnel);
    town.drop_target(sides).await?;
    Ok(copied)
}

/// Microseconds of a bare pipe, and of building the indexes afterwards; `how`
/// is through the tunnel or not, or none for `psql`.
async fn pipe(town: &mut Town, dedicated: bool, how: Option<bool>) -> anyhow::Result<(u64, u64)> {
    let sides = place(town, dedicated).await?;
    if dedicated {
        bare::without_indexes(&sides).await?;
    }
    let took = match how {
        None => bare::psql(&sides, town.tenant).await?,
        Some(through) => {
            let mut run = a_move(town, &sides, dedicated);
            let dir = tempfile::tempdir_in(town.scratch())?;
            let tunnel = Tunnel::start(&mut run.spec, &sides.mover()[1], dir.path()).await?;
            let target = if through { tunnel.endpoint(&run.spec)? } else { run.target };
            bare::handed_over(run.source, target, town.tenant).await?
        }
    };
    let built = if dedicated { bare::build_indexes(&sides).await? } else { 0 };
    town.drop_target(sides).await?;
    Ok((took, built))
}

/// A backlog of updates, drained in bulk and in small batches, and compared.
///
/// # Errors
/// When a step fails, or the two sides differ.
pub async fn drain(town: &mut Town, figures: &mut Figures) -> anyhow::Result<()> {
    let sides = town.sides(3, 20_000).await?;
    for (name, bulk, goal, prototype) in [
        ("drain of updates, in bulk, compared", true, Some(30_000.0), "22,700"),
        ("drain of updates, in small batches, compared", false, None, "16,400"),
    ] {
        let mut run = a_move(town, &sides, true);
        if !bulk {
            run.tuning.drain_bulk = None;
        }
        let mover = Mover::start(run);
        mover.steps(&[Step::Guard, Step::Copy]).await?;
        let (client, _driver) = session(&sides.source).await?;
        let keys = town.rows.min(200_000);
        let changed = client
            .execute(
                "update gps_positions set speed = coalesce(speed, 0) + 1 where ctid = any(array( \
                   select ctid from gps_positions where customer_id = $1 limit $2))",
                &[&town.tenant, &i64::try_from(keys)?],
            )
            .await?;
        let started = Instant::now();
        let mut keys = 0;
        loop {
            let Done::Drain(drained) = mover.step(Step::Drain).await? else { bail!("no drain") };
            ensure!(drained.keys > 0, "of {changed} keys, {} are left", drained.remaining);
            keys += drained.keys;
            // Small batches alone end where a steady trickle would be.
            if drained.remaining == 0 {
                break;
            }
        }
        let took = u64::try_from(started.elapsed().as_micros())?;
        ensure!(keys == changed, "{keys} of {changed} keys were drained");
        figures.add(name, per_second(keys, took), "keys/s", goal, Better::More, prototype);
        mover.step(Step::Verify).await?;
        town.equal(&sides).await?;
        mover.step(Step::Undo).await?;
    }
    town.drop_target(sides).await
}
