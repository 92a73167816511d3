//! The whole fault matrix: every step, point and fault, `COUNT` times over,
//! from `SEED` on; then whole programs killed at every step. Prints step by
//! fault how many cases held, and how long it took until one side was active
//! again. Ends with an error if one did not.

// The table is its purpose.
#![allow(clippy::print_stdout)]

use anyhow::ensure;
use clap::Parser;
use tokio::time::Instant;
use webhost_coordinator::moves::state::Step;
use webhost_tests::chaos::actors::{Actor, Death, Walks, When};
use webhost_tests::chaos::{Report, Stage, all, play};
use webhost_tests::harness::process::program;

/// Plays the whole fault matrix of a move.
#[derive(Parser)]
struct Arguments {
    /// How often the whole matrix is played.
    #[arg(long, env = "COUNT", default_value_t = 1)]
    count: u64,
    /// Of the writers; counted on from case to case.
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// Only cases whose text contains this.
    #[arg(long, env = "ONLY", default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(cfg!(debug_assertions), "fail points exist in debug builds alone: run `make chaos`");
    let failed = faults(&arguments).await? + deaths(&arguments).await?;
    ensure!(failed == 0, "{failed} cases failed");
    Ok(())
}

/// Faults within one agent, and of the databases and the way between them.
async fn faults(arguments: &Arguments) -> anyhow::Result<usize> {
    let cases = || all().into_iter().filter(|case| case.to_string().contains(&arguments.only));
    let total = cases().count() as u64 * arguments.count;
    if total == 0 {
        return Ok(0);
    }
    let child = program("mover-child")?;
    let stage = tokio::task::spawn_blocking(|| Stage::start(child)).await??;
    let mut report = Report::default();
    let began = Instant::now();
    for (number, case) in (0..arguments.count).flat_map(|_| cases()).enumerate() {
        let (number, seed) = (number as u64, arguments.seed + number as u64);
        let outcome = play(&stage, case, seed).await;
        let left = began.elapsed().as_secs() * (total - number - 1) / (number + 1) / 60;
        let place = format!("{:>3}/{total}, {left} min left", number + 1);
        match &outcome {
            Ok(played) => println!(
                "ok      {place}  {case}, seed {seed}: one side active after {:?}",
                played.recovery
            ),
            Err(error) => println!("FAILED  {place}  {error:#}"),
        }
        report.add(case, outcome);
    }
    println!("\n{report}\nin {} s\n", began.elapsed().as_secs());
    Ok(report.failures.len())
}

/// Coordinator, source's and target's agent, as processes, killed at each
/// step of the coordinator's.
async fn deaths(arguments: &Arguments) -> anyhow::Result<usize> {
    let walks: Vec<(Actor, When)> = Actor::ALL
        .into_iter()
        .flat_map(|actor| When::ALL.map(|when| (actor, when)))
        .filter(|(actor, when)| name(*actor, *when).contains(&arguments.only))
        .collect();
    let (mut failed, mut worst) = (0, Vec::new());
    let began = Instant::now();
    for (actor, when) in &walks {
        let name = name(*actor, *when);
        match walk(*actor, *when).await {
            Ok(deaths) => {
                let longest = deaths.iter().max_by_key(|death| death.served_after);
                if let Some(death) = longest {
                    println!(
                        "ok      {name}: {} deaths, served again after at most {:?} (at {})",
                        deaths.len(),
                        death.served_after,
                        death.step.as_str()
                    );
                }
                worst.extend(deaths);
            }
            Err(error) => {
                println!("FAILED  {name}: {error:#}");
                failed += 1;
            }
        }
    }
    if !walks.is_empty() {
        show(&worst);
        println!("{} walks, {failed} failed, in {} s", walks.len(), began.elapsed().as_secs());
    }
    Ok(failed)
}

async fn walk(actor: Actor, when: When) -> anyhow::Result<Vec<Death>> {
    let mut walks = Walks::start().await?;
    let deaths = walks.walk(when, |_| actor).await?;
    walks.finish().await?;
    Ok(deaths)
}

fn name(actor: Actor, when: When) -> String {
    format!("{} killed {} each step", actor.as_str(), when.as_str())
}

/// Step by actor: how often it died there, and how long the tenant was not
/// served at worst, from the death on.
fn show(deaths: &[Death]) {
    let columns: Vec<String> =
        Actor::ALL.iter().map(|actor| format!("{:>17}", actor.as_str())).collect();
    println!("\n{:<12} {}", "step", columns.join(" "));
    for step in Step::ALL {
        let cells: Vec<String> = Actor::ALL
            .iter()
            .map(|actor| {
                let here = || deaths.iter().filter(|d| d.step == step && d.actor == *actor);
                let worst = here().map(|death| death.served_after.as_millis()).max();
                let text =
                    worst.map_or("–".into(), |ms| format!("{} ok {ms} ms", here().count()));
                format!("{text:>17}")
            })
            .collect();
        println!("{:<12} {}", step.as_str(), cells.join(" "));
    }
}
