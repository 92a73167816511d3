//! The privileged side: checks and reloads nginx, and writes its verdict.
//!
//! It takes nothing from the agent but a number that it echoes. It is its own
//! command of the same program, so that the unit that runs it may do little
//! else ([`run`] is all of it).

use std::path::Path;
use std::process::Command;

use super::{Verdict, read_generation};
use crate::durable;

/// Of nginx's words, so many bytes are passed on.
const MOST_WORDS: usize = 2_000;

/// What is run, and on what.
#[derive(Clone, Debug)]
pub struct Reload<'a> {
    /// The agent's directory of files and number.
    pub routes: &'a Path,
    /// Where the verdict goes; the agent must not be able to write there.
    pub verdict: &'a Path,
    /// The program.
    pub nginx: &'a Path,
    /// Its configuration, where it isn't the built-in one.
    pub config: Option<&'a Path>,
}

/// Checks, reloads, writes the verdict; again when the number has changed
/// meanwhile. Answers the last verdict.
///
/// # Errors
/// When the verdict can't be written.
pub fn run(reload: &Reload<'_>) -> std::io::Result<Verdict> {
    loop {
        let generation = read_generation(reload.routes);
        let outcome = nginx(reload, &["-t"]).and_then(|()| nginx(reload, &["-s", "reload"]));
        let verdict = Verdict {
            generation,
            good: outcome.is_ok(),
            message: outcome.err().unwrap_or_default(),
        };
        let text = serde_json::to_vec(&verdict).map_err(std::io::Error::other)?;
        durable::replace_public(reload.verdict, &text)?;
        if read_generation(reload.routes) == generation {
            return Ok(verdict);
        }
    }
}

fn nginx(reload: &Reload<'_>, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(reload.nginx);
    if let Some(config) = reload.config {
        command.arg("-c").arg(config);
    }
    let output = command
        .args(arguments)
        .output()
        .map_err(|error| format!("{}: {error}", reload.nginx.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut said = said.trim().replace('\n', "; ");
    if said.len() > MOST_WORDS {
        let end = (0..=MOST_WORDS).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0);
        said.truncate(end);
    }
    Err(format!("nginx {} ended with {}: {said}", arguments.join(" "), output.status))
}
