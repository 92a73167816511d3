//! Applies each mutation of `webhost_tests::mutants` in a copy of the tree
//! and runs the test that must go red; prints which did, and why. Ends with an
//! error where a mutant survives, is noticed for another reason than it must
//! be, or hangs its test, and where a test fails without one.

// The table is its purpose.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use webhost_tests::mutants::{MUTANTS, Mutant};

/// Shows that the tests of a move notice what they are for.
#[derive(Parser)]
struct Arguments {
    /// The tree that is copied.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Where the copy and what is built from it go; kept, so that the next
    /// run builds less.
    #[arg(long, default_value = "target/mutants")]
    scratch: PathBuf,
    /// Only mutants whose name contains this.
    #[arg(long, env = "ONLY", default_value = "")]
    only: String,
}

/// What the copy takes from the tree.
const PARTS: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    "README.md",
    "proto",
    "agent",
    "coordinator",
    "tests",
    "systemd",
];

/// A test that takes longer hangs, and shows nothing: without a mutation all
/// of them together take a small part of it.
const DEADLINE: Duration = Duration::from_secs(120);

/// How a run of tests ended.
enum Run {
    Green,
    /// Which tests failed, and all that was printed.
    Red(Vec<String>, String),
    Hung,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let root = arguments.root.canonicalize()?;
    std::fs::create_dir_all(&arguments.scratch)?;
    let scratch = arguments.scratch.canonicalize()?;
    let tree = scratch.join("tree");
    copy(&root, &tree)?;
    match run(&build(&tree, &scratch)?, &MUTANTS.map(|mutant| mutant.red)).await? {
        Run::Green => println!("without a mutation: green"),
        Run::Red(tests, said) => anyhow::bail!("{tests:?} fail without any mutation:\n{said}"),
        Run::Hung => anyhow::bail!("the tests hang without any mutation"),
    }
    let mut unnoticed = Vec::new();
    for mutant in MUTANTS.iter().filter(|mutant| mutant.name.contains(&arguments.only)) {
        let since = Instant::now();
        let verdict = judge(mutant, &tree, &scratch).await?;
        let took = since.elapsed().as_secs();
        match verdict {
            Ok(tests) => println!("killed    {:<60} {took:>4} s  by {tests}", mutant.name),
            Err(why) => {
                println!("SURVIVED  {:<60} {took:>4} s  {why}", mutant.name);
                unnoticed.push(mutant.name);
            }
        }
    }
    ensure!(unnoticed.is_empty(), "the tests did not notice as they must: {unnoticed:?}");
    Ok(())
}

fn copy(root: &Path, tree: &Path) -> anyhow::Result<()> {
    // `rsync` would do; this needs nothing that isn't there.
    if tree.exists() {
        std::fs::remove_dir_all(tree)?;
    }
    std::fs::create_dir_all(tree)?;
    for part in PARTS {
        // The times stay, so that cargo rebuilds only what changed.
        let copied = Command::new("cp").arg("-a").arg(root.join(part)).arg(tree).status()?;
        ensure!(copied.success(), "{part} can't be copied");
    }
    // What an earlier run built last was a mutation, later than these times.
    for mutant in MUTANTS {
        let file = std::fs::File::options().append(true).open(tree.join(mutant.file))?;
        file.set_modified(std::time::SystemTime::now())?;
    }
    Ok(())
}

/// The tests that went red under the mutation as they must, or why that shows
/// nothing.
async fn judge(
    mutant: &Mutant,
    tree: &Path,
    scratch: &Path,
) -> anyhow::Result<Result<String, String>> {
    let (text, mutated) = mutant.of(tree)?;
    let path = tree.join(mutant.file);
    std::fs::write(&path, mutated)?;
    // A mutant that doesn't compile shows nothing.
    let built = build(tree, scratch).with_context(|| format!("mutation {:?}", mutant.name));
    let outcome = match built {
        Ok(built) => run(&built, &[mutant.red]).await,
        Err(error) => Err(error),
    };
    std::fs::write(&path, text)?;
    Ok(match outcome? {
        Run::Green => Err("all tests stay green".into()),
        Run::Hung => Err(format!("the test hangs: not done within {} s", DEADLINE.as_secs())),
        Run::Red(_, said) if !said.contains(mutant.says) => {
            Err(format!("the test fails, but does not say {:?}:\n{said}", mutant.says))
        }
        Run::Red(tests, _) => Ok(tests.join(", ")),
    })
}

/// Builds the mover's tests; answers the program that runs them.
fn build(tree: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--locked", "--workspace", "--test", "mover", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", scratch.join("target"))
        .output()
        .context("cargo starts")?;
    ensure!(
        output.status.success(),
        "the tests don't build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "mover")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no program for the test \"mover\"")
}

/// Runs the tests whose names contain one of `filters`, until the deadline. A
/// program that is ended takes its databases along.
async fn run(program: &Path, filters: &[&str]) -> anyhow::Result<Run> {
    let child = tokio::process::Command::new(program)
        .args(filters)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| program.display().to_string())?;
    let Ok(output) = timeout(DEADLINE, child.wait_with_output()).await else {
        return Ok(Run::Hung);
    };
    let output = output?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() {
        // A filter that fits no test would look like one that stays green.
        ensure!(!said.contains("running 0 tests"), "there is no test {filters:?}");
        return Ok(Run::Green);
    }
    let red = said
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .map(str::to_owned)
        .collect();
    Ok(Run::Red(red, said))
}
