//! The whole fault matrix: every step, point and fault, `COUNT` times over,
//! from `SEED` on; prints step by fault how many cases held, and how long it
//! took until one side was active again. Ends with an error if one did not.

// The table is its purpose.
#![allow(clippy::print_stdout)]

use anyhow::ensure;
use clap::Parser;
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
    let child = program("mover-child")?;
    let stage = tokio::task::spawn_blocking(|| Stage::start(child)).await??;
    let mut report = Report::default();
    let mut seed = arguments.seed;
    for _ in 0..arguments.count {
        for case in all().into_iter().filter(|case| case.to_string().contains(&arguments.only)) {
            let outcome = play(&stage, case, seed).await;
            match &outcome {
                Ok(played) => println!(
                    "ok      {case}, seed {seed}: one side active after {:?}",
                    played.recovery
                ),
                Err(error) => println!("FAILED  {error:#}"),
            }
            report.add(case, outcome);
            seed += 1;
        }
    }
    println!("\n{report}");
    ensure!(report.failures.is_empty(), "{} cases failed", report.failures.len());
    Ok(())
}
