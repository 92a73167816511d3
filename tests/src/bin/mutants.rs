//! Applies each mutation of `webhost_tests::mutants` in a copy of the tree
//! and runs the test that must go red; prints which did. Ends with an error
//! where a mutant survives, or where a test fails without one.

// The table is its purpose.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Parser;
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

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let root = arguments.root.canonicalize()?;
    std::fs::create_dir_all(&arguments.scratch)?;
    let scratch = arguments.scratch.canonicalize()?;
    let tree = scratch.join("tree");
    // `rsync` would do; this needs nothing that isn't there.
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    std::fs::create_dir_all(&tree)?;
    for part in PARTS {
        // The times stay, so that cargo rebuilds only what changed.
        let copied = Command::new("cp").arg("-a").arg(root.join(part)).arg(&tree).status()?;
        ensure!(copied.success(), "{part} can't be copied");
    }
    let (well, said) = tests(&tree, &scratch, "invariants::")?;
    ensure!(well, "the tests fail without any mutation:\n{said}");
    println!("without a mutation: green");
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        let failed = killed(&mutant, &tree, &scratch)?;
        match failed {
            Some(test) => println!("killed    {:<52} by {test}", mutant.name),
            None => {
                println!("SURVIVED  {}", mutant.name);
                survivors.push(mutant.name);
            }
        }
    }
    ensure!(survivors.is_empty(), "the tests did not notice: {survivors:?}");
    Ok(())
}

/// The tests that went red under the mutation; none where all stayed green.
fn killed(mutant: &Mutant, tree: &Path, scratch: &Path) -> anyhow::Result<Option<String>> {
    let (text, mutated) = mutant.of(tree)?;
    let path = tree.join(mutant.file);
    std::fs::write(&path, mutated)?;
    let outcome = tests(tree, scratch, mutant.red);
    std::fs::write(&path, text)?;
    let (well, said) = outcome?;
    if well {
        return Ok(None);
    }
    // A mutant that doesn't compile shows nothing.
    let red: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .collect();
    ensure!(!red.is_empty(), "mutation {:?} does not compile:\n{said}", mutant.name);
    Ok(Some(red.join(", ")))
}

fn tests(tree: &Path, scratch: &Path, filter: &str) -> anyhow::Result<(bool, String)> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--locked", "--workspace", "--test", "mover", filter])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", scratch.join("target"))
        .output()
        .context("cargo starts")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}
